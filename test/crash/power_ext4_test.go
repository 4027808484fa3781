//go:build ext4

package crash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mailhaul/pipeline/test/disk"
)

// imageSize is how large the ext4 is. For each cut it is once in memory.
const imageSize = 32 << 20

// TestMixedPowerCutOnExt4 cuts the power under a real ext4 with its journal, where
// sinks give files their names when they are whole, write large ones past the page
// cache, and make all of it durable with one syncfs (docs/adr/0001, 0019, 0020).
// The ext4 is on a loop device, whose image lies on a disk of the test: that one
// knows what each flush of the device covered, and loses all else, or an arbitrary
// half in pieces of a page. What the ledger calls done is there (I3), and the next
// run ends as an undisturbed one (I2). Each second cut comes just after a flush.
// make power runs it: it needs root, loop devices and e2fsprogs.
func TestMixedPowerCutOnExt4(t *testing.T) {
	s := mixed(t)
	want, _ := s.reference(t)
	n := number(t, crashesVariable, 12)

	p, d, unmount := s.onExt4(t)
	p.wantWhole(p.run(nil))
	p.wantSame(want)
	unmount()
	every := max(d.Ops()/max(n/2, 1), 1)
	t.Logf("an undisturbed run changes the device %d times", d.Ops())

	p, d, unmount = s.onExt4(t)
	first := d.Ops()
	var outages []outage
	flushed, flushes := false, 0
	d.Hook(func(op disk.Op) syscall.Errno {
		if (op.Number-first)%every == every/2 || flushed {
			loss := disk.Loss(len(outages) % 2)
			outages = append(outages, outage{fmt.Sprintf("before %d, %s", op.Number, op.Kind), op.Cut(loss, uint64(op.Number))})
		}
		flushed = false
		if op.Kind == "sync" {
			flushes++
			flushed = flushes%max(60/max(n, 1), 1) == 0
		}
		return 0
	})
	p.wantWhole(p.run(nil))
	d.Hook(nil)
	unmount()
	done := 0
	for i, o := range outages {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			q := *p
			p := &q
			p.t = t
			defer ext4(t, o.disk, p.dir)()
			if _, err := os.Stat(p.path("pipeline.yaml")); err != nil {
				t.Fatalf("%s: %v", o.when, err)
			}
			n := p.wantDone(want)
			done += n
			t.Logf("%s: %d files are done", o.when, n)
			p.wantWhole(p.run(nil))
			p.wantSame(want)
			p.wantNothingToDo()
		})
	}
	t.Logf("the power was cut %d times, of %d flushes; %d times a file was done, and was there", len(outages), flushes, done)
	if done == 0 {
		t.Error("nothing was done at any time: the test tried little")
	}
}

// onExt4 makes a pipeline whose folder is an ext4 on a disk of the test.
func (s *scenario) onExt4(t *testing.T) (p *pipeline, d *disk.Disk, unmount func()) {
	t.Helper()
	p = s.pipeline(t)
	p.dir = p.path("disk")
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d = disk.New()
	at := t.TempDir()
	away := d.Mount(t, at)
	image := filepath.Join(at, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, imageSize); err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
	for _, path := range []string{image, at} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	away()
	unmount = ext4(t, d, p.dir)
	p.write(s.file)
	unix.Sync()
	return p, d, unmount
}

// ext4 mounts the ext4 that lies on a disk. What a power cut left is put in order
// by its journal.
func ext4(t *testing.T, d *disk.Disk, at string) (unmount func()) {
	t.Helper()
	below := t.TempDir()
	away := d.Mount(t, below)
	device := command(t, "losetup", "--find", "--show", filepath.Join(below, "image"))
	if err := unix.Mount(device, at, "ext4", unix.MS_NOATIME, ""); err != nil {
		command(t, "losetup", "--detach", device)
		t.Fatalf("mount the ext4 on %s: %v", device, err)
	}
	return func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmount the ext4: %v", err)
		}
		command(t, "losetup", "--detach", device)
		away()
	}
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}
