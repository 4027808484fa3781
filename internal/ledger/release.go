package ledger

import (
	"context"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Release makes the dead letters pending again that match says true of: the
// next run tries them, and lists their mailboxes even when nothing has changed
// there. What became of those messages elsewhere stays. It returns how many
// letters it released.
func (l *Ledger) Release(ctx context.Context, match func(id message.ID, sink string, letter Letter) bool) (int, error) {
	type dead struct {
		key    int64
		target TargetID
	}
	var chosen []dead
	err := l.letters(ctx, func(key int64, target TargetID, id message.ID, sink string, letter Letter) error {
		if match(id, sink, letter) {
			chosen = append(chosen, dead{key, target})
		}
		return nil
	})
	if err != nil || len(chosen) == 0 {
		return 0, err
	}
	return len(chosen), l.write(ctx, "release dead letters", func(ctx context.Context, tx *transaction) error {
		w := &writer{ctx: ctx, tx: tx}
		for _, d := range chosen {
			if err := w.exec("DELETE FROM letter WHERE key = ? AND target = ?", d.key, d.target); err != nil {
				return err
			}
			if err := w.forgetFate(d.key, d.target); err != nil {
				return err
			}
			if err := w.exec("UPDATE box SET content = '' WHERE id = ?", d.key>>boxBits); err != nil {
				return err
			}
		}
		return nil
	})
}

// forgetFate makes a message pending for one target. A row without a fate is
// none.
func (w *writer) forgetFate(key int64, target TargetID) error {
	var packed []byte
	if err := w.tx.QueryRowContext(w.ctx, "SELECT fates FROM message WHERE key = ?", key).Scan(&packed); err != nil {
		return err
	}
	fates, err := unpack(nil, packed)
	if err != nil {
		return err
	}
	packed = packed[:0]
	for i := range fates {
		if fates[i].Target != target {
			packed = fates[i].pack(packed)
		}
	}
	if len(packed) == 0 {
		return w.exec("DELETE FROM message WHERE key = ?", key)
	}
	return w.exec("UPDATE message SET fates = ? WHERE key = ?", packed, key)
}
