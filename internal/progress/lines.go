package progress

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/octets"
)

// mostLines is how many accounts a plain report has a line for.
const mostLines = 5

// lines is plain text: for a log file, or a pipe.
type lines struct {
	d     *Display
	quiet bool
}

func (l *lines) say(format string, args ...any) { fmt.Fprintf(l.d.out, format+"\n", args...) }

func (l *lines) close() {}

func (l *lines) tick() {
	if l.quiet {
		return
	}
	if len(l.d.open) <= mostLines && !l.d.many() {
		for _, source := range slices.Sorted(maps.Keys(l.d.open)) {
			l.say("%s: %s", source, l.d.open[source].words())
		}
		return
	}
	l.say("%s; %s", l.d.accounts(), l.d.run.words())
}

// words says where an account, or all of them, is.
func (m *meter) words() string {
	c := m.last()
	parts := []string{fmt.Sprintf("%d of %d messages", c.settled, c.todo), octets.Text(c.octets)}
	if c.expected > c.listed {
		parts[0] += fmt.Sprintf(" (%d of %d listed)", c.listed, c.expected)
	}
	for _, more := range []string{m.speed(), m.eta()} {
		if more != "" {
			parts = append(parts, more)
		}
	}
	return strings.Join(parts, ", ")
}

// accounts says how many there are in each state. d.mu is held.
func (d *Display) accounts() string {
	out := fmt.Sprintf("%d of %d accounts ended, %d at work", d.ended, d.o.Accounts, len(d.open))
	if n := len(d.wait); n > 0 {
		out += fmt.Sprintf(", %d wait to be tried again", n)
	}
	return out
}

func (l *lines) event(e engine.Event) {
	if text := l.d.sentence(e, l.quiet); text != "" {
		l.say("%s", text)
	}
}

// sentence says in words what a person wants to know at once, "" for what they
// don't. d.mu is held.
func (d *Display) sentence(e engine.Event, quiet bool) string {
	switch e.Kind {
	case engine.SourceDied:
		return fmt.Sprintf("warning: the process of source %s died with %d messages in hand; they are tried one by one at the end", e.Source, e.Count)
	case engine.SinkDied:
		return fmt.Sprintf("warning: the process of sink %s died, what it hadn't flushed is written again: %v", e.Sink, e.Err)
	case engine.StageDied:
		return fmt.Sprintf("warning: the process of stage %s died, what it had in hand is tried again alone: %v", e.Stage, e.Err)
	case engine.DeadLetter:
		return fmt.Sprintf("dead letter: %s: %s", e.Message, e.Text)
	case engine.SinkFailed:
		d.o.Log.Debug("sink failed", "sink", e.Sink, "err", e.Err)
	case engine.Stopping:
		if e.Err == nil {
			return "stopping: what is in flight is finished and committed; once more stops at once"
		}
	}
	if quiet {
		return ""
	}
	switch e.Kind {
	case engine.AccountNote:
		return fmt.Sprintf("note: %s: %s", e.Source, e.Text)
	case engine.StageNote:
		return "note: " + e.Text
	case engine.AccountParked:
		return fmt.Sprintf("parked for %s: %s: %v", e.Wait.Round(time.Second), e.Source, e.Err)
	case engine.AccountRetried:
		if !d.many() {
			return fmt.Sprintf("again in %s: %s: %v", e.Wait.Round(time.Millisecond), e.Source, e.Err)
		}
	}
	return ""
}
