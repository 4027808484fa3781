package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Epoch is the work that is committed together.
type Epoch struct {
	Settled     []Settled
	Checkpoints map[TargetID][]byte
	Boxes       map[Box]BoxState
	Accounts    []Account // those that began or ended
	Mailboxes   []Mailbox // those that the epoch touched, as they now stand
	Spent       []Spending
}

// Settled is a message with all its fates as they now are: a fate that isn't
// among them is pending from here on.
type Settled struct {
	Box    Box
	ID     message.ID
	Octets int64  // -1 when no body ever passed
	SHA256 []byte // nil when no body ever passed
	Mark   uint64 // of its header, see Mark; 0 when that isn't known
	Fates  []Fate
	// Changed names the stages that changed octets of what was written.
	Changed []string
	// Released says that it isn't and won't be written in this run: a copy of
	// it may go on in its place.
	Released bool
	Fresh    bool // Lookup knew nothing of it: there is nothing to replace
}

// Commit stores an epoch: all of it or nothing.
func (l *Ledger) Commit(ctx context.Context, e Epoch) error {
	return l.write(ctx, "commit", func(ctx context.Context, tx *transaction) error {
		w := &writer{ctx: ctx, tx: tx}
		if err := w.settle(e.Settled); err != nil {
			return err
		}
		for id, cp := range e.Checkpoints {
			if err := w.exec("UPDATE target SET checkpoint = ? WHERE id = ?", cp, id); err != nil {
				return err
			}
		}
		for box, state := range e.Boxes {
			if err := saveState(ctx, tx, box, state); err != nil {
				return err
			}
		}
		if err := w.spend(e.Spent); err != nil {
			return err
		}
		return w.stand(e.Accounts, e.Mailboxes)
	})
}

// AddSuspects counts one more death for each of the ids, in one transaction:
// a process died while it had them in hand.
func (l *Ledger) AddSuspects(ctx context.Context, box Box, target TargetID, ids []message.ID) error {
	return l.write(ctx, "note suspects", func(ctx context.Context, tx *transaction) error {
		w := &writer{ctx: ctx, tx: tx}
		keys, err := w.keys(len(ids), func(i int) (Box, message.ID) { return box, ids[i] })
		if err != nil {
			return err
		}
		for _, key := range keys {
			err = w.exec(`INSERT INTO suspect (key, target, deaths) VALUES (?, ?, 1)
				ON CONFLICT (key, target) DO UPDATE SET deaths = deaths + 1`, key, target)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// writer is a transaction that stores messages.
type writer struct {
	ctx context.Context
	tx  *transaction
}

func (w *writer) exec(query string, args ...any) error {
	_, err := w.tx.ExecContext(w.ctx, query, args...)
	return err
}

// keys returns the keys of n messages. A string id that has no number gets
// the next one of its mailbox.
func (w *writer) keys(n int, message func(int) (Box, message.ID)) ([]int64, error) {
	keys := make([]int64, n)
	var ids []stringID
	var at []int
	for i := range keys {
		box, id := message(i)
		if id.UID != 0 {
			keys[i] = box.key(id.UID)
			continue
		}
		ids, at = append(ids, stringOf(box, id)), append(at, i)
	}
	if len(ids) == 0 {
		return keys, nil
	}
	if err := findStrings(w.ctx, w.tx.sql, ids, func(i int, num uint32) { keys[at[i]] = ids[i].box.stringKey(num) }); err != nil {
		return nil, err
	}
	given := map[stringID]uint32{}
	last := map[Box]uint32{}
	add := w.rows("INSERT INTO string_id VALUES ", 5)
	for i, id := range ids {
		if keys[at[i]] != 0 {
			continue
		}
		num, twice := given[id]
		if !twice {
			if _, ok := last[id.box]; !ok {
				var n uint32
				if err := w.tx.QueryRowContext(w.ctx, "SELECT strings FROM box WHERE id = ?", id.box).Scan(&n); err != nil {
					return nil, err
				}
				last[id.box] = n
			}
			last[id.box]++
			num = last[id.box]
			given[id] = num
			if err := add.put(id.box, id.uidl, id.hash, id.ordinal, num); err != nil {
				return nil, err
			}
		}
		keys[at[i]] = id.box.stringKey(num)
	}
	for box, n := range last {
		if err := w.exec("UPDATE box SET strings = ? WHERE id = ?", n, box); err != nil {
			return nil, err
		}
	}
	return keys, add.end()
}

// settle stores messages. Their letters, refusals and suspicions are stored
// anew each time: what a later run finds out replaces what was known.
func (w *writer) settle(settled []Settled) error {
	keys, err := w.keys(len(settled), func(i int) (Box, message.ID) { return settled[i].Box, settled[i].ID })
	if err != nil {
		return err
	}
	// In the order of the keys, SQLite fills a page and goes on to the next.
	order := make([]wanted, len(keys))
	for i, key := range keys {
		order[i] = wanted{key, i}
	}
	slices.SortStableFunc(order, func(a, b wanted) int { return cmp.Compare(a.key, b.key) })
	if err := w.clear(settled, order); err != nil {
		return err
	}
	messages := w.rows("INSERT OR REPLACE INTO message VALUES ", 5)
	letters := w.rows("INSERT OR REPLACE INTO letter VALUES ", 6)
	refusals := w.rows("INSERT OR REPLACE INTO refusal VALUES ", 4)
	changed := w.rows("INSERT OR REPLACE INTO changed VALUES ", 2)
	rules := map[[2]string]int64{}
	written := map[TargetID]bool{}
	for _, o := range order {
		s := &settled[o.at]
		if s.Released {
			if err := w.exec("UPDATE claim SET seen = 0 WHERE key = ?", o.key); err != nil {
				return err
			}
		}
		var packed []byte
		for i := range s.Fates {
			f := &s.Fates[i]
			if f.Letter != nil {
				text, err := json.Marshal(f.Letter)
				if err != nil {
					return err
				}
				if err := letters.put(o.key, f.Target, s.ID.UIDL, s.ID.HeaderHash, s.ID.Ordinal, string(text)); err != nil {
					return err
				}
			}
			if f.Refusal != nil {
				rule, err := w.rule(rules, f.Refusal)
				if err != nil {
					return err
				}
				if err := refusals.put(o.key, f.Target, rule, f.Refusal.Values); err != nil {
					return err
				}
			}
			if f.Class == Written {
				written[f.Target] = true
			}
			if f.Class != Dropped {
				packed = f.pack(packed)
			}
		}
		if packed == nil {
			continue
		}
		if len(s.Changed) > 0 {
			names, err := json.Marshal(s.Changed)
			if err != nil {
				return err
			}
			rule, err := w.rule(rules, &Refusal{Stage: changedBy, Rules: string(names)})
			if err != nil {
				return err
			}
			if err := changed.put(o.key, rule); err != nil {
				return err
			}
		}
		var octets any
		if s.Octets >= 0 {
			octets = s.Octets
		}
		var mark any
		if s.Mark != 0 {
			mark = int64(s.Mark)
		}
		if err := messages.put(o.key, octets, s.SHA256, packed, mark); err != nil {
			return err
		}
	}
	for id := range written {
		if err := w.exec("UPDATE target SET known = 1 WHERE id = ? AND known = 0", id); err != nil {
			return err
		}
	}
	for _, r := range []*rows{messages, letters, refusals, changed} {
		if err := r.end(); err != nil {
			return err
		}
	}
	return nil
}

// changedBy marks the words in the table of rules that are names of stages
// which changed octets. No stage has that name.
const changedBy = " changed by"

// clear removes what is known of those messages that aren't fresh.
func (w *writer) clear(settled []Settled, order []wanted) error {
	var stale []any
	for _, o := range order {
		if !settled[o.at].Fresh {
			stale = append(stale, o.key)
		}
	}
	for some := range slices.Chunk(stale, batch) {
		for _, table := range []string{"message", "letter", "refusal", "suspect", "changed"} {
			if err := w.exec("DELETE FROM "+table+" WHERE key IN (VALUES "+tuples(len(some), 1)+")", some...); err != nil {
				return err
			}
		}
	}
	return nil
}

// rule returns the number of the words that many refusals share; known holds
// those of this transaction.
func (w *writer) rule(known map[[2]string]int64, r *Refusal) (int64, error) {
	words := [2]string{r.Stage, r.Rules}
	if id, ok := known[words]; ok {
		return id, nil
	}
	var id int64
	// The update changes nothing: without one, nothing is returned.
	err := w.tx.QueryRowContext(w.ctx, "INSERT INTO rule (stage, rules) VALUES (?, ?) ON CONFLICT DO UPDATE SET stage = excluded.stage RETURNING id",
		r.Stage, r.Rules).Scan(&id)
	known[words] = id
	return id, err
}

// rows collects rows of one table and stores them batch by batch.
type rows struct {
	w     *writer
	into  string
	width int
	args  []any
	full  *statement // stores a whole batch
}

func (w *writer) rows(into string, width int) *rows {
	return &rows{w: w, into: into, width: width}
}

func (r *rows) put(values ...any) error {
	r.args = append(r.args, values...)
	if len(r.args) < batch*r.width {
		return nil
	}
	if r.full == nil {
		full, err := r.w.tx.PrepareContext(r.w.ctx, r.into+tuples(batch, r.width))
		if err != nil {
			return err
		}
		r.full = full
	}
	_, err := r.full.ExecContext(r.w.ctx, r.args...)
	r.args = r.args[:0]
	return err
}

// end stores what is left. The transaction's end closes the statement.
func (r *rows) end() error {
	if len(r.args) == 0 {
		return nil
	}
	return r.w.exec(r.into+tuples(len(r.args)/r.width, r.width), r.args...)
}
