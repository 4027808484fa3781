package mailnet

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// fakeConn is a connection of a pool under test.
type fakeConn struct {
	n              int
	broken, closed atomic.Bool
}

func (c *fakeConn) Broken() bool { return c.broken.Load() }
func (c *fakeConn) Close() error { c.closed.Store(true); return nil }

func newTestPool(limit int, open func(n int) error) (*Pool[*fakeConn], *atomic.Int64) {
	opened := new(atomic.Int64)
	p := &Pool[*fakeConn]{MaxIdle: time.Minute, Log: slog.New(slog.DiscardHandler), Open: func(context.Context) (*fakeConn, error) {
		n := int(opened.Add(1))
		if open != nil {
			if err := open(n); err != nil {
				return nil, err
			}
		}
		return &fakeConn{n: n}, nil
	}}
	p.Start(limit)
	return p, opened
}

func mustGet(t *testing.T, p *Pool[*fakeConn]) *fakeConn {
	t.Helper()
	c, err := p.Get(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPoolKeepsAndReplaces(t *testing.T) {
	t.Parallel()
	p, opened := newTestPool(2, nil)
	a, b := mustGet(t, p), mustGet(t, p)
	p.Put(a)
	p.Put(b)
	if c, err := p.Get(t.Context(), func(c *fakeConn) bool { return c == a }); err != nil || c != a {
		t.Errorf("the preferred connection isn't given: %v, %v", c, err)
	}
	a.broken.Store(true)
	p.Put(a)
	if !a.closed.Load() {
		t.Error("a broken connection isn't closed")
	}
	if c := mustGet(t, p); c != b {
		t.Errorf("connection %d is given, want the one that rests", c.n)
	}
	mustGet(t, p)
	if opened.Load() != 3 {
		t.Errorf("%d were opened, want 3", opened.Load())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.Get(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more than the limit: %v", err)
	}
}

func TestPoolLowersItsLimit(t *testing.T) {
	t.Parallel()
	p, _ := newTestPool(4, func(n int) error {
		if n > 2 {
			return fault.New(fault.Throttled, "too many connections")
		}
		return nil
	})
	a := mustGet(t, p)
	mustGet(t, p)
	time.AfterFunc(20*time.Millisecond, func() { p.Put(a) })
	if c := mustGet(t, p); c != a || p.Size() != 2 {
		t.Errorf("connection %d, %d at once; want the first back, and 2", c.n, p.Size())
	}
}

func TestPoolAgain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		cause error
		class fault.Class // of what Again returns
	}{
		{"a lost connection", fault.New(fault.Unavailable, "cut"), fault.Unknown},
		{"a token that ended", fault.New(fault.Auth, "expired"), fault.Unknown},
		{"throttled for a moment", fault.New(fault.Throttled, "slow down").After(time.Millisecond), fault.Unknown},
		{"throttled for an hour", fault.New(fault.Throttled, "slow down").After(time.Hour), fault.Throttled},
		{"a wrong config", fault.New(fault.Config, "no"), fault.Config},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, _ := newTestPool(1, nil)
			c := mustGet(t, p)
			c.broken.Store(true)
			next, err := p.Again(t.Context(), c, tt.cause, &Backoff{Min: time.Millisecond})
			if fault.Of(err) != tt.class || (err == nil) != (next != nil && next != c) {
				t.Errorf("%v, %v, want class %s", next, err, tt.class)
			}
		})
	}
}

func TestPoolCloses(t *testing.T) {
	t.Parallel()
	p, _ := newTestPool(3, nil)
	var ended []*fakeConn
	p.End = func(c *fakeConn) { ended = append(ended, c) }
	a, b, c := mustGet(t, p), mustGet(t, p), mustGet(t, p)
	p.Put(a)
	p.Put(b)
	b.broken.Store(true)
	p.Close()
	p.Put(c)
	if !slices.Equal(ended, []*fakeConn{a}) || !b.closed.Load() || !c.closed.Load() {
		t.Errorf("%d were ended well; the broken one is closed: %v, the late one: %v", len(ended), b.closed.Load(), c.closed.Load())
	}
	if _, err := p.Get(t.Context(), nil); !fault.Is(err, fault.Bug) {
		t.Errorf("after the end: %v", err)
	}
}

func TestFeed(t *testing.T) {
	t.Parallel()
	var ids iter.Seq[[]int] = func(yield func([]int) bool) {
		for i := 0; yield([]int{i}); i++ {
			if i == 2 {
				return
			}
		}
	}
	batches, stop := Feed(ids)
	var got []int
	for b := range batches {
		got = append(got, b...)
	}
	stop()
	if !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("got %v", got)
	}
	left := make(chan bool)
	_, stop = Feed[int](func(yield func([]int) bool) { left <- yield([]int{1}) })
	stop()
	if <-left {
		t.Error("the feed goes on after its end")
	}
}
