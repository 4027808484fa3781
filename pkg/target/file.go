package target

import (
	"context"
	"hash"
	"io"
	"os"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// Files is a target of files, a directory (Dir) or a place in a bucket
// (Objects): files that appear whole or not at all, and a manifest of them.
// Create, Put and the files are safe for concurrent use; Close, and Flush without
// a Seal, are called when no file is open.
type Files interface {
	// Create begins a file.
	Create() (*File, error)
	// CreateFor begins a file that gets all octets of a body as they come, and
	// no others: where the host has told their sum, they aren't hashed again.
	CreateFor(b *message.Body) (*File, error)
	// Put stores a message's octets as they come under path, relative to the
	// target with "/" between levels, and returns how many there were.
	Put(m *message.Message, path string) (int64, error)
	// Flush makes everything that was placed durable, with the manifest, and
	// returns the checkpoint that covers it; see Seal.
	Flush(ctx context.Context) ([]byte, error)
	// Committed is told the checkpoint that the ledger has committed: what only
	// older ones needed goes. It may never be called.
	Committed(ctx context.Context, checkpoint []byte) error
	// Close lets go of the target without making anything durable.
	Close() error
}

// Seal marks the end of an epoch in a target, as sink.Sealer says: the Flush that
// comes next is of what was placed before, whatever is placed meanwhile. No file is
// open. It is a function and no method, so that a sink whose struct embeds a target
// seals because its author wrote so, with whatever else the sink keeps.
func Seal(ctx context.Context, f Files) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return f.(interface{ seal() error }).seal()
}

// Open claims the target at a path, which is a directory or the address of a
// place in a bucket (s3://bucket/prefix), and rolls its manifest back to the
// checkpoint that was committed last; nil: none was.
func Open(ctx context.Context, path string, o Owner, checkpoint []byte) (Files, error) {
	if objects.IsAddress(path) {
		t, err := OpenObjects(ctx, path, o, checkpoint)
		if err != nil {
			return nil, err
		}
		return t, nil
	}
	d, err := OpenDir(ctx, path, o, checkpoint)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// shelf is where a File lies until it has its name.
type shelf interface {
	append(f *File, p []byte) error
	discard(f *File)
	place(f *File, id message.ID, part, name string, modified time.Time) error
}

// File is a file that isn't there yet. Either Place or Discard ends it; it
// must not be used after. One goroutine uses it at a time.
type File struct {
	in   shelf
	size int64
	sum  hash.Hash
	body *message.Body // whose sum is taken, not computed; nil: none
	buf  []byte        // of ReadFrom

	h handle // in a directory

	held  []byte   // for a bucket: what was written so far,
	spool *os.File // or where it is, when it is much
}

// Write appends octets.
func (f *File) Write(p []byte) (int, error) {
	if err := f.in.append(f, p); err != nil {
		return 0, err
	}
	if f.body == nil {
		f.sum.Write(p)
	}
	f.size += int64(len(p))
	return len(p), nil
}

// copySize is the size of the pieces in which ReadFrom copies.
const copySize = 128 << 10

// ReadFrom appends what r gives, to its end.
func (f *File) ReadFrom(r io.Reader) (n int64, err error) {
	if f.buf == nil {
		f.buf = make([]byte, copySize)
	}
	for {
		got, err := r.Read(f.buf)
		if got > 0 {
			if _, err := f.Write(f.buf[:got]); err != nil {
				return n, err
			}
			n += int64(got)
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// Size returns the octets written so far.
func (f *File) Size() int64 { return f.size }

// Discard takes the file away.
func (f *File) Discard() { f.in.discard(f) }

// Place gives the file its name, relative to the target with "/" between
// levels, in place of what may be there, and enters it in the manifest. modified is
// its time of change, left alone when zero. After an error the file is
// discarded.
func (f *File) Place(id message.ID, name string, modified time.Time) error {
	return f.PlacePart(id, "", name, modified)
}

// PlacePart is Place for one of several files that a sink makes of a message:
// part tells them apart in the manifest.
func (f *File) PlacePart(id message.ID, part, name string, modified time.Time) error {
	return f.in.place(f, id, part, name, modified)
}

// put stores a message's octets: CreateFor, Place and Discard in one.
func put(t Files, m *message.Message, path string) (int64, error) {
	f, err := t.CreateFor(m.Body)
	if err != nil {
		return 0, err
	}
	if _, err := m.Body.WriteTo(f); err != nil {
		f.Discard()
		return 0, err
	}
	n := f.Size()
	return n, f.Place(m.ID, path, m.InternalDate)
}
