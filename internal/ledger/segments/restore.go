package segments

import (
	"bufio"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/pkg/target"
)

// atOnce is how many segments are fetched at once.
const atOnce = 8

// open returns the scratch ledger, made anew from what counts when it isn't
// open yet. l.mu is held.
func (l *Ledger) open(ctx context.Context) (*ledger.Ledger, error) {
	if s := l.scratch.Load(); s != nil {
		return s, nil
	}
	if l.broken != nil {
		return nil, l.broken
	}
	dir, err := os.MkdirTemp(l.o.Dir, "task-")
	if err != nil {
		return nil, target.DiskError(err, "task %s: make a folder for its ledger", l.o.Task)
	}
	s, err := l.restore(ctx, filepath.Join(dir, "ledger.db"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	l.dir = dir
	l.scratch.Store(s)
	return s, nil
}

// restore makes the scratch file.
func (l *Ledger) restore(ctx context.Context, path string) (*ledger.Ledger, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.ctx, func() { cancel(context.Cause(l.ctx)) })()
	if o := l.manifest.Snapshot; o != nil {
		if err := l.fetchSnapshot(ctx, *o, path); err != nil {
			return nil, err
		}
	}
	pieces := make([][]byte, len(l.manifest.Segments)+1)
	pieces[len(l.manifest.Segments)] = l.journals
	g, fetching := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, o := range l.manifest.Segments {
		g.Go(func() (err error) {
			pieces[i], err = l.fetch(fetching, o)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var journals [][]byte
	for i, piece := range pieces {
		some, err := unframe(piece)
		if err != nil && i < len(l.manifest.Segments) {
			err = l.damaged(l.manifest.Segments[i].Key, err)
		}
		if err != nil {
			return nil, err
		}
		journals = append(journals, some...)
	}
	return ledger.Scratch{
		Path: path, Pipeline: l.o.Pipeline, Replay: journals, Head: &l.head, Durable: l.durable,
	}.Open(ctx)
}

// fetch returns a segment, unpacked.
func (l *Ledger) fetch(ctx context.Context, o Object) ([]byte, error) {
	r, err := l.reader(ctx, o)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	packed, err := io.ReadAll(r)
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return nil, l.unreadable(o.Key, err)
	}
	b, err := decompress(packed)
	if err != nil {
		return nil, l.damaged(o.Key, err)
	}
	return b, nil
}

// fetchSnapshot unpacks a snapshot into a file. Nothing opens the file before
// its octets are known to be right.
func (l *Ledger) fetchSnapshot(ctx context.Context, o Object, path string) error {
	r, err := l.reader(ctx, o)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return target.DiskError(err, "task %s: make its ledger", l.o.Task)
	}
	defer f.Close() // again, after an error
	to := &written{w: f}
	from := flate.NewReader(bufio.NewReaderSize(r, 64<<10))
	_, err = io.CopyBuffer(struct{ io.Writer }{to}, from, make([]byte, 64<<10))
	if to.err != nil {
		return target.DiskError(to.err, "task %s: make its ledger", l.o.Task)
	}
	if _, rest := io.Copy(io.Discard, r); err == nil {
		err = rest
	}
	if wrong := r.check(); wrong != nil {
		err = wrong // it says more than the trouble of unpacking
	}
	if err != nil {
		return l.unreadable(o.Key, err)
	}
	return target.DiskError(f.Close(), "task %s: make its ledger", l.o.Task)
}

// written remembers the error of a writer.
type written struct {
	w   io.Writer
	err error
}

func (w *written) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// checked reads an object, and knows at its end whether it is the one that the
// manifest names.
type checked struct {
	io.ReadCloser
	o   Object
	crc hash.Hash32
	n   int64
}

func (l *Ledger) reader(ctx context.Context, o Object) (*checked, error) {
	r, _, err := l.o.Objects.Open(ctx, l.o.Prefix+o.Key, 0)
	if errors.Is(err, objects.ErrMissing) {
		return nil, l.damaged(o.Key, errors.New("the store of objects doesn't have it"))
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "task %s: read its ledger", l.o.Task)
	}
	return &checked{ReadCloser: r, o: o, crc: crc32.New(castagnoli)}, nil
}

func (c *checked) Read(p []byte) (int, error) {
	if left := c.o.Octets - c.n; int64(len(p)) > left+1 {
		p = p[:left+1] // one more than there should be is enough to know
	}
	n, err := c.ReadCloser.Read(p)
	c.n += int64(n)
	c.crc.Write(p[:n])
	if err == nil && c.n > c.o.Octets {
		return n, c.check()
	}
	return n, err
}

// check is nil after the end of the right octets.
func (c *checked) check() error {
	if c.n == c.o.Octets && c.crc.Sum32() == c.o.CRC {
		return nil
	}
	return &altered{c.o, c.n, c.crc.Sum32()}
}

// altered says that an object isn't what was stored.
type altered struct {
	o      Object
	octets int64
	crc    uint32
}

func (a *altered) Error() string {
	if a.octets > a.o.Octets {
		return fmt.Sprintf("it has more than its %d octets", a.o.Octets)
	}
	return fmt.Sprintf("it has %d octets with the sum %08x, not %d with %08x", a.octets, a.crc, a.o.Octets, a.o.CRC)
}

// unreadable tells an error of reading an object.
func (l *Ledger) unreadable(key string, err error) error {
	var wrong *altered
	var corrupt flate.CorruptInputError
	if errors.As(err, &wrong) || errors.As(err, &corrupt) {
		return l.damaged(key, err)
	}
	return fault.Wrap(fault.Unavailable, err, "task %s: read its ledger", l.o.Task)
}

// damaged says that what counts of the task can't be had.
func (l *Ledger) damaged(key string, err error) error {
	return fault.New(fault.Config, "task %s: its ledger %s%s in %s is damaged: %w", l.o.Task, l.o.Prefix, key, l.o.Objects.Location().Target, err).
		WithHint("put the object back as it was; or delete the key %s from the pipeline's bucket in NATS: the task then begins anew, and what it exported is exported again", Key(l.o.Task))
}

// unpackTail reads the manifest's own part of the journal.
func (l *Ledger) unpackTail() error {
	t := l.manifest.Tail
	if t == nil {
		return nil
	}
	wrong := error(nil)
	if sum(t.Journal) != t.CRC {
		wrong = errors.New("its sum isn't right")
	}
	var err error
	if wrong == nil {
		l.journals, err = decompress(t.Journal)
		wrong = err
	}
	if wrong == nil {
		_, wrong = unframe(l.journals)
	}
	if wrong == nil {
		return nil
	}
	return fault.New(fault.Config, "task %s: the journal in its manifest is damaged: %w", l.o.Task, wrong).
		WithHint("delete the key %s from the pipeline's bucket in NATS: the task then begins anew, and what it exported is exported again", Key(l.o.Task))
}

// putCopy stores a copy of the scratch file. l.mu is held: it is as of the
// last commit, but for what waits for the next one.
func (l *Ledger) putCopy(ctx context.Context) (Object, error) {
	plain, packed := filepath.Join(l.dir, "copy"), filepath.Join(l.dir, "packed")
	defer os.Remove(plain)
	defer os.Remove(packed)
	if err := l.scratch.Load().CopyTo(ctx, plain); err != nil {
		return Object{}, err
	}
	from, err := os.Open(plain)
	if err != nil {
		return Object{}, target.DiskError(err, "task %s: pack its ledger", l.o.Task)
	}
	defer from.Close()
	to, err := os.OpenFile(packed, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Object{}, target.DiskError(err, "task %s: pack its ledger", l.o.Task)
	}
	defer to.Close()
	o := Object{Key: l.newKey()}
	crc := crc32.New(castagnoli)
	w, err := l.packer.to(io.MultiWriter(to, crc))
	if err == nil {
		_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{from}, make([]byte, 64<<10))
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		o.Octets, err = to.Seek(0, io.SeekCurrent)
	}
	if err != nil {
		return Object{}, target.DiskError(err, "task %s: pack its ledger", l.o.Task)
	}
	o.CRC = crc.Sum32()
	err = l.o.Objects.Put(l.ctx, l.o.Prefix+o.Key, to, o.Octets, objects.PutOptions{})
	return o, l.stored(err)
}

// closeScratch closes and removes the scratch file. l.mu is held.
func (l *Ledger) closeScratch() error {
	s := l.scratch.Load()
	if s == nil {
		return nil
	}
	// It stays where it is: who still asks gets an error, not a new file.
	err := errors.Join(s.Close(), os.RemoveAll(l.dir))
	return target.DiskError(err, "task %s: remove its ledger's file", l.o.Task)
}
