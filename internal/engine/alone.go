package engine

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"

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

// tryAlone tries the account's suspects one by one, in processes that nothing
// else uses: who dies then has one culprit. A second death makes a dead letter.
// When ctx ends no server is waited for any more, only commits.
func (a *account) tryAlone(ctx context.Context) {
	if len(a.alone) == 0 {
		return
	}
	for _, o := range a.e.outlets {
		if err := o.isolate(ctx); err != nil {
			o.fail(err)
		}
	}
	s := &solo{a: a, w: &worker{e: a.e}}
	defer s.close()
	deaths := 0
	for ctx.Err() == nil && !a.e.stopped() {
		it := a.nextAlone()
		if it == nil {
			return
		}
		died, err := s.try(ctx, it)
		if died {
			deaths++
		} else {
			deaths = 0
		}
		if err == nil && deaths >= maxAloneDeaths {
			err = fault.New(fault.Crashed, "plugin %s died with each of %d messages that were tried alone: the plugin is broken, not the messages", a.plan.Plugin, deaths)
		}
		if err != nil && ctx.Err() != nil && a.e.ctx.Err() == nil {
			return // it was broken off, and is tried again by the next run
		}
		if err != nil {
			a.err = err
			a.e.note(Event{Kind: AccountFailed, Source: a.plan.Name, Err: err})
			return
		}
	}
}

// nextAlone returns the next suspect; when there seems to be none, it waits
// for those under way, which may come back.
func (a *account) nextAlone() *item {
	for range 2 {
		a.mu.Lock()
		if len(a.alone) > 0 {
			it := a.alone[0]
			a.alone = a.alone[1:]
			a.mu.Unlock()
			return it
		}
		a.mu.Unlock()
		a.drain(a.e.ctx)
	}
	return nil
}

// solo is a session in a process of its own, for as long as that lives.
type solo struct {
	a    *account
	w    *worker
	open bool
}

// try takes one suspect through. died says that the source's process didn't
// survive it.
func (s *solo) try(ctx context.Context, it *item) (died bool, err error) {
	a := s.a
	it.aborted.Store(false)
	err = s.fetch(ctx, it)
	if !fault.Is(err, fault.Crashed) {
		if slices.ContainsFunc(it.accused, func(t ledger.TargetID) bool { return t != ledger.Everywhere }) {
			a.drain(a.e.ctx) // a sink's suspect: nothing else may be with it
		}
		return false, err
	}
	s.close()
	a.tellDeath()
	a.drain(a.e.ctx) // it may have come before the process died
	if it.worst() != ledger.Pending {
		return true, nil
	}
	again := it.accuse(ledger.Everywhere)
	a.mu.Lock()
	a.alone = slices.DeleteFunc(a.alone, func(other *item) bool { return other == it })
	if !again {
		a.alone = append(a.alone, it)
	}
	a.mu.Unlock()
	if !again {
		return true, a.accuse([]*item{it})
	}
	it.dead("", fault.New(fault.Message, "the plugin's process died twice with this message in hand: %w", err).WithReason("kills_the_source"))
	s.w.settle(it)
	a.drain(a.e.ctx)
	return true, nil
}

func (s *solo) close() {
	if s.open {
		_ = s.a.source.Close() // of a process that ends with it
		s.open = false
	}
}

func (s *solo) session(ctx context.Context) error {
	if s.open {
		return nil
	}
	opened, err := s.a.e.plugins.OpenSource(ctx, s.a.plan, true)
	if err != nil {
		return err
	}
	s.a.source, s.open = opened.Source, true
	for _, err := range opened.Source.Mailboxes(ctx) { // the contract: before anything else
		if err != nil {
			return fmt.Errorf("list the mailboxes: %w", err)
		}
	}
	return nil
}

// fetch fetches and delivers one message.
func (s *solo) fetch(ctx context.Context, it *item) error {
	if err := s.session(ctx); err != nil {
		return err
	}
	w, answered := s.w, false
	req := source.FetchRequest{Mailbox: it.box.name, Needs: s.a.plan.FetchNeeds, IDs: one(it.sum.ID)}
	for f, err := range s.a.source.Fetch(ctx, req) {
		if err != nil {
			return fmt.Errorf("mailbox %s: %w", it.box.name, err)
		}
		switch {
		case f.Err == nil && f.Message != nil && f.Message.Body != nil:
			if err := w.deliver(ctx, it, f.Message); fault.Is(err, fault.Crashed) {
				return err
			}
		case fault.Is(f.Err, fault.Gone):
			continue
		case f.Err != nil:
			it.instead = bytes.Clone(f.Instead)
			w.refused(it, f.Err)
		default:
			it.dead("", fault.New(fault.Bug, "%w", errNoBody).WithReason("no_body"))
			w.settle(it)
		}
		answered = true
	}
	if !answered {
		return w.lookAgain(ctx, s.a, it.box, []*item{it})
	}
	return nil
}

func one(id message.ID) iter.Seq[[]message.ID] {
	return func(yield func([]message.ID) bool) { yield([]message.ID{id}) }
}
