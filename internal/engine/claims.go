package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/internal/stages/dedupe"
	"github.com/mailhaul/pipeline/pkg/message"
)

// claims is a dedupe at work. Of the copies of a message the first goes on: in
// the order of the sources in the file, of a source's mailboxes as they are
// listed, of a mailbox's messages as they are listed. So that this order is
// known before anything is written, each account first lists all that isn't
// done and claims it; then it waits until the accounts before it have done so
// too, and begins. Who goes on is in the ledger before its first octet is
// written: a crash doesn't change it (I2). See docs/adr/0006-dedupe.md.
type claims struct {
	stage *stages.Stage
	round int64 // of the ledger
	again int   // how often the copies that wait have been looked at again

	mu      sync.Mutex
	changed sync.Cond
	over    []bool // by account: it has claimed all that it has, or was given up
	order   map[ledger.Box]int64
	newest  map[ledger.Box]bool
	halted  bool

	moved    atomic.Int64 // messages that were told apart, since the last look
	deciding sync.Mutex   // one at a time: two must not choose for one digest
}

func newClaims(s *stages.Stage, round int64, accounts int) *claims {
	c := &claims{stage: s, round: round, over: make([]bool, accounts), order: map[ledger.Box]int64{}, newest: map[ledger.Box]bool{}}
	c.changed.L = &c.mu
	return c
}

// claimed says that an account has claimed all that it has, or won't.
func (c *claims) claimed(account int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over[account] = true
	c.changed.Broadcast()
}

// allOver reports whether every account has claimed, or was given up.
func (c *claims) allOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !slices.Contains(c.over, false)
}

// wait waits for the accounts before this one. It is false when the run ends
// before.
func (c *claims) wait(account int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for slices.Contains(c.over[:account], false) && !c.halted {
		c.changed.Wait()
	}
	return !c.halted
}

func (c *claims) halt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.halted = true
	c.changed.Broadcast()
}

// place notes where a mailbox stands in the order of the run.
func (c *claims) place(b *box, account int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.order[b.number] = int64(account)<<32 | int64(b.index)
	c.newest[b.number] = b.account.plan.Newest
}

// before reports whether a goes on rather than b.
func (c *claims) before(a, b ledger.Copy) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.order[a.Box] != c.order[b.Box] {
		return c.order[a.Box] < c.order[b.Box]
	}
	return (a.Number < b.Number) != c.newest[a.Box]
}

// claim lists all that isn't done and claims what comes to the dedupe, then
// waits for the accounts before this one.
func (a *account) claim(ctx context.Context) error {
	c := a.e.claims
	if c == nil {
		return nil
	}
	if !a.claimed {
		a.claiming, a.queue = true, newQueue()
		err := a.eachMailbox(ctx, a.claimBox)
		a.claiming = false
		if err != nil {
			return err
		}
		a.claimed = true
		c.claimed(a.index)
	}
	if !c.wait(a.index) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// claimBox claims what isn't done of one mailbox. Nothing is counted.
func (a *account) claimBox(ctx context.Context, b *box) error {
	pages := a.pages(ctx, b)
	defer pages.close()
	for !a.e.stopped() {
		page, more, err := pages.next()
		if err != nil {
			return err
		}
		var items []*item
		for i := range page {
			l := &page[i]
			if a.plan.Limit > 0 && a.counted >= a.plan.Limit {
				more = false
				break
			}
			a.counted++
			switch {
			case a.e.done(&l.entry, a.plan.Vars) || a.failsAgain(l):
				if n := a.e.passedBarriers(&l.entry); n > 0 {
					items = append(items, &item{box: b, sum: l.sum, passing: n})
				}
			case l.sum.Fails == 0:
				items = append(items, a.e.newItem(b, b.number, l.sum, &l.entry))
			}
		}
		if _, err := a.deepen(ctx, b, items, 0); err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
	return nil
}

// enterClaims claims items that came to the dedupe, with their headers. Those
// that can have no copies are returned.
func (a *account) enterClaims(ctx context.Context, b *box, items []*item) (free []*item, err error) {
	var list []ledger.Claim
	for _, it := range items {
		k, ok := a.e.claims.stage.Dedupe.KeyOf(it.sum.Header)
		if !ok {
			free = append(free, it)
			continue
		}
		if a.e.claims.stage.Dedupe == dedupe.Content {
			k.Kin = k.Digest // until the octets tell more
		}
		list = append(list, ledger.Claim{ID: it.sum.ID, Digest: k.Digest, Kin: k.Kin})
	}
	return free, a.e.ledger.Claim(ctx, a.e.claims.round, b.number, list)
}

// choose says of items that came to the dedupe which go on. unknown are those
// that nobody claimed yet: they came since.
func (a *account) choose(ctx context.Context, b *box, items []*item) (on, unknown []*item, err error) {
	c := a.e.claims
	c.deciding.Lock()
	defer c.deciding.Unlock()
	ids := make([]message.ID, len(items))
	for i, it := range items {
		ids[i] = it.sum.ID
	}
	known, err := a.e.ledger.Claimed(ctx, c.round, b.number, ids)
	if err != nil {
		return nil, nil, err
	}
	// An earlier run may have chosen a copy of an account that hasn't claimed
	// yet: nobody may take its place before it has had its turn (I2).
	allOver := c.allOver()
	var holdings []ledger.Holding
	chosen := map[ledger.Digest]ledger.Copy{} // in this call
	for i, it := range items {
		k := &known[i]
		if !k.Waits {
			unknown = append(unknown, it)
			continue
		}
		if k.Holder != nil && !k.HolderWaits && !allOver && !a.e.written(k.Fates) {
			a.waitFor()
			continue
		}
		if _, ok := chosen[k.Digest]; !ok && (k.Holder == nil || !k.HolderWaits && !a.e.written(k.Fates)) {
			// Nobody was chosen, or who was can't be written: the first of
			// those that wait.
			copies, err := a.e.ledger.Copies(ctx, c.round, k.Digest)
			if err != nil {
				return nil, nil, err
			}
			first := slices.MinFunc(copies, func(x, y ledger.Copy) int {
				switch {
				case x == y:
					return 0
				case c.before(x, y):
					return -1
				}
				return 1
			})
			chosen[k.Digest] = first
			holdings = append(holdings, ledger.Holding{Digest: k.Digest, Holder: first})
		}
		self := k.Self
		if first, ok := chosen[k.Digest]; ok {
			self = first == k.Copy
			k.Fates = nil
		}
		switch {
		case self:
			on = append(on, it)
		case !a.e.written(k.Fates):
			a.waitFor()
		case c.stage.Dedupe == dedupe.MessageID:
			a.e.duplicate(it)
			on = append(on, it)
		case c.again == 0:
			a.waitFor() // all are compared together, when none is under way
		default:
			it.twin, it.digest = k.SHA256, k.Digest
			on = append(on, it)
		}
	}
	return on, unknown, a.e.ledger.Hold(ctx, holdings)
}

// waitFor counts a copy that waits.
func (a *account) waitFor() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.copies++
}

// written reports whether a message is durable in every sink of this run that
// wanted it, and in one at least.
func (e *Engine) written(fates []ledger.Fate) bool {
	one, data := false, slices.ContainsFunc(e.outlets, func(o *outlet) bool { return !o.plan.Prepared.Record })
	for i, t := range e.targets {
		if data && e.outlets[i].plan.Prepared.Record {
			continue // it follows
		}
		f := fateOf(&ledger.Entry{Fates: fates}, t)
		if f == nil || f.Class != ledger.Written && f.Class != ledger.Unrouted {
			return false
		}
		one = one || f.Class == ledger.Written
	}
	return one
}

// duplicate makes an item the duplicate of a message that is written.
func (e *Engine) duplicate(it *item) {
	name := e.claims.stage.Name
	it.final = &ledger.Fate{Target: ledger.Everywhere, Class: ledger.Duplicate, Refusal: &ledger.Refusal{
		Stage: name, Rules: e.rules[name], Values: []byte("{}"),
	}}
}

// compare holds the octets of an item against those of the copy that is
// written. Where they differ, it is told apart, and waits for its own turn.
func (w *worker) compare(it *item, body *message.Body) error {
	sum := sha256.New()
	from := &guarded{Reader: body, size: body.Size(), it: it}
	n, err := io.Copy(sum, from)
	if err != nil {
		return from.err
	}
	it.octets, it.sha256 = n, sum.Sum(nil)
	if bytes.Equal(it.sha256, it.twin) {
		w.e.duplicate(it)
		return nil
	}
	it.waits = true
	w.e.claims.moved.Add(1)
	it.box.account.waitFor()
	return w.e.ledger.Tell(w.e.ctx, it.number, it.sum.ID, dedupe.Of(it.digest, it.sha256))
}

// released reports whether an item that is settled makes way for its copies.
func (it *item) released() bool {
	if it.box == nil || it.box.account.e.claims == nil {
		return false
	}
	c := it.worst()
	return c != ledger.Written && c != ledger.Pending
}

// reconsider takes from duplicates of earlier runs their fate where what they
// are duplicates of isn't written in all sinks of this run, or the rules
// changed (I8).
func (a *account) reconsider(ctx context.Context, b *box, page []listed) error {
	var ids []message.ID
	var fates []*ledger.Fate
	for i := range page {
		f := fateOf(&page[i].entry, ledger.Everywhere)
		if f == nil || f.Class != ledger.Duplicate || f.Refusal == nil {
			continue
		}
		if c := a.e.claims; c == nil || f.Refusal.Rules != a.e.rules[c.stage.Name] {
			f.Class = ledger.Vanished // and there again
			continue
		}
		ids, fates = append(ids, page[i].sum.ID), append(fates, f)
	}
	if len(ids) == 0 {
		return nil
	}
	known, err := a.e.ledger.Claimed(ctx, a.e.claims.round, b.number, ids)
	if err != nil {
		return err
	}
	for i, f := range fates {
		if k := &known[i]; k.Holder == nil || k.Self || !a.e.written(k.Fates) {
			f.Class = ledger.Vanished
		}
	}
	return nil
}

// lookAgainAtCopies goes on with the copies that wait, until none is left or
// nothing moves any more: each time all that was under way is committed.
func (e *Engine) lookAgainAtCopies(ctx context.Context) {
	if e.claims == nil {
		return
	}
	for last := int64(-1); ctx.Err() == nil && !e.stopped(); {
		var waiting []*account
		left := int64(0)
		for _, a := range e.accounts {
			if a.copies > 0 && a.err == nil && a.until.IsZero() {
				waiting = append(waiting, a)
				left += a.copies
			}
		}
		if moved := e.claims.moved.Swap(0); len(waiting) == 0 || left == last && moved == 0 {
			return
		}
		last = left
		e.claims.again++
		for _, a := range waiting {
			e.idle(-1)
			a.run(ctx)
			if len(a.alone) > 0 && ctx.Err() == nil && !e.stopped() {
				a.tryAlone(ctx)
			}
			e.noteAccount(a, true)
			e.idle(1)
		}
	}
}

// tellApart tells the user of messages that share a Message-ID and differ.
func (e *Engine) tellApart(ctx context.Context) error {
	if e.claims == nil || e.claims.stage.Dedupe != dedupe.MessageID {
		return nil
	}
	n, err := e.ledger.ToldApart(context.WithoutCancel(ctx), e.claims.round)
	if err == nil && n > 0 {
		e.note(Event{Kind: StageNote, Stage: e.claims.stage.Name, Count: n,
			Text: fmt.Sprintf("stage %s: %d Message-IDs stand in messages that differ in date, sender or subject: each of these is exported", e.claims.stage.Name, n)})
	}
	return err
}
