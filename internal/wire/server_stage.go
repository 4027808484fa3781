package wire

import (
	"context"
	"io"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Apply implements pluginpb.StageServer.
func (s *Server) Apply(stream pluginpb.Stage_ApplyServer) error {
	w := NewWriter(s.memory, func(f *Frame) error { return stream.SendMsg(f) })
	err := w.Close(s.stage(stream, w))
	if stream.Context().Err() != nil {
		w.Reclaim() // the host has broken off
	}
	return err
}

func (s *Server) stage(stream pluginpb.Stage_ApplyServer, w *Writer) error {
	r := &Reader{Peer: "the host", Recv: func(in *Inbound) error { return stream.RecvMsg(in) }}
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
	for {
		item, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		m := item.Message()
		before := m.Body
		verdict, err := s.apply(stream.Context(), session, m)
		begin := &pluginpb.Begin{Verdict: uint32(verdict)}
		if err != nil {
			err = w.Refuse(begin, err)
		} else {
			// What a stage may change besides the octets is small: it is
			// always sent back.
			begin.Summary = SummaryToPB(&m.Summary)
			var body *message.Body
			if m.Body != before {
				body = m.Body
			}
			_, err = w.Put(begin, body)
			body.Release()
		}
		w.Flush() // the host sends the next message when it has this answer
		before.Release()
		if err != nil {
			return nil // the stream's own error, which w has kept
		}
	}
}

func (s *Server) apply(ctx context.Context, session *Session, m *message.Message) (verdict int, err error) {
	defer s.guard("Apply", &err)
	return session.Apply(ctx, m)
}
