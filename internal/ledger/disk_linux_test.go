package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// mount mounts a file system of its own and returns its path.
func mount(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a small tmpfs: %v; run this test as root, or in a user namespace: unshare -rm go test", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// TestFullDisk fills the disk under a ledger: it says so, keeps what was
// committed, and goes on when there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, size := range []int{600 << 10, 1 << 20, 8 << 20} { // before SQLite's first checkpoint, and after
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			dir := mount(t, fmt.Sprint("size=", size))
			filler := filepath.Join(dir, "filler")
			if err := os.WriteFile(filler, make([]byte, size/3), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := Open(t.Context(), dir, "acme")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }() // below, too
			tg := target(t, l, "eml")
			n := 0
			for err == nil {
				n++
				err = l.Commit(t.Context(), childEpoch(box(t, l, fmt.Sprint("box", n%7)), tg.ID, n))
			}
			if !fault.Is(err, fault.Full) || fault.As(err).Hint == "" {
				t.Fatalf("epoch %d on a full disk: %v (%s)", n, err, fault.Of(err))
			}
			t.Logf("full at epoch %d: %v", n, err)
			for i := 1; i <= n; i++ {
				checkEpoch(t, l, tg.ID, i, i < n)
			}
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			commit(t, l, childEpoch(box(t, l, fmt.Sprint("box", n%7)), tg.ID, n))
			l = reopen(t, l)
			for i := 1; i <= n; i++ {
				checkEpoch(t, l, tg.ID, i, true)
			}
			integrity(t, l)
			shut(t, l)
		})
	}
}

// TestFullFromTheStart opens a ledger where there is no room for one.
func TestFullFromTheStart(t *testing.T) {
	t.Parallel()
	for _, size := range []string{"4k", "8k", "16k", "40k", "64k"} {
		dir := mount(t, "size="+size)
		l, err := Open(t.Context(), dir, "acme")
		if err == nil {
			_ = l.Close()
			t.Errorf("%s: Open found room", size)
			continue
		}
		if !fault.Is(err, fault.Full) || fault.As(err).Hint == "" {
			t.Errorf("%s: %v (%s, hint %q)", size, err, fault.Of(err), hint(err))
		}
	}
}

// TestReadOnly opens a ledger of a disk that can't be written to.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	dir := mount(t, "size=1m")
	shut(t, open(t, dir))
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), dir, "acme")
	wrong(t, err, "read-only file system")
	_, err = Open(t.Context(), filepath.Join(dir, "deeper"), "acme")
	wrong(t, err, "make the state directory")
}
