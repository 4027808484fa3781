package engine

import (
	"context"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// Sizes of a page of a listing: what the host holds of a mailbox at once (I5),
// and as much again where the next page is on its way.
const (
	pageShort = 4096 // summaries without headers
	pageAhead = 2048 // summaries with headers, where nothing is fetched
	pageLong  = 512  // summaries with headers or structure

	pageOctets = 32 << 20 // of headers, whatever the page should have
)

// pages lists one mailbox page by page. It is used by the goroutine that
// lists; close must be called.
type pages struct {
	a       *account
	b       *box
	ctx     context.Context
	cancel  context.CancelFunc
	size    int
	lookout bool // the next page is listed while one is dealt with

	known bool     // the ledger knew messages of the mailbox when the listing began
	names []string // of mailboxes that are listed after this one
	last  *message.ID
	round circle
	ahead chan sheet // the pages after the last one; nil: nobody lists them ahead
}

// sheet is a page as the source listed it.
type sheet struct {
	sums []message.Summary
	more bool
	err  error
}

func (a *account) pages(ctx context.Context, b *box) *pages {
	p := &pages{a: a, b: b, size: pageShort}
	p.ctx, p.cancel = context.WithCancel(ctx)
	deep := (a.plan.FirstNeeds | a.e.plan.Reads()) & (message.NeedHeaders | message.NeedStructure)
	// Who fetches as well has use for the lanes meanwhile, and what is asked of
	// the next page may hang on this one.
	p.lookout = a.plan.FirstNeeds != 0 && a.plan.Limit == 0 && !a.claiming && !a.e.takesBodies()
	switch {
	case p.lookout && deep == message.NeedHeaders:
		p.size = pageAhead
	case deep != 0:
		p.size = pageLong
	}
	return p
}

// close ends what is on its way.
func (p *pages) close() {
	p.cancel()
	if p.ahead != nil {
		for range p.ahead { // until nobody lists any more
		}
	}
}

// next returns the next page, looked up in the ledger. Where the ledger knew
// messages of the mailbox, only ids are listed; more is asked only of those that
// aren't done: in a run that finds little new, that is nearly none. What this
// run puts into the ledger meanwhile says nothing of the messages to come. more
// says that there may be another page.
func (p *pages) next() (found []listed, more bool, err error) {
	first := p.last == nil
	if first {
		if p.known, err = p.a.knows(p.ctx, p.b); err != nil {
			return nil, false, err
		}
		if p.names, err = p.a.next(p.ctx, p.b, p.known); err != nil {
			return nil, false, err
		}
	}
	s := p.sheet()
	if s.err != nil || len(s.sums) == 0 {
		return nil, false, s.err
	}
	last := s.sums[len(s.sums)-1].ID // a copy: the page itself is garbage while its items wait for the queue (I5)
	p.last = &last
	if found, err = p.a.lookUp(p.ctx, p.b, s.sums, first); err != nil {
		return nil, false, err
	}
	// Only now: until then the ids of the mailbox may turn out to be others.
	if s.more && p.lookout && p.ahead == nil {
		p.listAhead()
	}
	return found, s.more, p.a.circles(&p.round, p.b, found)
}

// sheet lists the page after the last one, or takes it from who does.
func (p *pages) sheet() sheet {
	if p.ahead != nil {
		s, ok := <-p.ahead
		if !ok {
			s.err = context.Cause(p.ctx)
		}
		return s
	}
	if p.last == nil {
		req := p.request(nil)
		req.Next = p.names
		return p.list(req, first)
	}
	return p.list(p.request(p.last), goingOn)
}

// listAhead begins to list the pages after the last one, each as soon as the
// one before was taken: between two of them the server has nothing to do.
func (p *pages) listAhead() {
	ahead, last := make(chan sheet), p.last
	p.ahead = ahead
	go func() {
		defer close(ahead)
		for {
			s := p.list(p.request(last), goingOn)
			if n := len(s.sums); n > 0 {
				id := s.sums[n-1].ID // once it is taken, the page is another's
				last = &id
			}
			select {
			case ahead <- s:
			case <-p.ctx.Done():
				return
			}
			if s.err != nil || !s.more {
				return
			}
		}
	}()
}

// request asks for the page after an id, nil: the first.
func (p *pages) request(after *message.ID) source.ListRequest {
	req := source.ListRequest{
		Mailbox: p.b.name, Needs: p.a.firstNeeds(), After: after, Limit: p.size,
		Newest: p.a.plan.Newest, Where: p.a.where, Among: p.b.among,
	}
	if p.known || p.a.claimed {
		req.Needs = 0 // most of it is done, or was claimed, which is as good
	}
	return req
}

func (p *pages) list(req source.ListRequest, how opening) (s sheet) {
	if s.err = p.a.lanes.acquireToList(p.ctx); s.err != nil {
		return s
	}
	defer p.a.lanes.release()
	s.sums, s.more, s.err = p.a.summaries(p.ctx, p.b, req, how)
	for i := range s.sums {
		if s.sums[i].Fails == 0 {
			// What didn't come is absent, as in ask: to ask for it once more takes
			// as long as the listing. Of a server that isn't Gmail, nothing of
			// Gmail's comes for any message.
			s.sums[i].Have |= req.Needs
		}
	}
	return s
}

// takesBodies reports whether octets are fetched for some sink of the run.
func (e *Engine) takesBodies() bool {
	for _, o := range e.outlets {
		if !o.plan.Prepared.Record {
			return true
		}
	}
	return false
}

// knows reports whether the ledger knows messages of a mailbox.
func (a *account) knows(ctx context.Context, b *box) (bool, error) {
	if err := a.number(ctx, b); err != nil {
		return false, err
	}
	if b.looked {
		b.looked = false
		return b.known, nil
	}
	return a.e.ledger.HasMessages(ctx, b.number)
}

// nextMost is how many of the mailboxes that follow a source is told of.
const nextMost = 32

// next names the mailboxes that are listed after one, as far as they are
// listed in the same way.
func (a *account) next(ctx context.Context, b *box, known bool) (names []string, err error) {
	if a.later == nil || b.among != nil || a.plan.Limit > 0 { // a limit may end the listing anywhere
		return nil, nil
	}
	for next := range a.later {
		if !next.looked {
			number, err := a.e.ledger.Box(ctx, a.plan.Name, next.name, next.uidValidity)
			if err == nil {
				next.known, err = a.e.ledger.HasMessages(ctx, number)
			}
			if err != nil {
				return nil, err
			}
			next.looked = true
		}
		if next.among != nil || next.known != known && !a.claimed {
			break
		}
		if names = append(names, next.name); len(names) == nextMost {
			break
		}
	}
	return names, nil
}

// lookUp looks up a page in the ledger. With the first of a mailbox, it looks
// whether the messages are known under other ids.
func (a *account) lookUp(ctx context.Context, b *box, sums []message.Summary, first bool) ([]listed, error) {
	if err := a.number(ctx, b); err != nil { // the listing may have told another UIDVALIDITY
		return nil, err
	}
	ids := make([]message.ID, len(sums))
	for i := range sums {
		ids[i] = sums[i].ID
	}
	entries, err := a.e.ledger.Lookup(ctx, b.number, ids)
	if err != nil {
		return nil, err
	}
	if first {
		again, err := a.recognise(ctx, b, sums, entries)
		if err == nil && again {
			entries, err = a.e.ledger.Lookup(ctx, b.number, ids)
		}
		if err != nil {
			return nil, err
		}
	}
	page := make([]listed, len(sums))
	for i := range page {
		page[i] = listed{sums[i], entries[i]}
	}
	return page, a.reconsider(ctx, b, page)
}
