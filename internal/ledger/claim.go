package ledger

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Digest is what all copies of a message share, as a dedupe sees it.
type Digest [16]byte

// Copy is one of several messages with one digest.
type Copy struct {
	Box    Box
	Number uint32 // its UID, or the number of its string id: they grow in the order of the listing
	String bool   // the number is that of a string id
}

func copyOf(key int64) Copy {
	return Copy{Box(key >> boxBits), uint32(key), key&(1<<numBits) != 0}
}

// Claim is what a message that waits to be written shares with its copies.
type Claim struct {
	ID     message.ID
	Digest Digest
	Kin    Digest // shared with messages that may be no copies
}

// Claimed is what is known of a message that was claimed.
type Claimed struct {
	Known  bool
	Copy   Copy // the message itself
	Digest Digest
	Waits  bool // it was claimed in this round of claims, and isn't final

	Holder      *Copy // who goes on of its copies, itself perhaps; nil: nobody was chosen
	Self        bool  // it is the holder
	HolderWaits bool  // see Waits
	Fates       []Fate
	SHA256      []byte // of the holder
}

// NewClaims begins a round of claims, one a run: what was claimed before and
// isn't claimed again may be gone.
func (l *Ledger) NewClaims(ctx context.Context) (round int64, err error) {
	err = l.write(ctx, "begin to compare messages", func(ctx context.Context, tx *transaction) error {
		return tx.QueryRowContext(ctx, "INSERT INTO meta VALUES ('claims', '1') ON CONFLICT DO UPDATE SET value = CAST(value AS INTEGER) + 1 RETURNING value").Scan(&round)
	})
	return round, err
}

// Claim notes that messages of a mailbox wait to be written, and what they
// share with their copies. A message whose Kin is as before keeps its Digest:
// Tell may have changed it.
func (l *Ledger) Claim(ctx context.Context, round int64, box Box, claims []Claim) error {
	if len(claims) == 0 {
		return nil
	}
	return l.write(ctx, "note what messages share", func(ctx context.Context, tx *transaction) error {
		w := &writer{ctx: ctx, tx: tx}
		keys, err := w.keys(len(claims), func(i int) (Box, message.ID) { return box, claims[i].ID })
		if err != nil {
			return err
		}
		stmt, err := tx.PrepareContext(ctx, `INSERT INTO claim (key, digest, kin, round, seen) VALUES (?1, ?2, ?3, ?4, ?4)
			ON CONFLICT (key) DO UPDATE SET digest = CASE WHEN kin = excluded.kin THEN digest ELSE excluded.digest END, kin = excluded.kin, round = excluded.round, seen = excluded.seen`)
		if err != nil {
			return err
		}
		defer stmt.Close()
		for i, c := range claims {
			if _, err := stmt.ExecContext(ctx, keys[i], c.Digest[:], c.Kin[:], round); err != nil {
				return err
			}
		}
		return nil
	})
}

// Tell gives a message the digest that it turned out to have.
func (l *Ledger) Tell(ctx context.Context, box Box, id message.ID, d Digest) error {
	return l.write(ctx, "tell messages apart", func(ctx context.Context, tx *transaction) error {
		w := &writer{ctx: ctx, tx: tx}
		keys, err := w.keys(1, func(int) (Box, message.ID) { return box, id })
		if err != nil {
			return err
		}
		return w.exec("UPDATE claim SET digest = ? WHERE key = ?", d[:], keys[0])
	})
}

// Claimed returns what is known of the ids' claims, in their order.
func (l *Ledger) Claimed(ctx context.Context, round int64, box Box, ids []message.ID) ([]Claimed, error) {
	out := make([]Claimed, len(ids))
	keys, err := l.keys(ctx, box, ids)
	if err != nil {
		return nil, err
	}
	at := map[int64]int{}
	var args []any
	for i, key := range keys {
		if key != 0 {
			at[key] = i
			args = append(args, key)
		}
	}
	for some := range slices.Chunk(args, batch) {
		err := l.each(ctx, `SELECT c.key, c.digest, c.seen, h.key, k.seen, m.fates, m.sha256 FROM claim c
			LEFT JOIN holder h ON h.digest = c.digest LEFT JOIN claim k ON k.key = h.key LEFT JOIN message m ON m.key = h.key
			WHERE c.key IN (VALUES `+tuples(len(some), 1)+")", some, func(rows *sql.Rows) error {
			var key, seen int64
			var holder, holderSeen sql.NullInt64
			var digest, fates, sum []byte
			if err := rows.Scan(&key, &digest, &seen, &holder, &holderSeen, &fates, &sum); err != nil {
				return err
			}
			if len(digest) != len(Digest{}) {
				return &damage{"what a message shares", errors.New("it has the wrong length")}
			}
			c := &out[at[key]]
			c.Known, c.Copy, c.Digest, c.Waits = true, copyOf(key), Digest(digest), seen == round
			if !holder.Valid {
				return nil
			}
			h := copyOf(holder.Int64)
			c.Holder, c.Self, c.HolderWaits, c.SHA256 = &h, holder.Int64 == key, holderSeen.Int64 == round, sum
			var err error
			c.Fates, err = unpack(nil, fates)
			return err
		})
		if err != nil {
			return nil, l.wrap(err, "look up what messages share")
		}
	}
	return out, nil
}

// Copies returns the messages with the digest that wait to be written.
func (l *Ledger) Copies(ctx context.Context, round int64, d Digest) ([]Copy, error) {
	var out []Copy
	err := l.each(ctx, "SELECT key FROM claim WHERE digest = ? AND seen = ?", []any{d[:], round}, func(rows *sql.Rows) error {
		var key int64
		err := rows.Scan(&key)
		out = append(out, copyOf(key))
		return err
	})
	return out, l.wrap(err, "look up copies")
}

// Holding says which of the copies with a digest goes on.
type Holding struct {
	Digest Digest
	Holder Copy
}

// Hold notes who goes on, durably: no octet of it is written before.
func (l *Ledger) Hold(ctx context.Context, holdings []Holding) error {
	if len(holdings) == 0 {
		return nil
	}
	return l.write(ctx, "choose among copies", func(ctx context.Context, tx *transaction) error {
		w := &writer{ctx: ctx, tx: tx}
		for _, h := range holdings {
			key := h.Holder.Box.key(h.Holder.Number)
			if h.Holder.String {
				key = h.Holder.Box.stringKey(h.Holder.Number)
			}
			if err := w.exec("INSERT OR REPLACE INTO holder VALUES (?, ?)", h.Digest[:], key); err != nil {
				return err
			}
		}
		return nil
	})
}

// ToldApart counts the groups of messages that share their Kin, as a
// Message-ID, and waited to be written in this round, and differ.
func (l *Ledger) ToldApart(ctx context.Context, round int64) (groups int64, err error) {
	err = l.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM (SELECT c.kin FROM claim c JOIN (SELECT DISTINCT kin FROM claim WHERE round = ?) n ON n.kin = c.kin
		GROUP BY c.kin HAVING COUNT(DISTINCT c.digest) > 1)`, round).Scan(&groups)
	return groups, l.wrap(err, "count what was told apart")
}
