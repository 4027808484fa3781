package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mailhaul/pipeline/internal/cluster/lease"
	"github.com/mailhaul/pipeline/internal/cluster/task"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/source"
)

// idleFor is how long a session without a task keeps its connection, which
// another worker may wait for.
const idleFor = 2 * time.Second

// seat is the right to one connection to an account, and the session that has
// it: slots of the account and of its host, which the whole cluster shares.
type seat struct {
	source string
	share  int
	slots  []*lease.Lease
	opened *source.Opened // nil: no session yet, or it broke
	broken atomic.Bool
	idle   *time.Timer // closes it; nil while a task has it
}

// lost reports whether one of the slots may be another's.
func (s *seat) lost() bool {
	for _, l := range s.slots {
		if l.Lost() {
			return true
		}
	}
	return false
}

// seats are the seats of a worker. A task takes one and gives it back; it
// stays for the next task of the source for a while.
type seats struct {
	keeper *lease.Keeper
	open   func(ctx context.Context, s *plan.Source, share int, isolated bool) (source.Opened, error)

	mu   sync.Mutex
	free map[string][]*seat
}

// slotKey names a slot.
func slotKey(kind, name string) string { return "slot." + kind + "." + digest(name) }

// digest stands for a name in a key: names of hosts and accounts may have signs
// that no key may have.
func digest(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:10])
}

// take returns a seat at the source's account: lease.ErrHeld when all of them
// are taken. ctx is the worker's.
func (p *seats) take(ctx context.Context, s *plan.Source, t *task.Task, perHost int) (*seat, error) {
	for {
		st := p.kept(s.Name)
		if st == nil {
			break
		}
		if !st.lost() {
			return st, nil
		}
		p.end(ctx, st)
	}
	st := &seat{source: s.Name, share: max(1, t.Lanes)}
	slot := func(kind, name string, n int) error {
		l, err := p.keeper.TakeOne(ctx, slotKey(kind, name), n)
		if err == nil {
			st.slots = append(st.slots, l)
		}
		return err
	}
	err := slot("account", s.Name, st.share)
	if err == nil && s.Host != "" && perHost > 0 {
		if err = slot("host", s.Host, perHost); errors.Is(err, lease.ErrHeld) && p.endIdle(ctx) {
			err = slot("host", s.Host, perHost)
		}
	}
	if err != nil {
		p.end(ctx, st)
		return nil, err
	}
	return st, nil
}

func (p *seats) kept(source string) *seat {
	p.mu.Lock()
	defer p.mu.Unlock()
	free := p.free[source]
	if len(free) == 0 {
		return nil
	}
	st := free[len(free)-1]
	p.free[source] = free[:len(free)-1]
	st.idle.Stop()
	st.idle = nil
	return st
}

// endIdle ends a seat that nobody sits on, so that its slot of the host is
// free; false when there is none.
func (p *seats) endIdle(ctx context.Context) bool {
	p.mu.Lock()
	var name string
	for source, free := range p.free {
		if len(free) > 0 {
			name = source
			break
		}
	}
	p.mu.Unlock()
	st := p.kept(name)
	if st == nil {
		return false
	}
	p.end(ctx, st)
	return true
}

// session opens the seat's session, when it has none, for a task.
func (p *seats) session(ctx context.Context, st *seat, s *plan.Source, t *task.Task) (source.Opened, error) {
	if st.opened == nil {
		o, err := p.open(ctx, s, st.share, false)
		if err != nil {
			return o, err
		}
		st.opened = &o
		st.broken.Store(false)
	}
	return narrowed(*st.opened, t, &st.broken, func() error {
		if !st.broken.Load() {
			return nil
		}
		o := st.opened
		st.opened = nil
		return o.Source.Close()
	}), nil
}

// give takes a seat back for the next task of its source.
func (p *seats) give(ctx context.Context, st *seat) {
	if st.opened == nil || st.broken.Load() || ctx.Err() != nil || st.lost() {
		p.end(ctx, st)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	st.idle = time.AfterFunc(idleFor, func() {
		if p.leave(st) {
			p.end(ctx, st)
		}
	})
	p.free[st.source] = append(p.free[st.source], st)
}

// leave takes a seat out of those that are free; false when a task has it.
func (p *seats) leave(st *seat) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	free := p.free[st.source]
	for i, s := range free {
		if s == st {
			p.free[st.source] = append(free[:i:i], free[i+1:]...)
			return true
		}
	}
	return false
}

// end closes a seat's session and gives its slots back.
func (p *seats) end(ctx context.Context, st *seat) {
	if st.opened != nil {
		_ = st.opened.Source.Close() // nothing hangs on it
		st.opened = nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), slotPatience)
	defer cancel()
	for _, l := range st.slots {
		_ = l.Release(ctx) // else it ends by itself
	}
	st.slots = nil
}

// slotPatience is how long is waited until NATS has a slot back.
const slotPatience = 2 * time.Second

// endAll ends all seats that nobody sits on.
func (p *seats) endAll(ctx context.Context) {
	p.mu.Lock()
	var all []*seat
	for _, free := range p.free {
		all = append(all, free...)
	}
	p.mu.Unlock()
	for _, st := range all {
		if p.leave(st) {
			st.idle.Stop()
			p.end(ctx, st)
		}
	}
}

// errSeat says why a task lost its connection.
func errSeat(source string) error {
	return fault.New(fault.Unavailable, "source %s: its connection may be another worker's by now: the slot wasn't confirmed in time", source)
}
