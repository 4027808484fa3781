package imapsource

import (
	"bytes"
	"context"
	"io"
	"iter"
	"slices"
	"strings"

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
const pageSize = 500

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
	vain     int // messages that were asked again for an item without success
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
	var err error
	if l.conn, err = l.pool.reach(ctx, l.req.Mailbox); err != nil {
		return err
	}
	defer func() {
		if l.conn != nil {
			l.pool.put(l.conn)
		}
	}()
	var all imapdata.Set
	err = l.retry(ctx, func() error {
		st, err := l.examine(ctx, l.conn, l.req.Mailbox)
		if err != nil {
			return err
		}
		all, err = l.search(ctx, st)
		if err == nil && l.req.State != nil {
			l.req.State(st.state())
			l.req.State = nil
		}
		l.validity = st.state().UIDValidity
		return err
	})
	if err != nil {
		return err
	}
	l.items = fetchItems(l.Source, l.req.Needs, "")
	return l.pages(ctx, l.choose(all), yield)
}

// retry runs f until it succeeds, on a new connection each time that one
// breaks.
func (l *lister) retry(ctx context.Context, f func() error) error {
	for try := 0; ; try++ {
		err := f()
		if err == nil || !l.conn.Broken() || try == maxReconnects {
			return err
		}
		if err := l.reconnect(ctx, err); err != nil {
			return err
		}
	}
}

func (l *lister) reconnect(ctx context.Context, cause error) (err error) {
	l.conn, err = l.pool.again(ctx, l.conn, cause, &l.slow)
	return err
}

// reopen goes on with the mailbox on a new connection. It must still be the
// same one.
func (l *lister) reopen(ctx context.Context, cause error) error {
	if err := l.reconnect(ctx, cause); err != nil {
		return err
	}
	return l.retry(ctx, func() error {
		st, err := l.examine(ctx, l.conn, l.req.Mailbox)
		if err != nil {
			return err
		}
		if now := st.state().UIDValidity; now != l.validity {
			return fault.New(fault.Unavailable, "list mailbox %s: its UIDVALIDITY changed from %d to %d in the middle", l.req.Mailbox, l.validity, now)
		}
		return nil
	})
}

// search returns the UIDs of the mailbox as ranges.
func (l *lister) search(ctx context.Context, st *examined) (imapdata.Set, error) {
	if st.messages == 0 {
		return nil, nil
	}
	var criteria []string
	if text := l.config.Select.Sequence; text != "" {
		// Numbers beyond the last are a protocol error (RFC 9051 §9).
		last := uint32(max(st.messages, 1))
		set, _ := imapdata.ParseSetTo(text, last)
		if set = set.And(imapdata.Set{{First: 1, Last: last}}); len(set) == 0 {
			return nil, nil
		}
		criteria = append(criteria, set.String())
	}
	if set := l.config.Select.UIDs; set != "" {
		criteria = append(criteria, "UID "+set)
	}
	if l.config.Search != "" {
		criteria = append(criteria, l.config.Search)
	}
	if len(criteria) > 0 {
		return searchUIDs(ctx, l.conn, strings.Join(criteria, " "))
	}
	all, err := searchUIDs(ctx, l.conn, "ALL")
	if n := all.Count(); err == nil && n != st.messages {
		l.log.Warn("blind spot: the server's count and its listing differ", "mailbox", l.req.Mailbox, "count", st.messages, "listed", n)
	}
	switch st.messages {
	case 1_000, 10_000, 100_000:
		l.log.Warn("blind spot: the mailbox has exactly as many messages as some providers show at most", "mailbox", l.req.Mailbox, "count", st.messages)
	}
	return all, err
}

// searchUIDs runs UID SEARCH. ESEARCH (RFC 4731) answers in ranges. A server
// with a limit answers in pieces, from the newest on (RFC 9738).
func searchUIDs(ctx context.Context, c *imapconn.Conn, criteria string) (imapdata.Set, error) {
	var set imapdata.Set
	collect := func(r *imapconn.Response) error {
		switch r.Name {
		case "SEARCH":
			set.ReadSearch(r.Data)
		case "ESEARCH":
			set.ReadESearch(r.Data)
		}
		return nil
	}
	command := "UID SEARCH "
	if c.Has("ESEARCH") || c.Has("IMAP4REV2") {
		command = "UID SEARCH RETURN (ALL) "
	}
	for piece, low := "", uint32(1<<32-1); ; {
		r, err := c.Do(ctx, command+piece+criteria, collect)
		if err != nil && !c.Broken() && command != "UID SEARCH " {
			command, set = "UID SEARCH ", nil // promised but not kept
			continue
		}
		if err != nil || r.Code != "MESSAGELIMIT" {
			return set, err
		}
		_, lowest, _ := strings.Cut(r.Argument, " ")
		n := imapdata.Number(lowest)
		if n <= 1 || n >= int64(low) {
			return set, nil
		}
		low = uint32(n)
		piece = "UID 1:" + imapdata.Uint64(uint64(low-1)) + " "
	}
}

// choose applies the request to the UIDs that there are.
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
	if n := int64(l.req.Limit); n > 0 {
		if l.req.Newest {
			all = all.Last(n)
		} else {
			all = all.First(n)
		}
	}
	return all
}

// pages asks for one page while the one before is handed out.
func (l *lister) pages(ctx context.Context, all imapdata.Set, yield func(message.Summary, error) bool) error {
	if l.items == "(UID)" {
		return l.bare(all, yield)
	}
	release := l.conn.Net().CloseOn(ctx)
	defer func() { release() }()
	next := func() (page imapdata.Set) {
		if l.req.Newest {
			page = all.Last(pageSize)
			if len(page) > 0 {
				all = all.Below(page[0].First)
			}
			return page
		}
		page = all.First(pageSize)
		if len(page) > 0 {
			all = all.Above(page[len(page)-1].Last)
		}
		return page
	}
	page := next()
	tags := l.ask(page)
	for len(page) > 0 {
		sums, err := l.collect(page, tags)
		if err != nil || len(sums) < int(page.Count()) || l.incomplete(sums) {
			if sums, err = l.mend(ctx, page, sums, err); err != nil {
				return err
			}
			release()
			release = l.conn.Net().CloseOn(ctx)
		}
		page = next()
		tags = l.ask(page)
		if l.req.Newest {
			slices.Reverse(sums)
		}
		for i := range sums {
			if !yield(sums[i], nil) {
				if len(tags) > 0 {
					l.conn.Close() // answers are under way that nobody will read
				}
				return nil
			}
			sums[i] = message.Summary{}
		}
	}
	return nil
}

// bare yields ids alone: the search has told all.
func (l *lister) bare(all imapdata.Set, yield func(message.Summary, error) bool) error {
	one := func(uid uint32) bool { return yield(l.summary(uid), nil) }
	if !l.req.Newest {
		all.All(one)
		return nil
	}
	for i := len(all) - 1; i >= 0; i-- {
		for u := all[i].Last; ; u-- {
			if !one(u) {
				return nil
			}
			if u == all[i].First {
				break
			}
		}
	}
	return nil
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

// collect reads the answers of a page: sorted by UID, each once.
func (l *lister) collect(page imapdata.Set, tags map[string]bool) ([]message.Summary, error) {
	found := map[uint32]int{}
	var sums []message.Summary
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

// mend gets a page right that didn't come whole: what is missing is asked for
// again, by halves and at last one by one, so that one message that the
// server can't tell of, or that ends the connection, costs itself alone (I6).
func (l *lister) mend(ctx context.Context, page imapdata.Set, have []message.Summary, cause error) ([]message.Summary, error) {
	byUID := map[uint32]message.Summary{}
	keep := func(sums []message.Summary) {
		for _, s := range sums {
			if old, ok := byUID[s.ID.UID]; !ok || s.Have.Has(old.Have) {
				byUID[s.ID.UID] = s
			}
		}
	}
	missing := func(of imapdata.Set) (out imapdata.Set) {
		of.All(func(u uint32) bool {
			if s, ok := byUID[u]; !ok || l.vain <= 20 && !s.Have.Has(l.wanted()) {
				out.Add(u, u)
			}
			return true
		})
		return out
	}
	keep(have)
	deaths := map[uint32]int{}
	work := []imapdata.Set{missing(page)}
	for first := true; len(work) > 0; first = false {
		if l.conn.Broken() || fault.Is(cause, fault.Throttled) {
			if err := l.reopen(ctx, cause); err != nil {
				return nil, err
			}
		}
		cause = nil
		set := work[len(work)-1]
		work = work[:len(work)-1]
		if len(set) == 0 {
			continue
		}
		if first {
			// What is gone by now isn't missing.
			there, err := searchUIDs(ctx, l.conn, "UID "+set.String())
			if err != nil && l.conn.Broken() {
				cause = err
				work = append(work, set)
				if deaths[0]++; deaths[0] > maxReconnects {
					return nil, err
				}
				continue
			}
			if err == nil {
				set = set.And(there)
			}
		}
		release := l.conn.Net().CloseOn(ctx)
		sums, err := l.collect(set, l.ask(set))
		release()
		keep(sums)
		cause = err
		if len(sums) > 0 {
			l.slow.Reset()
		}
		left := missing(set)
		switch {
		case len(left) == 0:
		case fault.Is(err, fault.Throttled):
			work = append(work, left) // no message's fault
		case left.Count() == 1:
			u := left[0].First
			deaths[u]++
			if _, known := byUID[u]; known && !l.conn.Broken() {
				l.vain++
				continue
			}
			if deaths[u] < 2 {
				work = append(work, left)
				continue
			}
			// It is there, and that is all that the server tells.
			if _, known := byUID[u]; !known {
				byUID[u] = l.summary(u)
			}
			l.log.Warn("the server tells nothing of a message", "mailbox", l.req.Mailbox, "uid", u, "cause", errText(err))
		default:
			half := left.Count() / 2
			lo := left.First(half)
			work = append(work, left.Above(lo[len(lo)-1].Last), lo)
		}
	}
	if l.conn.Broken() {
		if err := l.reopen(ctx, cause); err != nil {
			return nil, err
		}
	}
	var out []message.Summary
	page.All(func(u uint32) bool {
		if s, ok := byUID[u]; ok {
			out = append(out, s)
		}
		return true
	})
	return out, l.structures(ctx, out)
}

// structures reads the bodies of the messages whose structure the server
// sends in a form that can't be read.
func (l *lister) structures(ctx context.Context, sums []message.Summary) error {
	if !l.req.Needs.Has(message.NeedStructure) {
		return nil
	}
	for i := range sums {
		if sums[i].Structure != nil || sums[i].Have == 0 {
			continue
		}
		part, err := l.structure(ctx, sums[i].ID.UID)
		if err != nil {
			if l.conn.Broken() {
				if err := l.reopen(ctx, err); err != nil {
					return err
				}
			}
			continue
		}
		if part != nil {
			sums[i].Structure = part
			sums[i].Have |= message.NeedStructure
		}
	}
	return nil
}

func (l *lister) structure(ctx context.Context, uid uint32) (part *message.Part, err error) {
	_, err = l.conn.Do(ctx, "UID FETCH "+imapdata.Range{First: uid, Last: uid}.String()+" (UID BODY.PEEK[])", func(r *imapconn.Response) error {
		if r.Name != "FETCH" || part != nil {
			return nil
		}
		var body io.Reader = l.conn.Body()
		if !r.Streams {
			var it imapdata.Items
			it.Read(r.Data)
			if it.Section == nil {
				return nil
			}
			body = bytes.NewReader(it.Section)
		}
		p, _, err := message.ReadStructure(body)
		if err == nil {
			part = p
		}
		return err
	})
	return part, err
}

func errText(err error) string {
	if err == nil {
		return "no answer"
	}
	return err.Error()
}

// fetchItems returns the items of a FETCH command. UID comes first, so that
// servers that keep the order send it before a body.
func fetchItems(s *Source, n message.Needs, body string) string {
	items := []string{"UID"}
	add := func(need message.Needs, words ...string) {
		if n&need != 0 {
			items = append(items, words...)
		}
	}
	add(message.NeedSize, "RFC822.SIZE")
	add(message.NeedInternalDate, "INTERNALDATE")
	add(message.NeedFlags, "FLAGS")
	if s.gmail {
		add(message.NeedGmail, "X-GM-MSGID", "X-GM-THRID")
		add(message.NeedGmail|message.NeedFlags, "X-GM-LABELS")
	}
	if s.objectID {
		add(message.NeedGmail, "EMAILID")
	}
	add(message.NeedStructure, "BODYSTRUCTURE")
	if n != 0 {
		items = append(items, s.config.ExtraFields...)
	}
	if body == "" {
		add(message.NeedHeaders, "BODY.PEEK[HEADER]")
	} else {
		items = append(items, body)
	}
	return "(" + strings.Join(items, " ") + ")"
}

// fill puts what the server said into a summary. The octets are copied: the
// summary outlives the response.
func fill(s *message.Summary, it *imapdata.Items, needs message.Needs) {
	if it.Seq != 0 {
		s.SequenceNumber = it.Seq
	}
	have := it.Have & needs
	if have.Has(message.NeedSize) {
		s.Size = it.Size
	}
	if have.Has(message.NeedInternalDate) {
		s.InternalDate = it.InternalDate
	}
	if have.Has(message.NeedFlags) {
		s.Flags, s.Keywords = imapdata.SplitFlags(it.Flags)
		s.Labels = it.Gmail.Labels
	}
	if have.Has(message.NeedHeaders) {
		s.Header = message.NewHeader(bytes.Clone(it.Header))
	}
	if have.Has(message.NeedStructure) {
		part, ok := imapdata.Structure(it.Structure)
		s.Structure = part
		if !ok {
			have &^= message.NeedStructure
		}
	}
	if it.HaveGmail && needs.Has(message.NeedGmail) {
		g := it.Gmail
		s.Gmail, s.ObjectID = &g, imapdata.Uint64(g.MessageID)
		have |= message.NeedGmail
	}
	if it.ObjectID != "" && needs.Has(message.NeedGmail) {
		s.ObjectID = it.ObjectID
		have |= message.NeedGmail
	}
	s.Have |= have
	for k, v := range it.Extra {
		if s.Extra == nil {
			s.Extra = map[string]string{}
		}
		s.Extra[k] = v
	}
}
