package engine

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/message"
)

// item is a message on its way through a run.
type item struct {
	box    *box
	number ledger.Box // of the box, under the UIDVALIDITY that listed the item
	sum    message.Summary

	at        stages.Position // how far the stages have judged it
	atBarrier bool            // it waits there for its turn in the listing
	judged    bool            // all stages let it pass
	noted     bool            // what they note stands in sum
	folded    stages.Position // so does what was noted before it, a plugin's notes with it
	entry     *entry          // as it was before its first passage
	killed    bool            // a plugin stage died with it in hand, twice
	changed   []string        // stages that changed octets of what is written
	twin      []byte          // sha256 of the copy that it is held against
	digest    ledger.Digest   // what it shares with that
	unclaimed bool            // nobody has claimed it yet
	waits     bool            // it is a copy that waits: left pending for now
	header    *message.Header // as the stages left it; nil: as it came
	passing   int             // done before: it only counts at so many barriers

	exported  *message.ID // the id that it was exported under, when that was another; else nil
	mark      uint64      // of the header as it came, see ledger.Mark; 0 when that isn't known
	octets    int64       // as received or as the ledger has it; -1 unknown
	sha256    []byte
	structure *message.Part // measured from the octets, when a body passed
	problems  []string
	assembled bool

	sent   time.Time     // by its header, where the age of exported messages counts
	fresh  bool          // the ledger knows nothing of it
	others []ledger.Fate // of targets that this run doesn't have: kept as they are
	final  *ledger.Fate  // Everywhere: dropped, dead, vanished
	slots  []slot        // one a sink, in the order of the plan

	alone       bool              // it is tried alone
	accused     []ledger.TargetID // whose process died with it in hand; Everywhere: the source's
	unnoted     []ledger.TargetID // of those, what the ledger must still learn
	aborted     atomic.Bool       // the source's body broke off: the sinks' results don't count
	instead     []byte            // what the server sent in its place
	outstanding atomic.Int32      // results awaited, plus one while it is being handed out
	big         bool              // holds the epoch open while it passes
}

// accuse notes that a process died with the item in hand, and reports whether
// it is the second one of its kind.
func (it *item) accuse(t ledger.TargetID) (again bool) {
	if slices.Contains(it.accused, t) {
		return true
	}
	it.alone = true
	it.accused = append(it.accused, t)
	return false
}

// slotState is where an item stands with one sink.
type slotState uint8

const (
	slotIdle     slotState = iota // not decided yet, or nothing to do
	slotKept                      // the ledger has a fate, which stays
	slotTodo                      // routed, to be written
	slotSent                      // handed over, result awaited
	slotWritten                   // written in generation gen, not yet durable
	slotDead                      // refused for good
	slotUnrouted                  // `when` said no
	slotPending                   // the sink failed: left for the next run
)

type slot struct {
	state    slotState
	gen      int // of the session that wrote it
	kept     ledger.Fate
	receipt  string
	letter   *ledger.Letter
	refusal  *ledger.Refusal
	replaces bool // record sinks: an earlier record is superseded
}

// class is the slot's contribution to the message's fate.
func (s *slot) class() ledger.Class {
	switch s.state {
	case slotKept:
		return s.kept.Class
	case slotWritten:
		return ledger.Written
	case slotDead:
		return ledger.Dead
	case slotUnrouted:
		return ledger.Unrouted
	default:
		return ledger.Pending
	}
}

// worst returns the message's class: the worst over all sinks (I1).
func (it *item) worst() ledger.Class {
	if it.final != nil {
		return it.final.Class
	}
	rank := func(c ledger.Class) int {
		switch c {
		case ledger.Pending:
			return 5
		case ledger.Dead:
			return 4
		case ledger.Vanished:
			return 3
		case ledger.Written:
			return 2
		case ledger.Duplicate:
			return 1
		default:
			return 0
		}
	}
	worst := ledger.Unrouted
	for i := range it.slots {
		if c := it.slots[i].class(); rank(c) > rank(worst) {
			worst = c
		}
	}
	return worst
}

// settled returns what the ledger is to hold of the item from now on.
func (it *item) settled(targets []ledger.TargetID) ledger.Settled {
	if it.mark == 0 && it.sum.Header != nil {
		it.mark = ledger.Mark(it.sum.Header.Raw())
	}
	s := ledger.Settled{Box: it.number, ID: it.sum.ID, Mark: it.mark, Octets: it.octets, SHA256: it.sha256, Fresh: it.fresh, Changed: it.changed, Released: it.released()}
	s.Fates = append(s.Fates, it.others...)
	if it.final != nil {
		s.Fates = append(s.Fates, *it.final)
	}
	for i := range it.slots {
		sl := &it.slots[i]
		switch sl.state {
		case slotKept:
			s.Fates = append(s.Fates, sl.kept)
		case slotWritten:
			s.Fates = append(s.Fates, ledger.Fate{Target: targets[i], Class: ledger.Written, Receipt: sl.receipt})
		case slotDead:
			s.Fates = append(s.Fates, ledger.Fate{Target: targets[i], Class: ledger.Dead, Letter: sl.letter})
		case slotUnrouted:
			s.Fates = append(s.Fates, ledger.Fate{Target: targets[i], Class: ledger.Unrouted, Refusal: sl.refusal})
		default:
			// Not sent yet; but a record of it stands in the sink, and must
			// be replaced, not joined by a second one (I2).
			if sl.replaces {
				s.Fates = append(s.Fates, ledger.Fate{Target: targets[i], Class: ledger.Stale})
			}
		}
	}
	return s
}

// named returns the item's summary as sinks get it: under the id that it was
// exported with first, so that its names and records stay what they are (I2).
func (it *item) named() message.Summary {
	s := it.sum
	if it.exported != nil {
		s.ID = *it.exported
	}
	return s
}

// weight is what the item costs in memory until its epoch is committed.
func (it *item) weight() int64 {
	n := int64(512)
	if it.sum.Header != nil {
		n += int64(len(it.sum.Header.Raw()))
	}
	it.structure.Walk(func(*message.Part) bool { n += 512; return true })
	return n
}
