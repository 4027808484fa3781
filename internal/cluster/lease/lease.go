// Package lease says who may work on something: one owner at a time, in the
// whole cluster, for as long as it gives signs of life.
//
// A lease is a key in a bucket whose keys end after a time, the TTL. It is taken
// by making the key, which fails where there is one, and kept by updating it
// with its last revision, which fails where another one made it anew. Its fence
// is the revision that the making gave: of two owners, one after the other, the
// later has the higher fence.
//
// An owner counts from when it sent the last update that was confirmed, on a
// clock that also runs while the process or the machine sleeps, and gives up a
// third of the TTL before the bucket ends the key: it has stopped before another
// one can begin. What is sent nevertheless, by a process that was stopped in the
// middle of a call, is refused by who compares fences.
package lease

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/cluster"
)

// Errors of leases, to be told with errors.Is.
var (
	ErrHeld = errors.New("another one has the lease")
	ErrLost = errors.New("the lease is lost: it wasn't confirmed in time")
)

// The parts of a TTL.
const (
	updates = 6 // how often the key is updated within a TTL
	margin  = 3 // the last part of the TTL in which nothing is done any more
)

// Keeper takes leases in a bucket. It may be used by many goroutines.
type Keeper struct {
	bucket jetstream.KeyValue
	ttl    time.Duration
	owner  string
}

// NewKeeper returns a keeper of leases in the bucket, whose keys end after ttl.
// owner is told to who looks.
func NewKeeper(bucket jetstream.KeyValue, ttl time.Duration, owner string) *Keeper {
	return &Keeper{bucket: bucket, ttl: ttl, owner: owner}
}

// Value is what stands in the key of a lease.
type Value struct {
	Owner string          `json:"owner"`
	Nonce string          `json:"nonce"`          // tells this lease from others of the owner
	Told  json.RawMessage `json:"told,omitempty"` // see Lease.Tell
}

// Lease is one that was taken. Its methods may be called by many goroutines.
type Lease struct {
	keeper *Keeper
	key    string
	fence  uint64
	nonce  string
	ctx    context.Context
	cancel context.CancelCauseFunc
	ended  chan struct{}

	mu       sync.Mutex
	revision uint64
	deadline time.Duration // on clock
	told     json.RawMessage
	also     func()
}

// Take takes the lease of a key: ErrHeld where it is another's. It is kept
// until Release, or until ctx ends.
func (k *Keeper) Take(ctx context.Context, key string) (*Lease, error) {
	return k.take(ctx, key, func(l *Lease) error { return l.create(ctx) })
}

// take keeps a lease once own has made it this owner's: it says how.
func (k *Keeper) take(ctx context.Context, key string, own func(*Lease) error) (*Lease, error) {
	l := &Lease{keeper: k, key: key, nonce: rand.Text(), ended: make(chan struct{})}
	switch err := own(l); {
	case errors.Is(err, ErrHeld):
		return nil, ErrHeld
	case err != nil:
		return nil, cluster.Wrap(err, "take the lease of %s", key)
	}
	l.revision = l.fence
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	go l.keep()
	return l, nil
}

// create makes the key of a lease: ErrHeld where it is there.
func (l *Lease) create(ctx context.Context) (err error) {
	sent := clock()
	if l.fence, err = l.keeper.bucket.Create(ctx, l.key, l.value()); errors.Is(err, jetstream.ErrKeyExists) {
		return ErrHeld
	}
	l.deadline = l.keeper.deadline(sent)
	return err
}

// TakeInsisting is Take that goes on where NATS doesn't answer, for as long as it
// may take to have a leader again. A lease whose making was done, though its
// answer was lost, is this owner's.
func (k *Keeper) TakeInsisting(ctx context.Context, key string) (*Lease, error) {
	first := clock()
	return k.take(ctx, key, func(l *Lease) error {
		return cluster.Insist(ctx, func(ctx context.Context) error {
			if err := l.create(ctx); !errors.Is(err, ErrHeld) {
				return err
			}
			e, err := k.bucket.Get(ctx, key)
			if errors.Is(err, jetstream.ErrKeyNotFound) {
				return nats.ErrTimeout // it has just ended, or a replica lags
			}
			if err != nil {
				return err
			}
			if v, err := Read(e.Value()); err != nil || v.Nonce != l.nonce {
				return ErrHeld
			}
			l.fence, l.deadline = e.Revision(), k.deadline(first) // any of the tries may have made it
			return nil
		})
	})
}

// TakeOne takes one of the n keys PREFIX.0 to PREFIX.n-1: ErrHeld where each is
// another's.
func (k *Keeper) TakeOne(ctx context.Context, prefix string, n int) (*Lease, error) {
	first := mathrand.IntN(max(n, 1))
	for i := range n {
		l, err := k.Take(ctx, fmt.Sprintf("%s.%d", prefix, (first+i)%n))
		if !errors.Is(err, ErrHeld) {
			return l, err
		}
	}
	return nil, ErrHeld
}

func (k *Keeper) deadline(sent time.Duration) time.Duration { return sent + k.ttl - k.ttl/margin }

// Fence tells this lease from earlier and later ones of its key: later ones
// have a higher one. It is never 0.
func (l *Lease) Fence() uint64 { return l.fence }

// Context ends when the lease does; its cause is ErrLost where it was lost.
func (l *Lease) Context() context.Context { return l.ctx }

// Lost reports whether the lease isn't surely this owner's any more. It looks
// at the clock itself: a process that was stopped needn't have heard yet.
func (l *Lease) Lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return clock() >= l.deadline || l.ctx.Err() != nil
}

// Tell has others told something with the next update.
func (l *Lease) Tell(told json.RawMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = told
}

// Beside calls f with each update that was confirmed. It must not wait long.
func (l *Lease) Beside(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.also = f
}

func (l *Lease) value() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, _ := json.Marshal(Value{l.keeper.owner, l.nonce, l.told}) // what was told is JSON
	return b
}

// keep updates the key until the lease ends.
func (l *Lease) keep() {
	defer close(l.ended)
	every := l.keeper.ttl / updates
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-timer.C:
		}
		if l.Lost() {
			l.cancel(ErrLost)
			return
		}
		confirmed := l.update(every)
		if l.ctx.Err() != nil {
			return
		}
		if !confirmed { // try again soon; the deadline ends it
			timer.Reset(every / 4)
			continue
		}
		l.mu.Lock()
		also := l.also
		l.mu.Unlock()
		if also != nil {
			also()
		}
		timer.Reset(every)
	}
}

// update updates the key once, within the time.
func (l *Lease) update(within time.Duration) (confirmed bool) {
	sent := clock()
	l.mu.Lock()
	left, revision := l.deadline-sent, l.revision
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(l.ctx, min(within, left))
	defer cancel()
	next, err := l.keeper.bucket.Update(ctx, l.key, l.value(), revision)
	if err == nil {
		l.mu.Lock()
		l.revision, l.deadline = next, l.keeper.deadline(sent)
		l.mu.Unlock()
		return true
	}
	// An update whose answer was lost may have been done: then the key is ours
	// under another revision. Else another one has it, or it has ended.
	e, err := l.keeper.bucket.Get(ctx, l.key)
	var v Value
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound) && ctx.Err() == nil:
		l.cancel(ErrLost)
	case err != nil:
	case json.Unmarshal(e.Value(), &v) != nil || v.Nonce != l.nonce:
		l.cancel(ErrLost)
	default:
		l.mu.Lock()
		l.revision = max(l.revision, e.Revision()) // a node that lags may tell an older one
		l.mu.Unlock()
	}
	return false
}

// Release gives the lease back, so that another one needn't wait for its end.
// One that was lost is left alone; one that only the context of Take has ended
// isn't lost.
func (l *Lease) Release(ctx context.Context) error {
	l.cancel(nil)
	<-l.ended
	l.mu.Lock()
	late, revision := clock() >= l.deadline, l.revision
	l.mu.Unlock()
	if late || errors.Is(context.Cause(l.ctx), ErrLost) {
		return nil
	}
	// Of a revision that was never ours nothing is deleted.
	if err := l.keeper.bucket.Delete(ctx, l.key, jetstream.LastRevision(revision)); err != nil {
		return cluster.Wrap(err, "give back the lease of %s", l.key)
	}
	return nil
}

// Read returns what stands in the key of a lease.
func Read(value []byte) (v Value, err error) {
	err = json.Unmarshal(value, &v)
	return v, err
}
