package engine_test

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// TestASlowSinkGetsAllLanes: a single connection brings the mail, and a sink
// that takes long over each message, as to convert it, works on several lanes
// all the same.
func TestASlowSinkGetsAllLanes(t *testing.T) {
	t.Parallel()
	s := newServer(300, "INBOX")
	s.lanes = 1
	r := newRig(t, s)
	c := &converter{several: make(chan struct{})}
	defer c.lanes.Wait()
	r.opens = map[string]func(sink.State) (engine.SinkSession, error){
		"files": func(sink.State) (engine.SinkSession, error) { return c, nil },
	}
	r.sinks = []plan.Sink{{Name: "files", Plugin: "slow", Prepared: sink.Prepared{Target: "/files", Lanes: 4, Needs: message.NeedBody}}}
	alone := time.AfterFunc(time.Minute, func() {
		t.Error("only one lane was used")
		c.begin(2)
	})
	defer alone.Stop()
	r.wantExit(r.run(), engine.ExitDone)
}

// converter is a sink whose lanes take in all that comes and work it off one
// after the other. None gets anywhere before two are at work.
type converter struct {
	lanes   sync.WaitGroup
	mu      sync.Mutex
	working int
	several chan struct{} // closed when two are
}

func (c *converter) begin(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.working < 2 && c.working+n >= 2 {
		close(c.several)
	}
	c.working += n
}

func (c *converter) Flush(context.Context) (sink.Checkpoint, error)   { return sink.Checkpoint("x"), nil }
func (c *converter) Committed(context.Context, sink.Checkpoint) error { return nil }
func (c *converter) Close() error                                     { return nil }

func (c *converter) Lane(context.Context) (engine.Lane, error) {
	l := &convertingLane{c: c, queue: make(chan func(sink.Receipt, error), 300)}
	c.lanes.Go(l.work)
	return l, nil
}

type convertingLane struct {
	c     *converter
	queue chan func(sink.Receipt, error)
}

func (l *convertingLane) Put(_ context.Context, m *message.Message, done func(sink.Receipt, error)) error {
	_, err := io.Copy(io.Discard, m.Body)
	if err == nil {
		l.queue <- done
	}
	return err
}

func (l *convertingLane) work() {
	begun := false
	for done := range l.queue {
		if !begun {
			begun = true
			l.c.begin(1)
			<-l.c.several
		}
		done(sink.Receipt{Path: "x"}, nil)
	}
}

func (l *convertingLane) Close() error {
	close(l.queue)
	return nil
}
