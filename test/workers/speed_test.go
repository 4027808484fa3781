package workers

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/fenced"
	"github.com/mailhaul/pipeline/test/natsserver"
)

// Two workers on one machine take no longer than 1.2 times what a local run
// takes there: what leases, manifests and fenced names cost. Both do the same
// job, from a mail server to files and an index in one bucket, by the command as
// a user starts it, with its defaults: a local run is timed from its start to
// its end, workers and `pipeline run` from their start together to the run's end,
// with its report and the merge.
//
// The mail is a small team's: 8 accounts of 5 mailboxes, 200 messages of 8 to 16
// KB in each, 8,000 in 40 tasks. Of fewer messages in a mailbox more is spent
// for the task and less for the mail; a migration's mailboxes have more. Nothing
// is said of time unless MAILHAUL_ROUNDS says how many rounds there are to be, a
// local run and one of workers in each, of which the medians count: what else
// the machine does counts too.
func TestTwoWorkersAgainstALocalRun(t *testing.T) {
	users, mailboxes, messages, rounds := 2, 2, 5, 1
	n, err := strconv.Atoi(os.Getenv("MAILHAUL_ROUNDS"))
	measuring := err == nil
	if measuring {
		users, mailboxes, messages, rounds = 8, 5, 200, n
	}
	w := newWorld(t, natsserver.Start(t), users, mailboxes, messages, func(r *rand.Rand) int { return 8_000 + r.IntN(8_000) })
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
			i+1, users*mailboxes*messages, alone, together, wall[i], cpu[i])
	}
	slices.Sort(wall)
	slices.Sort(cpu)
	m := wall[len(wall)/2]
	t.Logf("medians of %d rounds: %.2f times as long (%.2f to %.2f), %.2f times the CPU time (%.2f to %.2f)",
		rounds, m, wall[0], wall[len(wall)-1], cpu[len(cpu)/2], cpu[0], cpu[len(cpu)-1])
	if measuring && m > 1.2 {
		t.Errorf("two workers take %.2f times as long as a local run, want 1.2 at most", m)
	}
}

// cost is what something took: on the clock, and of all processes of the test
// together, its servers too.
type cost struct{ wall, cpu time.Duration }

func (c cost) String() string {
	return fmt.Sprintf("%.1f s (%.1f s of CPU)", c.wall.Seconds(), c.cpu.Seconds())
}

func measured(f func()) cost {
	began, used := time.Now(), spent(os.Getpid())
	f()
	return cost{time.Since(began), spent(os.Getpid()) - used}
}

// tick is the unit of the times in /proc (proc_pid_stat(5)): USER_HZ, which is
// 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// spent adds up the CPU time of a process and all that live below it. Those that
// have ended count for the parent that waited for them.
func spent(pid int) (sum time.Duration) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0 // it has ended
	}
	// The name in parentheses may hold anything, spaces too.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, i := range []int{11, 12, 13, 14} { // utime stime cutime cstime
		n, _ := strconv.ParseInt(f[i], 10, 64)
		sum += time.Duration(n) * tick
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		children, _ := os.ReadFile(task)
		for _, c := range strings.Fields(string(children)) {
			if n, err := strconv.Atoi(c); err == nil {
				sum += spent(n)
			}
		}
	}
	return sum
}
