package crash

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/test/disk"
)

// trouble is a way in which a disk fails: with what error, and which of the
// operations from the given one on.
type trouble struct {
	name  string
	errno syscall.Errno
	meets func(op disk.Op, since int) bool // since: operations since it began, from 0
}

// grows says that an operation takes room.
func grows(op disk.Op) bool { return op.Kind == "create" || op.Kind == "mkdir" || op.Kind == "write" }

var troubles = []trouble{
	{"full", syscall.ENOSPC, func(op disk.Op, _ int) bool { return grows(op) }},
	{"full, for the ledger alone", syscall.ENOSPC, func(op disk.Op, _ int) bool { return grows(op) && strings.HasPrefix(op.Name, "crash.db") }},
	{"one I_O error", syscall.EIO, func(_ disk.Op, since int) bool { return since == 0 }},
	{"nothing but I_O errors", syscall.EIO, func(disk.Op, int) bool { return true }},
	{"read-only", syscall.EROFS, func(disk.Op, int) bool { return true }},
}

// TestMixedDiskTrouble has the disk under ledger and outputs fail from some
// operation on, and then lose power besides. The run ends in time, and says what
// is wrong and what to do; on a good disk the next one ends as an undisturbed
// run. CI has each trouble begin at a moment of its own, spread over the
// run; MAILHAUL_CRASHES is five times how many else.
func TestMixedDiskTrouble(t *testing.T) {
	t.Parallel()
	s := mixed(t)
	want, _ := s.reference(t)
	moments := number(t, crashesVariable, len(troubles)) / len(troubles)

	p, d, unmount := s.onDisk(t)
	first := d.Ops()
	p.wantWhole(p.run(nil))
	all := d.Ops() - first
	unmount()
	for i, trouble := range troubles {
		for j := range moments {
			at := 1 + all*(2*j*len(troubles)+2*i+1)/(2*moments*len(troubles)) // no two of them begin at the same one
			t.Run(fmt.Sprintf("%s/%d", trouble.name, at), func(t *testing.T) {
				t.Parallel()
				p, d, unmount := s.onDisk(t)
				begins := d.Ops() + at
				met, told := 0, ""
				d.Hook(func(op disk.Op) syscall.Errno {
					if op.Number < begins || !trouble.meets(op, op.Number-begins) {
						return 0
					}
					if met++; met <= 3 {
						told += op.Kind + " " + op.Name + "; "
					}
					return trouble.errno
				})
				e := p.run(nil)
				d.Hook(nil)
				unmount()
				t.Logf("%d operations failed: %s exit code %d: %s", met, told, e.code, e.errors)
				p.wantTold(e, met)
				defer d.Cut(disk.All, 0).Mount(t, p.dir)()
				p.wantDone(want)
				p.wantWhole(p.run(nil))
				p.wantSame(want)
				p.wantNothingToDo()
			})
		}
	}
}

// wantTold checks a run on a bad disk: either it needed nothing of what failed,
// or it stopped and says so in few words.
func (p *pipeline) wantTold(e *ended, failed int) {
	p.t.Helper()
	if e.code == engine.ExitLetters {
		p.wantWhole(e)
		return
	}
	lines := 0
	for line := range strings.Lines(e.errors) {
		if strings.HasPrefix(line, "error: ") {
			lines++
		}
	}
	stopped := e.code == engine.ExitStopped ||
		e.code == engine.ExitUsage && strings.Contains(e.errors, "read-only file system") // another state directory is wanted then
	if !stopped || failed == 0 || lines == 0 || lines > 3 || !strings.Contains(e.errors, "\nhint: ") {
		p.t.Errorf("%d operations on the disk failed; want exit code %d, an error line or three, and a hint: %s", failed, engine.ExitStopped, e)
	}
	for _, word := range []string{"panic", "goroutine ", "(Bug)", "bug"} {
		if strings.Contains(e.errors, word) {
			p.t.Errorf("a bad disk is no bug: %s", e)
		}
	}
}
