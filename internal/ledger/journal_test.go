package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// executed is what a test sees of a journal.
type executed struct {
	Query string
	Args  []any
}

func readJournal(b []byte) (all []executed, err error) {
	err = statementsOf(b, func(query string, args []any) error {
		all = append(all, executed{query, args})
		return nil
	})
	return all, err
}

// Each kind of argument comes back as the driver gets it.
func TestJournal(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		arg, want any
	}{
		{"nothing", nil, nil},
		{"no octets", []byte(nil), nil},
		{"zero octets", []byte{}, []byte{}},
		{"octets", []byte{0, 255}, []byte{0, 255}},
		{"a text", "ü\x00", "ü\x00"},
		{"no text", "", ""},
		{"a number", int64(math.MinInt64), int64(math.MinInt64)},
		{"a big number", int64(math.MaxInt64), int64(math.MaxInt64)},
		{"a number of a type of its own", Box(7), int64(7)},
		{"a small one", uint32(math.MaxUint32), int64(math.MaxUint32)},
		{"a state", Gone, int64(Gone)},
		{"a fraction", 0.25, 0.25},
		{"true", true, true},
		{"false", false, false},
		{"a number that may be none", sql.NullInt64{Int64: 3, Valid: true}, int64(3)},
		{"none", sql.NullInt64{}, nil},
	}
	var j journal
	var want []executed
	for i, tt := range tests {
		query := fmt.Sprint("Q", i%3) // a text that was there is a number
		j.add(query, []any{tt.arg, i})
		want = append(want, executed{query, []any{tt.want, int64(i)}})
	}
	j.add("without arguments", nil)
	want = append(want, executed{"without arguments", []any{}})
	got, err := readJournal(j.b)
	if err != nil || j.err != nil {
		t.Fatal(err, j.err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for n := 1; n < len(j.b); n++ {
		if got, err := readJournal(j.b[:n]); err == nil && len(got) == len(want) {
			t.Fatalf("cut after %d of %d octets, it has all its statements", n, len(j.b))
		}
	}
	j.add("Q", []any{struct{}{}})
	if j.err == nil {
		t.Error("an argument of no kind was noted")
	}
	enough := errors.New("enough")
	if err := statementsOf(j.b, func(string, []any) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("the caller's own error came back as %v", err)
	}
}

// What only a Head has isn't in the journal, and what reads neither.
func TestWhatIsJournalled(t *testing.T) {
	t.Parallel()
	for query, noted := range map[string]bool{
		"SELECT 1 FROM message":                              false,
		"INSERT INTO box (id) VALUES (?)":                    false,
		"UPDATE target SET dirty = ? WHERE id = ?":           false,
		"INSERT OR REPLACE INTO mailbox VALUES (?)":          false,
		"INSERT OR REPLACE INTO account VALUES (?)":          false,
		"DELETE FROM box":                                    false,
		"INSERT INTO message VALUES (?)":                     true,
		"INSERT OR REPLACE INTO message VALUES (?)":          true,
		"UPDATE OR REPLACE claim SET key = 1":                true,
		"DELETE FROM letter WHERE key = ?":                   true,
		"CREATE TEMP TABLE moved (old INTEGER)":              true,
		"INSERT INTO rule (stage) VALUES (?) RETURNING id":   true,
		"INSERT INTO boxes_of_another_kind (id) VALUES (10)": true,
	} {
		tx := &transaction{journal: &journal{}}
		tx.note(query, nil)
		if got := len(tx.journal.b) > 0; got != noted {
			t.Errorf("%s: noted %v, want %v", query, got, noted)
		}
	}
}

// FuzzJournal reads any octets: it ends, and what it read can be written again.
func FuzzJournal(f *testing.F) {
	var j journal
	j.add("INSERT INTO message VALUES (?, ?)", []any{1, []byte{2}})
	j.add("DELETE FROM letter", nil)
	f.Add(j.b)
	f.Add([]byte{0, 1, 'Q', 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := readJournal(b)
		if err != nil {
			return
		}
		var again journal
		for _, e := range all {
			again.add(e.Query, e.Args)
		}
		read, err := readJournal(again.b)
		if err != nil || len(read) != len(all) || fmt.Sprint(read) != fmt.Sprint(all) {
			t.Errorf("got %v, %v, want %v", read, err, all)
		}
	})
}
