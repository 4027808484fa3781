package ledger

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/pkg/message"
)

func TestHasMessages(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	fate := map[string]Settled{
		"written": {ID: uid(1), Octets: 1, Fates: []Fate{{Target: 1, Class: Written}}},
		"dropped": {ID: uid(1<<32 - 1), Octets: -1, Fates: []Fate{{Class: Dropped, Refusal: &Refusal{Stage: "s"}}}},
		"string":  {ID: uidl("x", "", 0), Octets: -1, Fates: []Fate{{Class: Vanished}}},
	}
	for name, s := range fate {
		s.Box = box(t, l, name)
		commit(t, l, Epoch{Settled: []Settled{s}})
	}
	if err := l.AddSuspects(t.Context(), box(t, l, "suspect"), 1, []message.ID{uid(1)}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"written": true, "dropped": true, "string": true, "suspect": true, "new": false} {
		if has, err := l.HasMessages(t.Context(), box(t, l, name)); has != want || err != nil {
			t.Errorf("%s: %v, %v", name, has, err)
		}
	}
}

func TestSavedState(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	saved := func(mailbox string, validity uint32) BoxState {
		t.Helper()
		s, err := l.SavedState(t.Context(), "alice", mailbox, validity)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	want := BoxState{Content: "c", Flags: "f", Fingerprint: "p", Tally: Tally{Written: 1 << 40, Dead: 2}}
	b := box(t, l, "INBOX")
	if diff := cmp.Diff(BoxState{}, saved("INBOX", 1)); diff != "" {
		t.Errorf("never saved: %s", diff)
	}
	commit(t, l, Epoch{Boxes: map[Box]BoxState{b: want, box(t, l, "bare"): {Content: "x"}}})
	l = reopen(t, l)
	if again := box(t, l, "INBOX"); again != b {
		t.Errorf("the mailbox's number was %d, and is %d", b, again)
	}
	if next := box(t, l, "next"); next == b || next == box(t, l, "bare") {
		t.Errorf("a new mailbox got the number of another: %d", next)
	}
	for name, c := range map[string]struct {
		mailbox  string
		validity uint32
		want     BoxState
	}{
		"saved": {"INBOX", 1, want}, "without sums": {"bare", 1, BoxState{Content: "x"}},
		"another UIDVALIDITY": {"INBOX", 2, BoxState{}}, "another mailbox": {"inbox", 1, BoxState{}},
	} {
		if diff := cmp.Diff(c.want, saved(c.mailbox, c.validity)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestManyNewMailboxes lets many goroutines find mailboxes while others commit:
// each gets one number, and its row.
func TestManyNewMailboxes(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	const n = 400
	numbers := make([]map[string]Box, 8)
	var wg sync.WaitGroup
	for g := range numbers {
		numbers[g] = map[string]Box{}
		wg.Go(func() {
			for i := range n {
				name := fmt.Sprint("box", (i+g*50)%n)
				b, err := l.Box(context.Background(), "alice", name, 1)
				if err != nil {
					t.Error(err)
					return
				}
				numbers[g][name] = b
				if i%40 == g {
					if err := l.Commit(context.Background(), Epoch{Boxes: map[Box]BoxState{b: {Content: name}}}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	commit(t, l, Epoch{})
	l = reopen(t, l)
	seen := map[Box]string{}
	for name, b := range numbers[0] {
		for g := range numbers {
			if numbers[g][name] != b {
				t.Errorf("%s has the numbers %d and %d", name, b, numbers[g][name])
			}
		}
		if other, ok := seen[b]; ok {
			t.Errorf("%s and %s have one number", name, other)
		}
		seen[b] = name
		if again := box(t, l, name); again != b {
			t.Errorf("%s had the number %d, and has %d", name, b, again)
		}
	}
}
