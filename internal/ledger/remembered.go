package ledger

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Recall returns what Remember stored under key, or nil. It is a cache of
// what plugins said of themselves: losing it costs a process start.
func (l *Ledger) Recall(ctx context.Context, key string) ([]byte, error) {
	var value []byte
	err := l.db.QueryRowContext(ctx, "SELECT value FROM remembered WHERE key = ?", key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return value, l.wrap(err, "recall")
}

// Remember stores value under key.
func (l *Ledger) Remember(ctx context.Context, key string, value []byte) error {
	return l.write(ctx, "remember", func(ctx context.Context, tx *transaction) error {
		_, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO remembered VALUES (?, ?)", key, value)
		return err
	})
}

// BeginRun notes that a run began, and returns its number.
func (l *Ledger) BeginRun(ctx context.Context, now time.Time) (int64, error) {
	var id int64
	err := l.write(ctx, "begin a run", func(ctx context.Context, tx *transaction) error {
		return tx.QueryRowContext(ctx, "INSERT INTO run (started) VALUES (?) RETURNING id", now.UTC().Format(time.RFC3339)).Scan(&id)
	})
	return id, err
}

// EndRun notes how a run ended.
func (l *Ledger) EndRun(ctx context.Context, id int64, now time.Time, exit int) error {
	return l.write(ctx, "end a run", func(ctx context.Context, tx *transaction) error {
		_, err := tx.ExecContext(ctx, "UPDATE run SET finished = ?, exit = ? WHERE id = ?", now.UTC().Format(time.RFC3339), exit, id)
		return err
	})
}
