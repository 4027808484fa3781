package ledger

import (
	"context"
	"database/sql"
	"errors"
)

// CopyTo writes the ledger, as of now, to a new file at path, without what was
// deleted from it.
func (l *Ledger) CopyTo(ctx context.Context, path string) error {
	_, err := l.db.ExecContext(ctx, "VACUUM INTO ?", path)
	return l.wrap(err, "copy it to "+path)
}

// Move says that what a sink wrote is at another Target now: the export was
// carried to another place. Nothing happens when the ledger has that Target
// already, or none of that sink. It returns the Target as it was, empty when
// nothing was moved.
func (l *Ledger) Move(ctx context.Context, sink, to string) (from string, err error) {
	err = l.write(ctx, "move a target", func(ctx context.Context, tx *transaction) error {
		var there bool
		if err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM target WHERE sink = ? AND target = ?)", sink, to).Scan(&there); err != nil || there {
			return err
		}
		// Of several targets that a sink had in its time, the newest is where it writes.
		var id TargetID
		err := tx.QueryRowContext(ctx, "SELECT id, target FROM target WHERE sink = ? ORDER BY known DESC, id DESC LIMIT 1", sink).Scan(&id, &from)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE target SET target = ? WHERE id = ?", to, id); err != nil {
			return err
		}
		// What sinks said of where they write was said at the other place.
		_, err = tx.ExecContext(ctx, "DELETE FROM remembered")
		return err
	})
	return from, err
}
