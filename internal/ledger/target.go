package ledger

import (
	"context"
	"database/sql"
	"errors"
)

// Target is what the ledger knows of a sink's Target.
type Target struct {
	ID         TargetID
	Checkpoint []byte // nil: nothing was ever committed
	Dirty      bool   // written to since the last clean end
	Known      bool   // some message is written there
}

// Target returns what is known of the pair, and makes its row when it is new.
func (l *Ledger) Target(ctx context.Context, sink, target string) (Target, error) {
	t, err := l.target(ctx, sink, target)
	if !errors.Is(err, sql.ErrNoRows) {
		return t, l.wrap(err, "read a target")
	}
	err = l.write(ctx, "add a target", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO target (sink, target) VALUES (?, ?)", sink, target)
		return err
	})
	if err != nil {
		return Target{}, err
	}
	t, err = l.target(ctx, sink, target)
	return t, l.wrap(err, "read a target")
}

func (l *Ledger) target(ctx context.Context, sink, target string) (Target, error) {
	var t Target
	err := l.db.QueryRowContext(ctx, "SELECT id, checkpoint, dirty, known FROM target WHERE sink = ? AND target = ?", sink, target).
		Scan(&t.ID, &t.Checkpoint, &t.Dirty, &t.Known)
	return t, err
}

// MarkDirty says that the target is about to be written to: until MarkClean,
// a run opens its sink even when there is nothing to write, so that the sink
// can put in order what a crash left.
func (l *Ledger) MarkDirty(ctx context.Context, id TargetID) error {
	return l.setDirty(ctx, id, true)
}

// MarkClean says that the target holds just what was committed.
func (l *Ledger) MarkClean(ctx context.Context, id TargetID) error {
	return l.setDirty(ctx, id, false)
}

func (l *Ledger) setDirty(ctx context.Context, id TargetID, dirty bool) error {
	return l.write(ctx, "mark a target", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE target SET dirty = ? WHERE id = ?", dirty, id)
		return err
	})
}

// Forget takes back everything that is known of a target: its fates become
// pending and its checkpoint nil. For `--rewrite`.
func (l *Ledger) Forget(ctx context.Context, id TargetID) error {
	return l.write(ctx, "forget a target", func(tx *sql.Tx) error {
		type row struct {
			box   Box
			num   int64
			fates []Fate
		}
		var changed []row
		rows, err := tx.QueryContext(ctx, "SELECT box, num, fates FROM message")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r row
			var packed []byte
			if err := rows.Scan(&r.box, &r.num, &packed); err != nil {
				return err
			}
			fates, err := unpack(packed)
			if err != nil {
				return err
			}
			for _, f := range fates {
				if f.Target != id {
					r.fates = append(r.fates, f)
				}
			}
			if len(r.fates) != len(fates) {
				changed = append(changed, r)
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for _, r := range changed {
			if _, err := tx.ExecContext(ctx, "UPDATE message SET fates = ? WHERE box = ? AND num = ?", pack(r.fates), r.box, r.num); err != nil {
				return err
			}
		}
		for _, q := range []string{
			"UPDATE target SET checkpoint = NULL, known = 0 WHERE id = ?",
			"DELETE FROM refusal WHERE target = ?",
			"DELETE FROM letter WHERE target = ?",
			"DELETE FROM suspect WHERE target = ?",
		} {
			if _, err := tx.ExecContext(ctx, q, id); err != nil {
				return err
			}
		}
		// Every mailbox must be looked at again.
		_, err = tx.ExecContext(ctx, "UPDATE box SET content = '', flags = '', fingerprint = ''")
		return err
	})
}
