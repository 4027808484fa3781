package index

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/target"
)

// maxReplaced is how many replacing lines wait at most before they are merged:
// their places are held in memory, some 60 octets each.
const maxReplaced = 1 << 17

// swap says, durably and before it happens, that the index at one point
// becomes the next generation. It stays until the next swap: whoever opens the
// index at From knows that it is at To.
type swap struct {
	From point `json:"from"`
	To   point `json:"to"`
}

func (x *index) book(format string, args ...any) string {
	return filepath.Join(x.claim.Books, fmt.Sprintf(format, args...))
}

func (x *index) swapPath() string                    { return x.book("swap.json") }
func (x *index) nextPath(generation int64) string    { return x.book("next-%d.jsonl", generation) }
func (x *index) pendingPath(generation int64) string { return x.book("pending-%d.jsonl", generation) }

// begin starts with an empty index. Lines without a commit aren't trusted; but
// those of an index that was adopted are another ledger's, which may have been
// lost, or another's altogether: they are set aside unless everything is written
// anew.
func (x *index) begin(rewrite bool) error {
	if err := x.clean(0); err != nil {
		return err
	}
	old, err := occupant(x.path)
	if err == nil && old != "" && x.claim.Adopted && !rewrite {
		err = x.setAside()
	}
	if err != nil {
		return target.DiskError(err, "set the old index %s aside", x.path)
	}
	if err := os.Remove(x.swapPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return target.DiskError(err, "begin the index %s", x.path)
	}
	return x.open(point{Generation: 1})
}

func (x *index) setAside() error {
	f, err := os.Open(x.path)
	if err != nil {
		return err
	}
	defer f.Close()
	return target.SetAside(x.book("orphaned.jsonl"), f)
}

// rollTo brings the index to a committed point: forward when its next
// generation was announced, back when lines stand behind it.
func (x *index) rollTo(p point) error {
	at := p
	s, err := x.readSwap()
	if err != nil {
		return err
	}
	switch {
	case s == nil:
	case s.From == p:
		// Renamed already, or to be renamed now.
		if err := x.install(s.To.Generation); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		at = s.To
	case s.To.Generation > p.Generation:
		return fault.New(fault.Config, "the index %s is of generation %d, the ledger knows %d: the ledger is older", x.path, s.To.Generation, p.Generation).
			WithHint("put the ledger back that belongs to it, or write everything anew with --rewrite").WithKey("path")
	}
	if err := x.clean(at.Generation); err != nil {
		return err
	}
	if err := x.open(at); err != nil {
		return err
	}
	if at.Pending > 0 {
		return x.merge()
	}
	return nil
}

// clean removes files of generations other than the one that is kept.
func (x *index) clean(keep int64) error {
	entries, err := os.ReadDir(x.claim.Books)
	if err != nil {
		return target.DiskError(err, "clean %s", x.claim.Books)
	}
	for _, e := range entries {
		path := filepath.Join(x.claim.Books, e.Name())
		if strings.HasPrefix(e.Name(), "next-") || strings.HasPrefix(e.Name(), "pending-") && path != x.pendingPath(keep) {
			if err := os.Remove(path); err != nil {
				return target.DiskError(err, "clean %s", x.claim.Books)
			}
		}
	}
	return nil
}

func (x *index) readSwap() (*swap, error) {
	b, err := os.ReadFile(x.swapPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, target.DiskError(err, "read %s", x.swapPath())
	}
	s := &swap{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fault.New(fault.Config, "%s can't be read: %w", x.swapPath(), err).
			WithHint("write everything anew with --rewrite")
	}
	return s, nil
}

// open opens both files at a point.
func (x *index) open(p point) error {
	var err error
	if x.file, err = openLog(x.path, p.Length); err != nil {
		return err
	}
	if x.pending, err = openLog(x.pendingPath(p.Generation), p.Pending); err != nil {
		return err
	}
	// The names must be there when a checkpoint says so.
	for _, dir := range []string{filepath.Dir(x.path), x.claim.Books} {
		if err := target.SyncDir(dir); err != nil {
			return target.DiskError(err, "make the directory %s durable", dir)
		}
	}
	x.generation, x.committed = p.Generation, p
	return nil
}

// merge writes the next generation from what is committed, announces it, and
// puts it in place. Lines that were written since the commit go on behind it.
func (x *index) merge() error {
	if err := errors.Join(x.claim.Check(), x.file.write(), x.pending.write()); err != nil {
		return err
	}
	from := x.committed
	to := point{Generation: from.Generation + 1}
	next, err := os.OpenFile(x.nextPath(to.Generation), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return target.DiskError(err, "make the next generation of the index %s", x.path)
	}
	to.Length, err = x.stage(next, from)
	if err == nil {
		err = next.Sync()
	}
	if cerr := next.Close(); err == nil {
		err = cerr
	}
	var tail *log
	if err == nil {
		tail, err = x.pendingTail(to.Generation, from.Pending)
	}
	if err != nil {
		_ = os.Remove(next.Name()) // Open cleans it otherwise
		return target.DiskError(err, "write the next generation of the index %s", x.path)
	}
	b, err := json.Marshal(swap{From: from, To: to})
	if err == nil {
		err = target.WriteFile(x.swapPath(), append(b, '\n'))
	}
	if err == nil {
		err = x.install(to.Generation)
	}
	if err != nil {
		tail.file.Close()
		return target.DiskError(err, "put the next generation of the index %s in place", x.path)
	}
	uncommitted := x.file.length - from.Length
	file, err := os.OpenFile(x.path, os.O_RDWR, 0)
	if err != nil {
		tail.file.Close()
		return target.DiskError(err, "open the index %s", x.path)
	}
	err = errors.Join(x.file.file.Close(), x.pending.file.Close(), os.Remove(x.pending.file.Name()))
	x.file = &log{file: file, length: to.Length + uncommitted, buf: x.file.buf, dirty: uncommitted > 0}
	x.pending, x.replaced = tail, 0
	x.generation, x.committed = to.Generation, to
	return target.DiskError(err, "end the last generation of the index %s", x.path)
}

// install gives the staged generation the index's name.
func (x *index) install(generation int64) error {
	if err := os.Rename(x.nextPath(generation), x.path); err != nil {
		return target.DiskError(err, "put the next generation of the index %s in place", x.path)
	}
	return target.DiskError(target.SyncDir(filepath.Dir(x.path)), "make the index %s durable", x.path)
}

// pendingTail starts the next generation's file of replacing lines with those
// that aren't committed yet.
func (x *index) pendingTail(generation, from int64) (*log, error) {
	l, err := openLog(x.pendingPath(generation), 0)
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(l.file, io.NewSectionReader(x.pending.file, from, x.pending.length-from))
	if err != nil {
		l.file.Close()
		return nil, target.DiskError(err, "write %s", l.file.Name())
	}
	l.length, l.dirty = n, n > 0
	return l, nil
}

// place is where the newest replacing line of an id stands.
type place struct {
	offset int64
	length int
	used   bool
}

// stage writes the index up to a point with its replacements in their places,
// those without a place behind, and then the lines that aren't committed. It
// returns the length without the last.
func (x *index) stage(next io.Writer, p point) (int64, error) {
	w := bufio.NewWriterSize(next, spill)
	length, err := replace(w, io.NewSectionReader(x.file.file, 0, p.Length), x.pending.file, p.Pending, x.replaced)
	if err != nil {
		return 0, err
	}
	if _, err := io.Copy(w, io.NewSectionReader(x.file.file, p.Length, x.file.length-p.Length)); err != nil {
		return 0, err
	}
	return length, w.Flush()
}

// replace writes the lines of an index with the lines that replace some of
// them, the first n octets of pending, in their places; those without a place
// stand behind. about is how many replace. It returns how many octets it wrote.
func replace(w io.Writer, lines io.Reader, pending io.ReaderAt, n int64, about int) (int64, error) {
	places := make(map[[16]byte]*place, about)
	err := eachLine(io.NewSectionReader(pending, 0, n), func(l []byte, offset int64) error {
		places[digest(l)] = &place{offset: offset, length: len(l)}
		return nil
	})
	if err != nil {
		return 0, err
	}
	length := int64(0)
	put := func(l []byte) error {
		length += int64(len(l))
		_, err := w.Write(l)
		return err
	}
	var newer []byte
	err = eachLine(lines, func(l []byte, _ int64) error {
		at := places[digest(l)]
		if at == nil {
			return put(l)
		}
		if at.used { // a line that stands twice
			return nil
		}
		at.used = true
		newer = append(newer[:0], make([]byte, at.length)...)
		if _, err := pending.ReadAt(newer, at.offset); err != nil {
			return err
		}
		return put(newer)
	})
	if err != nil {
		return 0, err
	}
	return length, eachLine(io.NewSectionReader(pending, 0, n), func(l []byte, offset int64) error {
		if at := places[digest(l)]; at.used || at.offset != offset {
			return nil
		}
		return put(l)
	})
}

// digest returns what stands for the line's id in memory. A line that isn't
// ours stands for itself.
func digest(l []byte) [16]byte {
	key := lineKey(l)
	if key == nil {
		key = l
	}
	sum := sha256.Sum256(key)
	return [16]byte(sum[:16])
}

// eachLine calls f for the lines, with their line ends and offsets. A line is
// valid until f returns.
func eachLine(r io.Reader, f func(l []byte, offset int64) error) error {
	in := bufio.NewReaderSize(r, 256<<10)
	var long []byte
	for offset := int64(0); ; {
		l, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long[:0], l...)
			for errors.Is(err, bufio.ErrBufferFull) {
				l, err = in.ReadSlice('\n')
				long = append(long, l...)
			}
			l = long
		}
		if err == io.EOF && len(bytes.TrimSpace(l)) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(l, offset); err != nil {
			return err
		}
		offset += int64(len(l))
	}
}
