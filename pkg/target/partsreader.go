package target

import (
	"bytes"
	"context"
	"io"
	"strconv"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// Read returns the lines of some parts, one behind the other.
func (l *Parts) Read(ctx context.Context, list []Part) io.ReadCloser {
	return l.place.ReadParts(ctx, l.stem, list)
}

// ReadParts returns the lines of parts of the list of that name, one behind the
// other. Small ones are fetched ahead, so that many of them don't cost a round
// trip each.
func (p *Place) ReadParts(ctx context.Context, stem string, list []Part) io.ReadCloser {
	return readParts(ctx, p.bucket, p.books, stem, list)
}

func readParts(ctx context.Context, b *objects.Bucket, books, stem string, list []Part) io.ReadCloser {
	r := &partsReader{bucket: b, books: books, stem: stem, rest: list}
	r.ctx, r.stop = context.WithCancel(ctx)
	return r
}

// Of parts up to aheadOctets, aheadParts are fetched at once: 4 MiB (I5).
const (
	aheadParts  = 16
	aheadOctets = 256 << 10
)

// partsReader reads parts one behind the other.
type partsReader struct {
	ctx         context.Context
	stop        context.CancelFunc
	bucket      *objects.Bucket
	books, stem string
	rest        []Part
	ahead       []chan fetchedPart // of the first of rest
	body        io.ReadCloser
}

type fetchedPart struct {
	body io.ReadCloser
	err  error
}

// Read implements io.Reader.
func (r *partsReader) Read(p []byte) (int, error) {
	for {
		if r.body == nil {
			if len(r.rest) == 0 {
				return 0, io.EOF
			}
			body, err := r.next()
			if err != nil {
				return 0, err
			}
			r.body = body
		}
		n, err := r.body.Read(p)
		if err != io.EOF {
			return n, err
		}
		err = r.body.Close()
		r.body = nil
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// next opens the first of the rest.
func (r *partsReader) next() (io.ReadCloser, error) {
	for len(r.ahead) < min(aheadParts, len(r.rest)) && r.rest[len(r.ahead)].Octets <= aheadOctets {
		x, c := r.rest[len(r.ahead)], make(chan fetchedPart, 1)
		r.ahead = append(r.ahead, c)
		go func() {
			body, err := r.fetch(x)
			c <- fetchedPart{body, err}
		}()
	}
	x := r.rest[0]
	r.rest = r.rest[1:]
	if len(r.ahead) == 0 { // a large one
		return r.open(x)
	}
	f := <-r.ahead[0]
	r.ahead = r.ahead[1:]
	return f.body, f.err
}

// fetch returns a part that is in memory.
func (r *partsReader) fetch(x Part) (io.ReadCloser, error) {
	body, err := r.open(x)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read %s", r.books+PartName(r.stem, x))
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (r *partsReader) open(x Part) (io.ReadCloser, error) {
	body, octets, err := r.bucket.Content(r.ctx, r.books+PartName(r.stem, x), 0)
	if err != nil {
		return nil, err
	}
	if octets != x.Octets {
		body.Close()
		return nil, fault.New(fault.Config, "%s in %s has %s octets, the ledger committed %d: the target isn't as it was left",
			r.books+PartName(r.stem, x), r.bucket.Location().Target, strconv.FormatInt(octets, 10), x.Octets).
			WithHint("put the target back as it was, or write everything anew with --rewrite").WithKey("path")
	}
	return body, nil
}

// Close implements io.Closer.
func (r *partsReader) Close() error {
	r.stop()
	for _, c := range r.ahead {
		<-c // it is in memory, or failed
	}
	r.ahead, r.rest = nil, nil
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return err
}
