package ledger

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCarry(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	b, eml := box(t, l, "INBOX"), target(t, l, "eml")
	commit(t, l, Epoch{Settled: []Settled{{Box: b, ID: uid(1), Octets: 5, Fates: []Fate{{Target: eml.ID, Class: Written, Receipt: "a"}}}},
		Checkpoints: map[TargetID][]byte{eml.ID: []byte("c")}})
	dir := t.TempDir()
	if err := l.CopyTo(t.Context(), filepath.Join(dir, "acme.db")); err != nil {
		t.Fatal(err)
	}
	if err := l.CopyTo(t.Context(), filepath.Join(dir, "acme.db")); err == nil {
		t.Error("a file was written over")
	}
	other := open(t, dir)
	if other.Pipeline() != l.Pipeline() {
		t.Error("the copy is another pipeline's")
	}
	for _, step := range []struct{ sink, to, from string }{
		{"eml", "/export/eml", ""}, // it is there
		{"msg", "/export/msg", ""}, // no such sink
		{"eml", "/elsewhere", "/export/eml"},
		{"eml", "/elsewhere", ""},
	} {
		if from, err := other.Move(t.Context(), step.sink, step.to); from != step.from || err != nil {
			t.Errorf("%s to %s: from %q, %v", step.sink, step.to, from, err)
		}
	}
	moved, err := other.Target(t.Context(), "eml", "/elsewhere")
	want := eml
	want.Checkpoint, want.Known = []byte("c"), true
	if diff := cmp.Diff(want, moved); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if found := lookup(t, other, box(t, other, "INBOX"), uid(1))[0]; len(found.Fates) != 1 || found.Fates[0].Target != moved.ID {
		t.Errorf("the message isn't there: %+v", found)
	}
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	if err := l.TakeOver(t.Context(), "0123456789abcdef0123456789abcdef"); err != nil || reopen(t, l).Pipeline() != "0123456789abcdef0123456789abcdef" {
		t.Errorf("it wasn't taken over: %v", err)
	}
	l = open(t, t.TempDir())
	commit(t, l, Epoch{Settled: []Settled{{Box: box(t, l, "INBOX"), ID: uid(1), Octets: 5, Fates: []Fate{{Target: target(t, l, "eml").ID, Class: Written}}}}})
	if err := l.TakeOver(t.Context(), "0123456789abcdef0123456789abcdef"); err == nil {
		t.Error("a ledger with messages was taken over")
	}
}
