package imapsource

import (
	"context"
	"iter"
	"slices"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// pageSize is how many summaries are in memory at once, on each of two pages:
// the one being handed out and the one being asked for. With headers that is
// some MB, whatever the mailbox (I5).
const pageSize = 512

// setLimit is the longest set of UIDs in a command: servers bound lines at
// 8,000 octets (RFC 7162 §4).
const setLimit = 6000

// lister runs one List.
type lister struct {
	*Source
	req      source.ListRequest
	conn     *imapconn.Conn
	validity uint32
	items    string
	slow     mailnet.Backoff
	found    findings
	vain     int               // messages that were asked again for an item without success
	spare    []message.Summary // memory of a page that was handed out
	places   map[uint32]int    // where in a page a UID stands

	ahead     *inquiry // what was asked along with the EXAMINE; nil: nothing
	elsewhere bool     // the connection has another mailbox open by now
}

// List yields summaries a page at a time.
func (s *Source) List(ctx context.Context, req source.ListRequest) iter.Seq2[message.Summary, error] {
	return func(yield func(message.Summary, error) bool) {
		l := &lister{Source: s, req: req, slow: mailnet.Backoff{Min: s.rest}}
		if err := l.run(ctx, yield); err != nil {
			yield(message.Summary{}, err)
		}
	}
}

func (l *lister) run(ctx context.Context, yield func(message.Summary, error) bool) error {
	if l.req.Mailbox == "" {
		return fault.New(fault.Gone, "an IMAP server has many mailboxes, and none without a name")
	}
	var err error
	if l.conn, err = l.pool.Reach(ctx, opened(l.req.Mailbox)); err != nil {
		return err
	}
	defer func() {
		if l.conn != nil {
			l.pool.Put(l.conn)
		}
	}()
	err = l.retry(ctx, func() error {
		var st *imapconn.Opened
		var err error
		if l.req.GoesOn {
			st, err = l.selected(ctx, l.conn, l.req.Mailbox)
		} else {
			st, err = l.begin(ctx)
		}
		if err != nil {
			return err
		}
		l.validity = stateOf(st).UIDValidity
		l.found, err = l.find(ctx, st)
		if err == nil && l.req.State != nil && !l.req.GoesOn && l.disagrees(st) {
			// Mail may have come or gone in between.
			if st, err = l.examine(ctx, l.conn, l.req.Mailbox, nil); err != nil {
				return err
			}
			l.validity, l.ahead, l.elsewhere = stateOf(st).UIDValidity, nil, false
			l.found, err = l.find(ctx, st)
		}
		if err == nil && l.req.State != nil {
			state := stateOf(st)
			state.BlindSpots = l.blindSpots(st)
			if l.owning() {
				state.Messages = l.found.all.Count() // the others are counted where they are listed
			}
			l.req.State(state)
			l.req.State = nil
		}
		return err
	})
	if err != nil {
		return err
	}
	l.items = fetchItems(l.Source, l.req.Mailbox, l.req.Needs, "")
	if l.items == bareItems {
		l.bare(yield)
		return nil
	}
	return l.pages(ctx, yield)
}

// retry runs f until it succeeds, on a new connection each time that one
// breaks.
func (l *lister) retry(ctx context.Context, f func() error) error {
	for try := 0; ; try++ {
		err := f()
		if err == nil || !l.conn.Broken() || try == mailnet.MaxReconnects {
			return err
		}
		if err := l.reconnect(ctx, err); err != nil {
			return err
		}
	}
}

func (l *lister) reconnect(ctx context.Context, cause error) (err error) {
	l.conn, err = l.pool.Again(ctx, l.conn, cause, &l.slow)
	return err
}

// reopen goes on with the mailbox on a new connection. It must still be the
// same one.
func (l *lister) reopen(ctx context.Context, cause error) error {
	if err := l.reconnect(ctx, cause); err != nil {
		return err
	}
	return l.retry(ctx, func() error {
		st, err := l.examine(ctx, l.conn, l.req.Mailbox, nil)
		if err != nil {
			return err
		}
		if now := stateOf(st).UIDValidity; now != l.validity {
			return fault.New(fault.Unavailable, "list mailbox %s: its UIDVALIDITY changed from %d to %d in the middle", l.req.Mailbox, l.validity, now)
		}
		return nil
	})
}

// page is a run of messages: those of which more is asked, and between them
// those that are known to fail a condition.
type page struct{ all, wanted imapdata.Set }

// nextPage takes the next page off what was chosen and off what of it is
// wanted.
func (l *lister) nextPage(chosen, wanted *imapdata.Set) (p page) {
	if l.req.Newest {
		p.wanted = wanted.TakeLast(pageSize)
	} else {
		p.wanted = wanted.TakeFirst(pageSize)
	}
	switch {
	case len(*wanted) == 0:
		p.all, *chosen = *chosen, nil
	case l.req.Newest:
		p.all = chosen.TakeFrom(p.wanted[0].First)
	default:
		p.all = chosen.TakeThrough(p.wanted[len(p.wanted)-1].Last)
	}
	return p
}

// pages asks for one page while the one before is handed out.
func (l *lister) pages(ctx context.Context, yield func(message.Summary, error) bool) error {
	chosen, wanted := slices.Clone(l.found.chosen), l.found.wanted()
	p := l.nextPage(&chosen, &wanted)
	if len(p.all) == 0 {
		return nil
	}
	if sums, ok := l.foretoldPage(p.wanted); ok && len(chosen) == 0 {
		l.hand(p, sums, yield)
		return nil
	}
	if err := l.retry(ctx, func() error { return l.stand(ctx) }); err != nil {
		return err
	}
	release := l.conn.Net().CloseOn(ctx)
	defer func() { release() }()
	tags := l.ask(p.wanted)
	for len(p.all) > 0 {
		sums, err := l.collect(p.wanted, tags)
		if err != nil || len(sums) < int(p.wanted.Count()) || l.incomplete(sums) {
			if sums, err = l.mend(ctx, p.wanted, sums, err); err != nil {
				return err
			}
			release()
			release = l.conn.Net().CloseOn(ctx)
		}
		done := p
		_ = l.conn.Adapt(ctx) // a connection that breaks here is mended with the next page
		p = l.nextPage(&chosen, &wanted)
		tags = l.ask(p.wanted)
		more := l.hand(done, sums, yield)
		l.spare = sums[:0]
		if !more {
			if len(tags) > 0 {
				_ = l.conn.Close() // answers are under way that nobody will read
			}
			return nil
		}
	}
	return nil
}

// hand yields a page in its order: false when the consumer broke off.
func (l *lister) hand(p page, sums []message.Summary, yield func(message.Summary, error) bool) bool {
	if l.req.Newest {
		slices.Reverse(sums)
	}
	at := 0
	return p.all.Each(l.req.Newest, func(uid uint32) bool {
		if !p.wanted.Has(uid) {
			s := l.summary(uid)
			s.Fails = l.found.fails(uid)
			return yield(s, nil)
		}
		if at == len(sums) || sums[at].ID.UID != uid {
			return true // it went away while it was asked for
		}
		s := sums[at]
		sums[at] = message.Summary{}
		at++
		return yield(s, nil)
	})
}

// bare yields ids and sequence numbers: the search has told all.
func (l *lister) bare(yield func(message.Summary, error) bool) {
	l.found.chosen.Each(l.req.Newest, func(uid uint32) bool {
		s := l.summary(uid)
		if s.Fails = l.found.fails(uid); s.Fails == 0 {
			s.SequenceNumber = l.found.number(uid)
		}
		return yield(s, nil)
	})
}

func (l *lister) summary(uid uint32) message.Summary {
	return message.Summary{ID: message.ID{Mailbox: l.req.Mailbox, UIDValidity: l.validity, UID: uid}}
}

// ask sends the commands for a page. An error shows when the answers are read.
func (l *lister) ask(page imapdata.Set) (tags map[string]bool) {
	tags = map[string]bool{}
	for _, c := range page.Chunks(setLimit) {
		tag, err := l.conn.Send("UID FETCH " + c.Text + " " + l.items)
		if err != nil {
			break
		}
		tags[tag] = true
	}
	if len(page) == 0 {
		return nil
	}
	return tags
}

// collect reads the answers of a page: sorted by UID, each once. The memory is
// that of the page that was handed out last.
func (l *lister) collect(page imapdata.Set, tags map[string]bool) ([]message.Summary, error) {
	if l.places == nil {
		l.places = make(map[uint32]int, pageSize)
	}
	found, sums := l.places, slices.Grow(l.spare, int(min(page.Count(), pageSize)))
	clear(found)
	l.spare = nil
	var failed error
	for len(tags) > 0 {
		r, err := l.conn.Next()
		if err != nil {
			return sums, err
		}
		if r.Tag != "" {
			if tags[r.Tag] {
				delete(tags, r.Tag)
				if err := r.Err("fetch summaries of " + l.req.Mailbox); err != nil {
					failed = err
				}
			}
			continue
		}
		if r.Name != "FETCH" {
			continue
		}
		var it imapdata.Items
		it.Seq = r.Num
		it.Read(r.Data)
		if r.Streams {
			continue // a body that nobody asked for
		}
		if !page.Has(it.UID) {
			continue
		}
		at, again := found[it.UID]
		if !again {
			at = len(sums)
			found[it.UID] = at
			sums = append(sums, l.summary(it.UID))
		}
		fill(&sums[at], &it, l.req.Needs)
		l.place(&sums[at], &it)
	}
	slices.SortFunc(sums, func(a, b message.Summary) int {
		if a.ID.UID < b.ID.UID {
			return -1
		}
		return 1
	})
	return sums, failed
}

// wanted is what of the request the server can be expected to answer.
func (l *lister) wanted() message.Needs {
	n := l.req.Needs &^ message.NeedBody
	if !l.gmail {
		n &^= message.NeedGmail
	}
	return n
}

func (l *lister) incomplete(sums []message.Summary) bool {
	if l.vain > 20 {
		return false // this server just doesn't tell
	}
	for i := range sums {
		if !sums[i].Have.Has(l.wanted()) {
			return true
		}
	}
	return false
}
