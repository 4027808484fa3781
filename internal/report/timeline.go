package report

import (
	"slices"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
)

// Timeline is how a run went: what came in each of equal spans of time.
type Timeline struct {
	Seconds  float64 `json:"seconds"`  // of a span; the last may be shorter
	Messages []int64 `json:"messages"` // that became durable
	Octets   []int64 `json:"octets"`   // that were fetched
}

// Spans of time: the first length, and how many there are at most. When there
// are more, each two become one, however long a run is.
const (
	firstSpan = 250 * time.Millisecond
	mostSpans = 240
)

// Watch is a run that is being watched for its timeline.
type Watch struct {
	stats *engine.Stats
	done  chan struct{}
	wg    sync.WaitGroup

	mu    sync.Mutex
	track track
}

// track is a timeline under way.
type track struct {
	span             time.Duration
	messages, octets []int64
	m, o             int64 // as last read
	ticks, each      int   // ticks of the clock in the span under way, and in a whole one
}

// StartWatch begins to watch the counters of a run. Stop must be called.
func StartWatch(stats *engine.Stats) *Watch {
	w := &Watch{stats: stats, done: make(chan struct{}), track: track{span: firstSpan, each: 1}}
	w.wg.Go(func() {
		tick := time.NewTicker(firstSpan)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				t := w.stats.Totals()
				w.mu.Lock()
				w.track.tick(t.Settled, t.Octets)
				w.mu.Unlock()
			case <-w.done:
				return
			}
		}
	})
	return w
}

// Timeline returns the timeline so far, without the span under way. Any
// goroutine may ask.
func (w *Watch) Timeline() Timeline {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Timeline{Seconds: w.track.span.Seconds(), Messages: slices.Clone(w.track.messages), Octets: slices.Clone(w.track.octets)}
}

// Stop returns the timeline.
func (w *Watch) Stop() Timeline {
	close(w.done)
	w.wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.stats.Totals()
	w.track.close(t.Settled, t.Octets)
	return Timeline{Seconds: w.track.span.Seconds(), Messages: w.track.messages, Octets: w.track.octets}
}

// tick counts a tick of the clock, at the end of which so much had come.
func (l *track) tick(messages, octets int64) {
	if l.ticks++; l.ticks < l.each {
		return
	}
	l.close(messages, octets)
	if len(l.messages) < mostSpans {
		return
	}
	for i := range l.messages {
		if i%2 == 0 {
			l.messages[i/2], l.octets[i/2] = l.messages[i]+l.messages[i+1], l.octets[i]+l.octets[i+1]
		}
	}
	l.messages, l.octets = l.messages[:mostSpans/2], l.octets[:mostSpans/2]
	l.span, l.each = 2*l.span, 2*l.each
}

// close ends the span under way.
func (l *track) close(messages, octets int64) {
	l.messages, l.octets = append(l.messages, messages-l.m), append(l.octets, octets-l.o)
	l.m, l.o, l.ticks = messages, octets, 0
}
