package mailnet

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Pooled is an open, authenticated connection as a Pool keeps it. Its type
// is comparable: a pointer.
type Pooled interface {
	comparable
	Broken() bool // nothing more can be asked on it
	Close() error // at once, without a word
}

// MaxReconnects is how often in a row a lost connection is tried again, and
// how often in a row a server may ask to slow down.
const MaxReconnects = 5

// MaxPatience is the longest wait for a server that a source takes upon
// itself. What takes longer is the host's to decide: it parks the account.
const MaxPatience = 2 * time.Minute

// Pool keeps the open connections of one account. It opens them when they are
// needed, never more than its limit, and lowers the limit when the server
// refuses one more. Its fields don't change after the first call; it is safe
// for concurrent use.
type Pool[C Pooled] struct {
	// Open opens one more connection.
	Open func(context.Context) (C, error)
	// TooMany reports whether an error of Open says that the server grants
	// no more connections than there are. nil: a fault.Throttled does.
	TooMany func(error) bool
	// End says goodbye to a connection when the pool is closed. nil: Close.
	End func(C)
	// MaxIdle is how long a connection may rest before it is taken for dead.
	MaxIdle time.Duration
	Log     *slog.Logger

	mu     sync.Mutex
	cond   *sync.Cond
	limit  int
	open   int // in use, idle or being opened
	idle   []idle[C]
	closed bool
}

type idle[C Pooled] struct {
	conn  C
	since time.Time
}

// Start sets the most connections at once. It is called once, before all else.
func (p *Pool[C]) Start(limit int) {
	p.limit = limit
	p.cond = sync.NewCond(&p.mu)
}

// Size returns how many connections there may be at once, as far as is known.
func (p *Pool[C]) Size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limit
}

// Limit lowers the most connections at once.
func (p *Pool[C]) Limit(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = max(1, min(p.limit, n))
}

// Add puts a connection into the pool that was opened beside it.
func (p *Pool[C]) Add(c C) {
	p.mu.Lock()
	p.open++
	p.mu.Unlock()
	p.Put(c)
}

// Get returns a connection for the caller alone: of the idle ones one that
// prefer likes, when there is such. It waits when all are in use. The error is
// Open's, or the context's cause.
func (p *Pool[C]) Get(ctx context.Context, prefer func(C) bool) (c C, err error) {
	stop := context.AfterFunc(ctx, func() { p.mu.Lock(); defer p.mu.Unlock(); p.cond.Broadcast() })
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if ctx.Err() != nil {
			return c, context.Cause(ctx)
		}
		if p.closed {
			return c, fault.New(fault.Bug, "the source is closed")
		}
		if c, ok := p.take(prefer); ok {
			return c, nil
		}
		if p.open < p.limit {
			c, ok, err := p.dial(ctx)
			if ok || err != nil {
				return c, err
			}
			continue
		}
		p.cond.Wait()
	}
}

// take returns an idle connection, if there is one.
func (p *Pool[C]) take(prefer func(C) bool) (c C, ok bool) {
	kept := p.idle[:0]
	for _, i := range p.idle {
		if i.conn.Broken() || time.Since(i.since) > p.MaxIdle {
			_ = i.conn.Close()
			p.open--
			continue
		}
		kept = append(kept, i)
	}
	p.idle = kept
	if len(p.idle) == 0 {
		return c, false
	}
	best := len(p.idle) - 1
	for n, i := range p.idle {
		if prefer != nil && prefer(i.conn) {
			best = n
		}
	}
	c = p.idle[best].conn
	p.idle = append(p.idle[:best], p.idle[best+1:]...)
	return c, true
}

// dial opens one more. When the server says that there are too many, and
// there is one already, the limit falls to what there is: false and no error.
func (p *Pool[C]) dial(ctx context.Context) (c C, ok bool, err error) {
	p.open++
	p.mu.Unlock()
	c, err = p.Open(ctx)
	p.mu.Lock()
	if err == nil {
		return c, true, nil
	}
	p.open--
	p.cond.Broadcast()
	tooMany := p.TooMany
	if tooMany == nil {
		tooMany = func(err error) bool { return fault.Is(err, fault.Throttled) }
	}
	if p.open > 0 && tooMany(err) && ctx.Err() == nil {
		p.Log.Warn("the server grants fewer connections than configured", "granted", p.open, "configured", p.limit, "answer", err.Error())
		p.limit = p.open
		return c, false, nil
	}
	return c, false, err
}

// Put gives a connection back. A broken one is closed.
func (p *Pool[C]) Put(c C) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.Broken() || p.closed {
		_ = c.Close()
		p.open--
	} else {
		p.idle = append(p.idle, idle[C]{c, time.Now()})
	}
	p.cond.Broadcast()
}

// Close ends the connections that rest. Those in use end when they are put back.
func (p *Pool[C]) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, i := range p.idle {
		if p.End != nil && !i.conn.Broken() {
			p.End(i.conn)
		} else {
			_ = i.conn.Close()
		}
		p.open--
	}
	p.idle = nil
	p.cond.Broadcast()
}

// Reach is Get for work under way: a server that isn't there for a moment is
// waited for.
func (p *Pool[C]) Reach(ctx context.Context, prefer func(C) bool) (C, error) {
	c, err := p.Get(ctx, prefer)
	if err == nil {
		return c, nil
	}
	return p.retry(ctx, err, false, prefer, new(Backoff))
}

// Again replaces a connection that broke: with backoff, and with the wait
// that the server asked for. cause is why it broke. What waiting doesn't help
// is returned at once. slow is the caller's backoff for a server that
// throttles: reset when something was achieved, so that one which lets us in
// and throttles each command isn't asked for ever.
func (p *Pool[C]) Again(ctx context.Context, c C, cause error, slow *Backoff) (C, error) {
	p.Put(c)
	return p.retry(ctx, cause, true, nil, slow)
}

func (p *Pool[C]) retry(ctx context.Context, cause error, had bool, prefer func(C) bool, slow *Backoff) (none C, err error) {
	var b Backoff
	if had && fault.Is(cause, fault.Auth) {
		// A session that was fine ends with its token: log in with another.
		cause = fault.New(fault.Unavailable, "%w", cause)
	}
	for {
		f := fault.As(cause)
		switch {
		case ctx.Err() != nil:
			return none, context.Cause(ctx)
		case f == nil || f.Class == fault.Unavailable:
			if b.Tries() > 0 || f != nil && f.RetryAfter > 0 {
				if err := waitFor(ctx, &b, f); err != nil {
					return none, err
				}
			} else {
				b.Next() // the first try is at once
			}
		case f.Class == fault.Throttled:
			if f.RetryAfter > MaxPatience || slow.Tries() >= MaxReconnects {
				return none, cause
			}
			p.Log.Warn("the server asks to slow down", "answer", cause.Error())
			if err := waitFor(ctx, slow, f); err != nil {
				return none, err
			}
		default:
			return none, cause
		}
		next, err := p.Get(ctx, prefer)
		if err == nil {
			return next, nil
		}
		if b.Tries() > MaxReconnects {
			return none, err
		}
		cause = err
	}
}

// waitFor sleeps for the next wait, or for as long as the server said.
func waitFor(ctx context.Context, b *Backoff, f *fault.Error) error {
	d := b.Next()
	if f != nil && f.RetryAfter > d {
		d = f.RetryAfter
	}
	return Sleep(ctx, d)
}
