package ledger_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/test/ledgertest"
)

var _ engine.Ledger = (*ledger.Ledger)(nil)

// inFolder keeps a ledger in a folder.
type inFolder struct{ dir string }

func (s *inFolder) Open(t testing.TB) ledgertest.Ledger {
	t.Helper()
	l, err := ledger.Open(context.Background(), s.dir, "acme")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // most are closed by then
	return l
}

func (s *inFolder) End(t testing.TB, l ledgertest.Ledger) {
	t.Helper()
	if err := l.(*ledger.Ledger).Close(); err != nil {
		t.Fatal(err)
	}
}

func (s *inFolder) Crash(t testing.TB, l ledgertest.Ledger) { t.Helper(); s.End(t, l) }

func TestSuite(t *testing.T) {
	t.Parallel()
	ledgertest.Run(t, func(t testing.TB) ledgertest.Store { return &inFolder{t.TempDir()} })
}

// journalled keeps of a scratch ledger what it is told, and makes each the
// last one's equal.
type journalled struct {
	dir      string
	opened   int
	journals [][]byte
	head     *ledger.Head
}

func (s *journalled) Open(t testing.TB) ledgertest.Ledger {
	t.Helper()
	s.opened++
	l, err := ledger.Scratch{
		Path: filepath.Join(s.dir, fmt.Sprint(s.opened, ".db")), Pipeline: "p", Replay: s.journals, Head: s.head,
		Durable: func(_ context.Context, c ledger.Change) error {
			if len(c.Journal) > 0 {
				s.journals = append(s.journals, bytes.Clone(c.Journal))
			}
			s.head = &c.Head
			return nil
		},
	}.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // most are closed by then
	return l
}

func (s *journalled) End(t testing.TB, l ledgertest.Ledger) {
	t.Helper()
	was := l.(*ledger.Ledger)
	before := dump(t, was.Path())
	if err := was.Close(); err != nil {
		t.Fatal(err)
	}
	now := s.Open(t).(*ledger.Ledger)
	if diff := cmp.Diff(before, dump(t, now.Path())); diff != "" {
		t.Errorf("made anew of its journal, the ledger is another one: %s", diff)
	}
	if err := now.Close(); err != nil {
		t.Fatal(err)
	}
}

func (s *journalled) Crash(t testing.TB, l ledgertest.Ledger) { t.Helper(); s.End(t, l) }

// dump returns all rows of all tables.
func dump(t testing.TB, path string) (rows []string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	read := func(query string) (out [][]any) {
		found, err := db.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer found.Close()
		names, err := found.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for found.Next() {
			values, at := make([]any, len(names)), make([]any, len(names))
			for i := range values {
				at[i] = &values[i]
			}
			if err := found.Scan(at...); err != nil {
				t.Fatal(err)
			}
			out = append(out, values)
		}
		if err := found.Err(); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, table := range read("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name") {
		for _, row := range read(fmt.Sprintf("SELECT * FROM %s ORDER BY 1, 2", table[0])) {
			rows = append(rows, strings.TrimSpace(fmt.Sprintln(append([]any{table[0]}, row...)...)))
		}
	}
	return rows
}

// TestScratchSuite makes a ledger anew of its journal again and again: each is
// the same in every row.
func TestScratchSuite(t *testing.T) {
	t.Parallel()
	ledgertest.Run(t, func(t testing.TB) ledgertest.Store { return &journalled{dir: t.TempDir()} })
}
