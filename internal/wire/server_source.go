package wire

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/mailhaul/pipeline/internal/faultpoint"
	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Mailboxes implements pluginpb.SourceServer.
func (s *Server) Mailboxes(req *pluginpb.MailboxesRequest, stream pluginpb.Source_MailboxesServer) error {
	faultpoint.Hit("source.mailboxes")
	out := newBatcher(func(batch []*pluginpb.Mailbox) error {
		return stream.Send(&pluginpb.MailboxBatch{Mailboxes: batch})
	})
	session, err := s.session(req.GetSession())
	if err == nil {
		err = s.mailboxes(stream.Context(), session, out)
	}
	if lost := out.close(); lost != nil {
		return lost
	}
	if err != nil {
		return stream.Send(&pluginpb.MailboxBatch{Error: ErrorToPB(err)})
	}
	return nil
}

func (s *Server) mailboxes(ctx context.Context, session *Session, out *batcher[*pluginpb.Mailbox]) (err error) {
	defer s.guard("Mailboxes", &err)
	for m, err := range session.Mailboxes(ctx) {
		if err != nil {
			return err
		}
		if err := out.put(MailboxToPB(m), 64+len(m.Name)); err != nil {
			return nil // the stream's own error, which out has kept
		}
	}
	return nil
}

// List implements pluginpb.SourceServer.
func (s *Server) List(req *pluginpb.ListRequest, stream pluginpb.Source_ListServer) error {
	faultpoint.Hit("source.list")
	out := newBatcher(func(parts []listed) error { return sendList(stream, parts) })
	session, err := s.session(req.GetSession())
	if err == nil {
		err = s.list(stream.Context(), session, req, out)
	}
	if lost := out.close(); lost != nil {
		return lost
	}
	if err != nil {
		return stream.Send(&pluginpb.SummaryBatch{Error: ErrorToPB(err)})
	}
	return nil
}

// listed is one of: a state, a change of lanes, a summary.
type listed struct {
	state   *pluginpb.MailboxState
	lanes   int
	summary *pluginpb.Summary
}

func sendList(stream pluginpb.Source_ListServer, parts []listed) error {
	faultpoint.Hit("source.listed")
	b := &pluginpb.SummaryBatch{Summaries: make([]*pluginpb.Summary, 0, len(parts))}
	for _, p := range parts {
		switch {
		case p.state != nil:
			b.State = p.state
		case p.lanes > 0:
			b.Lanes = uint32(p.lanes)
		default:
			b.Summaries = append(b.Summaries, p.summary)
		}
	}
	return stream.Send(b)
}

func (s *Server) list(ctx context.Context, session *Session, req *pluginpb.ListRequest, out *batcher[listed]) (err error) {
	defer s.guard("List", &err)
	r := ListRequest{
		Mailbox: req.GetMailbox(), Needs: message.Needs(req.GetNeeds()),
		Limit: int(req.GetLimit()), Newest: req.GetNewest(),
		Skip: int(req.GetSkip()), Where: conditionsFromPB(req.GetWhere()), Among: req.GetAmong(),
		GoesOn: req.GetGoesOn(), Next: req.GetNext(),
		State: func(state message.MailboxState) {
			_ = out.put(listed{state: StateToPB(state)}, 64) // a lost stream shows at the next summary
		},
	}
	if req.Ids != nil {
		r.IDs = idsFromPB(req.Ids, r.Mailbox)
	}
	if req.After != nil {
		after := IDFromPB(req.After, r.Mailbox)
		r.After = &after
	}
	lanes := session.Lanes
	for sum, err := range session.List(ctx, r) {
		if err != nil {
			return err
		}
		if now := session.lanesNow(); now != 0 && now != lanes {
			lanes = now
			_ = out.put(listed{lanes: now}, 8)
		}
		p := SummaryToPB(&sum)
		p.Id = IDToPB(sum.ID, r.Mailbox)
		weight := 128 + len(p.Header)
		if p.Structure != nil {
			weight += 512
		}
		if err := out.put(listed{summary: p}, weight); err != nil {
			return nil
		}
	}
	return nil
}

func (s *Session) lanesNow() int {
	if s.LanesNow == nil {
		return 0
	}
	return s.LanesNow()
}

// Fetch implements pluginpb.SourceServer.
func (s *Server) Fetch(stream pluginpb.Source_FetchServer) error {
	faultpoint.Hit("source.fetch")
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	w := NewWriter(s.memory, func(f *Frame) error {
		faultpoint.Hit("source.frame")
		return stream.SendMsg(f)
	})
	session, err := s.session(first.GetStart().GetSession())
	if err == nil {
		err = s.fetch(stream.Context(), session, first.GetStart(), stream, w)
	}
	err = w.Close(err)
	if stream.Context().Err() != nil {
		w.Reclaim() // the host has broken off
	}
	return err
}

func (s *Server) fetch(ctx context.Context, session *Session, start *pluginpb.FetchStart, stream pluginpb.Source_FetchServer, w *Writer) (err error) {
	defer s.guard("Fetch", &err)
	ids := &idStream{stream: stream, w: w, home: start.GetMailbox()}
	lanes := session.Lanes
	err = session.Fetch(ctx, FetchRequest{
		Mailbox: start.GetMailbox(), Needs: message.Needs(start.GetNeeds()), IDs: ids.all,
	}, func(f Fetched) error {
		if now := session.lanesNow(); now != 0 && now != lanes {
			lanes = now
			w.Lanes(now)
		}
		faultpoint.Hit("source.answer")
		return answer(w, f, start.GetMailbox())
	})
	if errors.Is(err, errAnswering) {
		return nil // the stream's own error, which w has kept
	}
	if err == nil {
		err = ids.failed()
	}
	return err
}

// errAnswering stops a Fetch whose stream is gone.
var errAnswering = errors.New("the host doesn't take answers any more")

func answer(w *Writer, f Fetched, home string) error {
	if f.Message == nil {
		begin := &pluginpb.Begin{Id: IDToPB(f.ID, home), Instead: f.Instead[:min(len(f.Instead), mostInstead)]}
		cause := f.Err
		if cause == nil {
			cause = fault.New(fault.Bug, "the source answered %s with neither a message nor an error", f.ID)
		}
		if w.Refuse(begin, cause) != nil {
			return errAnswering
		}
		return nil
	}
	m := f.Message
	begin := Head(m, home)
	begin.Id = IDToPB(f.ID, home)
	// A body that breaks is told to the host in the message's place; the
	// source knows it already.
	if _, err := w.Put(begin, m.Body); err != nil {
		return errAnswering
	}
	return nil
}

// idStream asks the host for batches of ids.
type idStream struct {
	stream pluginpb.Source_FetchServer
	w      *Writer
	home   string

	mu  sync.Mutex
	err error
}

func (i *idStream) all(yield func([]message.ID) bool) {
	for {
		i.w.Pull(1)
		req, err := i.stream.Recv()
		if err != nil {
			if err != io.EOF {
				i.mu.Lock()
				i.err = err
				i.mu.Unlock()
			}
			return
		}
		faultpoint.Hit("source.pulled")
		if !yield(idsFromPB(req.GetIds(), i.home)) {
			return
		}
	}
}

// failed returns the error that ended the ids early: what looks like the end
// of them to the source isn't one.
func (i *idStream) failed() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.err
}

// Finish implements pluginpb.SourceServer.
func (s *Server) Finish(req *pluginpb.FinishRequest, stream pluginpb.Source_FinishServer) error {
	faultpoint.Hit("source.finish")
	out := newBatcher(func(batch []*pluginpb.Finished) error {
		faultpoint.Hit("source.finished")
		return stream.Send(&pluginpb.FinishedBatch{Finished: batch})
	})
	session, err := s.session(req.GetSession())
	if err == nil {
		err = s.finish(stream.Context(), session, req, out)
	}
	if lost := out.close(); lost != nil {
		return lost
	}
	if err != nil {
		return stream.Send(&pluginpb.FinishedBatch{Error: ErrorToPB(err)})
	}
	return nil
}

func (s *Server) finish(ctx context.Context, session *Session, req *pluginpb.FinishRequest, out *batcher[*pluginpb.Finished]) (err error) {
	defer s.guard("Finish", &err)
	if session.Finish == nil {
		return fault.New(fault.Bug, "the host calls Finish, which plugin %s doesn't have", s.author.Name)
	}
	err = session.Finish(ctx, FinishRequest{
		Mailbox: req.GetMailbox(), IDs: idsFromPB(req.GetIds(), req.GetMailbox()),
		Action: Action{Flag: req.GetAction().GetFlag(), Move: req.GetAction().GetMove(), Delete: req.GetAction().GetDelete()},
	}, func(f Finished) error {
		if out.put(&pluginpb.Finished{Id: IDToPB(f.ID, req.GetMailbox()), Error: ErrorToPB(f.Err)}, 64) != nil {
			return errAnswering
		}
		return nil
	})
	if errors.Is(err, errAnswering) {
		return nil // the stream's own error, which out has kept
	}
	return err
}
