package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/internal/faultpoint"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// commitLoop commits an epoch whenever the gate asks, until ended is closed
// and nothing is left.
func (e *Engine) commitLoop(ctx context.Context, ended <-chan struct{}) error {
	for {
		select {
		case <-e.gate.wake:
			if err := e.commit(ctx); err != nil {
				return err
			}
		case <-ended:
			return e.commit(ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// flushed is what a Flush of one outlet gave.
type flushed struct {
	gen        int // 0: nothing durable
	checkpoint sink.Checkpoint
	refused    map[message.ID]error // what the target took back; see message.Refusals
}

// commit takes an epoch through the protocol of DESIGN §6: wait for its
// Writes, flush the data sinks in parallel, write and flush the record sinks,
// store everything in one transaction, tell the sinks. The next epoch begins
// as soon as each data sink has sealed this one, or flushed where it can't seal.
func (e *Engine) commit(ctx context.Context) error {
	items, since := e.gate.close()
	boxes := e.takeFinished()
	if len(items) == 0 && len(boxes) == 0 && !e.hasStanding() {
		e.gate.open()
		return nil
	}
	faultpoint.Hit("engine.epoch.closed")
	results := make([]flushed, len(e.outlets))
	e.flushAll(ctx, results, false, e.gate.open)
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	faultpoint.Hit("engine.data.flushed")
	for _, it := range items {
		e.takeBack(it, results, false)
	}
	e.record(ctx, items)
	faultpoint.Hit("engine.records.written")
	e.flushAll(ctx, results, true, func() {})
	for _, it := range items {
		e.takeBack(it, results, true)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	epoch := ledger.Epoch{Settled: make([]ledger.Settled, 0, len(items)), Checkpoints: map[ledger.TargetID][]byte{}, Boxes: boxes}
	for _, it := range items {
		epoch.Settled = append(epoch.Settled, it.settled(e.targets))
	}
	for i, r := range results {
		if r.gen != 0 {
			epoch.Checkpoints[e.targets[i]] = r.checkpoint
		}
	}
	epoch.Accounts, epoch.Mailboxes = e.takeStanding(items)
	epoch.Spent = e.takeSpent()
	faultpoint.Hit("engine.before.commit")
	if err := e.ledger.Commit(ctx, epoch); err != nil {
		return err
	}
	faultpoint.Hit("engine.after.commit")
	if err := e.learnSpent(ctx, epoch.Spent); err != nil {
		return err
	}
	if len(items) > 0 {
		e.note(Event{Kind: Committed, Count: int64(len(items)), Took: time.Since(since)})
	}
	for i, r := range results {
		if r.gen != 0 {
			e.outlets[i].committed(ctx, r.gen, r.checkpoint)
		}
	}
	faultpoint.Hit("engine.committed")
	if err := e.noteSuspects(ctx, items); err != nil {
		return err
	}
	for _, it := range items {
		it.box.account.settled(it)
	}
	return nil
}

// noteSuspects puts into the ledger which messages sinks died with. It comes
// after the commit, which would take it back.
func (e *Engine) noteSuspects(ctx context.Context, items []*item) error {
	type key struct {
		box    ledger.Box
		target ledger.TargetID
	}
	ids := map[key][]message.ID{}
	for _, it := range items {
		for _, t := range it.unnoted {
			// Tried again in the same epoch, it may be written: no suspect then.
			if i := e.sinkOf(t); i >= 0 && it.slots[i].state == slotWritten {
				continue
			}
			k := key{it.number, t}
			ids[k] = append(ids[k], it.sum.ID)
		}
		it.unnoted = nil
	}
	for k, list := range ids {
		if err := e.ledger.AddSuspects(ctx, k.box, k.target, list); err != nil {
			return err
		}
	}
	return nil
}

// flushAll flushes the data sinks, or the record sinks, all at once. over is
// called when the next epoch may be written to all of them.
func (e *Engine) flushAll(ctx context.Context, results []flushed, records bool, over func()) {
	var ends, wg sync.WaitGroup
	for i, o := range e.outlets {
		if o.plan.Prepared.Record != records {
			continue
		}
		ends.Add(1)
		sealed := sync.OnceFunc(ends.Done)
		wg.Go(func() {
			defer sealed()
			gen, cp, refused, err := o.flush(ctx, sealed)
			switch {
			case err == nil:
				results[i] = flushed{gen, cp, refused}
			case ctx.Err() != nil, fault.Is(err, fault.Crashed):
				// What was written is pending again; a dead sink is opened anew.
			case fault.Is(err, fault.Full):
				o.fail(err)
				e.stop(err)
			default:
				o.fail(err)
			}
		})
	}
	ends.Wait()
	over()
	if !records {
		faultpoint.Hit("engine.epoch.sealed")
	}
	wg.Wait()
}

// takeBack makes pending again what a sink wrote but never made durable: a
// fate enters the ledger only under a checkpoint that covers it (I3). What the
// target refused in the Flush is a dead letter (I6).
func (e *Engine) takeBack(it *item, results []flushed, records bool) {
	for i := range it.slots {
		sl := &it.slots[i]
		if e.outlets[i].plan.Prepared.Record != records || sl.state != slotWritten {
			continue
		}
		if sl.gen != results[i].gen {
			sl.state, sl.receipt = slotTodo, ""
			continue
		}
		if len(results[i].refused) == 0 {
			continue
		}
		if err := results[i].refused[it.named().ID]; err != nil {
			sl.state, sl.receipt, sl.letter = slotDead, "", letterOf(it, e.outlets[i].plan.Name, err)
		}
	}
}

// record writes the records of those items whose fate in every routed data
// sink is final.
func (e *Engine) record(ctx context.Context, items []*item) {
	for i, o := range e.outlets {
		if !o.plan.Prepared.Record {
			continue
		}
		for range 2 { // once more after a death, then they stay pending
			again := e.recordTo(ctx, i, o, items)
			if !again || ctx.Err() != nil {
				break
			}
		}
	}
}

// recordTo writes to one record sink and waits for its answers. It reports
// whether the sink died and what it had must be written again.
func (e *Engine) recordTo(ctx context.Context, i int, o *outlet, items []*item) bool {
	var wg sync.WaitGroup
	var mu sync.Mutex
	died := false
	for _, it := range items {
		sl := &it.slots[i]
		// What a dead generation wrote is gone with it: it is written again.
		if sl.state == slotWritten && sl.gen != o.current() {
			sl.state = slotTodo
		}
		if sl.state != slotTodo || !e.dataFinal(it) || o.broken() != nil || it.alone && !o.isAlone() {
			continue
		}
		m := &message.Message{Summary: it.named(), Record: e.recordOf(it, sl.replaces), Assembled: it.assembled}
		if it.structure != nil {
			m.Structure = it.structure
		}
		sl.state = slotSent
		wg.Add(1)
		err := o.put(ctx, 0, m, func(gen int, r sink.Receipt, err error) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			died = e.answer(it, i, gen, r, err) || died
		})
		if err != nil {
			mu.Lock()
			died = e.answer(it, i, 0, sink.Receipt{}, err) || died
			mu.Unlock()
			wg.Done()
		}
	}
	wg.Wait()
	return died
}

// answer puts a sink's result into the item's slot, and reports whether the
// sink's process died.
func (e *Engine) answer(it *item, i, gen int, r sink.Receipt, err error) (died bool) {
	sl, o := &it.slots[i], e.outlets[i]
	switch {
	case it.aborted.Load():
		sl.state = slotTodo // the source's trouble, not the sink's
		return false
	case err == nil:
		sl.state, sl.gen, sl.receipt = slotWritten, gen, r.Path
		return false
	case fault.Is(err, fault.Crashed):
		sl.state = slotTodo
		if gen != 0 {
			it.box.account.accuseAt(it, i, err)
		}
		return true
	case fault.Is(err, fault.Message):
		sl.state, sl.letter = slotDead, letterOf(it, o.plan.Name, err)
		return false
	}
	sl.state = slotPending
	switch {
	case e.ctx.Err() != nil:
	case fault.Is(err, fault.Full):
		o.fail(fmt.Errorf("sink %s: %w", o.plan.Name, err))
		e.stop(err)
	default:
		o.fail(fmt.Errorf("sink %s: %w", o.plan.Name, err))
	}
	return false
}

// dataFinal reports whether every data sink has a final fate for the item, and
// all is known that its record tells: of a body that broke off, it isn't.
func (e *Engine) dataFinal(it *item) bool {
	for i := range it.slots {
		if e.outlets[i].plan.Prepared.Record {
			continue
		}
		if s := it.slots[i].state; s != slotKept && s != slotWritten && s != slotDead && s != slotUnrouted {
			return false
		}
	}
	return it.final == nil && !it.aborted.Load()
}

// recordOf returns the record of an item as it now stands.
func (e *Engine) recordOf(it *item, replaces bool) *message.Record {
	r := &message.Record{Octets: it.octets, Files: map[string]string{}, Problems: it.problems, Replaces: replaces, Changed: it.changed}
	if it.sha256 != nil {
		r.SHA256 = fmt.Sprintf("%x", it.sha256)
	}
	for i := range it.slots {
		sl := &it.slots[i]
		switch {
		case e.outlets[i].plan.Prepared.Record:
		case sl.state == slotWritten && sl.receipt != "":
			r.Files[e.outlets[i].plan.Name] = sl.receipt
		case sl.state == slotKept && sl.kept.Class == ledger.Written && sl.kept.Receipt != "":
			r.Files[e.outlets[i].plan.Name] = sl.kept.Receipt
		}
	}
	return r
}

// letterOf makes the dead letter of an item.
func letterOf(it *item, stage string, err error) *ledger.Letter {
	l := &ledger.Letter{Stage: stage, Reason: "refused", Text: err.Error(), Octets: it.instead}
	if f := fault.As(err); f != nil && f.Reason != "" {
		l.Reason = f.Reason
	}
	if h := it.sum.Header; h != nil {
		l.Subject, l.From, l.Date = h.Subject(), h.Text("From"), h.Get("Date")
	}
	return l
}
