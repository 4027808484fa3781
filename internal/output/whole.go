package output

import (
	"bytes"
	"context"
	"io"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Whole is a file to be read at any offset. Close must be called.
type Whole struct {
	io.ReaderAt
	io.Closer
	Size int64 // octets
}

// heldOctets is up to where a file of a bucket is read into memory; a larger
// one goes to a spool file (I5).
const heldOctets = 1 << 20

// OpenWhole opens a file to be read at any offset.
func OpenWhole(ctx context.Context, f Files, name string) (*Whole, error) {
	in, size, err := f.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	if at, ok := in.(io.ReaderAt); ok {
		return &Whole{at, in, size}, nil
	}
	defer in.Close()
	if size <= heldOctets {
		b, err := io.ReadAll(in)
		return &Whole{bytes.NewReader(b), io.NopCloser(nil), size}, err
	}
	spool, err := (&message.Spool{}).File()
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(spool, in); err != nil {
		spool.Close()
		if fault.As(err) == nil {
			err = message.SpoolError(err)
		}
		return nil, err
	}
	return &Whole{spool, spool, size}, nil
}
