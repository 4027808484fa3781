package source

import (
	"context"
	"io"
	"iter"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Named yields mailboxes of these names of which nothing else is known: all
// that a source without folders has to say in Mailboxes.
func Named(names ...string) iter.Seq2[message.Mailbox, error] {
	return func(yield func(message.Mailbox, error) bool) {
		for _, name := range names {
			m := message.Mailbox{Name: name, Selectable: true, State: message.MailboxState{Messages: -1, Bytes: -1}}
			if !yield(m, nil) {
				return
			}
		}
	}
}

// Each answers every id that is pulled, one after the other, with a body that
// open returns: a reader, which is closed after the yield, and the exact number
// of its octets, -1 when that isn't known. An error of open is that message's
// own. When ctx ends Each ends. It is for sources that need no pipelining and
// tell nothing with the body.
func (r FetchRequest) Each(ctx context.Context, open func(id message.ID) (io.ReadCloser, int64, error)) iter.Seq2[Fetched, error] {
	return func(yield func(Fetched, error) bool) {
		for ids := range r.IDs {
			for _, id := range ids {
				if ctx.Err() != nil {
					yield(Fetched{}, context.Cause(ctx))
					return
				}
				if !one(id, open, yield) {
					return
				}
			}
		}
	}
}

func one(id message.ID, open func(message.ID) (io.ReadCloser, int64, error), yield func(Fetched, error) bool) bool {
	body, size, err := open(id)
	if err != nil {
		return yield(Fetched{ID: id, Err: err}, nil)
	}
	defer body.Close() // it was only read
	m := &message.Message{Summary: message.Summary{ID: id, Have: message.NeedBody}, Body: message.NewBody(body, size, nil)}
	return yield(Fetched{ID: id, Message: m}, nil)
}
