package message

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// memoryLimit is how much of a body is held in memory before it goes to a file.
const memoryLimit = 1 << 20

// Spool is where bodies wait that are too large for memory. The zero value
// and nil use the system's directory for temporary files without a limit. It
// may be shared by any number of goroutines.
type Spool struct {
	Dir    string
	Budget int64 // most octets on disk at once; 0: no limit
	used   atomic.Int64
}

// Whole is a body at rest: an io.ReaderAt with a size.
type Whole struct {
	io.ReaderAt
	size  int64
	file  *os.File
	spool *Spool

	mu     sync.Mutex
	parsed *parsed // nil: nobody has asked yet
}

// parsed is what a Whole was found to be made of.
type parsed struct {
	root     *Entity
	problems []string
	summed   bool
}

// Size returns the exact number of octets.
func (w *Whole) Size() int64 { return w.size }

// Reader returns a new reader from the first octet. Any number may be in use.
func (w *Whole) Reader() *io.SectionReader { return io.NewSectionReader(w.ReaderAt, 0, w.size) }

// Entities is Read of the whole body. What it was found to be made of stays with
// the body: whoever asks next gets the same, and nothing is read again. Don't
// change it. The parts have their SHA256 where Measure came before.
func (w *Whole) Entities() (root *Entity, problems []string, err error) { return w.parse(false) }

// Measure is Entities with what ReadStructure measures: the SHA256 of parts.
// Who will need that asks for it first, or the body is read twice.
func (w *Whole) Measure() (root *Entity, problems []string, err error) { return w.parse(true) }

func (w *Whole) parse(summed bool) (*Entity, []string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.parsed; p != nil && (p.summed || !summed) {
		return p.root, p.problems, nil
	}
	_, root, problems, err := scan(w.Reader(), true, summed)
	root.bind(w.ReaderAt)
	if err == nil {
		w.parsed = &parsed{root, problems, summed}
	}
	return root, problems, err
}

func (w *Whole) release() {
	if w.file != nil {
		w.file.Close()
		w.spool.give(w.size)
	}
}

// File returns a new spool file that has no name: it is gone when closed,
// however the process ends.
func (s *Spool) File() (*os.File, error) {
	dir := ""
	if s != nil {
		dir = s.Dir
	}
	f, err := os.CreateTemp(dir, "mailhaul-spool-*")
	if err != nil {
		return nil, spoolError(err, "create a spool file")
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fault.Wrap(fault.Full, err, "unlink the spool file")
	}
	return f, nil
}

// Take claims n octets of the budget; an exceeded budget is a fault.Full.
func (s *Spool) Take(n int64) error {
	if s == nil {
		return nil
	}
	if used := s.used.Add(n); s.Budget > 0 && used > s.Budget {
		s.used.Add(-n)
		return fault.New(fault.Full, "spool directory %s: %d octets would exceed its budget of %d", s.Dir, used, s.Budget)
	}
	return nil
}

func (s *Spool) give(n int64) {
	if s != nil {
		s.used.Add(-n)
	}
}

// Give returns n octets of the budget.
func (s *Spool) Give(n int64) { s.give(n) }

func (s *Spool) hold(ctx context.Context, r io.Reader) (*Whole, error) {
	var mem bytes.Buffer
	n, err := io.CopyN(&mem, r, memoryLimit)
	if err == io.EOF {
		return &Whole{ReaderAt: bytes.NewReader(mem.Bytes()), size: n}, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := s.File()
	if err != nil {
		return nil, err
	}
	w := &Whole{ReaderAt: f, file: f, spool: s}
	if err := w.fill(ctx, io.MultiReader(&mem, r)); err != nil {
		w.release()
		return nil, err
	}
	return w, nil
}

func (w *Whole) fill(ctx context.Context, r io.Reader) error {
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		// Not io.ReadFull: it would take a body cut short, which ends in
		// io.ErrUnexpectedEOF, for a whole one.
		n, err := r.Read(buf)
		if n > 0 {
			if err := w.spool.Take(int64(n)); err != nil {
				return err
			}
			w.size += int64(n)
			if _, err := w.file.Write(buf[:n]); err != nil {
				return spoolError(err, "write a spool file")
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// SpoolError classes a read or write error of a spool file.
func SpoolError(err error) error { return spoolError(err, "use the spool file") }

// spoolError makes a disk error a Full, whatever its number: nothing but room
// or a working disk helps.
func spoolError(err error, tried string) error {
	f := fault.Wrap(fault.Full, err, "%s", tried)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.As(f).WithHint("make room on the disk, or set TMPDIR to another one")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return fault.As(f).WithHint("make the directory, one that can be written to, or set TMPDIR to another one, and run again: it goes on where it stopped")
	}
	return f
}
