package ledger

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mailhaul/pipeline/pkg/fault"
)

func mailboxes(t *testing.T, l *Ledger, source string) []Mailbox {
	t.Helper()
	var out []Mailbox
	if err := l.Mailboxes(t.Context(), source, func(m Mailbox) error { out = append(out, m); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// What a run notes of accounts and mailboxes comes back, to whoever asks
// beside it; what it didn't see is gone, once it saw all.
func TestStanding(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := View(t.Context(), dir, "acme"); !fault.Is(err, fault.Config) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("view before any run: %v", err)
	}
	// As the first run makes it, a moment before its tables.
	if err := os.WriteFile(filepath.Join(dir, "acme.db"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := View(t.Context(), dir, "acme"); !fault.Is(err, fault.Config) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("view of a file that was just made: %v", err)
	}
	l := open(t, dir)
	at := time.Date(2026, 11, 21, 15, 0, 0, 0, time.UTC)
	inbox := Mailbox{
		Source: "alice", Name: "INBOX", Run: 1, State: Incomplete, UIDValidity: 1<<32 - 1, Server: 12, Listed: 10,
		Fates: Tally{Written: 7, Dropped: 2, Pending: 1}, Dropped: map[string]int64{"recent": 2}, Undecided: map[string]int64{"recent": 1},
		Limited: true, BlindSpots: []string{"the server shows 10 messages"}, Problem: "NO [NOPERM]",
	}
	old := Mailbox{Source: "alice", Name: "Old", Run: 1, State: Complete, Server: -1, Listed: 3, Fates: Tally{Written: 3}}
	spam := Mailbox{Source: "alice", Name: "Spam", Run: 1, State: Excluded, Server: -1}
	bob := Mailbox{Source: "bob", Name: "INBOX", Run: 1, State: NeverListed, Server: -1}
	alice := Account{Source: "alice", Run: 1, Began: at, Ended: at.Add(time.Minute), State: Incomplete}
	parked := Account{Source: "bob", Run: 1, Began: at, Ended: at, State: Parked, Until: at.Add(time.Hour), Err: "OVERQUOTA", Hint: "wait"}
	commit(t, l, Epoch{Accounts: []Account{alice, parked}, Mailboxes: []Mailbox{spam, inbox, bob, old}})

	// While the run has the lock, another process looks.
	view, err := View(t.Context(), dir, "acme")
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	if diff := cmp.Diff([]Mailbox{inbox, old, spam, bob}, mailboxes(t, view, ""), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	accounts, err := view.Accounts(t.Context())
	if diff := cmp.Diff([]Account{alice, parked}, accounts); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if err := view.Commit(t.Context(), Epoch{Accounts: []Account{alice}}); !fault.Is(err, fault.Config) {
		t.Errorf("a view was written to: %v", err)
	}

	// The second run finds INBOX as it was, and Old no more.
	seen := Mailbox{Source: "alice", Name: "INBOX", Run: 2, State: Complete, Server: 10, Unchanged: true}
	alice.Run, alice.State = 2, Complete
	commit(t, l, Epoch{Accounts: []Account{alice}, Mailboxes: []Mailbox{seen}})
	inbox.Run, inbox.State, inbox.Server = 2, Complete, 10
	old.State, spam.State = Gone, Gone
	if diff := cmp.Diff([]Mailbox{inbox, old, spam}, mailboxes(t, view, "alice"), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	own := errors.New("enough")
	if err := l.Mailboxes(t.Context(), "", func(Mailbox) error { return own }); !errors.Is(err, own) {
		t.Errorf("the caller's own error came back as %v", err)
	}
}

func TestRunsNewestFirst(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	at := time.Date(2026, 11, 21, 15, 0, 0, 0, time.UTC)
	for i := range 3 {
		n, err := l.BeginRun(t.Context(), at.Add(time.Duration(i)*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			if err := l.EndRun(t.Context(), n, at.Add(time.Duration(i)*time.Hour+time.Minute), 3); err != nil {
				t.Fatal(err)
			}
		}
	}
	runs, err := l.Runs(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	want := []Run{
		{Number: 3, Began: at.Add(2 * time.Hour), Exit: -1},
		{Number: 2, Began: at.Add(time.Hour), Ended: at.Add(time.Hour + time.Minute), Exit: 3},
	}
	if diff := cmp.Diff(want, runs); diff != "" {
		t.Error(diff)
	}
}
