package plugintest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

func sourceCases() []testCase {
	kinds := oneOf(wire.KindSource)
	return []testCase{
		{name: "mailboxes-stably", kinds: kinds, promise: "Mailboxes yields each mailbox once, in UTF-8, in the same order each time.", run: mailboxesStably},
		{name: "lists-stably", kinds: kinds, promise: "List yields each message once, the same ones in the same order each time, with what was asked for; State is told once, before the first.", run: listsStably},
		{name: "lists-in-order", kinds: kinds, promise: "Newest first is oldest first in reverse.", run: listsInOrder},
		{name: "lists-in-pages", kinds: kinds, promise: "Pages by After and Limit make up the whole listing.", run: listsInPages},
		{name: "lists-ahead", kinds: kinds, promise: "Next is a hint: each mailbox lists what it lists without, and tells its state, whether it was named before or not.", run: listsAhead},
		{name: "skips", kinds: kinds, promise: "Skip passes over as many as it says, in the order asked for.", run: skips},
		{name: "fails-only-what-fails", kinds: kinds, promise: "With conditions the listing has the same messages, and those that are said to fail one do.", run: failsOnlyWhatFails},
		{name: "lists-what-is-asked-for", kinds: kinds, promise: "List with IDs yields those that are there, and leaves out the others.", run: listsWhatIsAskedFor},
		{name: "lists-no-such-mailbox", kinds: kinds, promise: "A mailbox that isn't there is an error of the call, and the session goes on.", run: listsNoSuchMailbox},
		{name: "fetches-what-it-listed", kinds: kinds, promise: "Every id that was listed is answered once, with the same octets each time, as many as announced.", run: fetchesWhatItListed},
		{name: "says-what-is-gone", kinds: kinds, promise: "An id that isn't there is answered with class gone, and the others with their messages.", run: saysWhatIsGone},
		{name: "fetches-concurrently", kinds: kinds, promise: "As many Fetches as there are lanes run at once, and each gets its own messages.", run: fetchesConcurrently},
		{name: "breaks-off", kinds: kinds, promise: "A consumer may break off a listing or a fetch at any message, and the session goes on.", run: breaksOff},
		{name: "cancels", kinds: kinds, promise: "List and Fetch end within a second when their context is cancelled, and the session goes on.", run: cancels},
		{name: "finishes", kinds: kinds, promise: "Finish answers every id once, changes nothing when it is only told, and may be told again.", run: finishes},
		{name: "survives-backpressure", kinds: kinds, promise: "A consumer may stop reading for as long as it likes, between messages and within one.", run: survivesBackpressure},
	}
}

// listLimit is how many messages of a mailbox the suite looks at: it may be
// somebody's own.
const listLimit = 300

// openedSource is a source's session.
type openedSource struct{ source.Opened }

func openSource(a *attempt, c settings) *openedSource {
	o, err := a.source(a.ctx, c)
	a.must(err, "Open")
	return &openedSource{o}
}

func (s *openedSource) close(a *attempt) { a.must(s.Source.Close(), "Close") }

func (s *openedSource) mailboxes(a *attempt) []message.Mailbox {
	var out []message.Mailbox
	for m, err := range s.Source.Mailboxes(a.ctx) {
		a.must(err, "Mailboxes")
		out = append(out, m)
	}
	return out
}

// box returns the mailbox with the most messages.
func (s *openedSource) box(a *attempt) message.Mailbox {
	var best message.Mailbox
	most := 0
	for _, m := range s.mailboxes(a) {
		if !m.Selectable {
			continue
		}
		if n := len(s.list(a, m.Name, listLimit)); n > most {
			best, most = m, n
		}
	}
	if most < 3 {
		a.give("the fixture's server has no mailbox with at least 3 messages")
	}
	return best
}

// summaries pulls a listing.
func (s *openedSource) summaries(a *attempt, req source.ListRequest) []message.Summary {
	var out []message.Summary
	for sum, err := range s.Source.List(a.ctx, req) {
		a.must(err, "List %q", req.Mailbox)
		out = append(out, sum)
	}
	return out
}

func (s *openedSource) list(a *attempt, mailbox string, limit int) []message.Summary {
	return s.summaries(a, source.ListRequest{Mailbox: mailbox, Needs: s.needs(a) & (message.NeedSize | message.NeedInternalDate), Limit: limit})
}

// needs is what the source can provide.
func (s *openedSource) needs(a *attempt) message.Needs {
	if s.Provides != 0 {
		return s.Provides
	}
	d, err := a.describe(a.ctx)
	a.must(err, "Describe")
	return d.Provides
}

func ids(sums []message.Summary) []message.ID {
	out := make([]message.ID, len(sums))
	for i, s := range sums {
		out[i] = s.ID
	}
	return out
}

// batches are the ids a few at a time, as a host hands them out.
func batches(ids []message.ID) iter.Seq[[]message.ID] { return slices.Chunk(ids, 4) }

// answer is what Fetch said of an id.
type answer struct {
	sum    string
	octets int64
	err    error
}

// fetch fetches ids and returns the answers, each with its problems noted.
func (s *openedSource) fetch(a *attempt, mailbox string, wanted []message.ID) map[message.ID]answer {
	got, err := s.answers(a, mailbox, wanted)
	a.must(err, "Fetch from %q", mailbox)
	return got
}

func (s *openedSource) answers(a *attempt, mailbox string, wanted []message.ID) (map[message.ID]answer, error) {
	got := map[message.ID]answer{}
	req := source.FetchRequest{Mailbox: mailbox, Needs: message.NeedBody | s.needs(a)&message.NeedInternalDate, IDs: batches(wanted)}
	for f, err := range s.Source.Fetch(a.ctx, req) {
		if err != nil {
			return got, err
		}
		if _, twice := got[f.ID]; twice {
			a.fail("Fetch answered %v twice", f.ID)
		}
		if !slices.Contains(wanted, f.ID) {
			a.fail("Fetch answered %v, which was not asked for", f.ID)
		}
		switch {
		case f.Err != nil:
			got[f.ID] = answer{err: f.Err}
		case f.Message == nil:
			a.fail("Fetch answered %v with neither a message nor an error", f.ID)
			got[f.ID] = answer{err: fmt.Errorf("no message")}
		case f.Message.Body == nil:
			a.fail("Fetch answered %v without the body that was asked for", f.ID)
			got[f.ID] = answer{err: fmt.Errorf("no body")}
		default:
			got[f.ID] = digest(a, f)
		}
	}
	for _, id := range wanted {
		if _, ok := got[id]; !ok {
			a.fail("Fetch never answered %v", id)
		}
	}
	return got, nil
}

func digest(a *attempt, f source.Fetched) answer {
	h := sha256.New()
	n, err := f.Message.Body.WriteTo(h)
	if err != nil {
		return answer{err: err}
	}
	if size := f.Message.Body.Size(); size >= 0 && size != n {
		a.fail("the body of %v announced %d octets and had %d", f.ID, size, n)
	}
	return answer{sum: hex.EncodeToString(h.Sum(nil)), octets: n}
}

func mailboxesStably(a *attempt) {
	s := openSource(a, a.settings())
	first, second := s.mailboxes(a), s.mailboxes(a)
	name := func(m message.Mailbox) string { return m.Name }
	one, two := namesOf(first, name), namesOf(second, name)
	if !slices.Equal(one, two) {
		a.fail("the mailboxes were first %s and then %s", words(one), words(two))
	}
	seen := map[string]bool{}
	for _, m := range first {
		if seen[m.Name] {
			a.fail("the mailbox %q comes twice", m.Name)
		}
		seen[m.Name] = true
		if !utf8.ValidString(m.Name) {
			a.fail("the mailbox %q isn't in UTF-8", m.Name)
		}
	}
	if len(first) == 0 {
		a.fail("there is no mailbox")
	}
	s.close(a)
}

func namesOf[T any](in []T, name func(T) string) []string {
	out := make([]string, len(in))
	for i, x := range in {
		out[i] = name(x)
	}
	return out
}

func listsStably(a *attempt) {
	s := openSource(a, a.settings())
	asked := s.needs(a) & message.AllSummary
	for _, m := range s.mailboxes(a) {
		if !m.Selectable {
			continue
		}
		states, late, seen := 0, false, map[message.ID]bool{}
		req := source.ListRequest{Mailbox: m.Name, Needs: asked, Limit: listLimit, State: func(message.MailboxState) {
			states++
			late = late || len(seen) > 0
		}}
		var first []message.Summary
		for sum, err := range s.Source.List(a.ctx, req) {
			a.must(err, "List %q", m.Name)
			if seen[sum.ID] {
				a.fail("List yielded %v twice", sum.ID)
			}
			seen[sum.ID] = true
			first = append(first, sum)
			summary(a, m.Name, sum, asked)
		}
		if states != 1 || late {
			a.fail("List %q told the mailbox's state %d times, want once, before the first summary", m.Name, states)
		}
		req.State = nil
		if second := s.summaries(a, req); !slices.Equal(ids(first), ids(second)) {
			a.fail("List %q yielded %d messages, and then %d, not the same ones in the same order", m.Name, len(first), len(second))
		}
	}
	s.close(a)
}

// summary checks one.
func summary(a *attempt, mailbox string, sum message.Summary, asked message.Needs) {
	id := sum.ID
	switch {
	case id.UID == 0 && id.UIDL == "":
		a.fail("a summary has neither a uid nor a uidl: %+v", id)
	case id.UID != 0 && id.UIDL != "":
		a.fail("%v has both a uid and a uidl", id)
	case id.Mailbox != mailbox:
		a.fail("List %q yielded a message of %q", mailbox, id.Mailbox)
	}
	if sum.Have&^asked != 0 {
		a.fail("%v has %v, which was not asked for", id, sum.Have&^asked)
	}
	if sum.Have.Has(message.NeedHeaders) && sum.Header == nil {
		a.fail("%v is said to have headers, and there are none", id)
	}
	if sum.Have.Has(message.NeedSize) && sum.Size < 0 {
		a.fail("%v has the size %d", id, sum.Size)
	}
	if asked.Has(message.NeedSize) && !sum.Have.Has(message.NeedSize) {
		a.fail("%v came without its size, which the source says it provides", id)
	}
}

func listsInOrder(a *attempt) {
	s := openSource(a, a.settings())
	box := s.box(a)
	old := ids(s.summaries(a, source.ListRequest{Mailbox: box.Name}))
	young := ids(s.summaries(a, source.ListRequest{Mailbox: box.Name, Newest: true}))
	slices.Reverse(young)
	if !slices.Equal(old, young) {
		a.fail("newest first isn't the reverse of oldest first (%d and %d messages)", len(young), len(old))
	}
	s.close(a)
}

func listsInPages(a *attempt) {
	s := openSource(a, a.settings())
	box := s.box(a)
	for _, newest := range []bool{false, true} {
		whole := ids(s.summaries(a, source.ListRequest{Mailbox: box.Name, Newest: newest, Limit: listLimit}))
		size := max(1, len(whole)/3)
		var got []message.ID
		for len(got) < len(whole) {
			req := source.ListRequest{Mailbox: box.Name, Newest: newest, Limit: size}
			if len(got) > 0 {
				after := got[len(got)-1]
				req.After = &after
			}
			page := ids(s.summaries(a, req))
			if len(page) == 0 {
				break
			}
			if len(page) > size {
				a.give("List yielded %d messages with a limit of %d", len(page), size)
			}
			got = append(got, page...)
		}
		if len(got) > len(whole) {
			got = got[:len(whole)] // the last page may reach beyond what is looked at
		}
		if !slices.Equal(got, whole) {
			a.fail("pages of %d make up %d messages, not the %d of the whole listing in its order (newest first: %v)", size, len(got), len(whole), newest)
		}
	}
	s.close(a)
}

// invented returns an id like the others that isn't there.
func invented(all []message.ID) message.ID {
	id := all[len(all)-1]
	if id.UID != 0 {
		for _, other := range all {
			id.UID = max(id.UID, other.UID)
		}
		id.UID += 100_000
		return id
	}
	id.UIDL, id.HeaderHash, id.Ordinal = "plugintest-isnt-there", "", 0
	return id
}

func listsWhatIsAskedFor(a *attempt) {
	s := openSource(a, a.settings())
	box := s.box(a)
	all := ids(s.list(a, box.Name, listLimit))
	asked := []message.ID{all[0], invented(all), all[len(all)-1]}
	got := ids(s.summaries(a, source.ListRequest{Mailbox: box.Name, IDs: asked}))
	if want := []message.ID{all[0], all[len(all)-1]}; !slices.Equal(got, want) {
		a.fail("asked for two messages and one that isn't there, List yielded %v, want %v", got, want)
	}
	if got := s.summaries(a, source.ListRequest{Mailbox: box.Name, IDs: asked[1:2]}); len(got) != 0 {
		a.fail("asked for one that isn't there, List yielded %d messages", len(got))
	}
	s.close(a)
}

func listsNoSuchMailbox(a *attempt) {
	s := openSource(a, a.settings())
	box := s.box(a)
	var failed error
	n := 0
	for _, err := range s.Source.List(a.ctx, source.ListRequest{Mailbox: "plugintest/isn't/there"}) {
		if failed != nil {
			a.give("List went on after its error, which is terminal")
		}
		if failed = err; err == nil {
			n++
		}
	}
	if failed == nil && n > 0 {
		a.fail("List of a mailbox that isn't there yielded %d messages", n)
	}
	if failed == nil && n == 0 {
		a.fail("List of a mailbox that isn't there gave no error: its messages would be taken for vanished")
	}
	if fault.Is(failed, fault.Bug) {
		a.fail("List of a mailbox that isn't there: %s", explain(failed))
	}
	s.fetch(a, box.Name, ids(s.list(a, box.Name, 3)))
	s.close(a)
}

func fetchesWhatItListed(a *attempt) {
	s := openSource(a, a.settings())
	for _, m := range s.mailboxes(a) {
		if !m.Selectable {
			continue
		}
		all := ids(s.list(a, m.Name, 60))
		if len(all) == 0 {
			continue
		}
		first, second := s.fetch(a, m.Name, all), s.fetch(a, m.Name, all)
		for _, id := range all {
			one, two := first[id], second[id]
			if one.err != nil {
				a.class(one.err, fault.Message, fmt.Sprintf("%v, which was listed", id))
				continue
			}
			if one.sum != two.sum {
				a.fail("%v had %d octets, and the second time %d or others", id, one.octets, two.octets)
			}
		}
	}
	s.close(a)
}

func saysWhatIsGone(a *attempt) {
	s := openSource(a, a.settings())
	box := s.box(a)
	all := ids(s.list(a, box.Name, listLimit))
	gone := invented(all)
	got := s.fetch(a, box.Name, []message.ID{all[0], gone, all[1]})
	a.class(got[gone].err, fault.Gone, "an id that isn't there")
	for _, id := range []message.ID{all[0], all[1]} {
		if got[id].err != nil {
			a.fail("%v, beside an id that isn't there: %s", id, explain(got[id].err))
		}
	}
	s.close(a)
}

func fetchesConcurrently(a *attempt) {
	s := openSource(a, a.settings())
	box := s.box(a)
	all := ids(s.list(a, box.Name, 40))
	want := s.fetch(a, box.Name, all)
	lanes := min(8, s.Lanes)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			quiet := &attempt{subject: a.subject, ctx: a.ctx, d: a.d, f: a.f, dir: a.dir}
			var got map[message.ID]answer
			quiet.within(func(q *attempt) { got = s.fetch(q, box.Name, all) })
			mu.Lock()
			defer mu.Unlock()
			for _, p := range quiet.problems {
				a.fail("lane %d of %d: %s", lane+1, lanes, p)
			}
			for id, w := range want {
				if g := got[id]; got != nil && g.sum != w.sum {
					a.fail("with %d lanes %v has other octets", lanes, id)
				}
			}
		})
	}
	wg.Wait()
	s.close(a)
}

func breaksOff(a *attempt) {
	s := openSource(a, a.settings())
	box := s.box(a)
	a.soon("a listing that was broken off", func() {
		for _, err := range s.Source.List(a.ctx, source.ListRequest{Mailbox: box.Name}) {
			a.must(err, "List")
			break
		}
	})
	all := ids(s.list(a, box.Name, 40))
	for _, read := range []bool{false, true} {
		a.soon("a fetch that was broken off", func() {
			for f, err := range s.Source.Fetch(a.ctx, source.FetchRequest{Mailbox: box.Name, Needs: message.NeedBody, IDs: batches(all)}) {
				a.must(err, "Fetch")
				if read && f.Message != nil {
					_, _ = io.CopyN(io.Discard, f.Message.Body, 10) // the middle of a body
				}
				break
			}
		})
	}
	s.fetch(a, box.Name, all)
	s.close(a)
}

func cancels(a *attempt) {
	s := openSource(a, a.settings())
	box := s.box(a)
	all := ids(s.list(a, box.Name, 40))

	ctx, cancel := context.WithCancel(a.ctx)
	listing := s.Source.List(ctx, source.ListRequest{Mailbox: box.Name})
	a.soon("a listing", func() {
		for _, err := range listing {
			cancel()
			if err != nil {
				return // that it ended is all
			}
		}
	})
	cancel()

	ctx, cancel = context.WithCancel(a.ctx)
	defer cancel()
	full := ctx.Done() // a source may pull beside its Fetch, and behind its end
	waiting := func(yield func([]message.ID) bool) {
		if yield(all[:1]) {
			<-full // as a host whose sinks are full
		}
	}
	answered := make(chan struct{})
	var once sync.Once
	go func() {
		select {
		case <-answered:
			time.Sleep(20 * time.Millisecond) // it waits for ids now
		case <-a.ctx.Done():
		}
		cancel()
	}()
	began := time.Now()
	for f, err := range s.Source.Fetch(ctx, source.FetchRequest{Mailbox: box.Name, Needs: message.NeedBody, IDs: waiting}) {
		if err == nil && f.Message != nil {
			_, _ = f.Message.Body.WriteTo(io.Discard) // its end is all that counts here
		}
		once.Do(func() { began = time.Now(); close(answered) })
	}
	if took := time.Since(began); took > stopLimit {
		a.fail("a fetch that waited for ids ended %v after it was cancelled; the contract says a second", took.Round(time.Millisecond))
	}

	ctx, cancel = context.WithCancel(a.ctx)
	defer cancel()
	a.soon("a fetch in the middle of a body", func() {
		for f, err := range s.Source.Fetch(ctx, source.FetchRequest{Mailbox: box.Name, Needs: message.NeedBody, IDs: batches(all)}) {
			if err == nil && f.Message != nil {
				_, _ = io.CopyN(io.Discard, f.Message.Body, 10)
			}
			cancel()
		}
	})
	s.fetch(a, box.Name, all)
	s.close(a)
}

func survivesBackpressure(a *attempt) {
	s := openSource(a, a.settings())
	box := s.box(a)
	n := 0
	for _, err := range s.Source.List(a.ctx, source.ListRequest{Mailbox: box.Name, Limit: listLimit}) {
		a.must(err, "List, when the consumer had stopped reading for %v", a.f.Patience)
		if n++; n == 2 {
			time.Sleep(a.f.Patience)
		}
	}
	all := ids(s.list(a, box.Name, 40))
	want := s.fetch(a, box.Name, all)
	n = 0
	for f, err := range s.Source.Fetch(a.ctx, source.FetchRequest{Mailbox: box.Name, Needs: message.NeedBody, IDs: batches(all)}) {
		a.must(err, "Fetch, when the consumer had stopped reading for %v", a.f.Patience)
		if f.Message == nil || f.Message.Body == nil {
			continue
		}
		n++
		h := sha256.New()
		if n == 1 { // within a message
			_, _ = io.CopyN(h, f.Message.Body, 10) // the next read has the same error
			time.Sleep(a.f.Patience / 2)
		}
		_, err := f.Message.Body.WriteTo(h)
		a.must(err, "read the body of %v, when the consumer had stopped reading", f.ID)
		if sum := hex.EncodeToString(h.Sum(nil)); sum != want[f.ID].sum {
			a.fail("%v has other octets when the consumer stops reading for a while", f.ID)
		}
		if n == 2 { // between two
			time.Sleep(a.f.Patience / 2)
		}
	}
	if n < len(all) {
		a.fail("%d of %d messages came when the consumer stopped reading for a while", n, len(all))
	}
	s.close(a)
}
