package browse

import (
	"context"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// Query says which messages are shown, and what of them.
type Query struct {
	Mailboxes []message.Mailbox
	Fields    []Field
	Page      int // from 1
	Size      int // messages a page; 0: all on one
	Newest    bool
}

// Page is what was shown.
type Page struct {
	Source    string
	Mailboxes []string
	Total     int64 // messages of all pages
	Number    int
	Size      int
	Shown     int
	More      bool // there is a page behind this one
}

// Next returns the number of the next page, 0 when this is the last.
func (p *Page) Next() int {
	if p.More {
		return p.Number + 1
	}
	return 0
}

// Pages returns how many pages there are.
func (p *Page) Pages() int64 {
	if p.Size == 0 || p.Total == 0 {
		return 1
	}
	return (p.Total + int64(p.Size) - 1) / int64(p.Size)
}

// Writer shows messages: as columns, as lines, as JSON.
type Writer interface {
	Message(s *message.Summary) error
	End(p *Page) error
}

// Messages shows one page of the messages of some mailboxes, one mailbox after
// another, and says how many there are in all. The source passes over the pages
// before: nothing of their messages is asked for.
func (s *Source) Messages(ctx context.Context, q Query, w Writer) error {
	if err := provided(s.Provides, q.Fields); err != nil {
		return err
	}
	p := &Page{Source: s.Name, Number: max(1, q.Page), Size: q.Size}
	skip := int64(p.Number-1) * int64(p.Size)
	for i := range q.Mailboxes {
		box := &q.Mailboxes[i]
		p.Mailboxes = append(p.Mailboxes, box.Name)
		n, err := s.part(ctx, q, box, p, skip, w)
		if err != nil {
			return s.explain(ctx, box.Name, err)
		}
		p.Total += n
		skip = max(0, skip-n)
	}
	p.More = p.Size > 0 && p.Total > int64(p.Number-1)*int64(p.Size)+int64(p.Shown)
	return w.End(p)
}

// part shows what of one mailbox is on the page, and returns how many messages
// it has.
func (s *Source) part(ctx context.Context, q Query, box *message.Mailbox, p *Page, skip int64, w Writer) (int64, error) {
	left := 0
	if p.Size > 0 {
		left = p.Size - p.Shown
	}
	counted := int64(-1)
	if !s.Narrowed {
		counted = box.State.Messages
	}
	if p.Size > 0 && left == 0 || counted >= 0 && skip >= counted && len(q.Mailboxes) > 1 {
		// Nothing of it is on the page: only its number matters.
		if counted >= 0 {
			return counted, nil
		}
		return s.length(ctx, box.Name)
	}
	req := source.ListRequest{
		Mailbox: box.Name, Needs: needs(q.Fields), Newest: q.Newest, Skip: int(skip), Limit: left,
		State: func(st message.MailboxState) {
			if !s.Narrowed {
				counted = st.Messages
			}
		},
	}
	shown := 0
	for sum, err := range s.Source.List(ctx, req) {
		if err != nil {
			return 0, err
		}
		sum.ID.Source, sum.Vars = s.Name, s.Vars
		if err := w.Message(&sum); err != nil {
			return 0, fault.Wrap(fault.Full, err, "write the listing")
		}
		shown++
	}
	p.Shown += shown
	switch {
	case left == 0 || shown < left && (shown > 0 || skip == 0):
		return skip + int64(shown), nil // it was listed to its end
	case counted >= 0:
		return counted, nil
	}
	return s.length(ctx, box.Name)
}

// length counts what is listed of a mailbox: by ids alone.
func (s *Source) length(ctx context.Context, mailbox string) (n int64, err error) {
	for _, err := range s.Source.List(ctx, source.ListRequest{Mailbox: mailbox}) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
