package ledger

import (
	"context"
	"database/sql"
	"regexp"
	"slices"
	"strings"
)

// transaction is one that writes. That of a scratch ledger notes what it
// executes.
type transaction struct {
	sql     *sql.Tx
	journal *journal // nil where nobody wants to know
}

// ExecContext executes a statement that returns nothing.
func (t *transaction) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	t.note(query, args)
	return t.sql.ExecContext(ctx, query, args...)
}

// QueryRowContext executes a statement that returns one row, and may write.
func (t *transaction) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	t.note(query, args)
	return t.sql.QueryRowContext(ctx, query, args...)
}

// QueryContext executes a statement that reads.
func (t *transaction) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return t.sql.QueryContext(ctx, query, args...)
}

// PrepareContext prepares a statement that writes.
func (t *transaction) PrepareContext(ctx context.Context, query string) (*statement, error) {
	s, err := t.sql.PrepareContext(ctx, query)
	return &statement{s, t, query}, err
}

// statement is a prepared one.
type statement struct {
	sql   *sql.Stmt
	tx    *transaction
	query string
}

// ExecContext executes it.
func (s *statement) ExecContext(ctx context.Context, args ...any) (sql.Result, error) {
	s.tx.note(s.query, args)
	return s.sql.ExecContext(ctx, args...)
}

// Close lets go of it.
func (s *statement) Close() error { return s.sql.Close() }

// note puts a statement into the journal, where there is one and it needs it.
func (t *transaction) note(query string, args []any) {
	if t.journal == nil || strings.HasPrefix(query, "SELECT") {
		return
	}
	if m := writes.FindStringSubmatch(query); m != nil && slices.Contains(headTables, m[1]) {
		return // a Head has all of it
	}
	t.journal.add(query, args)
}

// writes finds the table that a statement writes to.
var writes = regexp.MustCompile(`^(?:INSERT(?: OR [A-Z]+)? INTO|UPDATE(?: OR [A-Z]+)?|DELETE FROM) ([a-z_]+)`)
