package ledger

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/pkg/message"
)

func TestRelease(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	eml, msg := target(t, l, "eml").ID, target(t, l, "msg").ID
	dead := func(target TargetID, reason string) Fate {
		return Fate{Target: target, Class: Dead, Letter: &Letter{Reason: reason, Text: "no"}}
	}
	b, other := box(t, l, "INBOX"), box(t, l, "Work")
	written := Fate{Target: eml, Class: Written, Receipt: "3.eml"}
	state := BoxState{Content: "c", Fingerprint: "f", Tally: Tally{Dead: 1}}
	commit(t, l, Epoch{Settled: []Settled{
		{Box: b, ID: uid(1), Octets: -1, Fates: []Fate{dead(Everywhere, "no_body")}},
		{Box: b, ID: uid(2), Octets: 9, Fates: []Fate{dead(eml, "a"), dead(msg, "b")}},
		{Box: b, ID: uid(3), Octets: 9, Fates: []Fate{written, dead(msg, "a")}},
		{Box: other, ID: uid(1), Octets: -1, Fates: []Fate{dead(Everywhere, "b")}},
	}, Boxes: map[Box]BoxState{b: state, other: state}})

	n, err := l.Release(t.Context(), func(id message.ID, sink string, letter Letter) bool {
		return letter.Reason == "no_body" || letter.Reason == "a"
	})
	if n != 3 || err != nil {
		t.Errorf("released %d, %v", n, err)
	}
	l = reopen(t, l)
	b = box(t, l, "INBOX")
	if diff := cmp.Diff([]Entry{
		unknown,
		{Octets: 9, Fates: []Fate{dead(msg, "b")}},
		{Octets: 9, Fates: []Fate{written}},
	}, lookup(t, l, b, uid(1), uid(2), uid(3))); diff != "" {
		t.Error(diff)
	}
	// The mailbox is listed again, though nothing has changed there.
	for mailbox, want := range map[string]string{"INBOX": "", "Work": "c"} {
		if s, err := l.SavedState(t.Context(), "alice", mailbox, 1); s.Content != want || err != nil {
			t.Errorf("%s: saved state %q, %v", mailbox, s.Content, err)
		}
	}
	if n, err := l.Release(t.Context(), func(message.ID, string, Letter) bool { return false }); n != 0 || err != nil {
		t.Errorf("released %d, %v", n, err)
	}
}
