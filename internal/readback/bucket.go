package readback

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/target"
)

// Bucket is a place in a bucket with a manifest of package target, as Target is
// a directory. The rows of the manifest are kept in a file without a name, so
// that looking for one asks no server.
type Bucket struct {
	address string
	store   func() (string, error)
	slots   chan struct{} // bounds the objects that are read at once

	mu   sync.Mutex
	at   *target.Place // nil: not opened yet
	copy *os.File      // the parts that were read, one behind the other
	end  int64         // of it
	read map[target.Part]bool
	places
}

// atOnce is how many objects are read at once: that hides the round trips.
const atOnce = 64

// NewBucket returns the place at an address, which is opened when it is checked
// first. store returns the socket of the store of objects.
func NewBucket(address string, store func() (string, error)) *Bucket {
	return &Bucket{address: address, store: store, slots: make(chan struct{}, atOnce), read: map[target.Part]bool{}, places: newPlaces()}
}

// Close lets go of the place.
func (b *Bucket) Close() {
	if b.at != nil {
		b.at.Close()
	}
	if b.copy != nil {
		b.copy.Close()
	}
}

// Check is that of Target; the second result may also be of class Auth,
// Unavailable or Throttled.
func (b *Bucket) Check(ctx context.Context, receipts []string) ([]error, error) {
	rows, err := b.find(ctx, receipts)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wrong := make([]error, len(receipts))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, list := range rows {
		if len(list) == 0 {
			wrong[i] = fmt.Errorf("the manifest of %s has no row of %s", b.at.Name(), receipts[i])
		}
		for j := range list {
			select {
			case b.slots <- struct{}{}:
			case <-ctx.Done():
				continue
			}
			wg.Go(func() {
				defer func() { <-b.slots }()
				bad, err := b.check(ctx, &list[j])
				if err != nil {
					cancel(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if wrong[i] == nil {
					wrong[i] = bad
				}
			})
		}
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return wrong, nil
}

// check says what of an object isn't what was written. The second result says
// that it couldn't be read, and no other can.
func (b *Bucket) check(ctx context.Context, row *target.Row) (wrong, err error) {
	name := b.at.Name() + "/" + row.Path
	in, size, err := b.at.Content(ctx, row.Path, 0)
	if errors.Is(err, target.ErrMissing) {
		return fmt.Errorf("%s isn't there", name), nil
	}
	if err != nil {
		return nil, err
	}
	defer in.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, in); err != nil {
		return nil, err
	}
	switch {
	case size != row.Size:
		return fmt.Errorf("%s has %d octets, %d were written", name, size, row.Size), nil
	case hex.EncodeToString(sum.Sum(nil)) != row.SHA256:
		return fmt.Errorf("%s has other octets than were written", name), nil
	}
	return nil, nil
}

// find returns the rows of each receipt. Those that aren't known are looked for
// in the parts that came since.
func (b *Bucket) find(ctx context.Context, receipts []string) ([][]target.Row, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	row := func(offset int64) (target.Row, error) {
		return target.RowOf(io.NewSectionReader(b.copy, offset, b.end-offset))
	}
	rows, all := b.of(receipts, row)
	if all {
		return rows, nil
	}
	if err := b.readOn(ctx); err != nil {
		return nil, err
	}
	rows, _ = b.of(receipts, row)
	return rows, nil
}

func (b *Bucket) open(ctx context.Context) error {
	if b.at != nil {
		return nil
	}
	file, err := (&message.Spool{}).File()
	if err != nil {
		return err
	}
	socket, err := b.store()
	if err == nil {
		b.at, err = target.Look(ctx, b.address, false, socket)
	}
	if err != nil {
		file.Close()
		return err
	}
	b.copy = file
	return nil
}

// foldings is how often the list of parts is read again because one of them was
// gone when it was to be read: the sink has put it together with others.
const foldings = 10

// readOn reads the parts that came since. Rows of parts that were put together
// stand twice then, which changes nothing.
func (b *Bucket) readOn(ctx context.Context) error {
	for n := 0; ; n++ {
		parts, err := b.at.ManifestParts(ctx)
		for _, x := range parts {
			if err != nil {
				break
			}
			if !b.read[x] {
				err = b.take(ctx, x)
			}
		}
		if !errors.Is(err, target.ErrMissing) || n == foldings {
			return err
		}
	}
}

// take adds the rows of a part.
func (b *Bucket) take(ctx context.Context, x target.Part) error {
	in, _, err := b.at.Part(ctx, target.ManifestStem, x, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	end := io.NewOffsetWriter(b.copy, b.end)
	for l, err := range target.LinesOf(io.TeeReader(in, end), "read the manifest of "+b.at.Name(), b.end) {
		if err != nil {
			return err
		}
		if l.Err == nil { // whose it was, misses it
			b.add(&l.Row, l.Offset)
		}
	}
	length, err := end.Seek(0, io.SeekCurrent)
	b.end, b.read[x] = b.end+length, true
	return err
}
