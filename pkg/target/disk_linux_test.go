package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// smallDisk mounts a file system of the size given and returns its path.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a small tmpfs: %v; run this test as root, or in a user namespace: unshare -rm go test", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// TestFullDisk fills a disk, makes room, and goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	root := smallDisk(t, "256k")
	d, err := OpenDir(context.Background(), root, Owner{Sink: "s", Pipeline: "p"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	write := func(n int) error {
		f, err := d.Create()
		if err != nil {
			return err
		}
		if _, err := f.Write(make([]byte, 32<<10)); err != nil {
			f.Discard()
			return err
		}
		return f.Place(message.ID{Source: "s", UID: uint32(n)}, fmt.Sprintf("%d.eml", n), time.Time{})
	}
	n := 1
	for ; n < 100 && err == nil; n++ {
		err = write(n)
	}
	if !fault.Is(err, fault.Full) || !errors.Is(err, syscall.ENOSPC) || fault.As(err).Hint == "" {
		t.Fatalf("%d files on a full disk: %v", n, err)
	}
	if left, err := os.ReadDir(filepath.Join(root, Books, "tmp")); err != nil || len(left) != 0 {
		t.Errorf("temporary files left: %v, %v", left, err)
	}
	if err := os.Remove(filepath.Join(root, "1.eml")); err != nil {
		t.Fatal(err)
	}
	if err := write(n); err != nil {
		t.Errorf("after there was room: %v", err)
	}
	if _, err := d.Flush(context.Background()); err != nil {
		t.Errorf("Flush: %v", err)
	}
}

// TestSyncEach takes the way of file systems where syncfs can't be trusted.
func TestSyncEach(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	d, err := OpenDir(context.Background(), root, Owner{Sink: "s", Pipeline: "p"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.disk.whole = false
	place := func(n int) {
		f, err := d.Create()
		if err == nil {
			err = f.Place(message.ID{Source: "s", UID: uint32(n)}, fmt.Sprintf("a/b%d/%d.eml", n%3, n), time.Time{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for n := range 20 {
		place(n)
	}
	if len(d.pending) != 20 {
		t.Errorf("%d names wait, want 20", len(d.pending))
	}
	cp, err := d.Flush(context.Background())
	if err != nil || len(d.pending) != 0 {
		t.Fatalf("Flush: %v, %d names wait", err, len(d.pending))
	}
	// A file that is gone can't be made durable: nothing may be promised.
	place(20)
	if err := os.Remove(filepath.Join(root, "a/b2/20.eml")); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Flush(context.Background()); !fault.Is(err, fault.Full) {
		t.Errorf("Flush without a file: %s, %v", got, err)
	}
	if _, err := d.Flush(context.Background()); err == nil {
		t.Errorf("the Flush after a failed one succeeds; %s was the last good one", cp)
	}
}

// BenchmarkDurable measures what docs/adr/0001-durability.md is about: ways to
// make n new files of 4 KiB durable. Only the syncing is timed.
func BenchmarkDurable(b *testing.B) {
	ways := []struct {
		name string
		sync func(b *testing.B, root string, dir int, names []string) error
	}{
		{"fsync_each", func(b *testing.B, root string, _ int, names []string) error {
			dirs := map[string]bool{root: true}
			for _, n := range names {
				dirs[filepath.Join(root, filepath.Dir(n))] = true
				if err := syncPath(filepath.Join(root, n)); err != nil {
					return err
				}
			}
			for d := range dirs {
				if err := syncPath(d); err != nil {
					return err
				}
			}
			return nil
		}},
		{"fsync_8_at_once", func(_ *testing.B, root string, _ int, names []string) error { return syncEach(root, names) }},
		{"syncfs", func(_ *testing.B, _ string, dir int, _ []string) error { return unix.Syncfs(dir) }},
	}
	for _, files := range []int{1, 16, 256, 4096, 20000} {
		for _, way := range ways {
			b.Run(fmt.Sprintf("%d/%s", files, way.name), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					root, names := b.TempDir(), make([]string, files)
					dir, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
					if err != nil {
						b.Fatal(err)
					}
					unix.Sync() // what others left
					for i := range names {
						names[i] = fmt.Sprintf("d%d/m%d.eml", i%10, i)
						path := filepath.Join(root, names[i])
						if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, make([]byte, 4096), 0o644)); err != nil {
							b.Fatal(err)
						}
					}
					b.StartTimer()
					if err := way.sync(b, root, dir, names); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					unix.Close(dir)
					b.StartTimer()
				}
			})
		}
	}
}
