// Package readback reads files of an export back, and holds them against the
// manifest of their target: that they are still what was written.
package readback

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"

	"github.com/mailhaul/pipeline/pkg/target"
)

// Target is a directory with a manifest of package target. It is safe for
// concurrent use, also beside the sink that adds to it.
//
// It remembers where each row of the manifest stands, in some 40 octets a row.
type Target struct {
	root string

	mu  sync.Mutex
	end int64 // of what was read of the manifest
	places
}

// New returns the target whose files stand in root.
func New(root string) *Target {
	return &Target{root: root, places: newPlaces()}
}

// Close does nothing: files are opened one by one.
func (t *Target) Close() {}

// forget has the manifest read anew.
func (t *Target) forget() { t.end, t.places = 0, newPlaces() }

// Check reads the files of receipts, which are paths within the target as
// sink.Receipt has them. The first result is an error a receipt, saying what
// is wrong with its files, or nil; the second one, of class Full or Config,
// says that nothing could be checked.
func (t *Target) Check(ctx context.Context, receipts []string) ([]error, error) {
	rows, err := t.find(receipts)
	if err != nil {
		return nil, err
	}
	wrong := make([]error, len(receipts))
	r := &reader{sum: sha256.New(), buf: make([]byte, 256<<10)}
	for i, list := range rows {
		if len(list) == 0 {
			wrong[i] = fmt.Errorf("the manifest %s has no row of %s", target.ManifestPath(t.root), receipts[i])
		}
		for j := range list {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if wrong[i] == nil {
				wrong[i] = r.check(t.root, &list[j])
			}
		}
	}
	return wrong, nil
}

// find returns the rows of each receipt. Those that aren't found are looked for
// once more from the start: a sink that died has cut the manifest off, and gone on
// with other rows.
func (t *Target) find(receipts []string) ([][]target.Row, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rows, all, err := t.lookUp(receipts)
	if all || err != nil {
		return rows, err
	}
	t.forget()
	rows, _, err = t.lookUp(receipts)
	return rows, err
}

// lookUp reads on in the manifest, and reports whether each receipt has rows.
func (t *Target) lookUp(receipts []string) (rows [][]target.Row, all bool, err error) {
	if err := t.readOn(); err != nil {
		return nil, false, err
	}
	rows, all = t.of(receipts, func(offset int64) (target.Row, error) { return target.ManifestRow(t.root, offset) })
	return rows, all, nil
}

// readOn reads the rows that came since.
func (t *Target) readOn() error {
	info, err := os.Stat(target.ManifestPath(t.root))
	if err != nil {
		return target.DiskError(err, "read the manifest %s", target.ManifestPath(t.root))
	}
	if info.Size() < t.end {
		t.forget()
	}
	for l, err := range target.ManifestLinesFrom(t.root, t.end) {
		if err != nil {
			return err
		}
		if l.End == info.Size() && l.Err != nil || l.End > info.Size() {
			return nil // the sink is writing it
		}
		t.end = l.End
		if l.Err != nil {
			continue // whose it was, misses it
		}
		t.add(&l.Row, l.Offset)
	}
	return nil
}

// named is the receipt of the message whose file a row is: see
// sink.Prepared.Manifest.
func named(r *target.Row) string {
	if r.Part != "" {
		return path.Dir(r.Path)
	}
	return r.Path
}

// reader reads files. One goroutine uses it at a time.
type reader struct {
	sum hash.Hash
	buf []byte
}

// check says what of a file isn't what was written.
func (r *reader) check(root string, row *target.Row) error {
	if !filepath.IsLocal(filepath.FromSlash(row.Path)) {
		return fmt.Errorf("%s isn't within %s", row.Path, root)
	}
	name := filepath.Join(root, filepath.FromSlash(row.Path))
	size, sum, err := r.read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s isn't there", name)
	case err != nil:
		return fmt.Errorf("%s can't be read back: %w", name, err)
	case size != row.Size:
		return fmt.Errorf("%s has %d octets, %d were written", name, size, row.Size)
	case sum != row.SHA256:
		return fmt.Errorf("%s has other octets than were written", name)
	}
	return nil
}

func (r *reader) read(name string) (size int64, sum string, err error) {
	info, err := os.Lstat(name)
	if err != nil {
		return 0, "", err
	}
	if !info.Mode().IsRegular() { // a pipe would wait for ever
		return 0, "", errors.New("it is no regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	fromDisk(f)
	r.sum.Reset()
	size, err = io.CopyBuffer(r.sum, struct{ io.Reader }{f}, r.buf)
	return size, hex.EncodeToString(r.sum.Sum(nil)), err
}
