package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Box is the ledger's number of a mailbox of one UIDVALIDITY.
type Box int64

// Tally counts the messages of a mailbox by their worst fate.
type Tally map[Class]int64

// BoxState is what was saved when all that a mailbox listed was final.
type BoxState struct {
	Content     string // the mailbox's tokens, see message.MailboxState
	Flags       string
	Fingerprint string // of selection, stages, `when`s and targets
	Tally       Tally  // nil when nothing was ever saved
}

// Box returns the number of the mailbox, and makes its row when it is new.
func (l *Ledger) Box(ctx context.Context, source, mailbox string, uidValidity uint32) (Box, error) {
	key := boxKey{source, mailbox, uidValidity}
	l.mu.Lock()
	box, ok := l.boxes[key]
	l.mu.Unlock()
	if ok {
		return box, nil
	}
	find := func() error {
		return l.db.QueryRowContext(ctx, "SELECT id FROM box WHERE source = ? AND mailbox = ? AND uid_validity = ?",
			source, mailbox, uidValidity).Scan(&box)
	}
	err := find()
	if errors.Is(err, sql.ErrNoRows) {
		err = l.write(ctx, "add a mailbox", func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO box (source, mailbox, uid_validity) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
				source, mailbox, uidValidity)
			return err
		})
		if err == nil {
			err = find()
		}
	}
	if err != nil {
		return 0, l.wrap(err, "read a mailbox")
	}
	l.mu.Lock()
	l.boxes[key] = box
	l.mu.Unlock()
	return box, nil
}

// SavedState returns the state that was saved for the mailbox; the zero value
// when there is none. It makes no row.
func (l *Ledger) SavedState(ctx context.Context, source, mailbox string, uidValidity uint32) (BoxState, error) {
	var s BoxState
	var tally string
	err := l.db.QueryRowContext(ctx,
		"SELECT content, flags, fingerprint, tally FROM box WHERE source = ? AND mailbox = ? AND uid_validity = ?",
		source, mailbox, uidValidity).Scan(&s.Content, &s.Flags, &s.Fingerprint, &tally)
	if errors.Is(err, sql.ErrNoRows) {
		return BoxState{}, nil
	}
	if err == nil && tally != "" {
		err = json.Unmarshal([]byte(tally), &s.Tally)
	}
	return s, l.wrap(err, "read a mailbox")
}

func saveState(ctx context.Context, tx *sql.Tx, box Box, s BoxState) error {
	tally, err := json.Marshal(s.Tally)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE box SET content = ?, flags = ?, fingerprint = ?, tally = ? WHERE id = ?",
		s.Content, s.Flags, s.Fingerprint, string(tally), box)
	return err
}

// HasMessages reports whether anything is known of the mailbox's messages.
func (l *Ledger) HasMessages(ctx context.Context, box Box) (bool, error) {
	var has bool
	err := l.db.QueryRowContext(ctx,
		"SELECT EXISTS (SELECT 1 FROM message WHERE box = ?) OR EXISTS (SELECT 1 FROM refusal WHERE box = ?) OR EXISTS (SELECT 1 FROM suspect WHERE box = ?)",
		box, box, box).Scan(&has)
	return has, l.wrap(err, "read a mailbox")
}

// Entry is what is known of one message.
type Entry struct {
	Octets   int64  // -1 when no body ever passed
	SHA256   []byte // nil when no body ever passed
	Fates    []Fate
	Suspects []Suspect
}

// Suspect says that a process died while it had the message in hand.
type Suspect struct {
	Target TargetID // Everywhere: the source's process
	Deaths int
}

// Lookup returns what is known of each of the ids, in their order. Those that
// the ledger doesn't know are zero with Octets -1.
func (l *Ledger) Lookup(ctx context.Context, box Box, ids []message.ID) ([]Entry, error) {
	out := make([]Entry, len(ids))
	if len(ids) == 0 {
		return out, nil
	}
	nums, err := l.numbers(ctx, box, ids)
	if err != nil {
		return nil, err
	}
	at := make(map[int64]int, len(ids))
	var low, high int64
	for i, n := range nums {
		out[i].Octets = -1
		if n == 0 {
			continue
		}
		at[n] = i
		if low == 0 || n < low {
			low = n
		}
		high = max(high, n)
	}
	if low == 0 {
		return out, nil
	}
	err = l.each(ctx, "SELECT num, octets, sha256, fates FROM message WHERE box = ? AND num BETWEEN ? AND ?", []any{box, low, high},
		func(rows *sql.Rows) error {
			var num int64
			var octets sql.NullInt64
			var sum, packed []byte
			if err := rows.Scan(&num, &octets, &sum, &packed); err != nil {
				return err
			}
			i, ok := at[num]
			if !ok {
				return nil
			}
			if octets.Valid {
				out[i].Octets = octets.Int64
			}
			out[i].SHA256 = sum
			fates, err := unpack(packed)
			out[i].Fates = fates
			return err
		})
	if err != nil {
		return nil, err
	}
	err = l.each(ctx, "SELECT num, target, stage, rules, vals FROM refusal WHERE box = ? AND num BETWEEN ? AND ?", []any{box, low, high},
		func(rows *sql.Rows) error {
			var num int64
			var target TargetID
			r := &Refusal{}
			if err := rows.Scan(&num, &target, &r.Stage, &r.Rules, &r.Values); err != nil {
				return err
			}
			if i, ok := at[num]; ok {
				out[i].refuse(target, r)
			}
			return nil
		})
	if err != nil {
		return nil, err
	}
	err = l.each(ctx, "SELECT num, target, letter FROM letter WHERE box = ? AND num BETWEEN ? AND ?", []any{box, low, high},
		func(rows *sql.Rows) error {
			var num int64
			var target TargetID
			var text string
			if err := rows.Scan(&num, &target, &text); err != nil {
				return err
			}
			i, ok := at[num]
			if !ok {
				return nil
			}
			for j := range out[i].Fates {
				if f := &out[i].Fates[j]; f.Target == target {
					f.Letter = &Letter{}
					return json.Unmarshal([]byte(text), f.Letter)
				}
			}
			return nil
		})
	if err != nil {
		return nil, err
	}
	err = l.each(ctx, "SELECT num, target, deaths FROM suspect WHERE box = ? AND num BETWEEN ? AND ?", []any{box, low, high},
		func(rows *sql.Rows) error {
			var num int64
			var s Suspect
			if err := rows.Scan(&num, &s.Target, &s.Deaths); err != nil {
				return err
			}
			if i, ok := at[num]; ok {
				out[i].Suspects = append(out[i].Suspects, s)
			}
			return nil
		})
	return out, err
}

// refuse joins a refusal with its fate: a drop has no message row, so that
// its fate is made here.
func (e *Entry) refuse(target TargetID, r *Refusal) {
	for i := range e.Fates {
		if e.Fates[i].Target == target {
			e.Fates[i].Refusal = r
			return
		}
	}
	if target == Everywhere {
		e.Fates = append(e.Fates, Fate{Target: Everywhere, Class: Dropped, Refusal: r})
	}
}

// numbers returns the ledger's number of each id: the UID itself, or what was
// given out for a string id; 0 for one that has none yet.
func (l *Ledger) numbers(ctx context.Context, box Box, ids []message.ID) ([]int64, error) {
	nums := make([]int64, len(ids))
	var find *sql.Stmt
	for i, id := range ids {
		if id.UID != 0 {
			nums[i] = int64(id.UID)
			continue
		}
		if find == nil {
			var err error
			if find, err = l.db.PrepareContext(ctx, findString); err != nil {
				return nil, l.wrap(err, "look an id up")
			}
			defer find.Close()
		}
		err := find.QueryRowContext(ctx, box, id.UIDL, id.HeaderHash, id.Ordinal).Scan(&nums[i])
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, l.wrap(err, "look an id up")
		}
	}
	return nums, nil
}

const findString = "SELECT num FROM string_id WHERE box = ? AND uidl = ? AND header_hash = ? AND ordinal = ?"

func (l *Ledger) each(ctx context.Context, query string, args []any, f func(*sql.Rows) error) error {
	rows, err := l.db.QueryContext(ctx, query, args...)
	if err != nil {
		return l.wrap(err, "look up")
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return l.wrap(err, "look up")
		}
	}
	return l.wrap(rows.Err(), "look up")
}

// Letters calls f for each dead letter of the pipeline, in a stable order.
func (l *Ledger) Letters(ctx context.Context, f func(id message.ID, sink string, letter Letter) error) error {
	return l.each(ctx, `SELECT b.source, b.mailbox, b.uid_validity, e.num, COALESCE(s.uidl, ''), COALESCE(s.header_hash, ''), COALESCE(s.ordinal, 0),
			COALESCE(t.sink, ''), e.letter
		FROM letter e JOIN box b ON b.id = e.box
		LEFT JOIN string_id s ON s.box = e.box AND s.num = e.num
		LEFT JOIN target t ON t.id = e.target
		ORDER BY b.source, b.mailbox, b.uid_validity, e.num, e.target`, nil,
		func(rows *sql.Rows) error {
			var id message.ID
			var num int64
			var sink, text string
			if err := rows.Scan(&id.Source, &id.Mailbox, &id.UIDValidity, &num, &id.UIDL, &id.HeaderHash, &id.Ordinal, &sink, &text); err != nil {
				return err
			}
			if id.UIDL == "" && id.HeaderHash == "" {
				id.UID = uint32(num)
			}
			var letter Letter
			if err := json.Unmarshal([]byte(text), &letter); err != nil {
				return fmt.Errorf("the letter of %s: %w", id, err)
			}
			return f(id, sink, letter)
		})
}
