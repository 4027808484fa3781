package index

import (
	"os"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/target"
)

// log is a file of lines that is appended to through a buffer.
type log struct {
	file   *os.File
	length int64 // with what is in buf
	buf    []byte
	dirty  bool // since the last sync
}

// spill is how many octets of lines wait in memory.
const spill = 1 << 20

// openLog opens a file of lines at a length, and cuts off what stands behind.
func openLog(path string, length int64) (*log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, target.DiskError(err, "open %s", path)
	}
	l := &log{file: f, length: length}
	if err := l.cut(); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// cut brings the file to its length, which must be the end of a line.
func (l *log) cut() error {
	info, err := l.file.Stat()
	if err != nil {
		return target.DiskError(err, "look at %s", l.file.Name())
	}
	end := []byte{'\n'}
	if l.length > 0 && info.Size() >= l.length {
		if _, err := l.file.ReadAt(end, l.length-1); err != nil {
			return target.DiskError(err, "read %s", l.file.Name())
		}
	}
	if info.Size() < l.length || end[0] != '\n' {
		return fault.New(fault.Config, "%s isn't as it was left: the ledger committed lines up to octet %d, it has %d", l.file.Name(), l.length, info.Size()).
			WithHint("put it back as it was, or write everything anew with --rewrite").WithKey("path")
	}
	if info.Size() == l.length {
		return nil
	}
	return target.DiskError(l.file.Truncate(l.length), "roll %s back", l.file.Name())
}

// add appends a line.
func (l *log) add(b []byte) error {
	l.buf = append(l.buf, b...)
	l.length += int64(len(b))
	l.dirty = true
	if len(l.buf) < spill {
		return nil
	}
	return l.write()
}

// write brings what is in memory into the file.
func (l *log) write() error {
	if len(l.buf) == 0 {
		return nil
	}
	if _, err := l.file.WriteAt(l.buf, l.length-int64(len(l.buf))); err != nil {
		return target.DiskError(err, "write %s", l.file.Name())
	}
	l.buf = l.buf[:0]
	return nil
}

// sync makes the lines durable, when there are new ones.
func (l *log) sync() error {
	if !l.dirty {
		return nil
	}
	if err := l.write(); err != nil {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return target.DiskError(err, "make %s durable", l.file.Name())
	}
	l.dirty = false
	return nil
}
