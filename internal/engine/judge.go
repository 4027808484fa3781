package engine

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/internal/stages/dedupe"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// newItem makes an item of a message that isn't done.
func (e *Engine) newItem(b *box, number ledger.Box, sum message.Summary, entry *ledger.Entry) *item {
	it := &item{
		box: b, number: number, sum: sum, octets: entry.Octets, sha256: entry.SHA256, mark: entry.Mark, exported: entry.Exported,
		fresh: len(entry.Fates) == 0 && len(entry.Suspects) == 0 && len(entry.Changed) == 0,
		slots: make([]slot, len(e.outlets)), changed: slices.Clone(entry.Changed),
	}
	data := true // every data sink keeps what it has
	for i, o := range e.outlets {
		if f := fateOf(entry, e.targets[i]); f != nil && e.stands(o, f) {
			it.slots[i] = slot{state: slotKept, kept: *f}
		} else if !o.plan.Prepared.Record {
			data = false
		}
	}
	stands := false
	for i, o := range e.outlets {
		stands = stands || !o.plan.Prepared.Record && it.slots[i].state == slotKept && it.slots[i].kept.Class == ledger.Written
	}
	if !stands {
		it.changed = nil // what was changed is written anew
	}
	for i, o := range e.outlets {
		// A record tells of all sinks: when one of them writes anew, the
		// record is sent again.
		sl := &it.slots[i]
		if o.plan.Prepared.Record && sl.state == slotKept && sl.kept.Class == ledger.Written && !data {
			*sl = slot{replaces: true}
		}
		if f := fateOf(entry, e.targets[i]); f != nil && f.Class == ledger.Stale {
			sl.replaces = true
		}
	}
	for _, f := range entry.Fates {
		if f.Target != ledger.Everywhere && e.sinkOf(f.Target) < 0 {
			it.others = append(it.others, f)
		}
	}
	return it
}

func fateOf(entry *ledger.Entry, t ledger.TargetID) *ledger.Fate {
	for i := range entry.Fates {
		if entry.Fates[i].Target == t {
			return &entry.Fates[i]
		}
	}
	return nil
}

func (e *Engine) sinkOf(t ledger.TargetID) int {
	for i := range e.targets {
		if e.targets[i] == t {
			return i
		}
	}
	return -1
}

// stands reports whether a fate of an earlier run is final under the rules of
// this one (I8).
func (e *Engine) stands(o *outlet, f *ledger.Fate) bool {
	switch f.Class {
	case ledger.Written, ledger.Duplicate:
		return true
	case ledger.Dead:
		return !e.opts.RetryFailed
	case ledger.Unrouted:
		when := o.plan.When
		if when == nil || f.Refusal == nil || when.ReadsFlags() {
			return false
		}
		if f.Refusal.Rules == e.whenRules[o.index] && !when.ReadsNow() {
			return true
		}
		if e.plan.Chain.ReadsNotes(when) {
			return false
		}
		values, ok := decodeValues(f.Refusal.Values)
		if !ok {
			return false
		}
		value, undecided, err := when.EvalValues(values, e.now)
		return err == nil && !undecided && !value
	}
	return false
}

// done reports whether nothing is left to do for a message.
func (e *Engine) done(entry *ledger.Entry, vars map[string]string) bool {
	if len(entry.Suspects) > 0 {
		return false
	}
	if f := fateOf(entry, ledger.Everywhere); f != nil {
		switch f.Class {
		case ledger.Dead:
			return !e.opts.RetryFailed
		case ledger.Duplicate:
			return true
		case ledger.Dropped:
			return e.dropStands(f.Refusal, vars)
		}
		return false // vanished, and there again
	}
	for i, o := range e.outlets {
		f := fateOf(entry, e.targets[i])
		if f == nil || !e.stands(o, f) || f.Refusal != nil && !e.sameVars(f.Refusal, vars) {
			return false
		}
	}
	return true
}

// dropStands judges a drop of an earlier run again, from what the stages read
// then. What a limit dropped only a new count can tell.
func (e *Engine) dropStands(r *ledger.Refusal, vars map[string]string) bool {
	if r == nil || e.plan.Chain.ReadsFlags() || !e.sameVars(r, vars) {
		return false
	}
	if r.Rules == e.rules[r.Stage] && r.Rules != "" && !e.readsNow && !e.limits[r.Stage] {
		return true
	}
	return e.plan.Chain.JudgeValues(r.Values, e.now).Verdict == stages.Dropped
}

// judge lets the stages judge an item as far as its summary allows, and
// reports whether it goes on: to the sinks, or to be asked more about.
func (e *Engine) judge(it *item) (more message.Needs, passed bool) {
	return e.outcome(it, it.box.account.chain.Judge(it.at, &it.sum))
}

// admit takes an item past a barrier, in the order of the listing.
func (e *Engine) admit(it *item) (more message.Needs, passed bool) {
	return e.outcome(it, it.box.account.chain.Admit(it.at, &it.sum))
}

func (e *Engine) outcome(it *item, out stages.Outcome) (more message.Needs, passed bool) {
	if len(out.Undecided) > 0 && !it.box.account.claiming {
		it.box.mu.Lock()
		for _, s := range out.Undecided {
			it.box.undecided[s.Name]++
		}
		it.box.mu.Unlock()
	}
	it.atBarrier = false
	switch out.Verdict {
	case stages.Dropped:
		it.final = &ledger.Fate{Target: ledger.Everywhere, Class: ledger.Dropped, Refusal: &ledger.Refusal{
			Stage: out.Stage.Name, Rules: e.rules[out.Stage.Name], Values: out.Values,
		}}
		return 0, false
	case stages.DeadLettered:
		it.dead(out.Stage.Name, fault.New(fault.Message, "%s", out.Reason).WithReason("undecided"))
		return 0, false
	case stages.NeedMore:
		it.at = out.At
		return out.Needs, false
	case stages.AtBarrier:
		it.at, it.atBarrier = out.At, true
		return 0, false
	}
	it.at, it.judged = out.At, true
	return 0, true
}

// decide lets each sink's `when` judge an item that the stages let pass, as
// far as its summary allows. It returns what a `when` still needs.
func (e *Engine) decide(it *item) (more message.Needs) {
	var notes message.Needs
	if e.noting && !it.noted {
		notes = e.plan.Chain.NotesNeeds()
	}
	for i, o := range e.outlets {
		sl := &it.slots[i]
		if sl.state != slotIdle {
			continue
		}
		when := o.plan.When
		if when == nil {
			sl.state = slotTodo
			continue
		}
		needs := when.Needs()
		if notes != 0 && e.plan.Chain.ReadsNotes(when) {
			needs |= notes
		}
		if !it.sum.Have.Has(needs) {
			more |= needs &^ it.sum.Have
			continue
		}
		if e.plan.Chain.ReadsNotes(when) {
			e.annotate(it)
		}
		value, undecided, err := when.Eval(&it.sum, e.now)
		if err == nil && !undecided && !value {
			values := map[string]any{}
			for _, t := range when.Terms {
				t.Values(&it.sum, values)
			}
			sl.state = slotUnrouted
			sl.refusal = &ledger.Refusal{Stage: o.plan.Name, Rules: e.whenRules[i], Values: encodeValues(values)}
			continue
		}
		sl.state = slotTodo
	}
	return more
}

// needsBody reports whether the item's octets are wanted: by a data sink, or
// by a record that measures the structure of what a data sink got. The latter
// makes the record the same whenever it is written (I2).
func (e *Engine) needsBody(it *item) bool {
	if it.final != nil {
		return false
	}
	written, record := false, false
	for i, o := range e.outlets {
		sl := &it.slots[i]
		if e.comparesLater(it) && sl.state == slotTodo && o.broken() == nil {
			return true
		}
		switch {
		case !o.plan.Prepared.Record && sl.state == slotTodo:
			if o.broken() == nil {
				return true
			}
		case !o.plan.Prepared.Record && sl.state == slotKept:
			written = written || sl.kept.Class == ledger.Written || sl.kept.Class == ledger.Dead
		case o.plan.Prepared.Record && sl.state == slotTodo:
			record = record || o.plan.Prepared.Needs.Has(message.NeedStructure)
		}
	}
	return written && record && it.structure == nil
}

// comparesLater reports whether copies of the item are to be held against its
// octets, which nobody has read yet.
func (e *Engine) comparesLater(it *item) bool {
	return e.claims != nil && e.claims.stage.Dedupe == dedupe.Content && it.sha256 == nil
}

// possible reports whether a sink can still be served in this run: it works,
// and, for a record sink, so do the data sinks that the record waits for.
func (e *Engine) possible(it *item, i int) bool {
	if e.outlets[i].broken() != nil {
		return false
	}
	if !e.outlets[i].plan.Prepared.Record {
		return true
	}
	for j, o := range e.outlets {
		if s := it.slots[j].state; !o.plan.Prepared.Record && o.broken() != nil && (s == slotTodo || s == slotIdle || s == slotPending) {
			return false
		}
	}
	return true
}

// undecided reports whether some stage or `when` hasn't judged the item yet:
// only the body can tell.
func (e *Engine) undecided(it *item) bool {
	if it.final != nil {
		return false
	}
	for i := range it.slots {
		if it.slots[i].state == slotIdle {
			return true
		}
	}
	return !it.judged
}

// missing returns what a record sink that gets the item without a body wants
// to know and a listing can tell.
func (e *Engine) missing(it *item) message.Needs {
	var n message.Needs
	for i, o := range e.outlets {
		if o.plan.Prepared.Record && it.slots[i].state == slotTodo {
			n |= o.plan.Prepared.Needs
		}
	}
	if it.structure != nil {
		n &^= message.NeedStructure
	}
	if n != 0 && e.noting && !it.noted {
		n |= e.plan.Chain.NotesNeeds()
	}
	return n &^ it.sum.Have & it.box.account.plan.Provides
}

// classOf is the class of a message that is done, for the mailbox's tally.
func (e *Engine) classOf(entry *ledger.Entry) ledger.Class {
	it := e.newItem(nil, 0, message.Summary{}, entry)
	if f := fateOf(entry, ledger.Everywhere); f != nil {
		it.final = f
	}
	return it.worst()
}

// fingerprint covers everything that decides what becomes of a source's
// messages: a mailbox whose state and fingerprint are as saved has nothing
// new (DESIGN §6, Skipping).
func (e *Engine) fingerprint(a *account) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q\n", a.plan.Rules, e.plan.Chain.Fingerprint())
	for i := range e.plan.Sinks {
		when := ""
		if w := e.plan.Sinks[i].When; w != nil {
			when = w.Fingerprint()
		}
		fmt.Fprintf(h, "%d %q\n", e.targets[i], when)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:16])
}
