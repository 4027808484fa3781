package remote

import (
	"context"
	"io"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// Stage is a session of a stage plugin. It is a stage.Stage. A body that it
// changed is valid until the next Apply.
type Stage struct {
	session
	body   bool // the stage reads bodies
	cancel context.CancelFunc
	w      *wire.Writer
	r      *wire.Reader
	t      *turns
	sent   chan error // of the Put that may still run; nil when none does
}

// OpenStage opens a session of a stage. prepared is what the plugin said of
// the config: without NeedBody it never gets a body.
func (c *Conn) OpenStage(ctx context.Context, spec Spec, prepared wire.Prepared) (*Stage, error) {
	session, _, err := c.open(ctx, spec, nil)
	if err != nil {
		return nil, err
	}
	live, cancel := context.WithCancel(context.Background())
	stream, err := c.stage.Apply(live)
	if err != nil {
		cancel()
		return nil, c.lost(ctx, err)
	}
	s := &Stage{session: session, cancel: cancel, body: prepared.Needs.Has(message.NeedBody), t: c.turns("Apply")}
	s.w = wire.NewWriter(c.o.Memory, func(f *wire.Frame) error { return stream.SendMsg(f) })
	s.w.Session(s.number)
	s.r = &wire.Reader{Peer: c.o.Peer, Spool: spec.Spool, Redact: c.o.Redact, Recv: func(in *wire.Inbound) error {
		err := s.t.wait(func() error { return stream.RecvMsg(in) })
		if err == nil || err == io.EOF {
			return err
		}
		return c.lost(live, err)
	}}
	return s, nil
}

// Apply implements stage.Stage. When ctx is cancelled the session is over.
func (s *Stage) Apply(ctx context.Context, m *message.Message) (stage.Verdict, error) {
	defer context.AfterFunc(ctx, s.cancel)()
	if err := s.settle(); err != nil {
		return 0, err
	}
	var up *message.Body
	if s.body && m.Body != nil {
		// The octets go on to the sinks when the stage leaves them alone.
		whole, err := m.Body.Whole(ctx)
		if err != nil {
			return 0, err
		}
		up = message.NewBody(whole.Reader(), whole.Size(), s.spool)
		if b, ok := m.Body.Bytes(); ok {
			up = message.BodyOf(b)
		}
	}
	head := wire.Head(m, "")
	// Sent beside reading the answer: a stage may answer with the first
	// octets before it has read the last.
	sent := make(chan error, 1)
	s.sent = sent
	go func() {
		_, err := s.w.Put(head, up)
		s.w.Flush()
		sent <- err
		if err != nil && err != io.EOF {
			s.cancel() // it can't be encoded: no answer would ever come
		}
	}()
	item, err := s.r.Next()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err == io.EOF {
		err = fault.New(fault.Bug, "%s ended the stage before it answered", s.conn.o.Peer)
	}
	if err != nil {
		select {
		case unsent := <-sent:
			if s.sent = nil; unsent != nil && unsent != io.EOF {
				err = unsent
			}
		default:
		}
		return 0, err
	}
	if item.Body == nil {
		// No more is read of it: the next message may overwrite its memory.
		if err := s.settle(); err != nil {
			return 0, err
		}
	}
	if item.Err != nil {
		return 0, item.Err
	}
	if p := item.Begin.GetSummary(); p != nil {
		m.Summary = wire.SummaryFromPB(p, m.ID)
	}
	if item.Body != nil {
		m.Body = item.Body // the owner of the old one releases it
	}
	return stage.Verdict(item.Begin.GetVerdict()), nil
}

// settle waits for the last message to be handed over.
func (s *Stage) settle() error {
	if s.sent == nil {
		return nil
	}
	err := s.t.wait(func() error { return <-s.sent })
	s.sent = nil
	if err == io.EOF {
		// The reader says why the stream ended.
		if _, err = s.r.Next(); err == nil || err == io.EOF {
			err = fault.New(fault.Bug, "%s ended the stage", s.conn.o.Peer)
		}
	}
	return err
}

// Close ends the session.
func (s *Stage) Close() error {
	s.cancel()
	s.conn.unwatch(s.t.watch)
	if s.sent != nil {
		<-s.sent //nolint:errcheck // it says that the stream was just cancelled
	}
	_ = s.w.Close(nil)
	s.r.Close()
	return s.close(context.Background())
}
