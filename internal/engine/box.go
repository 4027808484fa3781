package engine

import (
	"sync"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/message"
)

// box is a mailbox in this run, with its sum (I1).
type box struct {
	account *account
	name    string
	server  message.MailboxState // what the server said before the listing

	number      ledger.Box
	uidValidity uint32
	state       message.MailboxState // of the EXAMINE that opened the listing
	skipped     bool                 // nothing changed since the last run
	listedAll   bool                 // the listing reached its end in this pass
	limited     bool                 // a limit ended the listing

	mu        sync.Mutex
	listed    int64            // in this pass
	saved     ledger.Tally     // as the ledger has it; of a mailbox that is skipped
	before    ledger.Tally     // of those, done before this pass
	todo      int64            // of those, taken up in this pass
	passed    ledger.Tally     // what became of them in this pass
	run       ledger.Tally     // the same over all passes of the run
	drops     map[string]int64 // by stage, in this run
	undecided map[string]int64 // by stage, in this run
	problem   error            // why it is incomplete
	fetched   int64            // bodies that came, for the size of batches
	octets    int64
}

func newBox(a *account, m message.Mailbox) *box {
	return &box{
		account: a, name: m.Name, server: m.State, uidValidity: m.State.UIDValidity,
		before: ledger.Tally{}, passed: ledger.Tally{}, run: ledger.Tally{},
		drops: map[string]int64{}, undecided: map[string]int64{},
	}
}

// restart forgets what a pass counted that didn't reach its end; what became
// of messages in this run stays.
func (b *box) restart() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listed, b.todo, b.listedAll, b.limited, b.problem = 0, 0, false, false, nil
	b.before, b.passed = ledger.Tally{}, ledger.Tally{}
}

// settle counts a message whose fate is final.
func (b *box) settle(it *item) {
	b.mu.Lock()
	defer b.mu.Unlock()
	class := it.worst()
	b.passed[class]++
	b.run[class]++
	if class == ledger.Dropped {
		b.drops[it.final.Refusal.Stage]++
	}
}

func (b *box) pending() int64 {
	n := b.todo
	for _, c := range b.passed {
		n -= c
	}
	return n
}

// final reports whether everything that the server has is accounted for.
func (b *box) final() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.skipped || b.listedAll && b.pending() == 0
}

// tally returns the classes of all that was listed, before and now.
func (b *box) tally() ledger.Tally {
	t := ledger.Tally{}
	for _, part := range []ledger.Tally{b.before, b.passed} {
		for c, n := range part {
			t[c] += n
		}
	}
	return t
}

// sum returns the mailbox's line of the report.
func (b *box) sum() Sum {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Sum{
		Mailbox: b.name, UIDValidity: b.uidValidity, Server: b.server.Messages, Listed: b.listed,
		Written: b.run[ledger.Written], Dropped: b.drops, Duplicates: b.run[ledger.Duplicate],
		Unrouted: b.run[ledger.Unrouted], DeadLetters: b.run[ledger.Dead], Vanished: b.run[ledger.Vanished],
		Pending: b.pending(), Undecided: b.undecided, Skipped: b.skipped, Limited: b.limited, Problem: b.problem,
		Standing: b.tally()[ledger.Dead],
	}
	for _, n := range b.before {
		s.DoneBefore += n
	}
	// What an earlier pass of this run did is found done by a later one: it
	// counts once, under its own class.
	for class, n := range b.run {
		s.DoneBefore -= n - b.passed[class]
	}
	if s.DoneBefore < 0 {
		// Done in an earlier pass and gone from the server since.
		s.Listed -= s.DoneBefore
		s.DoneBefore = 0
	}
	s.Complete = b.skipped || b.listedAll && s.Pending == 0 && b.problem == nil
	return s
}
