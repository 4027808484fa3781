package lease_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/cluster/lease"
	"github.com/mailhaul/pipeline/test/natsserver"
)

// ttl is long enough for a loaded machine to update in time.
const ttl = 3 * time.Second

func bucket(t *testing.T, s *natsserver.Server) jetstream.KeyValue {
	t.Helper()
	kv, err := s.Connect(t).CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "leases", TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

// take waits until the lease is to be had.
func take(ctx context.Context, t *testing.T, k *lease.Keeper, key string) *lease.Lease {
	t.Helper()
	for {
		l, err := k.Take(ctx, key)
		if err == nil {
			return l
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		if !errors.Is(err, lease.ErrHeld) {
			t.Fatal(err)
		}
	}
}

func TestOneOwnerAtATime(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t)
	kv := bucket(t, s)
	var owners atomic.Int32
	var wg sync.WaitGroup
	var mu sync.Mutex
	var fences []uint64
	for range 4 {
		wg.Go(func() {
			k := lease.NewKeeper(kv, ttl, "someone")
			for range 5 {
				l := take(t.Context(), t, k, "a")
				if n := owners.Add(1); n != 1 {
					t.Errorf("%d own it at once", n)
				}
				mu.Lock()
				if n := len(fences); n > 0 && fences[n-1] >= l.Fence() {
					t.Errorf("fence %d after %d", l.Fence(), fences[n-1])
				}
				fences = append(fences, l.Fence())
				mu.Unlock()
				owners.Add(-1)
				if err := l.Release(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(fences) != 20 {
		t.Errorf("it was taken %d times, want 20", len(fences))
	}
}

// Slots are as many leases as there are, and one given back can be had again.
func TestTakeOneOfSeveral(t *testing.T) {
	t.Parallel()
	kv := bucket(t, natsserver.Start(t))
	k := lease.NewKeeper(kv, ttl, "a")
	var taken []*lease.Lease
	for range 3 {
		l, err := k.TakeOne(t.Context(), "slot.x", 3)
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, l)
	}
	if _, err := k.TakeOne(t.Context(), "slot.x", 3); !errors.Is(err, lease.ErrHeld) {
		t.Fatalf("a fourth of three: %v", err)
	}
	if err := taken[1].Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := k.TakeOne(t.Context(), "slot.x", 3); err != nil {
		t.Fatal(err)
	}
}

// A lease lives on past its TTL while its owner does, and is told to who looks.
func TestLeaseIsKept(t *testing.T) {
	t.Parallel()
	kv := bucket(t, natsserver.Start(t))
	l := take(t.Context(), t, lease.NewKeeper(kv, ttl, "me"), "a")
	updated := make(chan struct{}, 64)
	l.Beside(func() { updated <- struct{}{} })
	l.Tell([]byte(`{"n":1}`))
	for range 7 { // the updates of more than one TTL
		select {
		case <-updated:
		case <-l.Context().Done():
			t.Fatalf("it was lost: %v", context.Cause(l.Context()))
		}
	}
	e, err := kv.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	v, err := lease.Read(e.Value())
	if err != nil || v.Owner != "me" || string(v.Told) != `{"n":1}` {
		t.Errorf("the key has %+v, %v", v, err)
	}
	if _, err := lease.NewKeeper(kv, ttl, "you").Take(t.Context(), "a"); !errors.Is(err, lease.ErrHeld) {
		t.Errorf("another one takes it: %v", err)
	}
}

// An owner that can't reach the server gives up before another one can begin.
func TestLeaseIsLostInTime(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t)
	kv := bucket(t, s)
	l := take(t.Context(), t, lease.NewKeeper(kv, ttl, "a"), "a")
	s.Nodes[0].Pause(t)
	<-l.Context().Done()
	if !errors.Is(context.Cause(l.Context()), lease.ErrLost) || !l.Lost() {
		t.Errorf("it ended with %v", context.Cause(l.Context()))
	}
	s.Nodes[0].Resume(t)
	next := take(t.Context(), t, lease.NewKeeper(kv, ttl, "b"), "a")
	if next.Fence() <= l.Fence() {
		t.Errorf("fence %d after %d", next.Fence(), l.Fence())
	}
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if next.Lost() {
		t.Error("who lost the lease took it from its next owner")
	}
	if _, err := kv.Get(t.Context(), "a"); err != nil {
		t.Errorf("the next owner's key is gone: %v", err)
	}
}

// An owner that was broken off gives its lease back all the same: the next one
// needn't wait for its end.
func TestReleaseAfterTheContextEnded(t *testing.T) {
	t.Parallel()
	kv, err := natsserver.Start(t).Connect(t).CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "leases", TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l := take(ctx, t, lease.NewKeeper(kv, time.Hour, "a"), "a")
	cancel()
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := lease.NewKeeper(kv, time.Hour, "b").Take(t.Context(), "a"); err != nil {
		t.Errorf("the next owner: %v", err)
	}
}

// lossy loses what a test says, of the calls that make a key.
type lossy struct {
	jetstream.KeyValue
	lose func() (before, after bool)
}

func (k *lossy) Create(ctx context.Context, key string, value []byte, options ...jetstream.KVCreateOpt) (uint64, error) {
	before, after := k.lose()
	if before {
		return 0, nats.ErrTimeout
	}
	n, err := k.KeyValue.Create(ctx, key, value, options...)
	if after && err == nil {
		return 0, nats.ErrTimeout
	}
	return n, err
}

// A lease is taken though NATS doesn't answer at first, also where the answer
// alone was lost; another one's is told as held.
func TestTakeInsisting(t *testing.T) {
	t.Parallel()
	kv := bucket(t, natsserver.Start(t))
	for name, lost := range map[string]func(call int) (before, after bool){
		"calls":   func(call int) (bool, bool) { return call <= 2, false },
		"answers": func(call int) (bool, bool) { return false, call == 1 },
	} {
		calls := 0
		k := lease.NewKeeper(&lossy{kv, func() (bool, bool) { calls++; return lost(calls) }}, ttl, "one")
		l, err := k.TakeInsisting(t.Context(), name)
		if err != nil {
			t.Fatalf("%s that are lost: %v", name, err)
		}
		if _, err := k.Take(t.Context(), name); !errors.Is(err, lease.ErrHeld) && !l.Lost() {
			t.Errorf("%s that are lost: taken a second time: %v", name, err)
		}
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
	held := take(t.Context(), t, lease.NewKeeper(kv, ttl, "one"), "held")
	if _, err := lease.NewKeeper(kv, ttl, "two").TakeInsisting(t.Context(), "held"); !errors.Is(err, lease.ErrHeld) && !held.Lost() {
		t.Errorf("one that another one has: %v", err)
	}
}
