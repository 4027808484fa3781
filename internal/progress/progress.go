// Package progress shows a run while it goes on: bars on a terminal, a plain
// line now and then elsewhere, and what happens in a line each.
package progress

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/mailhaul/pipeline/internal/engine"
)

// every is how often plain output says where a run is.
const every = 10 * time.Second

// mostBars is how many accounts have a bar at once.
const mostBars = 20

// Display shows one run. Event may be called by many goroutines.
type Display struct {
	out   io.Writer
	log   *slog.Logger
	stats *engine.Stats
	bars  *mpb.Progress // nil: plain lines
	done  chan struct{}
	wg    sync.WaitGroup

	mu    sync.Mutex
	shown map[string]*mpb.Bar
	open  map[string]bool // accounts under way
	began time.Time
}

// New returns a display that writes to out. Bars are drawn when terminal is
// true. Close must be called.
func New(out io.Writer, terminal bool, stats *engine.Stats, log *slog.Logger) *Display {
	d := &Display{out: out, log: log, stats: stats, done: make(chan struct{}), shown: map[string]*mpb.Bar{}, open: map[string]bool{}, began: time.Now()}
	if terminal {
		d.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(60), mpb.WithRefreshRate(150*time.Millisecond))
		d.out = d.bars
	}
	d.wg.Go(d.loop)
	return d
}

// Write implements io.Writer: lines of others, which appear above the bars.
// Close comes after the last.
func (d *Display) Write(p []byte) (int, error) { return d.out.Write(p) }

// Close draws the last state and ends the display.
func (d *Display) Close() {
	close(d.done)
	d.wg.Wait()
	if d.bars == nil {
		return
	}
	d.mu.Lock()
	for _, b := range d.shown {
		b.Abort(false)
	}
	d.mu.Unlock()
	d.bars.Wait()
}

func (d *Display) loop() {
	interval := every
	if d.bars != nil {
		interval = 100 * time.Millisecond
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.tick()
		case <-d.done:
			if d.bars != nil {
				d.tick()
			}
			return
		}
	}
}

func (d *Display) tick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for source := range d.open {
		c := d.stats.Account(source)
		if d.bars != nil {
			d.draw(source, c)
			continue
		}
		fmt.Fprintf(d.out, "%s: %d of %d messages, %s, %s\n", source, c.Settled.Load(), c.Todo.Load(), size(c.Octets.Load()), rate(c.Octets.Load(), time.Since(d.began)))
	}
}

func (d *Display) draw(source string, c *engine.Counters) {
	bar := d.shown[source]
	if bar == nil {
		if len(d.shown) >= mostBars {
			return
		}
		bar = d.bars.AddBar(0,
			mpb.PrependDecorators(decor.Name(source, decor.WCSyncSpaceR), decor.CountersNoUnit("%d of %d")),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
				return " " + size(c.Octets.Load()) + ", " + rate(c.Octets.Load(), time.Since(d.began))
			})))
		d.shown[source] = bar
	}
	bar.SetTotal(c.Todo.Load(), false)
	bar.SetCurrent(c.Settled.Load())
}

// Event shows what a person wants to know at once.
func (d *Display) Event(e engine.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch e.Kind {
	case engine.AccountOpened:
		d.open[e.Source] = true
	case engine.AccountDone, engine.AccountFailed:
		delete(d.open, e.Source)
		if bar := d.shown[e.Source]; bar != nil {
			c := d.stats.Account(e.Source)
			bar.SetCurrent(c.Settled.Load())
			bar.Abort(false)
		}
	case engine.AccountNote:
		d.say("note: %s: %s", e.Source, e.Text)
	case engine.AccountRetried:
		d.say("again in %s: %s: %v", e.Wait.Round(time.Millisecond), e.Source, e.Err)
	case engine.AccountParked:
		d.say("parked for %s: %s: %v", e.Wait.Round(time.Second), e.Source, e.Err)
	case engine.SourceDied:
		d.say("warning: the process of source %s died with %d messages in hand; they are tried one by one at the end", e.Source, e.Count)
	case engine.SinkDied:
		d.say("warning: the process of sink %s died, what it hadn't flushed is written again: %v", e.Sink, e.Err)
	case engine.SinkFailed:
		d.log.Debug("sink failed", "sink", e.Sink, "err", e.Err)
	case engine.DeadLetter:
		d.say("dead letter: %s: %s", e.Message, e.Text)
	case engine.Stopping:
		if e.Err == nil {
			d.say("stopping: what is in flight is finished and committed; once more stops at once")
		}
	}
}

func (d *Display) say(format string, args ...any) {
	if d.bars != nil {
		// The terminal echoes ^C where the cursor stands: without going back
		// to the line's start, a bit of the bar would stay before the text.
		format = "\r\x1b[K" + format
	}
	fmt.Fprintf(d.out, format+"\n", args...)
}

// size writes octets for people, in thousands.
func size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

func rate(n int64, t time.Duration) string {
	if t <= 0 {
		return ""
	}
	return size(int64(float64(n)/t.Seconds())) + "/s"
}
