package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mounted runs f on a disk at a path.
func mounted(t *testing.T, d *Disk, f func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	unmount := d.Mount(t, dir)
	f(dir)
	unmount()
}

func write(t *testing.T, path, text string, sync bool) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func syncDir(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// TestPowerLoss: what is left is what was synced, octets and names each by
// themselves.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	d := New()
	mounted(t, d, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		write(t, at("whole"), "whole", true)
		write(t, at("torn"), "before", true)
		write(t, at("empty"), "nobody synced this", false)
		write(t, at("gone"), "it is removed", true)
		write(t, at("old"), "renamed", true)
		if err := os.Mkdir(at("dir"), 0o755); err != nil {
			t.Fatal(err)
		}
		syncDir(t, dir)
		write(t, at("torn"), "after", false)
		write(t, at("nameless"), "its name isn't durable", true)
		write(t, at("dir/nameless"), "nor this one's", true)
		for _, err := range []error{os.Remove(at("gone")), os.Rename(at("old"), at("new"))} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if b, err := os.ReadFile(at("torn")); err != nil || string(b) != "after" {
			t.Errorf("before the power is cut: %q, %v", b, err)
		}
	})
	mounted(t, d.Cut(All, 0), func(dir string) {
		want := map[string]string{"whole": "whole", "torn": "before", "empty": "", "gone": "it is removed", "old": "renamed", "dir": ""}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != len(want) {
			t.Errorf("%d names are left, want %d: %v, %v", len(entries), len(want), entries, err)
		}
		for name, text := range want {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil && !errors.Is(err, syscall.EISDIR) || string(b) != text {
				t.Errorf("%s has %q, %v; want %q", name, b, err, text)
			}
		}
		if below, err := os.ReadDir(filepath.Join(dir, "dir")); err != nil || len(below) != 0 {
			t.Errorf("dir has %v, %v", below, err)
		}
	})
}

// TestSomeIsLost: of what wasn't synced any part may stay, page by page; what
// was synced stays always.
func TestSomeIsLost(t *testing.T) {
	t.Parallel()
	d := New()
	const pages = 16
	mounted(t, d, func(dir string) {
		write(t, filepath.Join(dir, "synced"), "synced", true)
		write(t, filepath.Join(dir, "pages"), strings.Repeat("a", pages*page), true)
		syncDir(t, dir)
		write(t, filepath.Join(dir, "pages"), strings.Repeat("b", pages*page), false)
		write(t, filepath.Join(dir, "maybe"), "maybe", true)
	})
	mixed, there, away := 0, 0, 0
	for luck := range uint64(20) {
		mounted(t, d.Cut(Some, luck), func(dir string) {
			if b, err := os.ReadFile(filepath.Join(dir, "synced")); err != nil || string(b) != "synced" {
				t.Errorf("what was synced is %q, %v", b, err)
			}
			b, err := os.ReadFile(filepath.Join(dir, "pages"))
			if err != nil || len(b) != pages*page {
				t.Fatalf("%d octets, %v", len(b), err)
			}
			if n := strings.Count(string(b), "b"); n%page != 0 {
				t.Errorf("%d octets of whole pages", n)
			} else if n > 0 && n < pages*page {
				mixed++
			}
			if _, err := os.Stat(filepath.Join(dir, "maybe")); err == nil {
				there++
			} else {
				away++
			}
		})
	}
	if mixed == 0 || there == 0 || away == 0 {
		t.Errorf("of 20 cuts %d were mixed; a name was there %d times and away %d times", mixed, there, away)
	}
}

// TestHook: an operation that the hook refuses fails with its error and does
// nothing.
func TestHook(t *testing.T) {
	t.Parallel()
	d := New()
	mounted(t, d, func(dir string) {
		write(t, filepath.Join(dir, "a"), "a", true)
		before := d.Ops()
		d.Hook(func(op Op) syscall.Errno {
			if op.Kind == "create" {
				return syscall.ENOSPC
			}
			return 0
		})
		if _, err := os.Create(filepath.Join(dir, "b")); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("create on a full disk: %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "b")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a file that couldn't be made: %v", err)
		}
		if n := d.Ops() - before; n != 1 {
			t.Errorf("%d operations, want 1", n)
		}
		d.Hook(nil)
		write(t, filepath.Join(dir, "b"), "b", true)
	})
}
