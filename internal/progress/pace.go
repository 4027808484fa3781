package progress

import (
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
)

// Pace reads where a run is and how fast it goes, for who shows it in a way of
// their own. One goroutine at a time may use it.
type Pace struct {
	stats *engine.Stats
	run   meter
}

// NewPace returns a pace that reads the counters of a run.
func NewPace(stats *engine.Stats) *Pace { return &Pace{stats: stats} }

// Read takes a sample, and returns where the run is and how many messages a
// second become final. How many accounts there are is the caller's to say. The
// rates are those of the last half minute, as far as samples were taken.
func (p *Pace) Read(now time.Time) (Progress, float64) {
	p.run.take(now, total(p.stats))
	c := p.run.last()
	octets, messages, _ := p.run.rates()
	return Progress{
		Expected: c.expected, Listed: c.listed, Todo: c.todo, Settled: c.settled, Octets: c.octets, Rate: octets, ETA: p.run.eta(),
	}, messages
}
