//go:build ext4

package crash

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
// run ends as an undisturbed one (I2). Some cuts come just after a flush, the
// others are spread evenly. make power runs it: it needs root, loop devices and
// e2fsprogs.
func TestMixedPowerCutOnExt4(t *testing.T) {
	s := mixed(t)
	s.cutPower(t, number(t, crashesVariable, 12), s.onExt4,
		func(t *testing.T, d *disk.Disk, at string) (unmount func()) {
			unmount = ext4(t, d, at)
			if _, err := os.Stat(filepath.Join(at, "pipeline.yaml")); err != nil {
				t.Error(err)
			}
			return unmount
		},
		func(op disk.Op) bool { return op.Kind == "sync" })
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
	durable(t, image, at)
	away()
	unmount = ext4(t, d, p.dir)
	p.write(s.file)
	durable(t, p.path("pipeline.yaml"), p.dir)
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
