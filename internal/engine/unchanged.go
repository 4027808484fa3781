package engine

import (
	"slices"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/message"
)

// sameState reports whether a mailbox is as it was when all it listed was
// final, under the same rules.
func (e *Engine) sameState(saved *ledger.BoxState, server *message.MailboxState, fingerprint string) bool {
	if server.Content == "" || saved.Content != server.Content || saved.Fingerprint != fingerprint {
		return false
	}
	return !e.readsFlags || server.Flags != "" && saved.Flags == server.Flags
}

// Unchanged returns a function that says of a mailbox whether a run of the plan
// would pass over it, by the Head of the ledger that knows it: then it returns
// the mailbox's line of the report, and else nil. The function may be called by
// many goroutines. It is for mailboxes that a ledger of their own knows; no
// limit may count over several.
func Unchanged(p *plan.Plan) func(s *plan.Source, h *ledger.Head, m message.Mailbox) (*Sum, error) {
	rules := &Engine{plan: p}
	rules.readRules()
	return func(s *plan.Source, h *ledger.Head, m message.Mailbox) (*Sum, error) {
		if rules.readsNow {
			return nil, nil
		}
		e := &Engine{plan: p, readsFlags: rules.readsFlags}
		for i := range p.Sinks {
			k := &p.Sinks[i]
			at := slices.IndexFunc(h.Targets, func(t ledger.HeadTarget) bool { return t.Sink == k.Name && t.Target == k.Prepared.Target })
			if at < 0 || h.Targets[at].Dirty {
				return nil, nil // it has the backlog to get, or is to be rolled back
			}
			e.targets = append(e.targets, h.Targets[at].ID)
		}
		saved, err := h.SavedState(s.Name, m.Name, m.State.UIDValidity)
		a := &account{e: e, plan: s}
		if err != nil || !e.sameState(&saved, &m.State, e.fingerprint(a)) {
			return nil, err
		}
		b := newBox(a, m)
		b.saved = saved.Tally
		b.pass()
		sum := b.sum()
		return &sum, nil
	}
}

// pass counts what was saved of a mailbox that has nothing new.
func (b *box) pass() {
	b.skipped, b.listed = true, 0
	b.before.classes = b.saved
	for _, n := range b.saved {
		b.listed += n
	}
}
