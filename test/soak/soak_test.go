// Package soak runs pipelines over and over, for as long as it is told, while
// mail arrives and goes, mailboxes are renamed, removed and made anew, and
// processes are killed: nothing may be lost or doubled (I1, I2), and nothing
// may grow that has no reason to (I5).
package soak

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/program"
)

// How long TestSoak goes on: so many rounds, or for a time, as make soak has
// it. The seed chooses what happens on the servers and when a process dies.
const (
	rounds       = 8
	timeVariable = "MAILHAUL_SOAK"
	seedVariable = "MAILHAUL_SOAK_SEED"
)

// binaries is the folder of the command and its plugins.
var binaries string

func TestMain(m *testing.M) { os.Exit(program.Main(m, "soak", build)) }

func build(dir string) error {
	binaries = dir
	return program.Build{To: dir}.Run("./cmd/pipeline", "./plugins/pipeline-source-imap", "./plugins/pipeline-source-pop3",
		"./plugins/pipeline-sink-eml", "./plugins/pipeline-sink-msg", "./plugins/pipeline-sink-json")
}

// TestSoak has two pipelines export the same two accounts, again and again.
// The plugins of one serve all its runs in the same processes, so that what a
// session leaves behind in them adds up; those of the other start with each
// run, and are killed now and then, as the hosts of both are.
func TestSoak(t *testing.T) {
	var length time.Duration
	if text := os.Getenv(timeVariable); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil || length <= 0 {
			t.Fatalf("%s=%q is no length of time", timeVariable, text)
		}
	}
	seed := rand.Uint64N(1 << 30)
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s=%q is no number", seedVariable, text)
		}
	}
	t.Logf("%s=%d", seedVariable, seed)
	r := rand.New(rand.NewPCG(seed, 1))

	server := dovecot.Start(t, dovecot.Options{Users: []string{alice, bob}})
	world := newWorld(t, server, r)
	lasting := newPipeline(t, "lasting", server)
	lasting.serve()
	fresh := newPipeline(t, "fresh", server)
	both := []*pipeline{lasting, fresh}
	books := &books{}

	began := time.Now()
	for n := 1; n <= rounds || time.Since(began) < length; n++ {
		for _, p := range both {
			if r.IntN(3) == 0 {
				p.disturb(r, world)
			}
		}
		world.change()
		for _, p := range both {
			p.settle()
		}
		if n == rounds || n%25 == 0 {
			for _, p := range both {
				p.holds(world)
			}
		}
		books.note(lasting, fresh)
		if t.Failed() {
			t.Fatalf("round %d, %s=%d", n, seedVariable, seed)
		}
		if n%100 == 0 {
			t.Logf("round %d after %s: %s", n, time.Since(began).Round(time.Second), books.last())
		}
	}
	for _, p := range both {
		p.holds(world)
		p.wantNothingToDo()
		p.verifies()
	}
	t.Logf("%d rounds in %s: %d runs of which %d were killed and %d lost a plugin; %s", len(books.samples), time.Since(began).Round(time.Second),
		lasting.runs+fresh.runs, lasting.killed+fresh.killed, lasting.orphaned+fresh.orphaned, world)
	books.judge(t)
	lasting.dump()
}
