package engine

import (
	"maps"
	"sync"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/message"
)

// box is a mailbox in this run, with its sum (I1).
type box struct {
	account *account
	name    string
	among   []string             // those that a message of it may be in as well
	server  message.MailboxState // what the server said before the listing

	looked bool // known was looked up, ahead of the listing
	known  bool // the ledger has messages of it

	index       int // in the order of the source
	number      ledger.Box
	uidValidity uint32
	state       message.MailboxState // of the EXAMINE that opened the listing
	stated      bool                 // there was one
	skipped     bool                 // nothing changed since the last run
	listedAll   bool                 // the listing reached its end in this pass
	limited     bool                 // a limit ended the listing
	listedOnce  bool                 // some pass of this run listed it to its end

	mu        sync.Mutex
	listed    int64            // in this pass
	saved     ledger.Tally     // as the ledger has it; of a mailbox that is skipped
	before    counts           // of those, done before this pass
	todo      int64            // of those, taken up in this pass
	passed    counts           // what became of them in this pass
	earlier   counts           // what earlier passes of this run did
	undecided map[string]int64 // by stage, in this run

	recognised int64  // known again under the ids that the server gave them, in this run
	former     uint32 // the UIDVALIDITY that the mailbox had; 0: it is what it was

	withBodies     int64 // messages whose headers came with their bodies, in this run
	withBodiesFrom int64 // the first of them in the listing, from 1

	unfinished int64 // exported in this pass or before, and not yet finished on the server
	finished   int64 // in this run
	altered    int64 // exported, with files that aren't what was written
	alteredBy  error // how the first of them isn't

	problem error // why it is incomplete
	fetched int64 // bodies that came, for the size of batches
	octets  int64
}

func newBox(a *account, m message.Mailbox) *box {
	return &box{
		account: a, name: m.Name, server: m.State, uidValidity: m.State.UIDValidity,
		before: newCounts(), passed: newCounts(), earlier: newCounts(),
		undecided: map[string]int64{},
	}
}

// counts are messages by their class; the drops are split up by stage.
type counts struct {
	classes ledger.Tally
	drops   map[string]int64
}

func newCounts() counts { return counts{ledger.Tally{}, map[string]int64{}} }

func (c counts) add(class ledger.Class, final *ledger.Fate) {
	c.classes[class]++
	if class == ledger.Dropped && final != nil && final.Refusal != nil {
		c.drops[final.Refusal.Stage]++
	}
}

// restart forgets what a pass counted that didn't reach its end; what became
// of messages in this run stays.
func (b *box) restart() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listed, b.todo, b.listedAll, b.limited, b.problem = 0, 0, false, false, nil
	b.unfinished, b.altered, b.alteredBy = 0, 0, nil
	for class, n := range b.passed.classes {
		b.earlier.classes[class] += n
	}
	for stage, n := range b.passed.drops {
		b.earlier.drops[stage] += n
	}
	b.before, b.passed = newCounts(), newCounts()
}

// settle counts a message whose fate is final.
func (b *box) settle(it *item) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.passed.add(it.worst(), it.final)
}

func (b *box) pending() int64 {
	n := b.todo
	for _, c := range b.passed.classes {
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

// isUnfinished reports whether something is still to be done on the server.
func (b *box) isUnfinished() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unfinished > 0
}

// tally returns the classes of all that was listed, before and now.
func (b *box) tally() ledger.Tally {
	t := ledger.Tally{}
	for _, part := range []ledger.Tally{b.before.classes, b.passed.classes} {
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
	classes, drops, own, gone := b.inThisRun()
	s := Sum{
		Mailbox: b.name, UIDValidity: b.uidValidity, Server: b.serverCount(), BlindSpots: b.blindSpots(), Listed: b.listed + gone,
		Written: classes[ledger.Written], Dropped: drops, Duplicates: classes[ledger.Duplicate],
		Unrouted: classes[ledger.Unrouted], DeadLetters: classes[ledger.Dead], Vanished: classes[ledger.Vanished],
		Pending: b.pending(), Undecided: maps.Clone(b.undecided), Skipped: b.skipped, Limited: b.limited, Problem: b.trouble(),
		Standing: b.tally()[ledger.Dead], Octets: b.octets, Finished: b.finished, Recognised: b.recognised, Former: b.former,
		WithBodies: b.withBodies, WithBodiesFrom: b.withBodiesFrom,
	}
	for _, n := range b.before.classes {
		s.DoneBefore += n
	}
	s.DoneBefore -= own
	s.State = b.stands(s.Pending)
	s.Complete = s.State == ledger.Complete
	return s
}

// inThisRun returns what became of messages in all passes of this run. What
// the last pass found done is this run's own as far as earlier passes did as
// much; the rest of what they did is gone from the last listing, or it was cut
// short. Drops and dead letters may have been judged again by a later pass (what
// a limit dropped, only a new count can tell): they count where they were found.
func (b *box) inThisRun() (classes ledger.Tally, drops map[string]int64, own, gone int64) {
	classes, drops = ledger.Tally{}, map[string]int64{}
	for class, n := range b.passed.classes {
		classes[class] += n
	}
	for class, n := range b.earlier.classes {
		found := min(n, b.before.classes[class])
		switch class {
		case ledger.Dropped: // below, by stage
			continue
		case ledger.Dead:
			n = found
		}
		classes[class] += n
		own += found
		gone += n - found
	}
	for stage, n := range b.passed.drops {
		drops[stage] += n
	}
	for stage, n := range b.earlier.drops {
		n = min(n, b.before.drops[stage])
		drops[stage] += n
		own += n
	}
	return classes, drops, own, gone
}
