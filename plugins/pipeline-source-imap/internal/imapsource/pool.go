package imapsource

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
)

// maxIdle is how long a connection may rest in the pool: servers hang up
// after 30 minutes (RFC 9051 §5.4), firewalls sooner.
const maxIdle = 4 * time.Minute

// pool keeps open connections. It opens them when they are needed, never more
// than the limit, and lowers the limit when the server refuses one more.
type pool struct {
	settings *imapconn.Settings
	log      *slog.Logger

	mu     sync.Mutex
	cond   *sync.Cond
	limit  int
	open   int // in use, idle or being opened
	idle   []idleConn
	closed bool
}

type idleConn struct {
	*imapconn.Conn
	since time.Time
}

func newPool(limit int, s *imapconn.Settings, log *slog.Logger) *pool {
	p := &pool{settings: s, log: log, limit: limit}
	p.cond = sync.NewCond(&p.mu)
	return p
}

func (p *pool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limit
}

// get returns a connection for the caller alone: best one that has the
// mailbox open already. It waits when all are in use.
func (p *pool) get(ctx context.Context, mailbox string) (*imapconn.Conn, error) {
	stop := context.AfterFunc(ctx, func() { p.mu.Lock(); defer p.mu.Unlock(); p.cond.Broadcast() })
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if p.closed {
			return nil, fault.New(fault.Bug, "the source is closed")
		}
		if c := p.take(mailbox); c != nil {
			return c, nil
		}
		if p.open < p.limit {
			c, err := p.dial(ctx)
			if c != nil || err != nil {
				return c, err
			}
			continue
		}
		p.cond.Wait()
	}
}

// take returns an idle connection, nil when there is none.
func (p *pool) take(mailbox string) *imapconn.Conn {
	kept := p.idle[:0]
	for _, i := range p.idle {
		if i.Broken() || time.Since(i.since) > maxIdle {
			i.Close()
			p.open--
			continue
		}
		kept = append(kept, i)
	}
	p.idle = kept
	if len(p.idle) == 0 {
		return nil
	}
	best := len(p.idle) - 1
	for n, i := range p.idle {
		if i.Selected == mailbox {
			best = n
		}
	}
	c := p.idle[best].Conn
	p.idle = append(p.idle[:best], p.idle[best+1:]...)
	return c
}

// dial opens one more. When the server says that there are too many, and
// there is one already, the limit falls to what there is: nil and no error.
func (p *pool) dial(ctx context.Context) (*imapconn.Conn, error) {
	p.open++
	p.mu.Unlock()
	c, err := imapconn.Open(ctx, p.settings)
	p.mu.Lock()
	if err == nil {
		return c, nil
	}
	p.open--
	p.cond.Broadcast()
	if p.open > 0 && fault.Is(err, fault.Throttled) && ctx.Err() == nil {
		p.log.Warn("the server grants fewer connections than configured", "granted", p.open, "configured", p.limit, "answer", err.Error())
		p.limit = p.open
		return nil, nil
	}
	return nil, err
}

// put gives a connection back. A broken one is closed.
func (p *pool) put(c *imapconn.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.Broken() || p.closed {
		c.Close()
		p.open--
	} else {
		p.idle = append(p.idle, idleConn{c, time.Now()})
	}
	p.cond.Broadcast()
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, i := range p.idle {
		i.Logout()
		p.open--
	}
	p.idle = nil
	p.cond.Broadcast()
}

// maxReconnects is how often a lost connection is tried again in a row.
const maxReconnects = 5

// reach is get for work under way: a server that isn't there for a moment is
// waited for.
func (p *pool) reach(ctx context.Context, mailbox string) (*imapconn.Conn, error) {
	c, err := p.get(ctx, mailbox)
	if err != nil {
		return p.again(ctx, nil, err, new(mailnet.Backoff))
	}
	return c, nil
}

// again replaces a connection that broke: with backoff, and with the wait
// that the server asked for. cause is why it broke. What waiting doesn't help
// is returned at once. slow is the caller's backoff for a server that
// throttles: reset when something was achieved, so that one which lets us in
// and throttles each command isn't asked for ever.
func (p *pool) again(ctx context.Context, c *imapconn.Conn, cause error, slow *mailnet.Backoff) (*imapconn.Conn, error) {
	if c != nil {
		p.put(c)
	}
	var b mailnet.Backoff
	if c != nil && fault.Is(cause, fault.Auth) {
		// A session that was fine ends with its token: log in with another.
		cause = fault.New(fault.Unavailable, "%w", cause)
	}
	for {
		f := fault.As(cause)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case f == nil || f.Class == fault.Unavailable:
			if b.Tries() > 0 || f != nil && f.RetryAfter > 0 {
				if err := wait(ctx, &b, f); err != nil {
					return nil, err
				}
			} else {
				b.Next() // the first try is at once
			}
		case f.Class == fault.Throttled:
			if f.RetryAfter > maxPatience || slow.Tries() >= maxReconnects {
				return nil, cause // the host parks the account
			}
			p.log.Warn("the server asks to slow down", "answer", cause.Error())
			if err := wait(ctx, slow, f); err != nil {
				return nil, err
			}
		default:
			return nil, cause
		}
		next, err := p.get(ctx, "")
		if err == nil {
			return next, nil
		}
		if b.Tries() > maxReconnects {
			return nil, err
		}
		cause = err
	}
}

// maxPatience is the longest wait that the source takes upon itself.
const maxPatience = 2 * time.Minute

func wait(ctx context.Context, b *mailnet.Backoff, f *fault.Error) error {
	d := b.Next()
	if f != nil && f.RetryAfter > d {
		d = f.RetryAfter
	}
	return mailnet.Sleep(ctx, d)
}
