package crash

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
)

// TestMixedInterrupted sends the host a signal at some of its points: once, and
// it finishes what is in flight; twice, and it stops at once. The next run goes
// on, and ends as an undisturbed one. CI takes one signal at each point in turn,
// `make crash` all of them.
func TestMixedInterrupted(t *testing.T) {
	t.Parallel()
	s := mixed(t)
	want, _ := s.reference(t)
	signals := []string{"2", "15", "2,2", "15,2"} // SIGINT, SIGTERM; twice
	for i, point := range []string{"engine.deliver=30", "engine.data.flushed", "engine.before.commit=2", "engine.committed"} {
		for j, signal := range signals {
			if os.Getenv(crashesVariable) == "" && i != j {
				continue
			}
			t.Run(point+" "+signal, func(t *testing.T) {
				t.Parallel()
				p := s.pipeline(t)
				met := p.path("met")
				e := p.run([]string{"MAILHAUL_FAULTPOINT=pipeline:" + point, "MAILHAUL_FAULTPOINT_SIGNAL=" + signal, "MAILHAUL_FAULTPOINT_ONCE=" + met})
				if _, err := os.Stat(met); err != nil {
					t.Fatalf("nobody passed the point: %s", e)
				}
				// Late in a run there may be nothing left to stop.
				if e.code != engine.ExitStopped && e.code != engine.ExitLetters {
					t.Errorf("exit code %d: %s", e.code, e)
				}
				if strings.Contains(e.errors, "error: ") {
					t.Errorf("the user asked for it, and yet it is an error: %s", e)
				}
				p.wantWhole(p.run(nil))
				p.wantSame(want)
				p.wantNothingToDo()
			})
		}
	}
}

// TestMixedFrozen stops a process by SIGSTOP at some of its points for a while,
// as a machine that sleeps or a debugger does, and lets it go on: the run
// completes. `make crash` stops each for a minute, CI three of them shortly.
func TestMixedFrozen(t *testing.T) {
	t.Parallel()
	s := mixed(t)
	want, _ := s.reference(t)
	whole := os.Getenv(crashesVariable) != ""
	pause := 300 * time.Millisecond
	if whole {
		pause = time.Minute
	}
	for i, point := range []string{
		"pipeline:engine.before.commit", "pipeline:engine.deliver=20",
		"pipeline-source-imap:source.answer=10", "pipeline-source-pop3:source.frame",
		"pipeline-sink-eml:sink.write=20", "pipeline-sink-msg:sink.flush", "pipeline-sink-json:sink.commit",
	} {
		if !whole && i%3 != 0 {
			continue
		}
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			p := s.pipeline(t)
			met := p.path("met")
			run := p.start([]string{
				"MAILHAUL_FAULTPOINT=" + point, "MAILHAUL_FAULTPOINT_ONCE=" + met,
				fmt.Sprintf("MAILHAUL_FAULTPOINT_SIGNAL=%d", syscall.SIGSTOP),
			})
			pid := p.frozen(met)
			time.Sleep(pause) // the fault itself: nothing waits for it
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			p.wantWhole(run.wait())
			p.wantWhole(p.run(nil))
			p.wantSame(want)
			p.wantNothingToDo()
		})
	}
}

// frozen waits until the process that wrote its number to a file stands still,
// and returns the number.
func (p *pipeline) frozen(path string) int {
	p.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(path) // it may not be there yet
		if pid, err := strconv.Atoi(string(text)); err == nil {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil {
				p.t.Fatal(err)
			}
			// proc(5): the state follows the name, which is in parentheses.
			if _, state, ok := strings.Cut(string(stat), ") "); ok && strings.HasPrefix(state, "T") {
				return pid
			}
		}
		if time.Now().After(end) {
			p.t.Fatalf("nobody stopped at %s", path)
		}
	}
}
