package progress

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/octets"
)

// window is how far back a rate looks: what a server gave an hour ago says
// nothing of what it gives now.
const window = 30 * time.Second

// count is what counters say at one moment.
type count struct {
	expected, listed, todo, settled, octets int64
}

func read(c *engine.Counters) count {
	return count{c.Expected.Load(), c.Listed.Load(), c.Todo.Load(), c.Settled.Load(), c.Octets.Load()}
}

func (c *count) add(o count) {
	c.expected += o.expected
	c.listed += o.listed
	c.todo += o.todo
	c.settled += o.settled
	c.octets += o.octets
}

// total adds up all accounts.
func total(stats *engine.Stats) count {
	var sum count
	for _, c := range stats.All() {
		sum.add(read(c))
	}
	return sum
}

// left returns how many messages are still to be exported: at least those that
// are taken up, at most those too that the servers count and that aren't listed
// yet, of which some may be done already, or be dropped.
func (c count) left() (least, most int64) {
	least = max(0, c.todo-c.settled)
	return least, least + max(0, c.expected-c.listed)
}

type sample struct {
	at time.Time
	count
}

// meter keeps what counters said lately.
type meter struct {
	samples []sample // the oldest first, window long
	text    atomic.Pointer[string]
}

// publish says what shared will return: bars are drawn by a goroutine that must
// not wait for ours.
func (m *meter) publish() {
	text := octets.Text(m.last().octets)
	for _, more := range []string{m.speed(), m.eta()} {
		if more != "" {
			text += ", " + more
		}
	}
	m.text.Store(&text)
}

// shared returns a function that any goroutine may call.
func (m *meter) shared() func() string {
	return func() string {
		if text := m.text.Load(); text != nil {
			return *text
		}
		return ""
	}
}

func (m *meter) take(now time.Time, c count) {
	m.samples = append(m.samples, sample{now, c})
	for len(m.samples) > 2 && now.Sub(m.samples[1].at) >= window {
		m.samples = m.samples[1:]
	}
}

func (m *meter) last() count {
	if len(m.samples) == 0 {
		return count{}
	}
	return m.samples[len(m.samples)-1].count
}

// rates returns octets and messages a second over the window; ok is false as
// long as it is too short to tell.
func (m *meter) rates() (octets, messages float64, ok bool) {
	if len(m.samples) < 2 {
		return 0, 0, false
	}
	first, last := m.samples[0], m.samples[len(m.samples)-1]
	seconds := last.at.Sub(first.at).Seconds()
	if seconds < 1 {
		return 0, 0, false
	}
	return float64(last.octets-first.octets) / seconds, float64(last.settled-first.settled) / seconds, true
}

// speed is the rate of octets in words, "" when it can't be told.
func (m *meter) speed() string {
	rate, _, ok := m.rates()
	if !ok {
		return ""
	}
	return octets.Text(int64(rate)) + "/s"
}

// eta says how long it will take at the present rate: a range as long as the
// servers haven't listed all, since what isn't listed may be done already. ""
// when nothing is known or nothing is left.
func (m *meter) eta() string {
	_, messages, ok := m.rates()
	least, most := m.last().left()
	if !ok || messages <= 0 || most == 0 {
		return ""
	}
	low, high := seconds(float64(least)/messages), seconds(float64(most)/messages)
	switch {
	case high <= low+low/4:
		return "about " + span(high)
	case low < 10*time.Second:
		return "at most " + span(high)
	}
	return span(low) + " to " + span(high)
}

// seconds bounds what a rate near zero gives.
func seconds(s float64) time.Duration {
	const longest = 99 * 24 * 3600
	return time.Duration(min(s, longest)) * time.Second
}

// span writes a duration in two units at most: no estimate is better than that.
func span(d time.Duration) string {
	switch {
	case d < 100*time.Second:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Round(time.Minute).Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}
