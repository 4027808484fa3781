package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// Sizes of a batch of ids.
const (
	batchFirst  = 16      // before the size of the messages is known
	batchMost   = 512     // ids
	batchShared = 128     // ids: fewer aren't shared with another lane
	batchOctets = 4 << 20 // expected octets of bodies
	maxAttempts = 3       // fetches of one message that come to nothing
)

// fetchLoop fetches what the queue holds until nothing more will come.
func (w *worker) fetchLoop(ctx context.Context, a *account) error {
	for {
		g := a.queue.next(ctx)
		if g == nil {
			return nil
		}
		if a.e.stopped() || a.budget.over() {
			a.queue.leave(g)
			a.queue.drop()
			return nil
		}
		if err := a.lanes.acquire(ctx); err != nil {
			a.queue.leave(g)
			return err
		}
		gone, err := w.fetch(ctx, a, g)
		if err == nil && len(gone) > 0 {
			err = w.lookAgain(ctx, a, g.box, gone)
		}
		a.lanes.release()
		a.queue.leave(g)
		if err != nil {
			return err
		}
	}
}

// fetch runs one Fetch over what is waiting for a mailbox. It ends when
// nothing waits, not when the listing does: a source with a single connection
// must be free to list on.
func (w *worker) fetch(ctx context.Context, a *account, g *group) (gone []*item, err error) {
	p := newPulled()
	ids := func(yield func([]message.ID) bool) {
		for ctx.Err() == nil && !a.e.stopped() && !a.budget.over() && !(a.queue.short() && a.lanes.give()) && p.room() {
			batch := p.add(a.queue.take(g, a.budget.batch(g.box.batch(), g.box.mean()), a.lanes.all()))
			if len(batch) == 0 || !yield(batch) {
				return
			}
		}
	}
	answers := a.source.Fetch(ctx, source.FetchRequest{Mailbox: g.box.name, Needs: a.plan.FetchNeeds, IDs: iter.Seq[[]message.ID](ids)})
	for f, ferr := range answers {
		if ferr != nil {
			err = ferr
			break
		}
		f.ID.Source = a.plan.Name
		it := p.answered(f.ID)
		if it == nil {
			err = fault.New(fault.Bug, "source %s: plugin %s answered with a message that was not asked for: %s", a.plan.Name, a.plan.Plugin, f.ID)
			break
		}
		switch {
		case f.Err != nil:
			it.instead = bytes.Clone(f.Instead)
			if w.refused(it, f.Err) {
				gone = append(gone, it)
			}
		case f.Message == nil || f.Message.Body == nil:
			it.dead("", fault.New(fault.Bug, "%w", errNoBody).WithReason("no_body"))
			w.settle(it)
		default:
			_ = w.deliver(ctx, it, f.Message) // a death ends the Fetch as well
			a.e.counters(a).fetched(it.octets)
			a.budget.spend(max(it.octets, f.Message.Body.Size()))
			g.box.learn(it.octets)
		}
	}
	p.close()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	switch {
	case err == nil:
		for _, it := range p.unanswered() {
			if a.e.stopped() {
				continue
			}
			gone = append(gone, it) // pulled and never answered: is it there?
		}
		return gone, nil
	case fault.Is(err, fault.Crashed):
		// Any of these may have killed the process: they are tried alone,
		// later (DESIGN §6, Crashed plugin).
		return nil, errors.Join(err, a.accuse(p.unanswered()))
	}
	return nil, fmt.Errorf("mailbox %s: %w", g.box.name, err)
}

// refused deals with a message that the source couldn't give, and reports
// whether it may be gone.
func (w *worker) refused(it *item, err error) (gone bool) {
	switch fault.Of(err) {
	case fault.Gone:
		return true
	case fault.Message:
		it.dead("", err)
		w.settle(it)
	default:
		w.settleBroken(it, err)
	}
	return false
}

// settle passes an item whose fate needs no body through the gate.
func (w *worker) settle(it *item) {
	it.big = false
	w.e.enter(it)
	w.e.gate.leave(it)
}

// settleBroken is settle for an item whose fetch came to nothing this time.
func (w *worker) settleBroken(it *item, err error) {
	it.big = false
	w.e.enter(it)
	it.box.account.broken(it, err)
	w.e.gate.leave(it)
}

// lookAgain lists the messages that the server wouldn't give: only one that a
// fresh List doesn't have is vanished (I1); one that is still listed is tried
// again, and then is a dead letter.
func (w *worker) lookAgain(ctx context.Context, a *account, b *box, gone []*item) error {
	ids := make([]message.ID, len(gone))
	for i, it := range gone {
		ids[i] = it.sum.ID
	}
	there := make(map[message.ID]bool, len(gone))
	// Under another UIDVALIDITY nothing would be there, and nothing is gone:
	// summaries says so.
	sums, _, err := a.summaries(ctx, b, source.ListRequest{Mailbox: b.name, IDs: ids}, anew)
	if err != nil {
		return err
	}
	for i := range sums {
		there[sums[i].ID] = true
	}
	for _, it := range gone {
		if there[it.sum.ID] {
			w.settleBroken(it, fault.New(fault.Message, "the server lists the message, but doesn't give it").WithReason("listed_but_not_given"))
			continue
		}
		it.final = &ledger.Fate{Target: ledger.Everywhere, Class: ledger.Vanished}
		w.settle(it)
	}
	return nil
}

// batch returns how many ids to ask for at once: few as long as nothing is
// known of the messages' sizes, so that big ones are spread over the lanes.
func (b *box) batch() int {
	mean := b.mean()
	if mean == 0 {
		return batchFirst
	}
	return int(min(max(batchOctets/mean, 1), batchMost))
}

// mean returns the mean size of the bodies that came, before the first that of
// all messages as the server tells it; 0 where it doesn't.
func (b *box) mean() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.fetched > 0:
		return max(b.octets/b.fetched, 1)
	case b.server.Messages > 0 && b.server.Bytes > 0:
		return max(b.server.Bytes/b.server.Messages, 1)
	}
	return 0
}

func (b *box) learn(octets int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fetched++
	b.octets += max(octets, 0)
}

// backoff returns how long to wait before try n, from 1.
func backoff(n int) time.Duration {
	return min(time.Second<<min(n-1, 5), 30*time.Second)
}
