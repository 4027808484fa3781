package wire

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/mailhaul/pipeline/internal/faultpoint"
	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Write implements pluginpb.SinkServer.
func (s *Server) Write(stream pluginpb.Sink_WriteServer) error {
	out := newBatcher(func(batch []*pluginpb.Result) error {
		return stream.Send(&pluginpb.ResultBatch{Results: batch})
	})
	err := s.lane(stream, out)
	if lost := out.close(); lost != nil {
		return lost
	}
	if err != nil {
		return stream.Send(&pluginpb.ResultBatch{Error: ErrorToPB(err)})
	}
	return nil
}

// holdResults is how long a result waits for others while its frame is worked
// off: a slow sink's are not held up.
const holdResults = 5 * time.Millisecond

func (s *Server) lane(stream pluginpb.Sink_WriteServer, out *batcher[*pluginpb.Result]) error {
	r := &Reader{Peer: "the host", Recv: func(in *Inbound) error {
		out.flush() // the answers to one frame share a batch: none waits for the next frame
		faultpoint.Hit("sink.frame")
		return stream.RecvMsg(in)
	}}
	defer r.Close()
	number, err := r.Start()
	if err != nil {
		return err
	}
	session, err := s.session(number)
	if err != nil {
		return err
	}
	r.Spool = session.spool
	sent := time.Now()
	for {
		item, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		m := item.Message()
		faultpoint.Hit("sink.write")
		path, octets, err := s.write(stream.Context(), session, m)
		faultpoint.Hit("sink.written")
		m.Body.Release()
		result := &pluginpb.Result{Path: path, Octets: octets, Error: ErrorToPB(err)}
		send := out.add
		if now := time.Now(); now.Sub(sent) >= holdResults {
			send, sent = out.put, now
		}
		if send(result, 32+len(path)) != nil {
			return nil // the stream's own error, which out has kept
		}
	}
}

func (s *Server) write(ctx context.Context, session *Session, m *message.Message) (path string, octets int64, err error) {
	defer s.guard("Write", &err)
	return session.Write(ctx, m)
}

// Seal implements pluginpb.SinkServer.
func (s *Server) Seal(ctx context.Context, req *pluginpb.SealRequest) (*pluginpb.SealResponse, error) {
	faultpoint.Hit("sink.seal")
	err := s.seal(ctx, req.GetSession())
	faultpoint.Hit("sink.sealed")
	return &pluginpb.SealResponse{Error: ErrorToPB(err)}, nil
}

func (s *Server) seal(ctx context.Context, number uint64) (err error) {
	defer s.guard("Seal", &err)
	session, err := s.session(number)
	if err != nil {
		return err
	}
	if session.Seal == nil {
		return fault.New(fault.Bug, "plugin %s doesn't seal epochs", s.author.Name)
	}
	return session.Seal(ctx)
}

// Flush implements pluginpb.SinkServer.
func (s *Server) Flush(ctx context.Context, req *pluginpb.FlushRequest) (*pluginpb.FlushResponse, error) {
	faultpoint.Hit("sink.flush")
	checkpoint, err := s.flush(ctx, req.GetSession())
	faultpoint.Hit("sink.flushed")
	out := &pluginpb.FlushResponse{Checkpoint: checkpoint, Error: ErrorToPB(err)}
	var refused message.Refusals
	if checkpoint != nil && errors.As(err, &refused) {
		for _, x := range refused {
			out.Refused = append(out.Refused, &pluginpb.Refusal{Id: IDToPB(x.ID, ""), Error: ErrorToPB(x.Err)})
		}
	}
	return out, nil
}

func (s *Server) flush(ctx context.Context, number uint64) (checkpoint []byte, err error) {
	defer s.guard("Flush", &err)
	session, err := s.session(number)
	if err != nil {
		return nil, err
	}
	return session.Flush(ctx)
}

// Committed implements pluginpb.SinkServer.
func (s *Server) Committed(ctx context.Context, req *pluginpb.CommittedRequest) (*pluginpb.CommittedResponse, error) {
	faultpoint.Hit("sink.commit")
	err := s.committed(ctx, req.GetSession(), req.Checkpoint)
	faultpoint.Hit("sink.committed")
	return &pluginpb.CommittedResponse{Error: ErrorToPB(err)}, nil
}

func (s *Server) committed(ctx context.Context, number uint64, checkpoint []byte) (err error) {
	defer s.guard("Committed", &err)
	session, err := s.session(number)
	if err != nil {
		return err
	}
	if session.Committed == nil {
		return fault.New(fault.Bug, "plugin %s doesn't ask to hear of commits", s.author.Name)
	}
	return session.Committed(ctx, checkpoint)
}

// Merge implements pluginpb.SinkServer.
func (s *Server) Merge(stream pluginpb.Sink_MergeServer) error {
	faultpoint.Hit("sink.merge")
	checkpoint, err := s.merge(stream)
	faultpoint.Hit("sink.merged")
	return stream.SendAndClose(&pluginpb.MergeResponse{Checkpoint: checkpoint, Error: ErrorToPB(err)})
}

func (s *Server) merge(stream pluginpb.Sink_MergeServer) (checkpoint []byte, err error) {
	defer s.guard("Merge", &err)
	number, tasks := uint64(0), []TaskCheckpoint(nil)
	for {
		req, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if number == 0 {
			number = req.GetSession()
		}
		for _, t := range req.GetTasks() {
			tasks = append(tasks, TaskCheckpoint{Task: t.GetTask(), Fence: t.GetNumber(), Checkpoint: t.Checkpoint, Done: t.GetDone()})
		}
	}
	session, err := s.session(number)
	if err != nil {
		return nil, err
	}
	if session.Merge == nil {
		return nil, fault.New(fault.Bug, "plugin %s doesn't merge what tasks left", s.author.Name)
	}
	return session.Merge(stream.Context(), tasks)
}
