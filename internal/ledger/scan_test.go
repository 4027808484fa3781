package ledger

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKnown(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	eml := target(t, l, "eml").ID
	inbox, pop := box(t, l, "INBOX"), box(t, l, "")
	sum := make([]byte, 32)
	sum[0] = 7
	written := []Fate{{Target: eml, Class: Written, Receipt: "a.eml"}}
	commit(t, l, Epoch{Settled: []Settled{
		{Box: pop, ID: uidl("b", "h", 2), Octets: 6, Fates: written},
		{Box: inbox, ID: uid(1<<32 - 1), Octets: 5, SHA256: sum, Fates: written},
		{Box: pop, ID: uidl("a", "", 0), Octets: -1, Fates: []Fate{{Class: Vanished}}},
		{Box: inbox, ID: uid(2), Octets: -1, Fates: []Fate{{Class: Dropped, Refusal: &Refusal{Stage: "s"}}}},
		{Box: inbox, ID: uid(3), Octets: -1, Fates: []Fate{{Target: eml, Class: Dead, Letter: &Letter{Reason: "r"}}}},
	}})
	var got []string
	err := l.Known(t.Context(), func(m *Known) error {
		if _, err := l.HasMessages(t.Context(), m.Box); err != nil { // it may call the ledger
			return err
		}
		got = append(got, fmt.Sprintf("%s %d %d %v %s", m.ID.Key(), m.Octets, len(m.SHA256), m.Fates[0].Class, m.Fates[0].Receipt))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`"alice" "INBOX" 1 3 -1 0 dead letter `,
		`"alice" "INBOX" 1 4294967295 5 32 written a.eml`,
		`"alice" "" "b" h 2 6 0 written a.eml`,
		`"alice" "" "a" -1 0 vanished `,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	enough := errors.New("enough")
	if err := l.Known(t.Context(), func(*Known) error { return enough }); err != enough { //nolint:errorlint // as it is
		t.Errorf("the caller's own error came back as %v", err)
	}
}
