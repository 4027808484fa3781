// Package progress shows a run while it goes on: bars on a terminal, a plain
// line now and then elsewhere, JSON for machines; and what happens, in a line
// each.
package progress

import (
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
)

const (
	// every is how often plain output and JSON say where a run is.
	every = 10 * time.Second
	// frame is how often bars are told.
	frame = 100 * time.Millisecond
	// few is how many accounts are told of one by one: with more, retries
	// and the like are counted, since thousands of lines tell nobody anything.
	few = 20
)

// Kind is a way to show a run.
type Kind int

// The ways.
const (
	Lines Kind = iota // a plain line every ten seconds
	Bars              // a bar for each account under way
	JSON              // an object a line (docs/reference/events.md)
	Quiet             // only what is wrong
)

// Options say how a run is shown.
type Options struct {
	Kind     Kind
	Stats    *engine.Stats
	Accounts int              // of the run
	Log      *slog.Logger     // what is for neither a person nor a machine
	Now      func() time.Time // nil: time.Now
	Every    time.Duration    // 0: every
}

// Display shows one run. Event may be called by many goroutines.
type Display struct {
	o    Options
	out  io.Writer
	view view
	done chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex // for the view and what follows
	run   meter
	open  map[string]*meter // accounts under way
	ended int               // accounts that are done or failed
	wait  map[string]bool   // accounts that are tried again later
}

// view is one way to show a run. Its methods are called one at a time.
type view interface {
	event(engine.Event)
	tick()
	close()
}

// New returns a display that writes to out. Close must be called.
func New(out io.Writer, o Options) *Display {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Every == 0 {
		o.Every = every
	}
	d := &Display{o: o, out: out, done: make(chan struct{}), open: map[string]*meter{}, wait: map[string]bool{}}
	interval := o.Every
	switch o.Kind {
	case Bars:
		b := newBars(d, out)
		d.view, d.out = b, b.bars
		interval = frame
	case JSON:
		d.view = &machine{d: d}
	default:
		d.view = &lines{d: d, quiet: o.Kind == Quiet}
	}
	d.wg.Go(func() { d.loop(interval) })
	return d
}

// Write implements io.Writer: lines of others, which appear above the bars.
// Close comes after the last.
func (d *Display) Write(p []byte) (int, error) { return d.out.Write(p) }

// Close draws the last state and ends the display.
func (d *Display) Close() {
	close(d.done)
	d.wg.Wait()
	d.view.close()
}

func (d *Display) loop(interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.tick()
		case <-d.done:
			if d.o.Kind == Bars {
				d.tick()
			}
			return
		}
	}
}

func (d *Display) tick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.o.Now()
	d.run.take(now, total(d.o.Stats))
	for source, m := range d.open {
		m.take(now, read(d.o.Stats.Account(source)))
	}
	d.view.tick()
}

// Event shows what a person wants to know at once.
func (d *Display) Event(e engine.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch e.Kind {
	case engine.AccountOpened:
		delete(d.wait, e.Source)
		if d.open[e.Source] == nil {
			d.open[e.Source] = &meter{}
		}
	case engine.AccountRetried, engine.AccountParked:
		d.wait[e.Source] = true
	case engine.AccountDone, engine.AccountFailed:
		delete(d.wait, e.Source)
		d.ended++
	}
	d.view.event(e)
	if e.Kind == engine.AccountDone || e.Kind == engine.AccountFailed {
		delete(d.open, e.Source)
	}
}

// many reports whether accounts are counted rather than told of one by one.
func (d *Display) many() bool { return d.o.Accounts > few }
