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
	err = l.write(ctx, "add a target", func(ctx context.Context, tx *transaction) error {
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
	var committed bool
	err := l.db.QueryRowContext(ctx, "SELECT id, checkpoint IS NOT NULL, checkpoint, dirty, known FROM target WHERE sink = ? AND target = ?", sink, target).
		Scan(&t.ID, &committed, &t.Checkpoint, &t.Dirty, &t.Known)
	if committed && t.Checkpoint == nil {
		t.Checkpoint = []byte{} // the driver reads an empty value as none
	}
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
	return l.write(ctx, "mark a target", func(ctx context.Context, tx *transaction) error {
		_, err := tx.ExecContext(ctx, "UPDATE target SET dirty = ? WHERE id = ?", dirty, id)
		return err
	})
}

// Forget takes back everything that is known of a target: its fates become
// pending and its checkpoint nil. For `--rewrite`.
func (l *Ledger) Forget(ctx context.Context, id TargetID) error {
	return l.write(ctx, "forget a target", func(ctx context.Context, tx *transaction) error {
		if err := forgetFates(ctx, tx, id); err != nil {
			return err
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
		_, err := tx.ExecContext(ctx, "UPDATE box SET content = '', flags = '', fingerprint = ''")
		return err
	})
}

// forgetFates takes the target out of all messages, some at a time (I5).
func forgetFates(ctx context.Context, tx *transaction, id TargetID) error {
	w := &writer{ctx: ctx, tx: tx}
	last := int64(-1)
	for {
		n := 0
		changed := w.rows("INSERT OR REPLACE INTO message VALUES ", 5)
		rows, err := tx.QueryContext(ctx, "SELECT key, octets, sha256, fates, mark FROM message WHERE key > ? ORDER BY key LIMIT 4096", last)
		if err != nil {
			return err
		}
		var rewritten [][5]any
		var fates []Fate
		for rows.Next() {
			n++
			var octets, mark sql.NullInt64
			var sum, packed []byte
			if err = rows.Scan(&last, &octets, &sum, &packed, &mark); err != nil {
				break
			}
			if fates, err = unpack(fates[:0], packed); err != nil {
				break
			}
			kept := []byte{}
			for i := range fates {
				if fates[i].Target != id {
					kept = fates[i].pack(kept)
				}
			}
			if len(kept) != len(packed) {
				rewritten = append(rewritten, [5]any{last, octets, sum, kept, mark})
			}
		}
		if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
			return err
		}
		for _, r := range rewritten {
			if err := changed.put(r[:]...); err != nil {
				return err
			}
		}
		if err := changed.end(); err != nil || n == 0 {
			return err
		}
	}
}

// KnownTarget is Target for who only looks: a pair that is new gets no row, and
// ok is false.
func (l *Ledger) KnownTarget(ctx context.Context, sink, target string) (t Target, ok bool, err error) {
	t, err = l.target(ctx, sink, target)
	if errors.Is(err, sql.ErrNoRows) {
		return Target{}, false, nil
	}
	return t, err == nil, l.wrap(err, "read a target")
}
