package ledgertest

import (
	"fmt"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
)

// A mailbox's number stays, whether or not anything was stored of it yet.
func testBoxes(t *testing.T, l *tester) {
	numbers := map[string]ledger.Box{}
	see := func() {
		t.Helper()
		taken := map[ledger.Box]string{}
		for name, n := range numbers {
			if got := l.box(name); got != n {
				t.Errorf("%s is %d, and was %d", name, got, n)
			}
			if other, twice := taken[n]; twice {
				t.Errorf("%s and %s are both %d", name, other, n)
			}
			taken[n] = name
		}
	}
	for i := range 20 {
		name := fmt.Sprint("box", i)
		numbers[name] = l.box(name)
	}
	see()
	tg := l.target("eml").ID
	l.settle(ledger.Settled{Box: numbers["box7"], ID: uid(1), Octets: 1, Fates: []ledger.Fate{{Target: tg, Class: ledger.Written}}})
	see()
	l.crash() // the transaction stored the numbers, too
	see()
	numbers["later"] = l.box("later")
	numbers["other validity"] = l.boxOf("box7", 2)
	if numbers["other validity"] == numbers["box7"] {
		t.Error("two UIDVALIDITYs share a number")
	}
	delete(numbers, "other validity") // box would ask for another one
	see()
	for name, want := range map[string]bool{"box7": true, "box8": false, "later": false} {
		has, err := l.HasMessages(t.Context(), l.box(name))
		l.ok(err)
		l.want(name, want, has)
	}
}

// What is saved of a mailbox comes back; asking makes no mailbox.
func testSavedState(t *testing.T, l *tester) {
	saved := func(mailbox string) ledger.BoxState {
		t.Helper()
		s, err := l.SavedState(t.Context(), "alice", mailbox, 1)
		l.ok(err)
		return s
	}
	l.want("of nothing", ledger.BoxState{}, saved("INBOX"))
	s := ledger.BoxState{Content: "1:2:3", Flags: "f", Fingerprint: "p", Tally: ledger.Tally{ledger.Written: 3, ledger.Dropped: 1}}
	empty := ledger.BoxState{Content: "0", Tally: ledger.Tally{}}
	l.commit(ledger.Epoch{Boxes: map[ledger.Box]ledger.BoxState{l.box("INBOX"): s}})
	l.want("at once", s, saved("INBOX"))
	l.commit(ledger.Epoch{Boxes: map[ledger.Box]ledger.BoxState{l.box("Empty"): empty}})
	l.again()
	l.want("stored", s, saved("INBOX"))
	l.want("of an empty one", empty, saved("Empty"))
	l.want("of another", ledger.BoxState{}, saved("Old"))
	l.settle(ledger.Settled{Box: l.box("INBOX"), ID: uid(1), Octets: -1, Fates: []ledger.Fate{{Class: ledger.Vanished}}})
	l.want("beside messages", s, saved("INBOX"))
	l.commit(ledger.Epoch{Boxes: map[ledger.Box]ledger.BoxState{l.box("INBOX"): empty}})
	l.again()
	l.want("replaced", empty, saved("INBOX"))
}

// Where accounts and mailboxes stand comes back; what a run didn't see is gone
// once it saw all.
func testStanding(t *testing.T, l *tester) {
	at := time.Date(2026, 11, 21, 15, 0, 0, 0, time.UTC)
	inbox := ledger.Mailbox{
		Source: "alice", Name: "INBOX", Run: 1, State: ledger.Incomplete, UIDValidity: 1<<32 - 1, Server: 12, Listed: 10,
		Fates: ledger.Tally{ledger.Written: 7, ledger.Dropped: 2, ledger.Pending: 1}, Dropped: map[string]int64{"recent": 2}, Undecided: map[string]int64{"recent": 1},
		Limited: true, BlindSpots: []string{"the server shows 10 messages"}, Problem: "NO [NOPERM]",
	}
	old := ledger.Mailbox{Source: "alice", Name: "Old", Run: 1, State: ledger.Complete, Server: -1, Listed: 3, Fates: ledger.Tally{ledger.Written: 3, ledger.Dead: 0}}
	bob := ledger.Mailbox{Source: "bob", Name: "INBOX", Run: 1, Server: -1}
	alice := ledger.Account{Source: "alice", Run: 1, Began: at, Ended: at.Add(time.Minute), State: ledger.Incomplete}
	parked := ledger.Account{Source: "bob", Run: 1, Began: at, Ended: at, State: ledger.Parked, Until: at.Add(time.Hour), Err: "OVERQUOTA", Hint: "wait"}
	accounts := func() []ledger.Account {
		t.Helper()
		a, err := l.Accounts(t.Context())
		l.ok(err)
		return a
	}
	l.commit(ledger.Epoch{Accounts: []ledger.Account{parked, alice}, Mailboxes: []ledger.Mailbox{bob, inbox, old}})
	delete(old.Fates, ledger.Dead)
	l.want("mailboxes at once", []ledger.Mailbox{inbox, old, bob}, l.mailboxes(""))
	l.again()
	l.want("mailboxes", []ledger.Mailbox{inbox, old, bob}, l.mailboxes(""))
	l.want("accounts", []ledger.Account{alice, parked}, accounts())
	l.want("of one source", []ledger.Mailbox{bob}, l.mailboxes("bob"))

	// INBOX is as it was, Old isn't there, New was never there.
	alice.Run, alice.State = 2, ledger.Complete
	l.commit(ledger.Epoch{Accounts: []ledger.Account{alice}, Mailboxes: []ledger.Mailbox{
		{Source: "alice", Name: "INBOX", Run: 2, State: ledger.Complete, Server: 10, Unchanged: true},
		{Source: "alice", Name: "New", Run: 2, State: ledger.Complete, Unchanged: true},
	}})
	inbox.Run, inbox.State, inbox.Server = 2, ledger.Complete, 10
	old.State = ledger.Gone
	fresh := ledger.Mailbox{Source: "alice", Name: "New", Run: 2, State: ledger.Complete}
	want := []ledger.Mailbox{inbox, fresh, old}
	l.want("the second run", want, l.mailboxes("alice"))
	l.again()
	l.want("the second run, stored", want, l.mailboxes("alice"))
	l.settle(ledger.Settled{Box: l.box("INBOX"), ID: uid(1), Octets: -1, Fates: []ledger.Fate{{Class: ledger.Vanished}}})
	l.want("beside messages", want, l.mailboxes("alice"))
	old.State, old.Run = ledger.Complete, 3
	l.commit(ledger.Epoch{Mailboxes: []ledger.Mailbox{old}})
	l.again()
	l.want("the third run", []ledger.Mailbox{inbox, fresh, old}, l.mailboxes("alice"))
}

// A target keeps its number, and its checkpoint is as it was committed.
func testTargets(t *testing.T, l *tester) {
	eml := l.target("eml")
	msg := l.target("msg")
	if eml.ID == msg.ID || eml.ID == ledger.Everywhere || msg.ID == ledger.Everywhere {
		t.Fatalf("the targets have the numbers %d and %d", eml.ID, msg.ID)
	}
	l.want("a new one", ledger.Target{ID: eml.ID}, eml)
	l.ok(l.MarkDirty(t.Context(), eml.ID))
	l.crash()
	l.want("dirty, at once", ledger.Target{ID: eml.ID, Dirty: true}, l.target("eml"))
	l.commit(ledger.Epoch{Checkpoints: map[ledger.TargetID][]byte{eml.ID: {}}})
	l.crash()
	if cp := l.target("eml").Checkpoint; cp == nil || len(cp) != 0 {
		t.Errorf("an empty checkpoint came back as %v", cp)
	}
	l.commit(ledger.Epoch{Checkpoints: map[ledger.TargetID][]byte{eml.ID: []byte("\x00one")}})
	l.ok(l.MarkClean(t.Context(), eml.ID))
	l.again()
	l.want("clean", ledger.Target{ID: eml.ID, Checkpoint: []byte("\x00one")}, l.target("eml"))
	l.commit(ledger.Epoch{
		Settled:     []ledger.Settled{{Box: l.box("INBOX"), ID: uid(1), Octets: 1, Fates: []ledger.Fate{{Target: eml.ID, Class: ledger.Written}}}},
		Checkpoints: map[ledger.TargetID][]byte{eml.ID: []byte("two")},
	})
	l.crash()
	l.want("written to", ledger.Target{ID: eml.ID, Checkpoint: []byte("two"), Known: true}, l.target("eml"))
	l.want("the other one", msg, l.target("msg"))
	if l.Pipeline() == "" {
		t.Error("the pipeline has no id")
	}
}

// What is forgotten of a target is pending there, and known elsewhere.
func testForget(t *testing.T, l *tester) {
	eml, msg, b := l.target("eml").ID, l.target("msg").ID, l.box("INBOX")
	written := func(tg ledger.TargetID) ledger.Fate {
		return ledger.Fate{Target: tg, Class: ledger.Written, Receipt: "x"}
	}
	l.commit(ledger.Epoch{
		Settled: []ledger.Settled{
			{Box: b, ID: uid(1), Octets: 1, Fates: []ledger.Fate{written(eml), written(msg)}},
			{Box: b, ID: uid(2), Octets: 2, Fates: []ledger.Fate{{Target: eml, Class: ledger.Dead, Letter: &ledger.Letter{Text: "no"}}, written(msg)}},
		},
		Checkpoints: map[ledger.TargetID][]byte{eml: []byte("c"), msg: []byte("d")},
		Boxes:       map[ledger.Box]ledger.BoxState{b: {Content: "token", Fingerprint: "f"}},
	})
	l.crash()
	l.ok(l.Forget(t.Context(), eml))
	l.crash()
	l.want("the target", ledger.Target{ID: eml}, l.target("eml"))
	l.want("the other", ledger.Target{ID: msg, Checkpoint: []byte("d"), Known: true}, l.target("msg"))
	for i, e := range l.lookup(b, uid(1), uid(2)) {
		l.want(fmt.Sprint("message ", i+1), []ledger.Fate{written(msg)}, e.Fates)
	}
	s, err := l.SavedState(t.Context(), "alice", "INBOX", 1)
	l.ok(err)
	l.want("that the mailbox is looked at again", "", s.Content+s.Fingerprint)
}

// What an account has spent adds up by slots, and what is out of the period is
// forgotten.
func testSpent(t *testing.T, l *tester) {
	at := time.Date(2026, 11, 21, 15, 0, 0, 0, time.UTC)
	spent := func() []ledger.Spent {
		t.Helper()
		s, err := l.Spent(t.Context(), "alice", at)
		l.ok(err)
		return s
	}
	l.want("of nothing", 0, len(spent()))
	l.commit(ledger.Epoch{Spent: []ledger.Spending{{Source: "alice", Add: []ledger.Spent{{At: at, Octets: 5}, {At: at.Add(time.Minute), Octets: 7}}}}})
	l.crash()
	l.commit(ledger.Epoch{Spent: []ledger.Spending{{Source: "alice", Add: []ledger.Spent{{At: at.Add(time.Minute), Octets: 1}}, Before: at.Add(time.Second)}}})
	l.again()
	l.want("what was spent", []ledger.Spent{{At: at.Add(time.Minute), Octets: 8}}, spent())
}
