package engine

import (
	"context"
	"fmt"
	"iter"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// maxAloneDeaths is how many suspects in a row may kill their process before
// it is the plugin that is broken, not the messages.
const maxAloneDeaths = 4

// setAside keeps an item to be tried alone at the end of the run.
func (a *account) setAside(it *item) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.alone = append(a.alone, it)
}

// accuse notes that the source's process died with the items in hand. The
// user is told by tellDeath: one death ends several fetches.
func (a *account) accuse(items []*item) error {
	a.mu.Lock()
	a.died, a.accused = true, a.accused+int64(len(items))
	a.mu.Unlock()
	byBox := map[ledger.Box][]message.ID{}
	for _, it := range items {
		byBox[it.number] = append(byBox[it.number], it.sum.ID)
	}
	for number, ids := range byBox {
		if err := a.e.ledger.AddSuspects(a.e.ctx, number, ledger.Everywhere, ids); err != nil {
			return err
		}
	}
	return nil
}

// tellDeath tells the user of a death of the source's process since the last
// call.
func (a *account) tellDeath() {
	a.mu.Lock()
	died, n := a.died, a.accused
	a.died, a.accused = false, 0
	a.mu.Unlock()
	if died {
		a.e.note(Event{Kind: SourceDied, Source: a.plan.Name, Count: n})
	}
}

// accuseAt notes that a sink's process died with the item in hand. The ledger
// learns of it after the epoch that the item is in.
func (a *account) accuseAt(it *item, sink int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.e.outlets[sink]
	if it.accuse(o.target.ID) && o.isAlone() {
		it.slots[sink].state = slotDead
		it.slots[sink].letter = letterOf(it, o.plan.Name, fault.New(fault.Message, "%w", err).WithReason("kills_the_sink"))
		return
	}
	it.unnoted = append(it.unnoted, o.target.ID)
}

// tryAlone tries the account's suspects one by one, each in processes that
// nothing else uses. A second death makes a dead letter.
func (a *account) tryAlone(ctx context.Context) {
	if len(a.alone) == 0 {
		return
	}
	for _, o := range a.e.outlets {
		if err := o.isolate(ctx); err != nil {
			o.fail(err)
		}
	}
	deaths := 0
	for len(a.alone) > 0 && ctx.Err() == nil && !a.e.stopped() {
		it := a.alone[0]
		a.alone = a.alone[1:]
		died, err := a.tryOne(ctx, it)
		if died {
			deaths++
		} else {
			deaths = 0
		}
		if err == nil && deaths >= maxAloneDeaths {
			err = fault.New(fault.Crashed, "plugin %s died with each of %d messages that were tried alone: the plugin is broken, not the messages", a.plan.Plugin, deaths)
		}
		if err != nil {
			a.err = err
			a.e.note(Event{Kind: AccountFailed, Source: a.plan.Name, Err: err})
			return
		}
	}
}

// tryOne takes one suspect through a session of its own and waits for its
// commit. died says that the source's process didn't survive it.
func (a *account) tryOne(ctx context.Context, it *item) (died bool, err error) {
	w := &worker{e: a.e}
	it.aborted.Store(false)
	err = a.fetchAlone(ctx, w, it)
	if fault.Is(err, fault.Crashed) {
		cause := err
		died, err = true, nil
		if !it.accuse(ledger.Everywhere) {
			a.setAside(it)
			err = a.accuse([]*item{it})
			a.tellDeath()
			return died, err
		}
		it.dead("", fault.New(fault.Message, "the plugin's process died twice with this message in hand: %w", cause).WithReason("kills_the_source"))
		w.settle(it)
	}
	a.drain(ctx)
	return died, err
}

// fetchAlone fetches and delivers one message.
func (a *account) fetchAlone(ctx context.Context, w *worker, it *item) error {
	opened, err := a.e.plugins.OpenSource(ctx, a.plan, true)
	if err != nil {
		return err
	}
	defer opened.Source.Close()
	a.source = opened.Source
	for _, err := range a.source.Mailboxes(ctx) { // the contract: before anything else
		if err != nil {
			return fmt.Errorf("list the mailboxes: %w", err)
		}
	}
	req := source.FetchRequest{Mailbox: it.box.name, Needs: a.plan.FetchNeeds, IDs: one(it.sum.ID)}
	answered := false
	for f, err := range a.source.Fetch(ctx, req) {
		if err != nil {
			return fmt.Errorf("mailbox %s: %w", it.box.name, err)
		}
		answered = true
		switch {
		case f.Err == nil && f.Message != nil && f.Message.Body != nil:
			w.deliver(ctx, it, f.Message)
		case fault.Is(f.Err, fault.Gone):
			return w.lookAgain(ctx, a, it.box, []*item{it})
		case f.Err != nil:
			w.refused(it, f.Err)
		default:
			it.dead("", fault.New(fault.Bug, "%w", errNoBody).WithReason("no_body"))
			w.settle(it)
		}
	}
	if !answered {
		return w.lookAgain(ctx, a, it.box, []*item{it})
	}
	return nil
}

func one(id message.ID) iter.Seq[[]message.ID] {
	return func(yield func([]message.ID) bool) { yield([]message.ID{id}) }
}
