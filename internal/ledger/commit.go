package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Epoch is the work that is committed together.
type Epoch struct {
	Settled     []Settled
	Checkpoints map[TargetID][]byte
	Boxes       map[Box]BoxState
}

// Settled is a message with all its fates as they now are: a fate that isn't
// among them is pending from here on.
type Settled struct {
	Box    Box
	ID     message.ID
	Octets int64  // -1 when no body ever passed
	SHA256 []byte // nil when no body ever passed
	Fates  []Fate
	Fresh  bool // Lookup knew nothing of it: there is nothing to replace
}

// Commit stores an epoch: all of it or nothing.
func (l *Ledger) Commit(ctx context.Context, e Epoch) error {
	return l.write(ctx, "commit", func(tx *sql.Tx) error {
		w := &writer{ctx: ctx, tx: tx, stmts: map[string]*sql.Stmt{}}
		defer w.close()
		for i := range e.Settled {
			if err := w.settle(&e.Settled[i]); err != nil {
				return err
			}
		}
		for id, cp := range e.Checkpoints {
			if err := w.exec("UPDATE target SET checkpoint = ? WHERE id = ?", cp, id); err != nil {
				return err
			}
		}
		for id := range w.written {
			if err := w.exec("UPDATE target SET known = 1 WHERE id = ?", id); err != nil {
				return err
			}
		}
		for box, state := range e.Boxes {
			if err := saveState(ctx, tx, box, state); err != nil {
				return err
			}
		}
		return nil
	})
}

// AddSuspects counts one more death for each of the ids, in one transaction:
// a process died while it had them in hand.
func (l *Ledger) AddSuspects(ctx context.Context, box Box, target TargetID, ids []message.ID) error {
	return l.write(ctx, "note suspects", func(tx *sql.Tx) error {
		w := &writer{ctx: ctx, tx: tx, stmts: map[string]*sql.Stmt{}}
		defer w.close()
		for _, id := range ids {
			num, err := w.number(box, id)
			if err != nil {
				return err
			}
			err = w.exec(`INSERT INTO suspect (box, num, target, deaths) VALUES (?, ?, ?, 1)
				ON CONFLICT (box, num, target) DO UPDATE SET deaths = deaths + 1`, box, num, target)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// writer is a transaction with its prepared statements.
type writer struct {
	ctx     context.Context
	tx      *sql.Tx
	stmts   map[string]*sql.Stmt
	written map[TargetID]bool
}

func (w *writer) exec(query string, args ...any) error {
	s, err := w.prepare(query)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(w.ctx, args...)
	return err
}

func (w *writer) prepare(query string) (*sql.Stmt, error) {
	if s, ok := w.stmts[query]; ok {
		return s, nil
	}
	s, err := w.tx.PrepareContext(w.ctx, query)
	if err == nil {
		w.stmts[query] = s
	}
	return s, err
}

func (w *writer) close() {
	for _, s := range w.stmts {
		s.Close()
	}
}

// number returns the ledger's number of an id, giving out the next one of the
// mailbox to a string id that has none.
func (w *writer) number(box Box, id message.ID) (int64, error) {
	if id.UID != 0 {
		return int64(id.UID), nil
	}
	find, err := w.prepare(findString)
	if err != nil {
		return 0, err
	}
	var num int64
	err = find.QueryRowContext(w.ctx, box, id.UIDL, id.HeaderHash, id.Ordinal).Scan(&num)
	if !errors.Is(err, sql.ErrNoRows) {
		return num, err
	}
	insert, err := w.prepare(`INSERT INTO string_id (box, uidl, header_hash, ordinal, num)
		VALUES (?1, ?2, ?3, ?4, (SELECT COALESCE(MAX(num), 0) + 1 FROM string_id WHERE box = ?1)) RETURNING num`)
	if err != nil {
		return 0, err
	}
	err = insert.QueryRowContext(w.ctx, box, id.UIDL, id.HeaderHash, id.Ordinal).Scan(&num)
	return num, err
}

// settle stores one message. Its letters, refusals and suspicions are stored
// anew each time: what a later run finds out replaces what was known.
func (w *writer) settle(s *Settled) error {
	num, err := w.number(s.Box, s.ID)
	if err != nil {
		return err
	}
	if !s.Fresh {
		for _, table := range []string{"letter", "refusal", "suspect"} {
			if err := w.exec("DELETE FROM "+table+" WHERE box = ? AND num = ?", s.Box, num); err != nil {
				return err
			}
		}
	}
	row := make([]Fate, 0, len(s.Fates))
	for _, f := range s.Fates {
		if f.Letter != nil {
			text, err := json.Marshal(f.Letter)
			if err != nil {
				return err
			}
			if err := w.exec("INSERT INTO letter VALUES (?, ?, ?, ?)", s.Box, num, f.Target, string(text)); err != nil {
				return err
			}
		}
		if f.Refusal != nil {
			if err := w.exec("INSERT INTO refusal VALUES (?, ?, ?, ?, ?, ?)", s.Box, num, f.Target, f.Refusal.Stage, f.Refusal.Rules, f.Refusal.Values); err != nil {
				return err
			}
		}
		if f.Class == Written {
			if w.written == nil {
				w.written = map[TargetID]bool{}
			}
			w.written[f.Target] = true
		}
		if f.Class != Dropped {
			row = append(row, f)
		}
	}
	if len(row) == 0 && s.Fresh {
		return nil
	}
	if len(row) == 0 {
		return w.exec("DELETE FROM message WHERE box = ? AND num = ?", s.Box, num)
	}
	var octets any
	if s.Octets >= 0 {
		octets = s.Octets
	}
	return w.exec("INSERT OR REPLACE INTO message VALUES (?, ?, ?, ?, ?)", s.Box, num, octets, s.SHA256, pack(row))
}
