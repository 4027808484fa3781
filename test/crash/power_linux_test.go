package crash

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/test/disk"
)

// onDisk makes a pipeline whose file, ledger and outputs are on a disk of the
// test, mounted at the pipeline's folder.
func (s *scenario) onDisk(t *testing.T) (p *pipeline, d *disk.Disk, unmount func()) {
	t.Helper()
	p = s.pipeline(t)
	p.dir = p.path("disk")
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d = disk.New()
	unmount = d.Mount(t, p.dir)
	p.write(s.file)
	durable(t, p.path("pipeline.yaml"), p.dir)
	return p, d, unmount
}

// durable syncs files and directories.
func durable(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
}

// outage is a disk after a power cut, and when that was.
type outage struct {
	when string
	disk *disk.Disk
}

// TestMixedPowerCut cuts the power in the middle of a run: of what wasn't made
// durable all is lost, or an arbitrary half. What the ledger calls done is
// there, with its octets (I3), and the next run ends as an undisturbed one (I2).
// Half of the cuts come just after the ledger was made durable, when it says
// most; the others are spread evenly. CI takes a few; MAILHAUL_CRASHES says how
// many else, up to every commit.
func TestMixedPowerCut(t *testing.T) {
	t.Parallel()
	s := mixed(t)
	s.cutPower(t, number(t, crashesVariable, 4), s.onDisk,
		func(t *testing.T, d *disk.Disk, at string) (unmount func()) { return d.Mount(t, at) },
		func(op disk.Op) bool { return op.Kind == "sync" && strings.HasSuffix(op.Name, ".db-wal") })
}

// cutPower runs the scenario's pipeline on a disk and cuts the power about n
// times, and then looks at each disk that this leaves. on makes the pipeline and
// its disk, mount mounts what is left of one at the pipeline's folder, and commits
// tells the operations after which much has just become durable.
func (s *scenario) cutPower(t *testing.T, n int, on func(*testing.T) (*pipeline, *disk.Disk, func()),
	mount func(t *testing.T, d *disk.Disk, at string) (unmount func()), commits func(disk.Op) bool) {
	t.Helper()
	want, _ := s.reference(t)
	each := max(60/max(n, 1), 1) // of so many commits there is one cut

	p, d, unmount := on(t)
	p.wantWhole(p.run(nil))
	p.wantSame(want)
	unmount()
	every := max(d.Ops()/max(n/2, 1), 1)
	t.Logf("an undisturbed run changes the disk %d times", d.Ops())

	p, d, unmount = on(t)
	first := d.Ops()
	var outages []outage
	committed, count := false, 0
	d.Hook(func(op disk.Op) syscall.Errno {
		regular := (op.Number-first)%every == every/2
		if regular || committed {
			// Each second one loses all.
			loss := disk.Loss(len(outages) % 2)
			outages = append(outages, outage{fmt.Sprintf("before %d, %s %s", op.Number, op.Kind, op.Name), op.Cut(loss, uint64(op.Number))})
		}
		committed = false
		if commits(op) {
			count++
			committed = count%each == 0
		}
		return 0
	})
	p.wantWhole(p.run(nil))
	d.Hook(nil) // unmounting may write, too
	unmount()
	done := 0
	for i, o := range outages {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			q := *p
			p := &q
			p.t = t
			defer mount(t, o.disk, p.dir)()
			n := p.wantDone(want)
			done += n
			t.Logf("%s: %d files are done", o.when, n)
			p.wantWhole(p.run(nil))
			p.wantSame(want)
			p.wantNothingToDo()
		})
	}
	t.Logf("the power was cut %d times, with %d commits; %d times a file was done, and was there", len(outages), count, done)
	if done == 0 {
		t.Error("nothing was done at any time: the test tried little")
	}
}

// wantDone holds what the ledger calls written against what is there (I3), and
// returns how many files that is. Nothing has been put in order yet: lines of an
// index may still stand in the file beside it.
func (p *pipeline) wantDone(want left) (n int) {
	p.t.Helper()
	if _, err := os.Stat(p.path(filepath.Join(p.state, "crash.db"))); os.IsNotExist(err) {
		return 0 // it was cut before there was one: nothing is called done
	}
	l, err := p.openLedger()
	if err != nil {
		p.t.Fatalf("I3: the ledger: %v", err)
	}
	defer l.Close()
	targets := map[ledger.TargetID]string{}
	for sink, path := range p.sinks {
		t, err := l.Target(context.Background(), sink, p.path(path))
		if err != nil {
			p.t.Fatal(err)
		}
		targets[t.ID] = path
	}
	lines := p.indexed()
	for _, b := range p.ids(p) {
		box, err := l.Box(context.Background(), b.source, b.mailbox, b.validity)
		if err != nil {
			p.t.Fatal(err)
		}
		entries, err := l.Lookup(context.Background(), box, b.ids)
		if err != nil {
			p.t.Fatal(err)
		}
		for i, e := range entries {
			for _, f := range e.Fates {
				if f.Class != ledger.Written {
					continue
				}
				n++
				path := targets[f.Target]
				if strings.HasSuffix(path, ".jsonl") {
					if !lines[b.ids[i].String()] {
						p.t.Errorf("I3: the index lacks %s, which is done (in %s)", b.ids[i], p.dir)
					}
					continue
				}
				name := filepath.Join(path, f.Receipt)
				octets, err := os.ReadFile(p.path(name))
				sum := fmt.Sprintf("%x", sha256.Sum256(octets))
				before, _, _ := strings.Cut(want[strings.TrimPrefix(name, "out/")], " ")
				if err != nil || sum != before {
					p.t.Errorf("I3: %s is done, and has %d octets that aren't its own, %v (in %s)", name, len(octets), err, p.dir)
				}
			}
		}
	}
	return n
}

// indexed are the ids of the whole lines of the index and of the file beside
// it.
func (p *pipeline) indexed() map[string]bool {
	out := map[string]bool{}
	beside, err := filepath.Glob(p.path("out/.mailhaul/index.jsonl/pending-*.jsonl"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, path := range append(beside, p.path("out/index.jsonl")) {
		f, err := os.Open(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			p.t.Fatal(err)
		}
		defer f.Close()
		for r := bufio.NewScanner(f); r.Scan(); {
			var l struct{ ID string }
			if json.Unmarshal(r.Bytes(), &l) == nil {
				out[l.ID] = true
			}
		}
	}
	return out
}
