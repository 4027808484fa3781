package imapsource

import (
	"context"
	"errors"
	"slices"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// Mailboxes are asked for several at a time: what opens a mailbox and lists it
// goes out together, and behind it the same for those that the host names next.
// 5,000 mailboxes, one after the other, took 5,000 round trips. Servers execute
// such commands in their order (RFC 9051 §5.5), and what they say is of the
// mailbox that was opened last; a server that does it otherwise isn't believed.

const (
	// widest is how many mailboxes are asked for ahead of their turn.
	widest = 32
	// foreseeMost is how many messages they may have together: their ids are
	// held until then, as ranges (I5).
	foreseeMost = 64 << 10
	// foreseeOctets bounds the commands of a round trip: nobody reads while
	// they are being written.
	foreseeOctets = 16 << 10
)

// inquiry is what is asked of one mailbox in one go, and what came.
type inquiry struct {
	mailbox  string
	open     string // the command that opens it
	criteria string // of the search
	items    string // of the summaries of its messages; empty: those aren't wanted
	needs    message.Needs
	fetch    bool // all the summaries come along

	opened  *imapconn.Opened
	granted bool // it was opened
	found   imapdata.Set
	done    bool // the search was, and told all
	sums    []message.Summary
	told    bool // the server has told all that it tells of the summaries
}

// batches returns the commands. Which mailbox the later ones are about hangs
// on the first; among themselves they may be answered in any order.
func (q *inquiry) batches(c *imapconn.Conn) [][]string {
	look := []string{searchVerb(c) + q.criteria}
	if q.fetch {
		look = append(look, "UID FETCH 1:* "+q.items)
	}
	return [][]string{{q.open}, look}
}

// clear forgets what came.
func (q *inquiry) clear() {
	q.opened = newOpened(q.mailbox)
	q.granted, q.found, q.done, q.sums, q.told = false, nil, false, nil, false
}

// answer returns what the search brought, once.
func (q *inquiry) answer(criteria string) (set imapdata.Set, ok bool) {
	if q == nil || !q.done || q.criteria != criteria {
		return nil, false
	}
	q.done = false
	return q.found, true
}

// inquire runs inquiries in one round trip. The error is of the first one's
// opening alone: another that is refused wasn't granted, a search that failed
// isn't done.
func (s *Source) inquire(ctx context.Context, c *imapconn.Conn, inquiries []*inquiry) error {
	var batches [][]string
	for _, q := range inquiries {
		q.clear()
		batches = append(batches, q.batches(c)...)
	}
	refused, err := c.Sequence(ctx, batches, func(batch, ends int, r *imapconn.Response) error {
		q, opening := inquiries[batch/2], batch%2 == 0
		done := ends >= 0 && r.Name == "OK"
		switch {
		case opening:
			if ends >= 0 && !done {
				c.Select(nil)
			}
			q.granted = done
			readOpened(c, q.opened, r)
		case !q.granted: // whatever it says now isn't of this mailbox
		case ends == 0:
			q.done = done && r.Code != "MESSAGELIMIT" // else it comes in pieces
		case ends == 1:
			q.told = done && r.Code != "MESSAGELIMIT"
		case r.Name == "SEARCH":
			q.found.ReadSearch(r.Data)
		case r.Name == "ESEARCH":
			q.found.ReadESearch(r.Data)
		case q.fetch:
			s.summarise(q, r)
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, imapconn.ErrDisorder):
		s.alone = true
		s.log.Warn("the server answers out of order: from now on one thing is asked after the other", "mailbox", inquiries[0].mailbox)
	case err != nil:
		s.width = 0 // one of them may have ended it: they are tried alone, then in growing numbers
	case slices.ContainsFunc(refused, func(of []error) bool { return fault.Is(errors.Join(of...), fault.Throttled) }):
		s.width = 0
	default:
		s.width = min(max(2*s.width, 1), widest)
	}
	if err != nil {
		return err
	}
	s.foretold = map[string]*inquiry{} // of those before, nobody came for what is left
	for _, q := range inquiries[1:] {
		if q.granted {
			s.foretold[q.mailbox] = q
		}
	}
	return refused[0][0]
}

// summarise adds what a response says of a message to the summaries.
func (s *Source) summarise(q *inquiry, r *imapconn.Response) {
	if r.Name != "FETCH" || r.Streams {
		return
	}
	it := imapdata.Items{Seq: r.Num}
	it.Read(r.Data)
	if it.UID == 0 {
		return
	}
	i, known := slices.BinarySearchFunc(q.sums, it.UID, func(sum message.Summary, uid uint32) int { return int(int64(sum.ID.UID) - int64(uid)) })
	if !known {
		id := message.ID{Mailbox: q.mailbox, UIDValidity: stateOf(q.opened).UIDValidity, UID: it.UID}
		q.sums = slices.Insert(q.sums, i, message.Summary{ID: id})
	}
	fill(&q.sums[i], &it, q.needs)
	s.place(&q.sums[i], &it)
}

// foresee returns what this listing will want of its mailbox, and what the
// next ones will of theirs, as far as that doesn't hang on what the server
// says first; nil where nothing can be known, or is known already. The first is
// the mailbox's own.
func (l *lister) foresee(c *imapconn.Conn, raw string) []*inquiry {
	l.mu.Lock()
	known := l.sought.mailbox == l.req.Mailbox && len(l.sought.answers) > 0
	width, alone := l.width, l.alone
	l.mu.Unlock()
	if known || alone || l.req.State == nil || l.config.Select.Sequence != "" {
		return nil
	}
	criteria, ok := l.criteria(&imapconn.Opened{})
	if !ok {
		return nil
	}
	first, ok := l.inquiry(c, l.req.Mailbox, raw, criteria)
	if !ok {
		return nil
	}
	bare := first.items == ""
	out := []*inquiry{first}
	if !l.plain() {
		return out
	}
	room := int64(foreseeMost)
	if !bare {
		// All the summaries come along, where those are a page at most.
		if criteria != "ALL" {
			return out
		}
		room = pageSize
		if l.req.Limit > 0 {
			room = min(room, int64(l.req.Limit))
		}
		n, ok := l.count(l.req.Mailbox)
		if room -= n; !ok || room < 0 {
			return out
		}
		first.fetch = n > 0
	}
	octets := 0
	for _, mailbox := range l.req.Next[:min(len(l.req.Next), width)] {
		l.mu.Lock()
		raw, listed := l.raws[mailbox]
		l.mu.Unlock()
		q, ok := l.inquiry(c, mailbox, raw, criteria)
		n, counted := l.count(mailbox)
		octets += len(q.open) + len(q.criteria) + len(q.items) + 64
		if room -= n; !listed || !ok || !counted || room < 0 || octets > foreseeOctets {
			break
		}
		q.fetch = !bare && n > 0
		out = append(out, q)
	}
	return out
}

// plain reports whether one search tells all that the listing wants to know
// before it asks for summaries: answers to several could be mixed up
// (RFC 9051 §5.5).
func (l *lister) plain() bool {
	return !l.owning() && l.req.IDs == nil && l.req.After == nil && l.req.Skip == 0 &&
		!slices.ContainsFunc(l.req.Where, func(c source.Condition) bool { return complement(&c) != "" })
}

// inquiry returns what is asked of a mailbox; false where the server wants to
// say something in the middle of the command.
func (l *lister) inquiry(c *imapconn.Conn, mailbox, raw, criteria string) (*inquiry, bool) {
	name := c.String(raw)
	q := &inquiry{mailbox: mailbox, open: openCommand(c, "EXAMINE", name), criteria: criteria, needs: l.req.Needs}
	if items := fetchItems(l.Source, mailbox, l.req.Needs, ""); items != bareItems {
		q.items = items
	}
	return q, !imapconn.Waits(name)
}

// count returns how many messages the mailbox had when the mailboxes were
// listed.
func (s *Source) count(mailbox string) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.counts[mailbox]
	return n, ok && n >= 0
}

// begin opens the listing's mailbox, or knows from before what the server said
// when it did: then, and where others were asked for along with it, the
// connection has another one open.
func (l *lister) begin(ctx context.Context) (*imapconn.Opened, error) {
	l.ahead, l.elsewhere = nil, false
	if q := l.foreknown(); q != nil {
		l.ahead, l.elsewhere = q, true
		return q.opened, nil
	}
	raw, err := l.raw(ctx, l.conn, l.req.Mailbox)
	if err != nil {
		return nil, err
	}
	inquiries := l.foresee(l.conn, raw)
	st, err := l.examine(ctx, l.conn, l.req.Mailbox, inquiries)
	if err == nil && len(inquiries) > 0 && inquiries[0].granted {
		l.ahead, l.elsewhere = inquiries[0], len(inquiries) > 1
	}
	return st, err
}

// foreknown returns what was asked of the mailbox along with another, once,
// where that is what this listing would ask.
func (l *lister) foreknown() *inquiry {
	l.mu.Lock()
	q := l.foretold[l.req.Mailbox]
	delete(l.foretold, l.req.Mailbox)
	l.mu.Unlock()
	if q == nil || l.req.State == nil || l.req.GoesOn || !l.plain() {
		return nil
	}
	criteria, ok := l.criteria(&imapconn.Opened{})
	items := fetchItems(l.Source, l.req.Mailbox, l.req.Needs, "")
	if items == bareItems {
		items = ""
	}
	if !ok || criteria != q.criteria || items != q.items {
		return nil
	}
	return q
}

// stand has the connection stand in the listing's mailbox, before anything is
// asked that means the mailbox that is open.
func (l *lister) stand(ctx context.Context) error {
	if !l.elsewhere {
		return nil
	}
	st, err := l.examine(ctx, l.conn, l.req.Mailbox, nil)
	if err != nil {
		return err
	}
	if now := stateOf(st).UIDValidity; now != l.validity {
		return fault.New(fault.Unavailable, "list mailbox %s: its UIDVALIDITY changed from %d to %d in the middle", l.req.Mailbox, l.validity, now)
	}
	l.elsewhere = false
	return nil
}

// foretoldPage returns the summaries of a page that came along with the
// opening, where all did that are wanted and were asked for.
func (l *lister) foretoldPage(page imapdata.Set) ([]message.Summary, bool) {
	q := l.ahead
	if q == nil || !q.told || int64(len(q.sums)) != page.Count() || l.incomplete(q.sums) {
		return nil, false
	}
	for i := range q.sums {
		if !page.Has(q.sums[i].ID.UID) {
			return nil, false
		}
	}
	return q.sums, true
}
