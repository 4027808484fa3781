package ledger

import (
	"context"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// TakeOver gives a ledger that knows nothing yet the id of the pipeline whose
// targets it shall know: for who makes a lost ledger anew.
func (l *Ledger) TakeOver(ctx context.Context, pipeline string) error {
	var known bool
	if err := l.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM message) OR EXISTS (SELECT 1 FROM target WHERE known)").Scan(&known); err != nil {
		return l.wrap(err, "look for messages")
	}
	if known || pipeline == "" {
		return fault.New(fault.Bug, "ledger %s: it belongs to a pipeline already", l.path)
	}
	err := l.write(ctx, "take a pipeline over", func(ctx context.Context, tx *transaction) error {
		_, err := tx.ExecContext(ctx, "UPDATE meta SET value = ? WHERE key = 'pipeline'", pipeline)
		return err
	})
	if err == nil {
		l.pipeline = pipeline
	}
	return err
}

// ClaimWritten notes what messages that are written share with their copies,
// and that they are those that went on: for who makes a lost ledger anew. The
// first of several with one digest is the holder.
func (l *Ledger) ClaimWritten(ctx context.Context, box Box, claims []Claim) error {
	if len(claims) == 0 {
		return nil
	}
	return l.write(ctx, "note what messages share", func(ctx context.Context, tx *transaction) error {
		w := &writer{ctx: ctx, tx: tx}
		keys, err := w.keys(len(claims), func(i int) (Box, message.ID) { return box, claims[i].ID })
		if err != nil {
			return err
		}
		for i, c := range claims {
			if err := w.exec("INSERT OR REPLACE INTO claim (key, digest, kin, round, seen) VALUES (?, ?, ?, 0, 0)", keys[i], c.Digest[:], c.Kin[:]); err != nil {
				return err
			}
			if err := w.exec("INSERT OR IGNORE INTO holder VALUES (?, ?)", c.Digest[:], keys[i]); err != nil {
				return err
			}
		}
		return nil
	})
}
