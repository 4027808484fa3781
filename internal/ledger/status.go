package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// State is where a mailbox or an account stands. The numbers stand in the
// ledger's file.
type State uint8

// The states.
const (
	NeverListed State = iota // no run has come to it yet
	Complete                 // all that the server has is accounted for
	Incomplete               // something is pending, or the listing broke off
	Excluded                 // mailboxes: the file leaves it out
	Gone                     // mailboxes: the server no longer has it
	Parked                   // accounts: a provider's limit; see Account.Until
)

var stateNames = [...]string{"never listed", "complete", "incomplete", "excluded", "gone", "parked"}

// String returns the state as it stands in reports.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", s)
}

// Account is where one source stands, as of the last run that had it.
type Account struct {
	Source string
	Run    int64     // number of that run
	Began  time.Time // of the account in that run
	Ended  time.Time // zero: the run goes on, or was cut off
	State  State     // Complete, Incomplete or Parked
	Until  time.Time // Parked: when to go on
	Err    string    // why it is incomplete; empty when single mailboxes are
	Hint   string    // what to do about it; may be empty
}

// Mailbox is where one mailbox stands, as of the last commit that touched it.
// It is I1's sum over all runs: the Fates add up to Listed, however the last
// run ended.
type Mailbox struct {
	Source      string
	Name        string
	Run         int64 // number of the last run that saw it on the server
	State       State
	UIDValidity uint32
	Server      int64            // the server's own count (STATUS, EXAMINE, STAT); -1 unknown
	Listed      int64            // by its last listing
	Fates       Tally            // of Listed by worst class, Pending among them
	Dropped     map[string]int64 // Fates[Dropped] by stage
	Undecided   map[string]int64 // in that run, by stage; counted in Fates as well
	Limited     bool             // a limit ended the listing
	BlindSpots  []string         // what the server hides or caps, a sentence each
	Problem     string           // why it is incomplete; may be empty

	// Unchanged says that the run found the mailbox as an earlier one had
	// left it, and didn't list it: Listed, Fates and Dropped stay as they
	// are. It is for writing only.
	Unchanged bool
}

// Run is one run of the pipeline.
type Run struct {
	Number int64
	Began  time.Time
	Ended  time.Time // zero: it goes on, or was cut off
	Exit   int       // exit code; -1 while Ended is zero
}

// Accounts returns where each source stands, by name.
func (l *Ledger) Accounts(ctx context.Context) ([]Account, error) {
	var out []Account
	err := l.each(ctx, "SELECT source, run, began, ended, state, until, error, hint FROM account ORDER BY source", nil, func(rows *sql.Rows) error {
		var a Account
		var began, ended, until int64
		err := rows.Scan(&a.Source, &a.Run, &began, &ended, &a.State, &until, &a.Err, &a.Hint)
		a.Began, a.Ended, a.Until = fromMillis(began), fromMillis(ended), fromMillis(until)
		out = append(out, a)
		return err
	})
	return out, l.wrap(err, "read the accounts")
}

// Mailboxes calls f for each mailbox of a source, or of all sources when
// source is empty, by source and name. f's error ends it, and is returned as
// it is.
func (l *Ledger) Mailboxes(ctx context.Context, source string, f func(Mailbox) error) error {
	query, args := "SELECT source, mailbox, run, state, uid_validity, server, listed, sums FROM mailbox", []any(nil)
	if source != "" {
		query, args = query+" WHERE source = ?", []any{source}
	}
	var own error // of f
	err := l.each(ctx, query+" ORDER BY source, mailbox", args, func(rows *sql.Rows) error {
		var m Mailbox
		var raw sql.RawBytes
		if err := rows.Scan(&m.Source, &m.Name, &m.Run, &m.State, &m.UIDValidity, &m.Server, &m.Listed, &raw); err != nil {
			return err
		}
		if err := m.setSums(raw); err != nil {
			return err
		}
		own = f(m)
		return own
	})
	if own != nil {
		return own
	}
	return l.wrap(err, "read the mailboxes")
}

// Runs returns the last n runs, the newest first.
func (l *Ledger) Runs(ctx context.Context, n int) ([]Run, error) {
	var out []Run
	err := l.each(ctx, "SELECT id, started, COALESCE(finished, ''), COALESCE(exit, -1) FROM run ORDER BY id DESC LIMIT ?", []any{n}, func(rows *sql.Rows) error {
		var r Run
		var began, ended string
		if err := rows.Scan(&r.Number, &began, &ended, &r.Exit); err != nil {
			return err
		}
		var err error
		if r.Began, err = time.Parse(time.RFC3339, began); err != nil {
			return &damage{"when a run began", err}
		}
		if ended != "" {
			if r.Ended, err = time.Parse(time.RFC3339, ended); err != nil {
				return &damage{"when a run ended", err}
			}
		}
		out = append(out, r)
		return nil
	})
	return out, l.wrap(err, "read the runs")
}

// sums is what only people read of a mailbox.
type sums struct {
	Fates      Tally            `json:"fates"`
	Dropped    map[string]int64 `json:"dropped,omitempty"`
	Undecided  map[string]int64 `json:"undecided,omitempty"`
	Limited    bool             `json:"limited,omitempty"`
	BlindSpots []string         `json:"blind_spots,omitempty"`
	Problem    string           `json:"problem,omitempty"`
}

func (m *Mailbox) sums() ([]byte, error) {
	return json.Marshal(sums{noZeros(m.Fates), noZeros(m.Dropped), noZeros(m.Undecided), m.Limited, m.BlindSpots, m.Problem})
}

func (m *Mailbox) setSums(raw []byte) error {
	var s sums
	if err := json.Unmarshal(raw, &s); err != nil {
		return &damage{"a mailbox's sums", err}
	}
	m.Fates, m.Dropped, m.Undecided = s.Fates, s.Dropped, s.Undecided
	m.Limited, m.BlindSpots, m.Problem = s.Limited, s.BlindSpots, s.Problem
	return nil
}

// stand stores where accounts and mailboxes stand. A mailbox that the run of
// its ended account didn't see is gone.
func (w *writer) stand(accounts []Account, mailboxes []Mailbox) error {
	slices.SortFunc(mailboxes, func(a, b Mailbox) int { return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Name, b.Name)) })
	add := w.rows("INSERT OR REPLACE INTO mailbox VALUES ", 8)
	for i := range mailboxes {
		m := &mailboxes[i]
		if m.Unchanged {
			known, err := w.seen(m)
			if err != nil {
				return err
			}
			if known {
				continue
			}
		}
		raw, err := m.sums()
		if err != nil {
			return err
		}
		if err := add.put(m.Source, m.Name, m.Run, m.State, m.UIDValidity, m.Server, m.Listed, string(raw)); err != nil {
			return err
		}
	}
	if err := add.end(); err != nil {
		return err
	}
	for _, a := range accounts {
		if err := w.exec("INSERT OR REPLACE INTO account VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			a.Source, a.Run, toMillis(a.Began), toMillis(a.Ended), a.State, toMillis(a.Until), a.Err, a.Hint); err != nil {
			return err
		}
		if a.State != Complete {
			continue // it may not have come to ask for them all
		}
		if err := w.exec("UPDATE mailbox SET state = ? WHERE source = ? AND run < ? AND state <> ?", Gone, a.Source, a.Run, Gone); err != nil {
			return err
		}
	}
	return nil
}

// seen notes a mailbox that is as it was; false when there is no row of it.
func (w *writer) seen(m *Mailbox) (bool, error) {
	r, err := w.tx.ExecContext(w.ctx, "UPDATE mailbox SET run = ?, state = ?, server = ? WHERE source = ? AND mailbox = ?",
		m.Run, m.State, m.Server, m.Source, m.Name)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

func noZeros[M ~map[K]int64, K comparable](m M) M {
	m = maps.Clone(m)
	maps.DeleteFunc(m, func(_ K, n int64) bool { return n == 0 })
	return m
}

func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}
