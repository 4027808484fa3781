package engine

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// standing is what the ledger is to hold of where accounts and mailboxes
// stand, for those who ask between runs. It goes in with the next commit, so
// that thousands of accounts don't cost a flush of the disk each.
type standing struct {
	accounts  map[string]ledger.Account
	mailboxes map[mailboxKey]ledger.Mailbox
}

type mailboxKey struct{ source, mailbox string }

func newStanding() standing {
	return standing{accounts: map[string]ledger.Account{}, mailboxes: map[mailboxKey]ledger.Mailbox{}}
}

func (s *standing) put(m ledger.Mailbox) { s.mailboxes[mailboxKey{m.Source, m.Name}] = m }

// noteAccount keeps where an account stands, ended or not, for the next commit.
func (e *Engine) noteAccount(a *account, ended bool) {
	row := ledger.Account{Source: a.plan.Name, Run: e.opts.Run, Began: a.started, State: ledger.Incomplete}
	var boxes []ledger.Mailbox
	if ended {
		row.Ended = time.Now()
		if a.began { // else nobody knows what it has: a run that was ended waits for no server
			row.State = ledger.Complete
		}
		for _, b := range a.boxes {
			m := b.standing(nil)
			if m.State != ledger.Complete {
				row.State = ledger.Incomplete
			}
			boxes = append(boxes, m)
		}
		for _, name := range a.excluded {
			boxes = append(boxes, ledger.Mailbox{Source: a.plan.Name, Name: name, Run: e.opts.Run, State: ledger.Excluded, Server: -1})
		}
	}
	if a.err != nil {
		row.State, row.Err = ledger.Incomplete, a.err.Error()
		if f := fault.As(a.err); f != nil {
			row.Hint = f.Hint
		}
	}
	if !a.until.IsZero() {
		row.State, row.Until = ledger.Parked, a.until
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.standing.accounts[row.Source] = row
	for _, m := range boxes {
		e.standing.put(m)
	}
}

// takeSpent returns what accounts with a budget fetched since the last call.
func (e *Engine) takeSpent() []ledger.Spending {
	var out []ledger.Spending
	for _, a := range e.accounts {
		if add, before := a.budget.take(); len(add) > 0 {
			out = append(out, ledger.Spending{Source: a.plan.Name, Add: add, Before: before})
		}
	}
	return out
}

func (e *Engine) hasStanding() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.standing.accounts) > 0
}

// takeStanding returns what is to be stored with an epoch of items: what was
// noted, and where the mailboxes of the items stand once it is committed.
func (e *Engine) takeStanding(items []*item) ([]ledger.Account, []ledger.Mailbox) {
	touched := map[*box]counts{}
	for _, it := range items {
		c, ok := touched[it.box]
		if !ok {
			c = newCounts()
			touched[it.box] = c
		}
		if class := it.worst(); class != ledger.Pending {
			c.add(class, it.final)
		}
	}
	e.mu.Lock()
	s := e.standing
	e.standing = newStanding()
	e.mu.Unlock()
	for b, c := range touched {
		s.put(b.standing(&c))
	}
	return slices.Collect(maps.Values(s.accounts)), slices.Collect(maps.Values(s.mailboxes))
}

// standing returns what the ledger is to hold of the mailbox. more is what is
// about to be committed and isn't counted yet; may be nil.
func (b *box) standing(more *counts) ledger.Mailbox {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.account.e
	m := ledger.Mailbox{
		Source: b.account.plan.Name, Name: b.name, Run: e.opts.Run, UIDValidity: b.uidValidity,
		Server: b.serverCount(), Listed: b.listed, Fates: b.tally(), Dropped: map[string]int64{},
		Undecided: maps.Clone(b.undecided), Limited: b.limited, BlindSpots: b.blindSpots(), Unchanged: b.skipped,
	}
	for _, drops := range []map[string]int64{b.before.drops, b.passed.drops} {
		for stage, n := range drops {
			m.Dropped[stage] += n
		}
	}
	if more != nil {
		for c, n := range more.classes {
			m.Fates[c] += n
		}
		for stage, n := range more.drops {
			m.Dropped[stage] += n
		}
	}
	pending := b.listed
	for _, n := range m.Fates {
		pending -= n
	}
	m.Fates[ledger.Pending] = pending
	m.State = b.stands(pending)
	if err := b.trouble(); err != nil {
		m.Problem = err.Error()
	}
	return m
}

// stands returns the mailbox's state with so many messages pending. b.mu is
// held.
func (b *box) stands(pending int64) ledger.State {
	switch {
	case b.problem != nil, b.altered > 0:
		return ledger.Incomplete
	case b.skipped, b.listedAll && pending == 0:
		return ledger.Complete
	case !b.listedOnce && b.listed == 0 && len(b.earlier.classes) == 0:
		return ledger.NeverListed
	}
	return ledger.Incomplete
}

// serverCount is the server's own count, of the EXAMINE that opened the
// listing if there was one; -1 when it is unknown. b.mu is held.
func (b *box) serverCount() int64 {
	if b.stated && b.state.Messages >= 0 {
		return b.state.Messages
	}
	return b.server.Messages
}

// blindSpots is what the server hides of the mailbox, as its source says, and
// as its own count betrays. b.mu is held.
func (b *box) blindSpots() []string {
	spots := slices.Clone(b.server.BlindSpots)
	for _, s := range b.state.BlindSpots {
		if !slices.Contains(spots, s) {
			spots = append(spots, s)
		}
	}
	// Fewer than counted is never right; more may have come meanwhile.
	if b.stated && b.listedAll && !b.limited && b.listed < b.state.Messages {
		own := fmt.Sprintf("the server counts %d messages and lists %d", b.state.Messages, b.listed)
		if !slices.Contains(spots, own) { // the source may have said so
			spots = append(spots, own)
		}
	}
	return spots
}
