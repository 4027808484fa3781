package workers

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/fenced"
	"github.com/mailhaul/pipeline/test/natsserver"
	"github.com/mailhaul/pipeline/test/program"
)

// Two workers on one machine take no longer than 1.2 times what a local run
// takes there: what leases, manifests and fenced names cost. Both do the same
// job, from a mail server to files and an index in one bucket, by the command as
// a user starts it, with its defaults: a local run is timed from its start to
// its end, workers and `pipeline run` from their start together to the run's end,
// with its report and the merge.
//
// What workers cost hangs on what mailboxes hold: each task has its price, requests
// to the bucket most of all. So three shapes are measured, from a small team's
// mailboxes of 200 messages to those of 2,000. Nothing is said of time unless
// MAILHAUL_ROUNDS says how many rounds there are to be, a local run and one of
// workers in each, of which the medians count: what else the machine does counts
// too. So does its file system: an ext4 without a journal takes longer to make
// files after others were removed, which is what each round does for the next one.
// TMPDIR on a tmpfs has none of that.
func TestTwoWorkersAgainstALocalRun(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv("MAILHAUL_ROUNDS"))
	if err != nil {
		compare(t, shape{users: 2, mailboxes: 2, messages: 5}, 1)
		return
	}
	const most = 1.2 // times as long as a local run
	for _, s := range []shape{
		{users: 8, mailboxes: 5, messages: 200},
		{users: 4, mailboxes: 4, messages: 500},
		{users: 4, mailboxes: 2, messages: 2000},
	} {
		t.Run(fmt.Sprintf("%d messages in a mailbox", s.messages), func(t *testing.T) {
			if m := compare(t, s, rounds); m > most {
				t.Errorf("two workers take %.2f times as long as a local run, want %.1f at most", m, most)
			}
		})
	}
}

// shape is how much mail there is, in messages of 8 to 16 KB.
type shape struct{ users, mailboxes, messages int }

// compare has both done in turn, holds their outputs against each other, and
// returns how many times as long workers take.
func compare(t *testing.T, s shape, rounds int) float64 {
	t.Helper()
	w := newWorld(t, natsserver.Start(t), s.users, s.mailboxes, s.messages, func(r *rand.Rand) int { return 8_000 + r.IntN(8_000) })
	var wall, cpu []float64
	for i := range rounds {
		local, shared := w.newJob(t, fmt.Sprint("local", i), false), w.newJob(t, fmt.Sprint("shared", i), true)
		alone := measured(func() { local.start("run").complete(t) })
		var workers []*process
		together := measured(func() {
			workers = append(workers, shared.start("worker"), shared.start("worker"))
			shared.start("run").complete(t)
		})
		for _, p := range workers {
			p.stop(t)
		}
		fenced.Equal(t, fenced.Output(t, shared.out), fenced.Output(t, local.out))
		for _, j := range []*job{local, shared} { // the disk is for the next round
			if err := os.RemoveAll(j.out); err != nil {
				t.Fatal(err)
			}
		}
		wall = append(wall, together.wall.Seconds()/alone.wall.Seconds())
		cpu = append(cpu, together.cpu.Seconds()/alone.cpu.Seconds())
		t.Logf("round %d, %d messages: a local run %s, two workers %s: %.2f times as long, with %.2f times the CPU time",
			i+1, s.users*s.mailboxes*s.messages, alone, together, wall[i], cpu[i])
	}
	slices.Sort(wall)
	slices.Sort(cpu)
	m := wall[len(wall)/2]
	t.Logf("medians of %d rounds: %.2f times as long (%.2f to %.2f), %.2f times the CPU time (%.2f to %.2f)",
		rounds, m, wall[0], wall[len(wall)-1], cpu[len(cpu)/2], cpu[0], cpu[len(cpu)-1])
	return m
}

// cost is what something took: on the clock, and of all processes of the test
// together, its servers too.
type cost struct{ wall, cpu time.Duration }

func (c cost) String() string {
	return fmt.Sprintf("%.1f s (%.1f s of CPU)", c.wall.Seconds(), c.cpu.Seconds())
}

func measured(f func()) cost {
	began, used := time.Now(), program.Family(os.Getpid()).CPU
	f()
	return cost{time.Since(began), program.Family(os.Getpid()).CPU - used}
}
