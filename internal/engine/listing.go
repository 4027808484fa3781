package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// listAll lists the mailboxes that are not complete, one after another, in
// the order of the source: limits count over it.
func (a *account) listAll(ctx context.Context) error {
	a.mu.Lock()
	a.copies = 0
	a.mu.Unlock()
	return a.eachMailbox(ctx, a.list)
}

// eachMailbox calls f for the mailboxes that are not complete, in order.
func (a *account) eachMailbox(ctx context.Context, f func(context.Context, *box) error) error {
	a.chain, a.counted = a.e.plan.Chain.NewRun(a.e.now, a.plan.Vars), 0
	unchanged, err := a.unchanged(ctx)
	if err != nil {
		return err
	}
	a.expect(unchanged)
	defer func() { a.later = nil }()
	for i, b := range a.boxes {
		if a.e.stopped() || a.queue.isDropped() {
			return nil
		}
		if b.final() && !a.countsAcross() && !b.isUnfinished() {
			continue
		}
		if unchanged[b] {
			if !b.final() && !a.claiming { // else this run has counted it already
				a.skip(b)
			}
			continue
		}
		a.later = func(yield func(*box) bool) {
			for _, next := range a.boxes[i+1:] {
				if unchanged[next] || next.final() && !a.countsAcross() && !next.isUnfinished() {
					continue
				}
				if !yield(next) {
					return
				}
			}
		}
		err := f(ctx, b)
		if err == nil || a.claiming && ownTrouble(err) {
			continue
		}
		if !ownTrouble(err) {
			return fmt.Errorf("mailbox %s: %w", b.name, err)
		}
		// A failing mailbox never stops another (I6).
		b.mu.Lock()
		b.problem = err
		b.mu.Unlock()
		a.e.note(Event{Kind: AccountNote, Source: a.plan.Name, Mailbox: b.name, Err: err, Text: "mailbox " + b.name + ": " + err.Error()})
	}
	return nil
}

// expect tells a progress display how much there is to be listed.
func (a *account) expect(unchanged map[*box]bool) {
	c := a.e.counters(a)
	expected := c.Listed.Load()
	for _, b := range a.boxes {
		if !unchanged[b] && !b.final() {
			expected += max(0, b.server.Messages)
		}
	}
	c.Expected.Store(expected)
}

// ownTrouble reports whether an error concerns one mailbox alone.
func ownTrouble(err error) bool { return fault.Is(err, fault.Gone) || fault.Is(err, fault.Message) }

// countsAcross reports whether a limit counts over all mailboxes of the
// source: then they are listed together or not at all.
func (a *account) countsAcross() bool { return a.plan.Limit > 0 || a.e.across }

// unchanged returns the mailboxes whose state is that which was saved when all
// they listed was final, under the same rules.
func (a *account) unchanged(ctx context.Context) (map[*box]bool, error) {
	same := map[*box]bool{}
	if a.e.opts.RetryFailed || a.e.readsNow {
		return same, nil
	}
	fingerprint := a.e.fingerprint(a)
	for _, b := range a.boxes {
		if b.server.Content == "" {
			continue
		}
		saved, err := a.e.ledger.SavedState(ctx, a.plan.Name, b.name, b.server.UIDValidity)
		if err != nil {
			return nil, err
		}
		if !a.e.sameState(&saved, &b.server, fingerprint) {
			continue
		}
		b.saved = saved.Tally
		same[b] = true
	}
	if a.countsAcross() && len(same) != len(a.boxes) {
		return map[*box]bool{}, nil
	}
	return same, nil
}

func (a *account) skip(b *box) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pass()
	a.progress.Add(1)
	a.e.note(Event{Kind: MailboxSkipped, Source: a.plan.Name, Mailbox: b.name, Count: b.listed})
}

// list lists one mailbox in pages, and sends on what is not done.
func (a *account) list(ctx context.Context, b *box) error {
	b.restart()
	pages := a.pages(ctx, b)
	defer pages.close()
	for !a.e.stopped() && !a.queue.isDropped() {
		page, more, err := pages.next()
		if err != nil {
			return err
		}
		from := b.listed + 1
		items, done, ended := a.sort(b, page)
		if err := a.finisher.earlier(ctx, b, done); err != nil {
			return err
		}
		fetch, err := a.deepen(ctx, b, items, from)
		if err != nil {
			return err
		}
		a.queue.push(b, fetch)
		if ended || !more {
			b.mu.Lock()
			b.listedAll = true
			listed, again := b.listed, b.listedOnce
			b.listedOnce = true
			b.mu.Unlock()
			if !again {
				a.progress.Add(1)
			}
			a.e.note(Event{Kind: MailboxListed, Source: a.plan.Name, Mailbox: b.name, Count: listed})
			if b.final() {
				a.e.finish(b)
			}
			return nil
		}
	}
	return nil
}

// listed is a summary beside what the ledger knows of it.
type listed struct {
	sum   message.Summary
	entry ledger.Entry
}

// number finds the ledger's number of the mailbox under its UIDVALIDITY.
func (a *account) number(ctx context.Context, b *box) error {
	number, err := a.e.ledger.Box(ctx, a.plan.Name, b.name, b.uidValidity)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.number = number
	if a.e.claims != nil {
		a.e.claims.place(b, a.index)
	}
	return err
}

// sort counts what is done of a page and makes items of the rest. It returns
// what earlier runs exported as well, and whether the source's own limit ended
// the listing.
func (a *account) sort(b *box, page []listed) (items []*item, exported []message.ID, ended bool) {
	for i := range page {
		l := &page[i]
		if a.plan.Limit > 0 && a.counted >= a.plan.Limit {
			b.mu.Lock()
			b.limited = true
			b.mu.Unlock()
			return items, exported, true
		}
		a.counted++
		a.e.counters(a).Listed.Add(1)
		if a.e.done(&l.entry, a.plan.Vars) || a.failsAgain(l) {
			b.mu.Lock()
			b.listed++
			class := a.e.classOf(&l.entry)
			b.before.add(class, fateOf(&l.entry, ledger.Everywhere))
			b.mu.Unlock()
			if class == ledger.Written && a.finisher != nil {
				exported = append(exported, l.sum.ID)
			}
			if n := a.e.passedBarriers(&l.entry); n > 0 {
				items = append(items, &item{box: b, sum: l.sum, passing: n})
			}
			continue
		}
		it := a.e.newItem(b, b.number, l.sum, &l.entry)
		b.mu.Lock()
		b.listed++
		b.todo++
		b.mu.Unlock()
		a.e.counters(a).Todo.Add(1)
		for _, s := range l.entry.Suspects {
			it.accuse(s.Target)
		}
		if l.sum.Fails > 0 {
			stage := a.pushed[l.sum.Fails-1].Stage.Name
			// Without kept values: a chain that changes lists it anew (I8).
			it.final = &ledger.Fate{Target: ledger.Everywhere, Class: ledger.Dropped, Refusal: &ledger.Refusal{Stage: stage, Rules: a.e.rules[stage]}}
		}
		items = append(items, it)
	}
	return items, exported, false
}

// failsAgain reports whether the server refuses a message for the condition
// for which it did before: its drop stands as it is in the ledger, also where
// only a new listing could tell.
func (a *account) failsAgain(l *listed) bool {
	if l.sum.Fails == 0 {
		return false
	}
	f := fateOf(&l.entry, ledger.Everywhere)
	if f == nil || f.Class != ledger.Dropped || f.Refusal == nil || len(f.Refusal.Values) > 0 {
		return false
	}
	stage := a.pushed[l.sum.Fails-1].Stage.Name
	return f.Refusal.Stage == stage && f.Refusal.Rules == a.e.rules[stage]
}

// deepen judges the items of a page, asking the source for more of those that
// need it, until each is final, ready for the epoch, or to be fetched. It
// returns the last. from is the place of the page in the listing, from 1.
func (a *account) deepen(ctx context.Context, b *box, items []*item, from int64) (fetch []*item, err error) {
	open := items
	page := surveyPage{from: from}
	for len(open) > 0 {
		var needs message.Needs
		var want, waiting, copies, headers []*item
		for _, it := range open {
			more, step := a.consider(it, len(waiting) == 0)
			if it.alone && it.final == nil && (step == stepFetch || step == stepReady) {
				a.setAside(it)
				continue
			}
			if step == stepAsk && a.adapts(it, more) {
				headers = append(headers, it)
				continue
			}
			switch step {
			case stepAsk:
				want, needs = append(want, it), needs|more
				waiting = append(waiting, it)
			case stepWait:
				waiting = append(waiting, it)
			case stepClaim:
				copies = append(copies, it)
			case stepFetch:
				page.learn(it, true)
				fetch = append(fetch, it)
			case stepReady:
				page.learn(it, false)
				if !a.claiming {
					(&worker{e: a.e}).settle(it)
				}
			}
		}
		if len(copies) > 0 {
			on, err := a.atDedupe(ctx, b, copies)
			if err != nil {
				return nil, err
			}
			waiting = append(waiting, on...)
		}
		if len(headers) > 0 {
			more, ask, direct, rest := a.split(&page, headers)
			if len(ask) > 0 {
				want, needs = append(want, ask...), needs|more
			}
			fetch = append(fetch, direct...)
			a.withBodies(b, &page, len(direct))
			waiting = append(append(waiting, ask...), rest...)
		}
		open = waiting
		if len(want) == 0 {
			continue
		}
		if err := a.ask(ctx, b, want, needs); err != nil {
			return nil, err
		}
	}
	a.survey.close(&page)
	if page.mixed {
		fetch = inOrder(items, fetch)
	}
	return fetch, nil
}

// step is what is next for an item of a page.
type step int

const (
	stepAsk    step = iota + 1 // the source must tell more of it
	stepWait                   // it stands at a barrier behind others
	stepFetch                  // its body is wanted
	stepReady                  // its fate needs no body
	stepPassed                 // it was done before, and is counted
	stepClaim                  // it came to the dedupe
)

// consider takes an item as far as what is known of it allows. first says that
// no item before it is undecided: only then it may pass a barrier, which
// counts in the order of the listing.
func (a *account) consider(it *item, first bool) (message.Needs, step) {
	if it.passing > 0 {
		if !first {
			return 0, stepWait
		}
		// Done in an earlier run: it only takes its place in the count, so
		// that every run lets the same messages pass.
		for at := range it.passing {
			a.chain.Admit(stages.Position(at), &it.sum)
		}
		return 0, stepPassed
	}
	if it.twin != nil {
		return 0, stepFetch // to be compared, before anything else
	}
	can := a.plan.Provides
	for it.final == nil && !it.judged {
		if it.atBarrier && a.e.plan.Chain.Barrier(it.at).Kind == stages.Plugin {
			more, step := a.atPlugin(it)
			if step != 0 {
				return more, step
			}
			continue
		}
		if it.atBarrier && a.e.plan.Chain.Barrier(it.at).Kind == stages.Dedupe {
			// Claimed before, its header needn't be known.
			if more := message.NeedHeaders &^ it.sum.Have; more != 0 && (a.claiming || it.unclaimed) {
				return more, stepAsk
			}
			return 0, stepClaim
		}
		if it.atBarrier && !first {
			return 0, stepWait
		}
		judge := a.e.judge
		if it.atBarrier {
			judge = a.e.admit
		}
		more, passed := judge(it)
		if passed || it.final != nil || it.atBarrier {
			continue
		}
		if more&^can != 0 {
			return 0, stepFetch // only the body tells
		}
		return more, stepAsk
	}
	if it.final != nil {
		return 0, stepReady
	}
	more := a.e.decide(it)
	switch {
	case a.e.needsBody(it):
		return 0, stepFetch
	case more&^can != 0:
		return 0, stepFetch
	case more != 0:
		return more, stepAsk
	}
	if missing := a.e.missing(it); missing != 0 {
		return missing, stepAsk
	}
	a.e.annotate(it)
	return 0, stepReady
}

// atDedupe takes items that came to the dedupe as far as it goes, and returns
// those that are to be considered further.
func (a *account) atDedupe(ctx context.Context, b *box, items []*item) (on []*item, err error) {
	if a.claiming {
		_, err := a.enterClaims(ctx, b, items)
		return nil, err
	}
	var late []*item
	for _, it := range items {
		if it.unclaimed {
			late = append(late, it)
		}
	}
	free, err := a.enterClaims(ctx, b, late)
	if err != nil {
		return nil, err
	}
	items = slices.DeleteFunc(items, func(it *item) bool { return slices.Contains(free, it) })
	chosen, unknown, err := a.choose(ctx, b, items)
	if err != nil {
		return nil, err
	}
	for _, it := range append(chosen, free...) {
		it.at, it.atBarrier = it.at+1, false
	}
	for _, it := range unknown {
		it.unclaimed = true // it came since, or can have no copies: its header tells
	}
	return slices.Concat(chosen, free, unknown), nil
}

// atPlugin has a plugin that reads no body judge the item in the listing.
func (a *account) atPlugin(it *item) (message.Needs, step) {
	st := a.e.plan.Chain.Barrier(it.at)
	needs := a.e.plan.Chain.BarrierNeeds(it.at)
	switch more := needs &^ it.sum.Have; {
	case needs.Has(message.NeedBody), more&^a.plan.Provides != 0:
		return 0, stepFetch
	case more != 0:
		return more, stepAsk
	}
	_, err := a.e.ask(it, st, nil, nil)
	if err != nil || a.e.stopped() || a.e.ctx.Err() != nil {
		return 0, stepPassed // left pending
	}
	return 0, 0
}

// ask lists more of some items, in their order: a server gives what lies side
// by side for less. One that the server no longer lists is gone.
func (a *account) ask(ctx context.Context, b *box, items []*item, needs message.Needs) error {
	if err := a.lanes.acquireToList(ctx); err != nil {
		return err
	}
	defer a.lanes.release()
	ids := make([]message.ID, len(items))
	want := make(map[message.ID]*item, len(items))
	for i, it := range items {
		ids[i], want[it.sum.ID] = it.sum.ID, it
	}
	for chunk := range slices.Chunk(ids, pageLong) {
		sums, _, err := a.summaries(ctx, b, source.ListRequest{Mailbox: b.name, Needs: needs, IDs: chunk}, goingOn)
		if err != nil {
			return err
		}
		for i := range sums {
			if it := want[sums[i].ID]; it != nil {
				know(&it.sum, &sums[i], needs)
				delete(want, sums[i].ID)
			}
		}
	}
	for _, it := range want {
		it.final = &ledger.Fate{Target: ledger.Everywhere, Class: ledger.Vanished}
	}
	return nil
}

// know adds what a second listing told to a summary. What was asked for and
// didn't come is absent: it isn't asked for again.
func know(to, from *message.Summary, asked message.Needs) {
	merge(to, from)
	if from.Have.Has(message.NeedHeaders) {
		to.Header = from.Header
	}
	if from.Have.Has(message.NeedStructure) {
		to.Structure = from.Structure
	}
	to.Have |= asked
}
