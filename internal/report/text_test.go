package report

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/engine"
)

func TestText(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		result engine.Result
		want   string
	}{
		"what is zero is left out": {
			result: engine.Result{Accounts: []engine.Account{{Source: "a", Mailboxes: []engine.Sum{
				{Mailbox: "INBOX", Server: 5, Listed: 5, Written: 3, Dropped: map[string]int64{"recent": 2}, Complete: true},
				{Mailbox: "Empty", Complete: true},
				{Mailbox: "Old", Server: 7, Listed: 7, DoneBefore: 7, Skipped: true, Complete: true},
			}, Excluded: []string{"Trash"}}}},
			want: `
  INBOX                        5 listed = 3 written + 2 dropped by recent
total: 12 listed = 3 written + 7 done before + 2 dropped by recent
excluded by the file: 1 mailbox
`,
		},
		"names of all scripts keep the columns": {
			result: engine.Result{Accounts: []engine.Account{{Source: "a", Mailboxes: []engine.Sum{
				{Mailbox: "日本語/受信", Server: 1, Listed: 1, Written: 1, Complete: true},
				{Mailbox: "e\u0301te", Server: 1, Listed: 1, Written: 1, Complete: true},
			}}}},
			want: `
  日本語/受信                  1 listed = 1 written
  éte                          1 listed = 1 written
total: 2 listed = 2 written
`,
		},
		"what servers hide is said once": {
			result: engine.Result{Accounts: []engine.Account{
				{Source: "a", Mailboxes: []engine.Sum{{Mailbox: "INBOX", BlindSpots: []string{"10,000 at most"}, Complete: true}, {Mailbox: "Sent", BlindSpots: []string{"10,000 at most"}, Complete: true}}},
				{Source: "b", Mailboxes: []engine.Sum{{Mailbox: "INBOX", BlindSpots: []string{"no unique ids"}, Complete: true}}},
			}},
			want: `
total: 0 listed = 0 written
blind spot: a/INBOX and 1 more mailboxes: 10,000 at most
blind spot: b/INBOX: no unique ids
`,
		},
		"what is missing is counted": {
			result: engine.Result{Accounts: []engine.Account{
				{Source: "a", Err: errors.New("LOGIN refused"), Mailboxes: []engine.Sum{
					{Mailbox: "INBOX", Server: 6, Listed: 5, Written: 1, Pending: 4, Undecided: map[string]int64{"recent": 1}, Problem: errors.New("NO")},
				}},
				{Source: "b", Until: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
			}},
			want: `
  a/INBOX                      5 listed = 1 written + 4 pending; the server counts 6
total: 5 listed = 1 written + 4 pending
stage recent couldn't judge 1 message: it was kept, as a value is absent
`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			Text(&b, &tc.result)
			if diff := cmp.Diff(strings.TrimPrefix(tc.want, "\n"), b.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTroubles(t *testing.T) {
	t.Parallel()
	stop := errors.New("sink archive: no space")
	var got []string
	for _, err := range Troubles(&engine.Result{Err: stop, Accounts: []engine.Account{
		{Source: "a", Err: errors.New("LOGIN refused"), Mailboxes: []engine.Sum{{Mailbox: "INBOX", Problem: errors.New("NO")}, {Mailbox: "Fine"}}},
		{Source: "b", Err: errors.New("busy"), Until: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		{Source: "c"},
		{Source: "d", Err: stop},
	}}) {
		got = append(got, err.Error())
	}
	want := []string{
		"sink archive: no space",
		"source a: LOGIN refused",
		"source a: mailbox INBOX: NO",
		"source b: parked until 2026-01-02 03:04:05 UTC: busy",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
