package remote

import (
	"context"
	"slices"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// Sink is a session of a sink plugin.
type Sink struct {
	session
	committer, merger, sealer bool
}

// OpenSink opens a session of a sink. Name, Log and Spool of state aren't
// used: they are spec's, and the plugin's own.
func (c *Conn) OpenSink(ctx context.Context, spec Spec, state sink.State) (*Sink, error) {
	d, err := c.Describe(ctx)
	if err != nil {
		return nil, err
	}
	sent := &pluginpb.SinkState{
		Pipeline: state.Pipeline, Checkpoint: state.Checkpoint,
		Known: state.Known, Adopt: state.Adopt, Rewrite: state.Rewrite,
		Store: state.Store,
	}
	fenced := state.Fence != sink.Fence{}
	if fenced {
		sent.Fence = &pluginpb.Fence{Task: state.Fence.Task, Number: state.Fence.Number}
	}
	session, opened, err := c.open(ctx, spec, sent)
	if err != nil {
		return nil, err
	}
	session.merges = state.Store != "" && !fenced // an index in a bucket is read and written once
	return &Sink{session, slices.Contains(d.Capabilities, wire.CapabilityCommitter), opened.GetMerger(), opened.GetSealer()}, nil
}

// Seals reports whether Seal may be called.
func (s *Sink) Seals() bool { return s.sealer }

// Seal marks the end of an epoch, as sink.Sealer says. No Put may be between its
// beginning and its answer.
func (s *Sink) Seal(ctx context.Context) error {
	defer s.conn.call("Seal")()
	r, err := s.conn.sink.Seal(ctx, &pluginpb.SealRequest{Session: s.number})
	if err != nil {
		return s.conn.lost(ctx, err)
	}
	return s.conn.error(r.GetError())
}

// Flush makes every Put that was answered durable; after a Seal, every one that
// was before it. Without one, no Put may be between its beginning and its answer.
func (s *Sink) Flush(ctx context.Context) (sink.Checkpoint, error) {
	defer s.conn.call("Flush")()
	r, err := s.conn.sink.Flush(ctx, &pluginpb.FlushRequest{Session: s.number})
	if err != nil {
		return nil, s.conn.lost(ctx, err)
	}
	if len(r.GetRefused()) == 0 {
		return sink.Checkpoint(r.Checkpoint), s.conn.error(r.GetError())
	}
	var refused message.Refusals
	for _, x := range r.GetRefused() {
		refused = append(refused, message.Refusal{ID: wire.IDFromPB(x.GetId(), ""), Err: s.conn.error(x.GetError())})
	}
	return sink.Checkpoint(r.Checkpoint), refused
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

// Merges reports whether Merge may be called.
func (s *Sink) Merges() bool { return s.merger }

// mergeBatch is about how many octets of checkpoints stand in one request.
const mergeBatch = 1 << 20

// Merge makes one of what tasks left in the target, where the sink has the
// power of sink.Merger. It may take long: only the context bounds it.
func (s *Sink) Merge(ctx context.Context, tasks []sink.TaskCheckpoint) (sink.Checkpoint, error) {
	if !s.merger {
		return nil, fault.New(fault.Config, "%s merges nothing that tasks left", s.conn.o.Peer).
			WithHint("update the plugin, or run with engine: {type: local}")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.conn.sink.Merge(ctx)
	if err != nil {
		return nil, s.conn.lost(ctx, err)
	}
	req, octets := &pluginpb.MergeRequest{Session: s.number}, 0
	for _, t := range tasks {
		if octets += 64 + len(t.Task) + len(t.Checkpoint); octets > mergeBatch && len(req.Tasks) > 0 {
			if stream.Send(req) != nil {
				break // the answer says why
			}
			req, octets = &pluginpb.MergeRequest{}, 0
		}
		req.Tasks = append(req.Tasks, &pluginpb.TaskCheckpoint{Task: t.Task, Number: t.Fence, Checkpoint: t.Checkpoint, Done: t.Done})
	}
	_ = stream.Send(req) // as above
	r, err := stream.CloseAndRecv()
	if err != nil {
		return nil, s.conn.lost(ctx, err)
	}
	return sink.Checkpoint(r.Checkpoint), s.conn.error(r.GetError())
}

// Close ends the session. All lanes are closed before.
func (s *Sink) Close(ctx context.Context) error { return s.close(ctx) }
