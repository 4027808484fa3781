package target

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
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
	// Task and Fence are of the owner who made it, where a target has several.
	Task  string `json:"task,omitempty"`
	Fence uint64 `json:"fence,omitempty"`
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
	at := stem + "-"
	if !p.fence.zero() {
		if len(list) == 0 {
			return l, nil // what earlier owners left is for Sweep
		}
		at = p.fence.parts()
	}
	for o, err := range p.bucket.List(ctx, p.books+at, false) {
		if err != nil {
			return nil, err
		}
		size, counts := sizes[strings.TrimPrefix(o.Key, p.books)]
		switch {
		case !counts && p.fence.zero():
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
	if x.Task != "" {
		return fmt.Sprintf("%s%06d-%s.%s.jsonl", Fence{x.Task, x.Fence}.own(), x.Number, x.Of, stem)
	}
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
	x := Part{Number: l.next, Octets: int64(len(l.buf)), Of: l.of, Task: l.place.fence.Task, Fence: l.place.fence.Number}
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
	x := Part{Number: l.next, Octets: octets, Of: l.of, Task: l.place.fence.Task, Fence: l.place.fence.Number}
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
	out := bufio.NewWriterSize(f, 256<<10)
	if err := write(out); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return message.SpoolError(err)
	}
	info, err := f.Stat()
	if err != nil {
		return DiskError(err, "look at a spool file")
	}
	return p.bucket.Put(ctx, key, f, info.Size(), objects.PutOptions{ContentType: contentType(key)})
}
