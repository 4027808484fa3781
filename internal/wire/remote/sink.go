package remote

import (
	"context"
	"slices"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// Sink is a session of a sink plugin.
type Sink struct {
	session
	committer bool
}

// OpenSink opens a session of a sink. Name, Log and Spool of state aren't
// used: they are spec's, and the plugin's own.
func (c *Conn) OpenSink(ctx context.Context, spec Spec, state sink.State) (*Sink, error) {
	d, err := c.Describe(ctx)
	if err != nil {
		return nil, err
	}
	session, _, err := c.open(ctx, spec, &pluginpb.SinkState{
		Pipeline: state.Pipeline, Checkpoint: state.Checkpoint,
		Known: state.Known, Adopt: state.Adopt, Rewrite: state.Rewrite,
		Store: state.Store,
	})
	if err != nil {
		return nil, err
	}
	session.merges = state.Store != "" // an index in a bucket is read and written once
	return &Sink{session, slices.Contains(d.Capabilities, wire.CapabilityCommitter)}, nil
}

// Flush makes every Put that was answered durable. No Put may be between its
// beginning and its answer.
func (s *Sink) Flush(ctx context.Context) (sink.Checkpoint, error) {
	defer s.conn.call("Flush")()
	r, err := s.conn.sink.Flush(ctx, &pluginpb.FlushRequest{Session: s.number})
	if err != nil {
		return nil, s.conn.lost(ctx, err)
	}
	return sink.Checkpoint(r.Checkpoint), s.conn.error(r.GetError())
}

// Committed tells the sink that the ledger has committed a checkpoint, if it
// is one that wants to hear of it.
func (s *Sink) Committed(ctx context.Context, checkpoint sink.Checkpoint) error {
	if !s.committer {
		return nil
	}
	defer s.conn.call("Committed")()
	r, err := s.conn.sink.Committed(ctx, &pluginpb.CommittedRequest{Session: s.number, Checkpoint: checkpoint})
	if err != nil {
		return s.conn.lost(ctx, err)
	}
	return s.conn.error(r.GetError())
}

// Close ends the session. All lanes are closed before.
func (s *Sink) Close(ctx context.Context) error { return s.close(ctx) }
