package filter_test

import (
	"errors"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/stages/filter"
	"github.com/mailhaul/pipeline/pkg/message"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// TestKeepAndDrop judges a message by an expression and by its opposite: what
// one can't tell, the other can't either.
func TestKeepAndDrop(t *testing.T) {
	t.Parallel()
	m := &message.Summary{
		ID: message.ID{Source: "alice", Mailbox: "INBOX", UID: 7}, Have: message.AllSummary, Size: 500,
		InternalDate: time.Date(2026, 11, 20, 23, 30, 0, 0, time.UTC), Header: message.NewHeader([]byte("Subject: offer\r\nDate: never\r\n\r\n")),
		Vars: map[string]string{"team": "a"},
	}
	tests := []struct {
		text      string
		is        bool
		undecided bool
	}{
		{"true", true, false},
		{"size < 1 * KB", true, false},
		{"size > 1 * KB", false, false},
		{`mailbox == "INBOX" && subject contains "offer"`, true, false},
		{`mailbox == "INBOX" && subject contains "order"`, false, false},
		{`mailbox == "Spam" || subject contains "offer"`, true, false},
		{`vars.team == "a"`, true, false},
		{`date < now()`, false, true},
		{`date < now() && size > 1 * KB`, false, false}, // one no is enough
		{`date < now() || size < 1 * KB`, true, false},  // one yes is enough
		{`internal_date >= date("2026-11-21")`, true, false},
	}
	berlin, err := time.LoadLocation("Europe/Berlin") // half past midnight there
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			o := filter.Options{Location: berlin, Vars: []string{"team"}}
			keep, err := filter.Keep(tt.text, o)
			if err != nil {
				t.Fatal(err)
			}
			drop, err := filter.Drop(tt.text, o)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range []struct {
				name string
				of   *filter.Filter
				want bool
			}{{"Keep", keep, tt.is}, {"Drop", drop, !tt.is}} {
				got, undecided, err := f.of.Program.Eval(m, now)
				if undecided != tt.undecided || err != nil || !undecided && got != f.want {
					t.Errorf("%s lets it pass: %v, undecided %v, %v", f.name, got, undecided, err)
				}
			}
			if keep.Program.Fingerprint() == drop.Program.Fingerprint() {
				t.Error("a filter and its opposite have one fingerprint")
			}
			if keep.Program.Needs() != drop.Program.Needs() {
				t.Errorf("a filter reads %s, its opposite %s", keep.Program.Needs(), drop.Program.Needs())
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for text, nearest := range map[string]string{
		"sizee < 5": "size", `vars.tem == "a"`: "team", "size": "", "size <": "", "subject == 5": "",
	} {
		for name, compile := range map[string]func(string, filter.Options) (*filter.Filter, error){"Keep": filter.Keep, "Drop": filter.Drop} {
			f, err := compile(text, filter.Options{Vars: []string{"team"}})
			var e *expression.Error
			if f != nil || !errors.As(err, &e) || e.Nearest != nearest {
				t.Errorf("%s %s: %v", name, text, err)
			}
		}
	}
}
