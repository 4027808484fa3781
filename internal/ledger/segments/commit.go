package segments

import (
	"bytes"
	"context"
	"errors"

	"github.com/mailhaul/pipeline/internal/faultpoint"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
)

const (
	// tailOctets is how much of the journal the manifest itself holds: what a
	// mailbox of a hundred messages leaves needs no object, nor does each
	// second of a slow one.
	tailOctets = 16 << 10
	// manySegments make a snapshot; fewSegments are left to a task that is done.
	manySegments = 64
	fewSegments  = 8
)

// write runs a writing call on the scratch ledger.
func (l *Ledger) write(ctx context.Context, later bool, f func(*ledger.Ledger) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, err := l.open(ctx)
	if err == nil {
		err = l.usable()
	}
	if err != nil {
		return err
	}
	commits, head, changed := l.manifest.Commits, l.head, l.changed
	l.later = later
	err = f(s)
	l.later = false
	switch {
	case err == nil:
	case l.manifest.Commits == commits:
		l.head, l.changed = head, changed // as the scratch file
	case l.broken == nil:
		l.broken = err // the scratch file lacks what counts
	}
	if err == nil && len(l.manifest.Segments) >= manySegments {
		err = l.snapshot(ctx, l.next())
	}
	return err
}

// durable is ledger.Scratch's: it commits what a transaction does.
func (l *Ledger) durable(ctx context.Context, c ledger.Change) error {
	if err := l.usable(); err != nil {
		return err
	}
	l.head, l.changed = c.Head, true // write takes it back where this fails
	if l.later && len(c.Journal) == 0 {
		return nil
	}
	next := l.next()
	if len(c.Journal) == 0 {
		return l.commit(next)
	}
	next.Tries = 1
	journals := frame(bytes.Clone(l.journals), c.Journal)
	packed, err := l.packer.compress(journals)
	if err != nil {
		return fault.Wrap(fault.Bug, err, "task %s: pack its journal", l.o.Task)
	}
	if len(journals) <= tailOctets {
		next.Tail = &Tail{packed, sum(packed)}
	} else {
		o, err := l.put(packed)
		if err != nil {
			return err
		}
		next.Tail, journals = nil, nil
		next.Segments = append(next.Segments, o)
	}
	if err := l.commit(next); err != nil {
		return err
	}
	l.journals = journals
	return nil
}

// put stores an object of this fence.
func (l *Ledger) put(b []byte) (Object, error) {
	o := Object{Key: l.newKey(), Octets: int64(len(b)), CRC: sum(b)}
	// An object of that name is one that no manifest names: of a commit that
	// failed, or of a worker that died before it.
	err := l.o.Objects.Put(l.ctx, l.o.Prefix+o.Key, bytes.NewReader(b), o.Octets, objects.PutOptions{})
	return o, l.stored(err)
}

func (l *Ledger) newKey() string {
	l.objects++
	return objectKey(l.o.Task, l.o.Fence, l.objects)
}

// stored tells an error of the object store.
func (l *Ledger) stored(err error) error {
	if err == nil {
		faultpoint.Hit("segments.stored")
		return nil
	}
	if l.ctx.Err() != nil {
		return l.ended()
	}
	return fault.Wrap(fault.Unavailable, err, "task %s: store its ledger", l.o.Task)
}

// commit makes next the manifest. When that fails, nobody here knows for sure
// what counts, and nothing more is written.
func (l *Ledger) commit(next *Manifest) error {
	t := l.tries()
	mine, err := l.replace(next, &t)
	if err == nil && !mine {
		err = fault.New(fault.Bug, "task %s: an owner with a lower fence than %d has written its manifest", l.o.Task, l.o.Fence)
	}
	if err != nil {
		l.broken = err
		return err
	}
	l.manifest, l.changed = next, false
	return nil
}

// commitHead commits what only the Head has.
func (l *Ledger) commitHead() error {
	if err := l.usable(); err != nil {
		return err
	}
	if !l.changed {
		return nil
	}
	return l.commit(l.next())
}

// snapshot commits next with a copy of the scratch file in the place of the
// journal so far, which is then deleted.
func (l *Ledger) snapshot(ctx context.Context, next *Manifest) error {
	o, err := l.putCopy(ctx)
	if err != nil {
		return err
	}
	old := l.manifest.objects()
	next.Snapshot, next.Segments, next.Tail = &o, nil, nil
	if err := l.commit(next); err != nil {
		return err
	}
	l.journals = nil
	for _, o := range old {
		// What stays is found by Sweep.
		if err := l.o.Objects.Delete(l.ctx, l.o.Prefix+o.Key); err != nil && !errors.Is(err, objects.ErrMissing) {
			break
		}
	}
	return nil
}
