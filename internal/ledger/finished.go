package ledger

import (
	"context"
	"database/sql"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Removed is noted in the place of a flag of messages that were moved away or
// deleted: nothing that comes later can be one of them.
const Removed = "(removed)"

// Finish notes that the messages got the flag that the file wants on exported
// ones: a listing wouldn't show it.
func (l *Ledger) Finish(ctx context.Context, box Box, flag string, ids []message.ID) error {
	if len(ids) == 0 {
		return nil
	}
	return l.write(ctx, "note what is finished", func(ctx context.Context, tx *transaction) error {
		w := &writer{ctx: ctx, tx: tx}
		keys, err := w.keys(len(ids), func(i int) (Box, message.ID) { return box, ids[i] })
		if err != nil {
			return err
		}
		add := w.rows("INSERT OR REPLACE INTO finished VALUES ", 2)
		for _, key := range keys {
			if err := add.put(key, flag); err != nil {
				return err
			}
		}
		return add.end()
	})
}

// Finished reports for each of the ids whether it got that flag.
func (l *Ledger) Finished(ctx context.Context, box Box, flag string, ids []message.ID) ([]bool, error) {
	keys, err := l.keys(ctx, box, ids)
	if err != nil {
		return nil, err
	}
	out := make([]bool, len(ids))
	at := make(map[int64]int, len(keys))
	var low, high int64
	for i, key := range keys {
		if key == 0 {
			continue
		}
		if len(at) == 0 || key < low {
			low = key
		}
		high = max(high, key)
		at[key] = i
	}
	if len(at) == 0 {
		return out, nil
	}
	err = l.each(ctx, "SELECT key FROM finished WHERE key BETWEEN ? AND ? AND flag = ?", []any{low, high, flag}, func(rows *sql.Rows) error {
		var key int64
		if err := rows.Scan(&key); err != nil {
			return err
		}
		if i, ok := at[key]; ok {
			out[i] = true
		}
		return nil
	})
	return out, l.wrap(err, "read what is finished")
}

// WrittenAndRemoved returns how many messages are written to the target and
// were moved away or deleted on the server: it has what can't be fetched again.
func (l *Ledger) WrittenAndRemoved(ctx context.Context, id TargetID) (n int64, err error) {
	var fates []Fate
	err = l.each(ctx, "SELECT m.fates FROM finished f JOIN message m ON m.key = f.key WHERE f.flag = ?", []any{Removed}, func(rows *sql.Rows) error {
		var packed sql.RawBytes
		err := rows.Scan(&packed)
		if err == nil {
			fates, err = unpack(fates[:0], packed)
		}
		for i := range fates {
			if fates[i].Target == id && fates[i].Class == Written {
				n++
			}
		}
		return err
	})
	return n, l.wrap(err, "count what is removed")
}
