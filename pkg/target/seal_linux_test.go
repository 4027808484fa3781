package target

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// sealable opens a directory on which files are made durable in both ways: all
// that is on the file system, or one by one.
func sealable(t *testing.T, root string, whole bool, checkpoint []byte) *Dir {
	t.Helper()
	d, err := OpenDir(t.Context(), root, Owner{Sink: "s", Pipeline: "p"}, checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	d.disk.whole = whole
	return d
}

func (d *Dir) placeEmpty(n int, folder string) error {
	f, err := d.Create()
	if err != nil {
		return err
	}
	return f.Place(message.ID{Source: "s", UID: uint32(n)}, fmt.Sprintf("%s/%d.eml", folder, n), time.Time{})
}

// TestSealedRows: the manifest of an epoch that was sealed ends with its last row
// (I3), however many of the next one come before and while it is flushed: so many
// here that they don't wait in memory.
func TestSealedRows(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{true, false} {
		t.Run(fmt.Sprintf("whole=%v", whole), func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			d := sealable(t, root, whole, nil)
			folder := strings.Repeat("a long name ", 20) // rows of 350 octets
			const first, each = 100, spill / 350
			place := func(from, to int) {
				for n := from; n < to; n++ {
					if err := d.placeEmpty(n, folder); err != nil {
						t.Error(err)
						return
					}
				}
			}
			place(0, first)
			if err := Seal(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			place(first, first+each) // the sealed rows are written before these
			var beside sync.WaitGroup
			beside.Go(func() { place(first+each, first+2*each) })
			cp, err := d.Flush(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			beside.Wait()
			length, _ := CommittedManifest(cp)
			rows, end := 0, int64(0)
			for l, err := range ManifestLines(root) {
				if err != nil || l.Err != nil || l.Row.ID.UID != uint32(l.Number-1) && l.Number <= first {
					t.Fatalf("line %d: %+v, %v %v", l.Number, l.Row, err, l.Err)
				}
				if l.End <= length {
					rows, end = rows+1, l.End
				}
			}
			if rows != first || end != length {
				t.Errorf("the checkpoint of %d files covers %d rows, up to %d of %d", first, rows, end, length)
			}
			if !whole && len(d.pending) != 2*each {
				t.Errorf("%d names wait for the next Flush, want %d", len(d.pending), 2*each)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = sealable(t, root, whole, cp)
			defer d.Close()
			if info, err := os.Stat(ManifestPath(root)); err != nil || info.Size() != length {
				t.Errorf("opened at the checkpoint the manifest has %d octets, want %d: %v", info.Size(), length, err)
			}
		})
	}
}

// TestAFlushOfASealedEpochFails: whatever was written beside it, nothing is
// promised any more.
func TestAFlushOfASealedEpochFails(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	d := sealable(t, root, false, nil)
	defer d.Close()
	if err := d.placeEmpty(1, "a"); err != nil {
		t.Fatal(err)
	}
	if err := Seal(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "a/1.eml")); err != nil { // it can't be made durable
		t.Fatal(err)
	}
	if err := d.placeEmpty(2, "a"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if cp, err := d.Flush(t.Context()); !fault.Is(err, fault.Full) {
			t.Errorf("got %s, %v", cp, err)
		}
	}
	if err := Seal(t.Context(), d); !fault.Is(err, fault.Full) {
		t.Errorf("Seal after a Flush that failed: %v", err)
	}
	if err := d.placeEmpty(3, "a"); err == nil {
		t.Error("a file is taken that can't be promised any more")
	}
}

// TestTheNextEpochsDiskTrouble: a disk tells of an error once, and may mean the
// files that are being made durable beside it.
func TestTheNextEpochsDiskTrouble(t *testing.T) {
	t.Parallel()
	d := sealable(t, t.TempDir(), true, nil)
	defer d.Close()
	if err := d.placeEmpty(1, "a"); err != nil {
		t.Fatal(err)
	}
	if err := Seal(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	d.fail(fault.New(fault.Full, "input/output error"))
	d.mu.Unlock()
	if cp, err := d.Flush(t.Context()); !fault.Is(err, fault.Full) {
		t.Errorf("got %s, %v", cp, err)
	}
}

// TestSealedAndCancelled: a Flush that wasn't begun can be asked for again.
func TestSealedAndCancelled(t *testing.T) {
	t.Parallel()
	d := sealable(t, t.TempDir(), true, nil)
	defer d.Close()
	if err := d.placeEmpty(1, "a"); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Seal(cancelled, d); err == nil {
		t.Error("a cancelled Seal seals")
	}
	if err := Seal(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := d.placeEmpty(2, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Flush(cancelled); err == nil {
		t.Error("a cancelled Flush makes something durable")
	}
	sealed, err := d.Flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := d.Flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	short, _ := CommittedManifest(sealed)
	long, _ := CommittedManifest(all)
	if short == 0 || long <= short {
		t.Errorf("the sealed epoch's manifest has %d octets, that of both %d", short, long)
	}
}
