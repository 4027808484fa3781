package worker

import (
	"context"
	"iter"
	"sync/atomic"

	"github.com/mailhaul/pipeline/internal/cluster/task"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// narrow is a source that has one mailbox, or a part of it: what a task is
// about. The session behind it is kept for the next task.
type narrow struct {
	source.Source
	task   *task.Task
	broken *atomic.Bool // an error came out of the session: it is not kept
	closed func() error
}

// narrowed returns the session as a task sees it.
func narrowed(o source.Opened, t *task.Task, broken *atomic.Bool, closed func() error) source.Opened {
	n := &narrow{o.Source, t, broken, closed}
	o.Lanes = 1
	if f, ok := o.Source.(source.Finisher); ok {
		o.Source = struct {
			*narrow
			source.Finisher
		}{n, f}
		return o
	}
	o.Source = n
	return o
}

// Mailboxes yields the task's mailbox as the coordinator listed it.
func (n *narrow) Mailboxes(context.Context) iter.Seq2[message.Mailbox, error] {
	return func(yield func(message.Mailbox, error) bool) {
		m := n.task.Mailbox
		m.Within = ""
		if n.task.Range != (task.Range{}) {
			m.State.Messages = -1 // of the part nobody knows
		}
		yield(m, nil)
	}
}

// List lists what is in the range.
func (n *narrow) List(ctx context.Context, req source.ListRequest) iter.Seq2[message.Summary, error] {
	req.Among = n.task.Among
	r := n.task.Range
	renumbered := false
	if r != (task.Range{}) {
		told := req.State
		req.State = func(s message.MailboxState) {
			renumbered = renumbered || n.renumbered(s.UIDValidity)
			s.Messages = -1
			if told != nil && !renumbered {
				told(s)
			}
		}
		if req.After == nil && req.IDs == nil {
			req.After = n.before(req.Newest)
		}
	}
	return func(yield func(message.Summary, error) bool) {
		for s, err := range n.Source.List(ctx, req) {
			if err != nil {
				n.broken.Store(true)
				yield(s, err)
				return
			}
			if renumbered = renumbered || r != (task.Range{}) && n.renumbered(s.ID.UIDValidity); renumbered {
				break
			}
			if !r.Has(s.ID.UID) {
				if req.IDs == nil && n.beyond(s.ID.UID, req.Newest) {
					return
				}
				continue
			}
			if !yield(s, nil) {
				return
			}
		}
		if renumbered {
			yield(message.Summary{}, task.Renumbered(n.task.Source, n.task.Mailbox.Name))
		}
	}
}

// renumbered reports whether the UIDVALIDITY isn't that under which the mailbox
// was divided.
func (n *narrow) renumbered(validity uint32) bool {
	return validity != 0 && validity != n.task.Mailbox.State.UIDValidity
}

// before is the id that stands just before the range.
func (n *narrow) before(newest bool) *message.ID {
	id := message.ID{Source: n.task.Source, Mailbox: n.task.Mailbox.Name, UIDValidity: n.task.Mailbox.State.UIDValidity, UID: n.task.Range.First - 1}
	if newest {
		id.UID = n.task.Range.Last + 1
	} else if id.UID == 0 {
		return nil
	}
	return &id
}

// beyond reports whether a listing has passed the range.
func (n *narrow) beyond(uid uint32, newest bool) bool {
	if newest {
		return uid < n.task.Range.First
	}
	return uid > n.task.Range.Last
}

// Fetch fetches.
func (n *narrow) Fetch(ctx context.Context, req source.FetchRequest) iter.Seq2[source.Fetched, error] {
	return func(yield func(source.Fetched, error) bool) {
		for f, err := range n.Source.Fetch(ctx, req) {
			if err != nil {
				n.broken.Store(true)
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

// Close lets go of the session.
func (n *narrow) Close() error { return n.closed() }
