package ledger

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/pkg/message"
)

func TestMark(t *testing.T) {
	t.Parallel()
	whole := Mark([]byte("Subject: a\r\nDate: b\r\n\r\n"))
	for _, same := range []string{"Subject: a\r\nDate: b", "Subject: a\r\nDate: b\r\n", "Subject: a\r\nDate: b\r\n\r\nbody", "Subject: a\r\nDate: b\n\n"} {
		if got := Mark([]byte(same)); got != whole {
			t.Errorf("%q has another mark", same)
		}
	}
	if whole == 0 || whole == Mark([]byte("Subject: a\r\nDate: c\r\n\r\n")) {
		t.Error("another header has the same mark")
	}
	for _, none := range []string{"", "\r\n", "\r\n\r\nbody"} {
		if Mark([]byte(none)) != 0 {
			t.Errorf("%q has a mark", none)
		}
	}
}

// TestMarkEndsAtTheEmptyLine: whatever line ends are about, what counts is what
// stands before the first empty line.
func TestMarkEndsAtTheEmptyLine(t *testing.T) {
	t.Parallel()
	before := func(s string) string {
		s, _, _ = strings.Cut(s, "\n\r\n")
		s, _, _ = strings.Cut(s, "\n\n")
		return s
	}
	for n := range 3 * 3 * 3 * 3 * 3 * 3 * 3 {
		s := "a"
		for ; n > 0; n /= 3 {
			s += "b\r\n"[n%3 : n%3+1]
		}
		if Mark([]byte(s+"c")) != Mark([]byte(before(s+"c"))) {
			t.Errorf("the mark of %q isn't that of %q", s+"c", before(s+"c"))
		}
	}
}

func formers(t *testing.T, l *Ledger, b Box, mailbox string) *Formers {
	t.Helper()
	f, err := l.OtherValidity(t.Context(), "alice", mailbox, b)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// All that is known of a message goes with it to its new id; what the former
// mailbox held of refusals is dropped, and nobody compares with it again.
func TestRecognise(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	number := func(validity uint32) Box {
		t.Helper()
		b, err := l.Box(t.Context(), "alice", "INBOX", validity)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	old, now := number(1), number(2)
	if f := formers(t, l, now, "INBOX"); len(f.Boxes) != 0 && len(f.Messages) != 0 {
		t.Errorf("of an empty ledger: %+v", f)
	}
	letter := &Letter{Reason: "taste", Text: "no"}
	refusal := &Refusal{Stage: "some", Rules: "r", Values: []byte("{}")}
	sum := []byte(strings.Repeat("s", 32))
	settled := []Settled{
		{Box: old, ID: uid(1), Octets: 10, SHA256: sum, Mark: 1<<47 - 1, Fates: []Fate{{Target: 1, Class: Written, Receipt: "a"}, {Target: 2, Class: Dead, Letter: letter}}, Changed: []string{"clean"}},
		{Box: old, ID: uid(2), Octets: 20, Mark: 2, Fates: []Fate{{Target: 1, Class: Written, Receipt: "b"}, {Target: 2, Class: Unrouted, Refusal: refusal}}},
		{Box: old, ID: uid(3), Octets: -1, Fates: []Fate{{Class: Dropped, Refusal: refusal}}},
		{Box: old, ID: uid(4), Octets: -1, Fates: []Fate{{Class: Dead, Letter: letter}}},
		{Box: old, ID: uid(5), Octets: 50, Mark: 5, Fates: []Fate{{Target: 1, Class: Written, Receipt: "c"}}},
	}
	commit(t, l, Epoch{Settled: settled})
	if err := l.Finish(t.Context(), old, Removed, []message.ID{uid(5)}); err != nil {
		t.Fatal(err)
	}
	f := formers(t, l, now, "INBOX")
	want := &Formers{Validity: 1, Boxes: []Box{old}, Messages: []Former{
		{Key: old.key(1), Octets: 10, Mark: 1<<47 - 1}, {Key: old.key(2), Octets: 20, Mark: 2}, {Key: old.key(4), Octets: -1},
	}}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Fatal(diff)
	}
	hashes, err := l.Hashes(t.Context(), []int64{old.key(1), old.key(2), 99})
	if diff := cmp.Diff([][]byte{sum, nil, nil}, hashes); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if err := l.Recognise(t.Context(), now, []Recognised{{old.key(1), uid(101)}, {old.key(2), uid(102)}}, f.Boxes); err != nil {
		t.Fatal(err)
	}
	l = reopen(t, l)
	found := lookup(t, l, now, uid(101), uid(102), uid(103))
	for i := range 2 {
		id := message.ID{Source: "alice", Mailbox: "INBOX", UIDValidity: 1, UID: uint32(i + 1)}
		want := Entry{Octets: settled[i].Octets, SHA256: settled[i].SHA256, Mark: settled[i].Mark, Fates: settled[i].Fates, Changed: settled[i].Changed, Exported: &id}
		if diff := cmp.Diff(want, found[i]); diff != "" {
			t.Errorf("message %d: %s", i, diff)
		}
	}
	if diff := cmp.Diff(unknown, found[2]); diff != "" {
		t.Error(diff)
	}
	for i, e := range lookup(t, l, old, uid(1), uid(2), uid(3)) {
		if diff := cmp.Diff(unknown, e); diff != "" {
			t.Errorf("under the former id %d: %s", i+1, diff)
		}
	}
	var letters []message.ID
	if err := l.Letters(t.Context(), func(id message.ID, _ string, _ Letter) error { letters = append(letters, id); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(letters) != 1 || letters[0].UID != 101 || letters[0].UIDValidity != 2 {
		t.Errorf("the dead letters are of %v", letters)
	}
	if f := formers(t, l, now, "INBOX"); len(f.Boxes) != 0 {
		t.Errorf("again: %+v", f)
	}

	// Once more: the name stays that of the first id; and the way back.
	next := number(3)
	if err := l.Recognise(t.Context(), next, []Recognised{{now.key(101), uid(7)}}, formers(t, l, next, "INBOX").Boxes); err != nil {
		t.Fatal(err)
	}
	if e := lookup(t, l, next, uid(7))[0]; e.Exported == nil || e.Exported.UIDValidity != 1 || e.Exported.UID != 1 {
		t.Errorf("after two changes: %+v", e)
	}
	back := formers(t, l, old, "INBOX")
	if len(back.Messages) != 1 || back.Messages[0].Key != next.key(7) {
		t.Errorf("on the way back: %+v", back)
	}
}

func TestRecogniseStrings(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	b := box(t, l, "")
	letter := &Letter{Reason: "taste"}
	commit(t, l, Epoch{Settled: []Settled{
		{Box: b, ID: uidl("a", "", 0), Octets: 1, Mark: 1, Fates: []Fate{{Target: 1, Class: Dead, Letter: letter}}},
		{Box: b, ID: uidl("b", "h", 2), Octets: 2, Mark: 2, Fates: []Fate{{Target: 1, Class: Written, Receipt: "x"}}},
	}})
	f, err := l.OwnStrings(t.Context(), b)
	if err != nil || len(f.Messages) != 2 || len(f.Boxes) != 0 {
		t.Fatalf("%+v, %v", f, err)
	}
	if err := l.Recognise(t.Context(), b, []Recognised{{f.Messages[0].Key, uidl("c", "", 0)}, {f.Messages[1].Key, uidl("d", "", 0)}}, nil); err != nil {
		t.Fatal(err)
	}
	found := lookup(t, l, b, uidl("c", "", 0), uidl("d", "", 0), uidl("a", "", 0))
	if e := found[1]; e.Exported == nil || e.Exported.UIDL != "b" || e.Exported.HeaderHash != "h" || e.Exported.Ordinal != 2 || e.Fates[0].Receipt != "x" {
		t.Errorf("%+v, exported as %v", e, e.Exported)
	}
	if found[0].Fates[0].Letter == nil || len(found[2].Fates) != 0 {
		t.Errorf("%+v, %+v", found[0], found[2])
	}
	err = l.Letters(t.Context(), func(id message.ID, _ string, _ Letter) error {
		if id.UIDL != "c" {
			t.Errorf("the dead letter is of %v", id)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
