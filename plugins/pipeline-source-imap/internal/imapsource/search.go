package imapsource

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// findings is what the server's searches say of a mailbox. The sets are
// shared with other listings and never changed.
type findings struct {
	all      imapdata.Set // what the file selects
	searched string       // for what
	capped   bool         // the server broke off (RFC 9738), and can't be brought to go on
	failed   []failed     // of the request's conditions, in their order

	chosen imapdata.Set            // what this request wants, or knows to fail
	number func(uid uint32) uint32 // sequence number; 0: not known
}

// failed is the messages that surely fail a condition.
type failed struct {
	condition int
	uids      imapdata.Set
}

// fails returns 1 + the first condition that the message surely fails.
func (f *findings) fails(uid uint32) int {
	for _, c := range f.failed {
		if c.uids.Has(uid) {
			return c.condition + 1
		}
	}
	return 0
}

// wanted returns what was chosen and isn't known to fail.
func (f *findings) wanted() imapdata.Set {
	out := slices.Clone(f.chosen)
	for _, c := range f.failed {
		out = out.Minus(c.uids)
	}
	return out
}

// find searches the mailbox that is open.
func (l *lister) find(ctx context.Context, st *imapconn.Opened) (f findings, err error) {
	f.number = func(uint32) uint32 { return 0 }
	if st.Messages == 0 {
		return f, nil
	}
	criteria, ok := l.criteria(st)
	if !ok {
		return f, nil
	}
	if first, last, ok := l.span(st, criteria); ok {
		if f, ok, err := l.spanned(ctx, first, last); ok || err != nil {
			return f, err
		}
	}
	f.searched = criteria
	if f.all, f.capped, err = l.seek(ctx, st, criteria); err != nil {
		return f, err
	}
	if f.all.Count() == st.Messages {
		f.number = f.all.Ranks()
	}
	if l.owning() {
		own, err := l.owned(ctx, st)
		if err != nil {
			return f, err
		}
		f.all, f.searched = f.all.And(own), "own"
	}
	f.chosen = l.choose(f.all)
	f.failed, err = l.failing(ctx, st)
	return f, err
}

// criteria returns what the file selects, for SEARCH; false: nothing.
func (l *lister) criteria(st *imapconn.Opened) (string, bool) {
	var criteria []string
	if text := l.config.Select.Sequence; text != "" {
		// Numbers beyond the last are a protocol error (RFC 9051 §9).
		last := uint32(max(st.Messages, 1))
		set, _ := imapdata.ParseSetTo(text, last)
		if set = set.And(imapdata.Set{{First: 1, Last: last}}); len(set) == 0 {
			return "", false
		}
		criteria = append(criteria, set.String())
	}
	if set := l.config.Select.UIDs; set != "" {
		criteria = append(criteria, "UID "+set)
	}
	if l.config.Search != "" {
		criteria = append(criteria, l.config.Search)
	}
	if len(criteria) == 0 {
		return "ALL", true
	}
	return strings.Join(criteria, " "), true
}

// span returns the sequence numbers of the page that is asked for, where the
// listing is the whole mailbox: a page deep inside a million messages then
// costs no list of them. A listing that opens a run asks for the State: it
// compares the server's count with all that it lists.
func (l *lister) span(st *imapconn.Opened, criteria string) (first, last int64, ok bool) {
	r := &l.req
	if r.State != nil && r.Skip == 0 || l.owning() || criteria != "ALL" || r.IDs != nil || r.After != nil || len(r.Where) > 0 || st.Messages < 0 || r.Limit == 0 || int64(r.Limit) >= st.Messages {
		return 0, 0, false
	}
	if r.Newest {
		last = st.Messages - int64(r.Skip)
		return max(last-int64(r.Limit)+1, 1), last, true
	}
	first = int64(r.Skip) + 1
	return first, min(int64(r.Skip)+int64(r.Limit), st.Messages), true
}

// spanned searches for sequence numbers alone; false when the answer can't be
// right.
func (l *lister) spanned(ctx context.Context, first, last int64) (f findings, ok bool, err error) {
	f.number = func(uint32) uint32 { return 0 }
	if first > last {
		return f, true, nil
	}
	if err := l.stand(ctx); err != nil {
		return f, false, err
	}
	if f.all, _, err = searchUIDs(ctx, l.conn, fmt.Sprintf("%d:%d", first, last)); err != nil {
		if l.conn.Broken() || ctx.Err() != nil {
			return f, false, err
		}
		return f, false, nil
	}
	if f.all.Count() != last-first+1 {
		return f, false, nil
	}
	f.chosen = f.all
	rank := f.all.Ranks()
	f.number = func(uid uint32) uint32 { return rank(uid) + uint32(first) - 1 }
	return f, true, nil
}

// sought is the answers of one mailbox to searches: a run lists a mailbox in
// many pages, each opened anew, and asks the same each time.
type sought struct {
	mailbox string
	answers map[string]answered // by criteria
}

// answered is the answer to a search, and the state that it was of.
type answered struct {
	state  message.MailboxState
	set    imapdata.Set
	capped bool
}

// seek searches, or knows the answer. Where the mailbox has the same UIDs it
// has the same answer; one that may hang on flags holds only as long as no
// flag changed.
func (l *lister) seek(ctx context.Context, st *imapconn.Opened, criteria string) (imapdata.Set, bool, error) {
	return l.known(ctx, st, criteria, criteria != "ALL", func() (imapdata.Set, bool, error) { return searchUIDs(ctx, l.conn, criteria) })
}

// known gives the answer that is known, or asks for it.
func (l *lister) known(ctx context.Context, st *imapconn.Opened, key string, flags bool, ask func() (imapdata.Set, bool, error)) (imapdata.Set, bool, error) {
	state := stateOf(st)
	l.mu.Lock()
	if l.sought.mailbox != l.req.Mailbox {
		l.sought = sought{l.req.Mailbox, map[string]answered{}} // one at a time (I5)
	}
	known, ok := l.sought.answers[key]
	l.mu.Unlock()
	if ok && state.Content != "" && state.Content == known.state.Content && (!flags || state.Flags != "" && state.Flags == known.state.Flags) {
		return known.set, known.capped, nil
	}
	set, ahead := l.ahead.answer(key)
	capped := false
	if !ahead {
		if err := l.stand(ctx); err != nil {
			return nil, false, err
		}
		var err error
		if set, capped, err = ask(); err != nil {
			return nil, false, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sought.mailbox == l.req.Mailbox {
		l.sought.answers[key] = answered{state, set, capped}
	}
	return set, capped, nil
}

// searchVerb is how the server is asked for UIDs. ESEARCH (RFC 4731) answers
// in ranges.
func searchVerb(c *imapconn.Conn) string {
	if c.Has("ESEARCH") || c.Has("IMAP4REV2") {
		return "UID SEARCH RETURN (ALL) "
	}
	return "UID SEARCH "
}

// searchUIDs runs UID SEARCH. A server with a limit answers in pieces, from the
// newest on (RFC 9738); capped says that it stopped before it came to the end.
func searchUIDs(ctx context.Context, c *imapconn.Conn, criteria string) (set imapdata.Set, capped bool, err error) {
	collect := func(r *imapconn.Response) error {
		switch r.Name {
		case "SEARCH":
			set.ReadSearch(r.Data)
		case "ESEARCH":
			set.ReadESearch(r.Data)
		}
		return nil
	}
	command := searchVerb(c)
	for piece, low := "", uint32(1<<32-1); ; {
		r, err := c.Do(ctx, command+piece+criteria, collect)
		if err != nil && !c.Broken() && command != "UID SEARCH " {
			command, set = "UID SEARCH ", nil // promised but not kept
			continue
		}
		if err != nil || r.Code != "MESSAGELIMIT" {
			return set, false, err
		}
		_, lowest, _ := strings.Cut(r.Argument, " ")
		n := imapdata.Number(lowest)
		if n <= 0 && len(set) > 0 {
			n = int64(set[0].First) // it didn't say how far it came
		}
		if n <= 1 || n >= int64(low) {
			return set, n != 1, nil
		}
		low = uint32(n)
		piece = "UID 1:" + imapdata.Uint64(uint64(low-1)) + " "
	}
}

// choose applies the request to the UIDs that there are: these, after that
// one, over so many, so many.
func (l *lister) choose(all imapdata.Set) imapdata.Set {
	if l.req.IDs != nil {
		var uids []uint32
		for _, id := range l.req.IDs {
			if id.UIDValidity == l.validity {
				uids = append(uids, id.UID)
			}
		}
		all = all.And(imapdata.Of(uids))
	}
	if a := l.req.After; a != nil && a.UIDValidity == l.validity {
		if l.req.Newest {
			all = all.Below(a.UID)
		} else {
			all = all.Above(a.UID)
		}
	}
	if n := int64(l.req.Skip); n > 0 {
		if l.req.Newest {
			all = all.First(all.Count() - n)
		} else {
			all = all.Last(all.Count() - n)
		}
	}
	if n := int64(l.req.Limit); n > 0 {
		if l.req.Newest {
			all = all.Last(n)
		} else {
			all = all.First(n)
		}
	}
	return all
}
