package engine

import (
	"context"

	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// Plugins opens sessions. A session whose process died answers every call
// with a fault.Crashed; opening again starts a new process. isolated asks for
// a process that no other session shares.
type Plugins interface {
	OpenSource(ctx context.Context, s *plan.Source, isolated bool) (source.Opened, error)
	OpenStage(ctx context.Context, s *stages.Stage, isolated bool) (stage.Stage, error)
	OpenSink(ctx context.Context, s *plan.Sink, state sink.State, isolated bool) (SinkSession, error)
}

// SinkSession is a sink with asynchronous lanes: over the wire a call a
// message would cost a round trip each.
type SinkSession interface {
	Lane(ctx context.Context) (Lane, error)
	Flush(ctx context.Context) (sink.Checkpoint, error)
	Committed(ctx context.Context, c sink.Checkpoint) error
	Close() error
}

// sealer is what a session has besides whose plugin may be a sink.Sealer. Seal is
// called only where Seals says so.
type sealer interface {
	Seals() bool
	Seal(ctx context.Context) error
}

// Lane carries messages to a sink, one after another.
type Lane interface {
	// Put hands m over and has read its body to the end when it returns. A
	// nil error means that done will be called once, from another goroutine,
	// with the sink's result. A body that ends in an error is taken back:
	// the sink discards it, and done gets an error.
	Put(ctx context.Context, m *message.Message, done func(sink.Receipt, error)) error
	Close() error
}
