package index

import (
	"context"
	"errors"
	"sync"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
)

// rows are the lines of an index in a bucket as they are written: parts in the
// books of its place, of new lines and of those that replace others.
type rows struct {
	place *target.Place
	lines *encoder

	mu       sync.Mutex // Committed may come while the next epoch is written
	added    *target.Parts
	pending  *target.Parts
	replaced int   // lines in pending
	failed   error // nothing may be promised any more
}

// open goes on with the parts that count at a point.
func (r *rows) open(ctx context.Context, p objectPoint) (err error) {
	if r.added, err = r.place.Parts(ctx, linesStem, p.Lines); err == nil {
		r.pending, err = r.place.Parts(ctx, pendingStem, p.Pending)
	}
	return err
}

// Write adds the message's line.
func (r *rows) Write(ctx context.Context, m *message.Message) (sink.Receipt, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed != nil {
		return sink.Receipt{}, r.failed
	}
	b := r.lines.encode(m)
	to := r.added
	if m.Record != nil && m.Record.Replaces {
		to = r.pending
		r.replaced++
	}
	if err := to.Add(ctx, b); err != nil {
		r.failed = err // lines that waited with this one may be lost
		return sink.Receipt{}, err
	}
	return sink.Receipt{Octets: int64(len(b))}, nil
}

// flush makes the lines durable, and says which parts count then.
func (r *rows) flush(ctx context.Context, p *objectPoint) (err error) {
	if p.Lines, err = r.added.Flush(ctx); err == nil {
		p.Pending, err = r.pending.Flush(ctx)
	}
	return err
}

// forget removes parts that were put together before the point.
func (r *rows) forget(ctx context.Context, p objectPoint) error {
	return errors.Join(r.added.Committed(ctx, p.Lines), r.pending.Committed(ctx, p.Pending))
}
