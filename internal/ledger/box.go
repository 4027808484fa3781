package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math"
)

// Box is the ledger's number of a mailbox of one UIDVALIDITY.
type Box int64

// A message's key holds its mailbox, whether it goes by a string id, and its
// UID or the number of its string id. A source that changes from one kind of
// id to the other must not find its messages done.
const (
	numBits = 32
	boxBits = numBits + 1
)

// key returns the key of the message that has the UID in the mailbox.
func (b Box) key(uid uint32) int64 { return int64(b)<<boxBits | int64(uid) }

// stringKey returns the key of the message whose string id has the number num.
func (b Box) stringKey(num uint32) int64 { return b.key(num) | 1<<numBits }

// boxKey is what a mailbox is known by outside of the ledger.
type boxKey struct {
	source, mailbox string
	uidValidity     uint32
}

// newBox is a mailbox that has a number, but no row yet.
type newBox struct {
	number Box
	boxKey
}

// Tally counts the messages of a mailbox by their worst fate.
type Tally map[Class]int64

// BoxState is what was saved when all that a mailbox listed was final.
type BoxState struct {
	Content     string // the mailbox's tokens, see message.MailboxState
	Flags       string
	Fingerprint string // of selection, stages, `when`s and targets
	Tally       Tally  // nil when nothing was ever saved
}

// Box returns the number of the mailbox. A new one gets its number here and
// its row with the next transaction, so that thousands of mailboxes don't cost
// a flush of the disk each.
func (l *Ledger) Box(ctx context.Context, source, mailbox string, uidValidity uint32) (Box, error) {
	key := boxKey{source, mailbox, uidValidity}
	l.boxMu.Lock()
	defer l.boxMu.Unlock()
	if box, ok := l.boxes[key]; ok {
		return box, nil
	}
	var box Box
	err := l.db.QueryRowContext(ctx, "SELECT id FROM box WHERE source = ? AND mailbox = ? AND uid_validity = ?",
		source, mailbox, uidValidity).Scan(&box)
	if errors.Is(err, sql.ErrNoRows) {
		l.lastBox++
		box, err = l.lastBox, nil
		l.newBoxes = append(l.newBoxes, newBox{box, key})
	}
	if err != nil {
		return 0, l.wrap(err, "read a mailbox")
	}
	l.boxes[key] = box
	return box, nil
}

// addBoxes gives the new mailboxes their rows, and returns how many they were.
func (l *Ledger) addBoxes(ctx context.Context, tx *transaction) (int, error) {
	l.boxMu.Lock()
	boxes := l.newBoxes
	l.boxMu.Unlock()
	for _, b := range boxes {
		if _, err := tx.ExecContext(ctx, "INSERT INTO box (id, source, mailbox, uid_validity) VALUES (?, ?, ?, ?)",
			b.number, b.source, b.mailbox, b.uidValidity); err != nil {
			return 0, err
		}
	}
	return len(boxes), nil
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
	if err == nil {
		err = parseTally(tally, &s.Tally)
	}
	if err != nil {
		return BoxState{}, l.wrap(err, "read a mailbox")
	}
	return s, nil
}

// parseTally reads a Tally; an empty text is none.
func parseTally(text string, t *Tally) error {
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), t); err != nil {
		return &damage{"a mailbox's sums", err}
	}
	return nil
}

func saveState(ctx context.Context, tx *transaction, box Box, s BoxState) error {
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
	err := l.db.QueryRowContext(ctx, hasMessages, box.key(0), box.stringKey(math.MaxUint32)).Scan(&has)
	return has, l.wrap(err, "read a mailbox")
}

const hasMessages = `SELECT EXISTS (SELECT 1 FROM message WHERE key BETWEEN ?1 AND ?2)
	OR EXISTS (SELECT 1 FROM refusal WHERE key BETWEEN ?1 AND ?2) OR EXISTS (SELECT 1 FROM suspect WHERE key BETWEEN ?1 AND ?2)`
