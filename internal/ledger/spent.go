package ledger

import (
	"context"
	"database/sql"
	"time"
)

// Spent is what an account fetched in one slot of its budget's period.
type Spent struct {
	At     time.Time // when the slot began
	Octets int64
}

// Spending is what an epoch adds to what an account has spent.
type Spending struct {
	Source string
	Add    []Spent
	Before time.Time // what lies before is out of the period, and forgotten
}

// Spent returns what the source fetched since then, oldest first.
func (l *Ledger) Spent(ctx context.Context, source string, since time.Time) ([]Spent, error) {
	var out []Spent
	err := l.each(ctx, "SELECT slot, octets FROM spent WHERE source = ? AND slot >= ? ORDER BY slot", []any{source, since.UnixMilli()}, func(rows *sql.Rows) error {
		var at int64
		var s Spent
		err := rows.Scan(&at, &s.Octets)
		s.At = fromMillis(at)
		out = append(out, s)
		return err
	})
	return out, l.wrap(err, "read a budget")
}

func (w *writer) spend(all []Spending) error {
	for _, s := range all {
		if err := w.exec("DELETE FROM spent WHERE source = ? AND slot < ?", s.Source, s.Before.UnixMilli()); err != nil {
			return err
		}
		for _, add := range s.Add {
			if err := w.exec("INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET octets = octets + excluded.octets",
				s.Source, add.At.UnixMilli(), add.Octets); err != nil {
				return err
			}
		}
	}
	return nil
}
