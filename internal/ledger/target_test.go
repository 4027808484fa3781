package ledger

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/pkg/message"
)

func TestTargets(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	b := box(t, l, "INBOX")
	eml := target(t, l, "eml")
	if eml.ID == Everywhere {
		t.Fatal("a target has the number that stands for all of them")
	}
	other, err := l.Target(t.Context(), "eml", "/elsewhere")
	if err != nil || other.ID == eml.ID {
		t.Fatalf("the same sink with another target: %v, %v", other, err)
	}
	now := func() Target {
		t.Helper()
		l = reopen(t, l)
		tg := target(t, l, "eml")
		if tg.ID != eml.ID {
			t.Fatal("a target's number changed")
		}
		tg.ID = 0
		return tg
	}
	check := func(what string, want Target) {
		t.Helper()
		if diff := cmp.Diff(want, now()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	check("new", Target{})
	if err := l.MarkDirty(t.Context(), eml.ID); err != nil {
		t.Fatal(err)
	}
	check("marked dirty", Target{Dirty: true})
	commit(t, l, Epoch{Settled: []Settled{{Box: b, ID: uid(1), Octets: 1, Fates: []Fate{{Target: eml.ID, Class: Dead, Letter: &Letter{}}}}}})
	check("only a dead letter", Target{Dirty: true})
	commit(t, l, Epoch{Checkpoints: map[TargetID][]byte{eml.ID: {}}})
	check("an empty checkpoint is a checkpoint", Target{Dirty: true, Checkpoint: []byte{}})
	commit(t, l, Epoch{Settled: []Settled{{Box: b, ID: uid(1), Octets: 1, Fates: []Fate{{Target: eml.ID, Class: Written}}}}, Checkpoints: map[TargetID][]byte{eml.ID: []byte("c\x001")}})
	check("written", Target{Dirty: true, Known: true, Checkpoint: []byte("c\x001")})
	if err := l.MarkClean(t.Context(), eml.ID); err != nil {
		t.Fatal(err)
	}
	check("marked clean", Target{Known: true, Checkpoint: []byte("c\x001")})
	if err := l.Forget(t.Context(), eml.ID); err != nil {
		t.Fatal(err)
	}
	check("forgotten", Target{})
	if tg, err := l.Target(t.Context(), "eml", "/elsewhere"); tg.Known || tg.Dirty || tg.Checkpoint != nil || err != nil {
		t.Errorf("the other target learnt of it: %v, %v", tg, err)
	}
}

// TestForget takes one target out of thousands of messages, and leaves what
// concerns another or all.
func TestForget(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	b, eml, msg := box(t, l, "INBOX"), target(t, l, "eml").ID, target(t, l, "msg").ID
	const n = 9000 // more than two pieces
	refusal := &Refusal{Stage: "eml", Rules: "r"}
	written := func(tg TargetID) Fate { return Fate{Target: tg, Class: Written, Receipt: "x"} }
	kinds := []struct{ before, after []Fate }{
		{[]Fate{written(eml)}, nil},
		{[]Fate{written(msg)}, []Fate{written(msg)}},
		{[]Fate{written(eml), written(msg)}, []Fate{written(msg)}},
		{[]Fate{{Target: eml, Class: Unrouted, Refusal: refusal}, {Target: msg, Class: Unrouted, Refusal: refusal}}, []Fate{{Target: msg, Class: Unrouted, Refusal: refusal}}},
		{[]Fate{{Target: eml, Class: Dead, Letter: &Letter{Text: "e"}}, {Target: msg, Class: Dead, Letter: &Letter{Text: "m"}}}, []Fate{{Target: msg, Class: Dead, Letter: &Letter{Text: "m"}}}},
		{[]Fate{{Class: Dropped, Refusal: refusal}}, []Fate{{Class: Dropped, Refusal: refusal}}},
		{[]Fate{{Class: Dead, Letter: &Letter{Text: "s"}}}, []Fate{{Class: Dead, Letter: &Letter{Text: "s"}}}},
	}
	var e Epoch
	var ids []message.ID
	for i := range n {
		ids = append(ids, uid(uint32(i+1)))
		e.Settled = append(e.Settled, Settled{Box: b, ID: ids[i], Octets: -1, Fates: kinds[i%len(kinds)].before, Fresh: true})
	}
	e.Boxes = map[Box]BoxState{b: {Content: "c", Flags: "f", Fingerprint: "p"}}
	commit(t, l, e)
	if err := l.AddSuspects(t.Context(), b, eml, ids[:1]); err != nil {
		t.Fatal(err)
	}
	if err := l.Forget(t.Context(), eml); err != nil {
		t.Fatal(err)
	}
	l = reopen(t, l)
	for i, found := range lookup(t, l, b, ids...) {
		if diff := cmp.Diff(Entry{Octets: -1, Fates: kinds[i%len(kinds)].after}, found); diff != "" {
			t.Fatalf("UID %d: %s", i+1, diff)
		}
	}
	if s, err := l.SavedState(t.Context(), "alice", "INBOX", 1); s.Content != "" || s.Fingerprint != "" || err != nil {
		t.Errorf("the mailbox would be passed over: %+v, %v", s, err)
	}
}
