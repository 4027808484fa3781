package remote

import (
	"context"
	"sync/atomic"
	"time"
)

// watchSteps is into how many steps the patience with a plugin is cut: what it
// owes is looked at once in each, so that a message costs no timer.
const watchSteps = 8

// quick is the most that those calls may take which touch nothing.
const quick = time.Minute

// watch is something that the plugin is to go on with. The host is silent about
// it as long as there is progress, or nothing is owed.
type watch struct {
	what     string
	owed     func() int   // see nothing; called from another goroutine
	progress atomic.Int64 // counts what came

	seen  int64 // progress at the last look
	steps int   // without any
}

// Whose turn it is, and with how much patience.
const (
	nothing = 0 // it is the host's
	once    = 1 // it is the plugin's
	twice   = 2 // it is the plugin's, and it may be waiting for one that hangs
)

// watch begins to watch over something. unwatch ends it.
func (c *Conn) watch(what string, owed func() int) *watch {
	w := &watch{what: what, owed: owed}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches[w] = true
	return w
}

func (c *Conn) unwatch(w *watch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.watches, w)
}

// call watches over a call, until the function that it returns is called.
func (c *Conn) call(what string) (answered func()) {
	w := c.watch(what, func() int { return once })
	return func() { c.unwatch(w) }
}

// quickly is call for one that touches nothing.
func (c *Conn) quickly(what string) (answered func()) {
	if c.o.Silence <= 0 {
		return func() {}
	}
	limit := min(c.o.Silence, quick)
	timer := time.AfterFunc(limit, func() { c.o.Silent(what, limit) })
	return func() { timer.Stop() }
}

// lookOut tells of a plugin that owes something for too long.
func (c *Conn) lookOut(ctx context.Context) {
	defer c.served.Done()
	tick := time.NewTicker(c.o.Silence / watchSteps)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if what := c.overdue(); what != "" {
			c.o.Silent(what, c.o.Silence)
			return
		}
	}
}

// overdue looks once at all that is owed.
func (c *Conn) overdue() (what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.watches {
		n, patience := w.progress.Load(), w.owed()
		if n != w.seen || patience == nothing {
			w.seen, w.steps = n, 0
			continue
		}
		if w.steps++; w.steps > patience*watchSteps {
			what = w.what
		}
	}
	return what
}

// turns watches over a stream in which host and plugin may wait for each other.
type turns struct {
	*watch
	receiving atomic.Bool  // the host waits for what comes next
	body      atomic.Bool  // the plugin is in the middle of a message
	asked     atomic.Bool  // it waits for ids
	pulled    atomic.Int64 // ids that it has and hasn't answered
}

func (c *Conn) turns(what string) *turns {
	t := &turns{}
	t.watch = c.watch(what, func() int {
		switch {
		case !t.receiving.Load():
			return nothing
		case t.body.Load() || !t.asked.Load():
			return once
		case t.pulled.Load() > 0: // more than these it needn't get
			return twice
		}
		return nothing
	})
	return t
}

// wait calls recv, which waits for the plugin.
func (t *turns) wait(recv func() error) error {
	t.receiving.Store(true)
	err := recv()
	t.receiving.Store(false)
	t.progress.Add(1)
	return err
}
