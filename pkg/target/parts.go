package target

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// Parts is a growing list of lines in a bucket, where no object can be
// appended to: numbered objects in the books of a place, each with some lines,
// read one behind the other. Which of them count stands in the checkpoint:
// what a crash left behind doesn't. When they are many, small ones are put
// together, so that their number grows with the logarithm of the lines (I5).
// One goroutine uses it at a time.
type Parts struct {
	place *Place
	stem  string
	list  []Part
	next  int64
	of    string
	buf   []byte
	gone  []Part // not in the list any more, and perhaps in the checkpoint that the ledger has
}

// Part is one object of a list.
type Part struct {
	Number int64 `json:"n"`
	Octets int64 `json:"octets"`
	// Of is of the session that made it, and of no other's parts: what a run
	// that was killed had on its way may arrive late, and must replace nothing
	// that counts.
	Of string `json:"of,omitempty"`
}

// mostParts is how many parts there are before some are put together.
const mostParts = 32

// partOctets is how many octets of lines wait in memory for Flush.
const partOctets = 4 << 20

// Parts opens the list of that name as it was at a checkpoint, and removes the
// parts that don't count. An error is a fault.Config where parts that count
// aren't there.
func (p *Place) Parts(ctx context.Context, stem string, list []Part) (*Parts, error) {
	l := &Parts{place: p, stem: stem, list: slices.Clone(list), next: 1, of: strings.ToLower(rand.Text()[:10])}
	sizes := map[string]int64{}
	for _, x := range list {
		sizes[l.name(x)] = x.Octets
		l.next = max(l.next, x.Number+1)
	}
	var dead []string
	for o, err := range p.bucket.List(ctx, p.books+stem+"-", false) {
		if err != nil {
			return nil, err
		}
		size, counts := sizes[strings.TrimPrefix(o.Key, p.books)]
		switch {
		case !counts:
			dead = append(dead, o.Key)
		case size == o.Size:
			delete(sizes, strings.TrimPrefix(o.Key, p.books))
		}
	}
	for name, octets := range sizes {
		// A listing may lag behind what was written: the object itself decides.
		i, err := p.bucket.Stat(ctx, p.books+name)
		if err != nil && !errors.Is(err, ErrMissing) {
			return nil, err
		}
		if err == nil && i.Size == octets {
			continue
		}
		return nil, fault.New(fault.Config, "%s in the target %s isn't there with the %d octets that the ledger committed: the target isn't as it was left", name, p.name, octets).
			WithHint("put the target back as it was, or write everything anew with --rewrite").WithKey("path")
	}
	for _, key := range dead {
		if err := p.bucket.Delete(ctx, key); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *Parts) name(x Part) string { return PartName(l.stem, x) }

// PartName returns the name of a part in the books.
func PartName(stem string, x Part) string {
	if x.Of == "" {
		return fmt.Sprintf("%s-%06d.jsonl", stem, x.Number)
	}
	return fmt.Sprintf("%s-%06d-%s.jsonl", stem, x.Number, x.Of)
}

// Add appends a line, which ends in a newline.
func (l *Parts) Add(ctx context.Context, line []byte) error {
	l.buf = append(l.buf, line...)
	if len(l.buf) < partOctets {
		return nil
	}
	return l.upload(ctx)
}

// upload makes a part of the lines in memory.
func (l *Parts) upload(ctx context.Context) error {
	if len(l.buf) == 0 {
		return nil
	}
	x := Part{Number: l.next, Octets: int64(len(l.buf)), Of: l.of}
	if err := l.place.Write(ctx, l.name(x), l.buf, false); err != nil {
		return err
	}
	l.next++
	l.list = append(l.list, x)
	l.buf = l.buf[:0]
	return nil
}

// Flush makes all lines durable, and returns the parts that have them, for the
// checkpoint.
func (l *Parts) Flush(ctx context.Context) ([]Part, error) {
	if err := l.upload(ctx); err != nil {
		return nil, err
	}
	if len(l.list) >= mostParts {
		if err := l.fold(ctx); err != nil {
			return nil, err
		}
	}
	return slices.Clone(l.list), nil
}

// fold puts the last parts together into one: as many as have at least the
// octets of the part before them.
func (l *Parts) fold(ctx context.Context) error {
	from, octets := len(l.list)-1, l.list[len(l.list)-1].Octets
	for from > 0 && (len(l.list)-from < mostParts/2 || l.list[from-1].Octets <= octets) {
		from--
		octets += l.list[from].Octets
	}
	old := slices.Clone(l.list[from:])
	x := Part{Number: l.next, Octets: octets, Of: l.of}
	err := l.place.copyTo(ctx, l.place.books+l.name(x), octets, func(w io.Writer) error {
		r := l.Read(ctx, old)
		defer r.Close()
		_, err := io.Copy(w, r)
		return err
	})
	if err != nil {
		return err
	}
	l.next++
	l.list = append(l.list[:from], x)
	l.gone = append(l.gone, old...)
	return nil
}

// Committed removes the parts that no checkpoint needs any more: list is what
// the ledger has.
func (l *Parts) Committed(ctx context.Context, list []Part) error {
	kept := l.gone[:0]
	for _, x := range l.gone {
		if slices.Contains(list, x) {
			kept = append(kept, x)
			continue
		}
		if err := l.place.bucket.Delete(ctx, l.place.books+l.name(x)); err != nil {
			return err
		}
	}
	l.gone = kept
	return nil
}

// Drop forgets the first parts of the list, whose lines are elsewhere by now,
// and removes them.
func (l *Parts) Drop(ctx context.Context, first []Part) error {
	for _, x := range first {
		l.list = slices.DeleteFunc(l.list, func(y Part) bool { return y == x })
		if err := l.place.bucket.Delete(ctx, l.place.books+l.name(x)); err != nil {
			return err
		}
	}
	return nil
}

// List returns the parts that are there now, without what is in memory.
func (l *Parts) List() []Part { return slices.Clone(l.list) }

// Read returns the lines of some parts, one behind the other.
func (l *Parts) Read(ctx context.Context, list []Part) io.ReadCloser {
	return readParts(ctx, l.place.bucket, l.place.books, l.stem, list)
}

func readParts(ctx context.Context, b *objects.Bucket, books, stem string, list []Part) io.ReadCloser {
	return &partsReader{ctx: ctx, bucket: b, books: books, stem: stem, rest: list}
}

// partsReader reads parts one behind the other.
type partsReader struct {
	ctx         context.Context
	bucket      *objects.Bucket
	books, stem string
	rest        []Part
	body        io.ReadCloser
}

// Read implements io.Reader.
func (r *partsReader) Read(p []byte) (int, error) {
	for {
		if r.body == nil {
			if len(r.rest) == 0 {
				return 0, io.EOF
			}
			x := r.rest[0]
			body, i, err := r.bucket.Open(r.ctx, r.books+PartName(r.stem, x), 0)
			if err != nil {
				return 0, err
			}
			if i.Size != x.Octets {
				body.Close()
				return 0, fault.New(fault.Config, "%s in %s has %s octets, the ledger committed %d: the target isn't as it was left",
					r.books+PartName(r.stem, x), r.bucket.Location().Target, strconv.FormatInt(i.Size, 10), x.Octets).
					WithHint("put the target back as it was, or write everything anew with --rewrite").WithKey("path")
			}
			r.body, r.rest = body, r.rest[1:]
		}
		n, err := r.body.Read(p)
		if err != io.EOF {
			return n, err
		}
		err = r.Close()
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Close implements io.Closer.
func (r *partsReader) Close() error {
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return err
}

// copyTo puts an object that is made of a stream: in memory when it is small,
// else by way of a file without a name, so that it can be sent again.
func (p *Place) copyTo(ctx context.Context, key string, octets int64, write func(io.Writer) error) error {
	if octets <= partOctets {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return err
		}
		return p.bucket.Put(ctx, key, bytes.NewReader(b.Bytes()), int64(b.Len()), objects.PutOptions{ContentType: contentType(key)})
	}
	f, err := p.spool.File()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return DiskError(err, "look at a spool file")
	}
	return p.bucket.Put(ctx, key, f, info.Size(), objects.PutOptions{ContentType: contentType(key)})
}
