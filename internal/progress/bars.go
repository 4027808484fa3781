package progress

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/mailhaul/pipeline/internal/engine"
)

// mostBars is how many accounts have a bar at once.
const mostBars = 20

// bars draws on a terminal: a bar for each account under way, and one for all
// when there are many.
type bars struct {
	d     *Display
	bars  *mpb.Progress
	shown map[string]*mpb.Bar
	all   *mpb.Bar // nil: the accounts are few
}

func newBars(d *Display, out io.Writer) *bars {
	b := &bars{d: d, shown: map[string]*mpb.Bar{}}
	b.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(48), mpb.WithRefreshRate(150*time.Millisecond), mpb.WithAutoRefresh())
	return b
}

// bar adds one. Its words are made by tick, which alone reads the meters.
func (b *bars) bar(name, unit string, words func() string) *mpb.Bar {
	return b.bars.AddBar(0,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.CountersNoUnit("%d of %d"+unit, decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + words() })))
}

func (b *bars) tick() {
	for source, m := range b.d.open {
		bar := b.shown[source]
		if bar == nil {
			if len(b.shown) >= mostBars {
				continue
			}
			bar = b.bar(source, "", m.shared())
			b.shown[source] = bar
		}
		c := m.last()
		m.publish()
		bar.SetTotal(c.todo, false)
		bar.SetCurrent(c.settled)
	}
	if !b.d.many() {
		return
	}
	if b.all == nil {
		b.all = b.bar("all", " accounts", b.d.run.shared())
		b.all.SetPriority(1 << 20)
	}
	b.d.run.publish()
	b.all.SetTotal(int64(b.d.o.Accounts), false)
	b.all.SetCurrent(int64(b.d.ended))
}

func (b *bars) event(e engine.Event) {
	if e.Kind == engine.AccountDone || e.Kind == engine.AccountFailed {
		if bar := b.shown[e.Source]; bar != nil {
			bar.SetCurrent(read(b.d.o.Stats.Account(e.Source)).settled)
			bar.Abort(b.d.many()) // its place is for another
			if b.d.many() {
				delete(b.shown, e.Source)
			}
		}
	}
	if text := b.d.sentence(e, false); text != "" {
		// The terminal echoes ^C where the cursor stands: without going back
		// to the line's start, a bit of the bar would stay before the text.
		fmt.Fprintf(b.bars, "\r\x1b[K%s\n", text)
	}
}

func (b *bars) close() {
	b.d.mu.Lock()
	for _, bar := range b.shown {
		bar.Abort(false)
	}
	if b.all != nil {
		b.all.Abort(false)
	}
	b.d.mu.Unlock()
	b.bars.Wait()
}
