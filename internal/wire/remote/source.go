package remote

import (
	"context"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// Source is a session of a source plugin. It is a source.Source and a
// source.Laner. The ids of FetchRequest are pulled from a goroutine of its
// own. A pull that waits when Fetch ends, as it does when the process dies,
// isn't waited for: it is for its IDs to end; what it gives is dropped.
type Source struct {
	session
	lanes atomic.Int32
}

// OpenSource opens a session of a source.
func (c *Conn) OpenSource(ctx context.Context, spec Spec) (source.Opened, error) {
	session, o, err := c.open(ctx, spec, nil)
	if err != nil {
		return source.Opened{}, err
	}
	s := &Source{session: session}
	s.lanes.Store(int32(max(1, o.GetLanes())))
	opened := source.Opened{
		Source: s, Lanes: s.Lanes(), Provides: needs(o.GetProvides()), URL: o.GetUrl(), Notes: o.GetNotes(),
		Budget:   source.Budget{Bytes: o.GetBudgetOctets(), Per: time.Duration(o.GetBudgetPeriodNs())},
		Finishes: o.GetFinishes() && o.GetFinisher(), Facts: o.GetFacts(),
	}
	if o.GetFinisher() {
		opened.Source = &Finisher{s}
	}
	return opened, nil
}

// Finisher is a session of a source that has the power of source.Finisher.
type Finisher struct{ *Source }

// Finish implements source.Finisher.
func (s *Finisher) Finish(ctx context.Context, req source.FinishRequest) iter.Seq2[source.Finished, error] {
	return func(yield func(source.Finished, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		t := s.conn.turns("Finish")
		defer s.conn.unwatch(t.watch)
		stream, err := s.conn.source.Finish(ctx, &pluginpb.FinishRequest{
			Session: s.number, Mailbox: req.Mailbox, Ids: wire.IDsToPB(req.IDs, req.Mailbox),
			Action: &pluginpb.Action{Flag: req.Action.Flag, Move: req.Action.Move, Delete: req.Action.Delete},
		})
		for err == nil {
			var b *pluginpb.FinishedBatch
			err = t.wait(func() (err error) { b, err = stream.Recv(); return err })
			if err == io.EOF {
				return
			}
			for _, f := range b.GetFinished() {
				if !yield(source.Finished{ID: wire.IDFromPB(f.GetId(), req.Mailbox), Err: s.conn.error(f.GetError())}, nil) {
					return
				}
			}
			if b.GetError() != nil {
				err = s.conn.error(b.GetError())
			}
		}
		yield(source.Finished{}, s.conn.lost(ctx, err))
	}
}

// Lanes returns how many List and Fetch may run at once, as the plugin said
// last.
func (s *Source) Lanes() int { return int(s.lanes.Load()) }

func (s *Source) setLanes(n int) {
	if n > 0 {
		s.lanes.Store(int32(n))
	}
}

// Close ends the session.
func (s *Source) Close() error { return s.close(context.Background()) }

// Mailboxes implements source.Source.
func (s *Source) Mailboxes(ctx context.Context) iter.Seq2[message.Mailbox, error] {
	return func(yield func(message.Mailbox, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		t := s.conn.turns("Mailboxes")
		defer s.conn.unwatch(t.watch)
		stream, err := s.conn.source.Mailboxes(ctx, &pluginpb.MailboxesRequest{Session: s.number})
		for err == nil {
			var b *pluginpb.MailboxBatch
			err = t.wait(func() (err error) { b, err = stream.Recv(); return err })
			if err == io.EOF {
				return
			}
			for _, m := range b.GetMailboxes() {
				if !yield(wire.MailboxFromPB(m), nil) {
					return
				}
			}
			if b.GetError() != nil {
				err = s.conn.error(b.GetError())
			}
		}
		yield(message.Mailbox{}, s.conn.lost(ctx, err))
	}
}

// List implements source.Source.
func (s *Source) List(ctx context.Context, req source.ListRequest) iter.Seq2[message.Summary, error] {
	return func(yield func(message.Summary, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		t := s.conn.turns("List")
		defer s.conn.unwatch(t.watch)
		stream, err := s.conn.source.List(ctx, s.listRequest(req))
		for err == nil {
			var b *pluginpb.SummaryBatch
			err = t.wait(func() (err error) { b, err = stream.Recv(); return err })
			if err == io.EOF {
				return
			}
			s.setLanes(int(b.GetLanes()))
			if b.GetState() != nil && req.State != nil {
				req.State(wire.StateFromPB(b.GetState()))
			}
			for _, p := range b.GetSummaries() {
				if !yield(wire.SummaryFromPB(p, wire.IDFromPB(p.GetId(), req.Mailbox)), nil) {
					return
				}
			}
			if b.GetError() != nil {
				err = s.conn.error(b.GetError())
			}
		}
		yield(message.Summary{}, s.conn.lost(ctx, err))
	}
}

func (s *Source) listRequest(req source.ListRequest) *pluginpb.ListRequest {
	r := &pluginpb.ListRequest{
		Session: s.number, Mailbox: req.Mailbox, Needs: uint32(req.Needs),
		Limit: int32(req.Limit), Newest: req.Newest, Skip: int64(req.Skip), Among: req.Among,
		GoesOn: req.GoesOn, Next: req.Next,
	}
	if len(req.Where) > 0 {
		where := make([]wire.Condition, len(req.Where))
		for i, c := range req.Where {
			where[i] = wire.Condition(c)
		}
		r.Where = wire.ConditionsToPB(where)
	}
	if req.IDs != nil {
		r.Ids = wire.IDsToPB(req.IDs, req.Mailbox)
	}
	if req.After != nil {
		r.After = wire.IDToPB(*req.After, req.Mailbox)
	}
	return r
}

// maxPulls is how many batches of ids a plugin may ask for ahead.
const maxPulls = 1024

// Fetch implements source.Source.
func (s *Source) Fetch(ctx context.Context, req source.FetchRequest) iter.Seq2[source.Fetched, error] {
	return func(yield func(source.Fetched, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		stream, err := s.conn.source.Fetch(ctx)
		if err != nil {
			err = s.conn.lost(ctx, err)
			cancel()
			yield(source.Fetched{}, err)
			return
		}
		t := s.conn.turns("Fetch")
		defer s.conn.unwatch(t.watch)
		pulls := make(chan struct{}, maxPulls)
		go s.feed(ctx, stream, req, pulls, t)
		r := &wire.Reader{
			Peer: s.conn.o.Peer, Spool: s.spool, Lanes: s.setLanes, Redact: s.conn.o.Redact,
			Recv: func(in *wire.Inbound) error {
				err := t.wait(func() error { return stream.RecvMsg(in) })
				if err == nil || err == io.EOF {
					return err
				}
				return s.conn.lost(ctx, err)
			},
			Pull: func(n int) {
				for ; n > 0 && len(pulls) < cap(pulls); n-- {
					pulls <- struct{}{}
				}
			},
		}
		err = s.answers(r, req.Mailbox, t, yield)
		r.Close()
		cancel()
		if err != nil {
			yield(source.Fetched{}, err)
		}
	}
}

// answers yields what arrives until the stream ends, or the consumer breaks
// off.
func (s *Source) answers(r *wire.Reader, home string, t *turns, yield func(source.Fetched, error) bool) error {
	for {
		item, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		f := source.Fetched{ID: wire.IDFromPB(item.Begin.GetId(), home), Err: item.Err, Instead: item.Begin.GetInstead()}
		if item.Err == nil {
			f.Message = item.Message()
			f.Message.ID = f.ID
		}
		t.pulled.Add(-1)
		t.body.Store(item.Body != nil)
		more := yield(f, nil)
		t.body.Store(false)
		if f.Message != nil {
			f.Message.Body.Release()
		}
		if !more {
			return nil
		}
	}
}

// feed sends batches of ids as the plugin asks for them.
func (s *Source) feed(ctx context.Context, stream pluginpb.Source_FetchClient, req source.FetchRequest, pulls <-chan struct{}, t *turns) {
	start := &pluginpb.FetchStart{Session: s.number, Mailbox: req.Mailbox, Needs: uint32(req.Needs)}
	if stream.Send(&pluginpb.FetchRequest{Start: start}) != nil {
		return // the receiving side sees why
	}
	wanted := func() bool {
		select {
		case <-pulls:
			return true
		case <-ctx.Done():
			return false
		}
	}
	if !wanted() {
		return
	}
	defer t.asked.Store(false)
	t.asked.Store(true)
	for ids := range req.IDs {
		t.pulled.Add(int64(len(ids)))
		t.asked.Store(false)
		if stream.Send(&pluginpb.FetchRequest{Ids: wire.IDsToPB(ids, req.Mailbox)}) != nil || !wanted() {
			return
		}
		t.asked.Store(true)
	}
	_ = stream.CloseSend() // never fails for a client stream
}
