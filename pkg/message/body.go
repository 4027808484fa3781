package message

import (
	"bytes"
	"context"
	"io"
)

// Body is the octets of a message, exactly as the server has them (I4). It is
// read once, by one goroutine, and is valid until the call that it was handed
// to returns. A read error other than io.EOF means that the message didn't
// come whole: whoever was writing it discards what it wrote and returns the
// error.
type Body struct {
	r     io.Reader
	size  int64
	spool *Spool
	mem   []byte
	whole *Whole
	sum   func() []byte
}

// NewBody returns a body that reads from r. size is the exact number of
// octets, -1 when it isn't known before the end. spool is where Whole puts
// what is too large for memory; nil means the system's directory for
// temporary files.
func NewBody(r io.Reader, size int64, spool *Spool) *Body {
	return &Body{r: r, size: size, spool: spool}
}

// BodyOf returns a body that is already in memory. It keeps b.
func BodyOf(b []byte) *Body {
	return &Body{r: bytes.NewReader(b), size: int64(len(b)), mem: b}
}

// Read reads the next octets.
func (b *Body) Read(p []byte) (int, error) { return b.r.Read(p) }

// WriteTo writes what is left to w, with no copy when the body is in memory.
func (b *Body) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, b.r) }

// WithSHA256 gives the body the sum of its octets, and returns it. sum is
// called when all of them were read, at any time where they are in memory; it
// returns 32 octets, which nobody changes. The host does this for sinks, which
// then needn't hash what they store as it came (I4).
func (b *Body) WithSHA256(sum func() []byte) *Body {
	b.sum = sum
	return b
}

// Summed reports whether SHA256 will tell the sum: it may be asked before the
// body is read.
func (b *Body) Summed() bool { return b.sum != nil }

// SHA256 returns the sum of all octets as the host computed it, when they have
// been read to their end without an error; nil when the body isn't Summed.
// Don't change it.
func (b *Body) SHA256() []byte {
	if b.sum == nil {
		return nil
	}
	return b.sum()
}

// Size returns the exact number of octets, or -1 when it isn't known yet.
func (b *Body) Size() int64 { return b.size }

// Bytes returns all octets when they are in memory already. They belong to
// the body: don't change them, don't keep them past the call.
func (b *Body) Bytes() ([]byte, bool) { return b.mem, b.mem != nil }

// Whole reads the body to its end and returns it for random access: in memory
// below 1 MiB, else in an unlinked spool file. It may be called before
// anything was read, any number of times; the Whole lives as long as the body.
// A spool disk that is full is a fault.Full.
func (b *Body) Whole(ctx context.Context) (*Whole, error) {
	if b.whole != nil {
		return b.whole, nil
	}
	if b.mem != nil {
		b.whole = &Whole{ReaderAt: bytes.NewReader(b.mem), size: b.size}
		return b.whole, nil
	}
	w, err := b.spool.hold(ctx, b.r)
	if err != nil {
		return nil, err
	}
	b.whole, b.r, b.size = w, w.Reader(), w.size
	return w, nil
}

// Release gives back what Whole took. The owner of the body calls it; a sink
// or stage never does.
func (b *Body) Release() {
	if b != nil && b.whole != nil {
		b.whole.release()
		b.whole = nil
	}
}
