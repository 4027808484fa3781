package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"github.com/mailhaul/pipeline/pkg/message"
)

// markBits is what SQLite stores in six octets. A message that is new is taken
// for one of a million others by chance once in 10^8 times, if they have all
// the same size.
const markBits = 47

// Mark returns what the ledger keeps of a message's header block to know the
// message again when its server gives it another id: six octets of its
// sha256. What follows its empty line isn't looked at. It is 0 for no header
// at all, which nothing is known again by.
func Mark(header []byte) uint64 {
	for at := 0; ; {
		i := bytes.IndexByte(header[at:], '\n')
		if i < 0 {
			break
		}
		at += i + 1
		if rest := header[at:]; len(rest) > 0 && rest[0] == '\n' || len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
			header = header[:at-1]
			break
		}
	}
	for len(header) > 0 && (header[len(header)-1] == '\n' || header[len(header)-1] == '\r') {
		header = header[:len(header)-1] // one server ends it with an empty line, another doesn't
	}
	if len(header) == 0 {
		return 0
	}
	sum := sha256.Sum256(header)
	return max(1, binary.BigEndian.Uint64(sum[:])>>(64-markBits))
}

// Former is a message that the ledger knows by an id which its server may no
// longer use.
type Former struct {
	Key    int64  // the ledger's own, for Hashes and Recognise
	Octets int64  // -1 when no body ever passed
	Mark   uint64 // 0 when its header isn't known
}

// Formers are the messages of a mailbox that may have other ids now.
type Formers struct {
	Validity uint32 // the UIDVALIDITY that they had; of several the last
	Boxes    []Box  // under other UIDVALIDITYs
	Messages []Former
}

// OtherValidity returns what is known of the mailbox under other UIDVALIDITYs
// than that of box, as far as no Recognise has been through it. It makes no
// row.
func (l *Ledger) OtherValidity(ctx context.Context, source, mailbox string, box Box) (*Formers, error) {
	f := &Formers{}
	err := l.each(ctx, "SELECT id, uid_validity FROM box WHERE source = ? AND mailbox = ? AND id <> ? AND superseded = 0 ORDER BY id", []any{source, mailbox, box}, func(rows *sql.Rows) error {
		var b Box
		if err := rows.Scan(&b, &f.Validity); err != nil {
			return err
		}
		f.Boxes = append(f.Boxes, b)
		return nil
	})
	for _, b := range f.Boxes {
		if err == nil {
			err = l.formers(ctx, b, f)
		}
	}
	return f, l.wrap(err, "look for former ids")
}

// OwnStrings returns what is known of a mailbox whose messages go by string
// ids: for when its server has changed all of them.
func (l *Ledger) OwnStrings(ctx context.Context, box Box) (*Formers, error) {
	f := &Formers{}
	return f, l.wrap(l.formers(ctx, box, f), "look for former ids")
}

// formers adds the messages of a box that are still on the server, as far as
// the ledger can know.
func (l *Ledger) formers(ctx context.Context, box Box, f *Formers) error {
	return l.each(ctx, `SELECT m.key, COALESCE(m.octets, -1), COALESCE(m.mark, 0) FROM message m LEFT JOIN finished f ON f.key = m.key AND f.flag = ?
		WHERE m.key BETWEEN ? AND ? AND f.key IS NULL ORDER BY m.key`, []any{Removed, box.key(0), box.stringKey(math.MaxUint32)}, func(rows *sql.Rows) error {
		var m Former
		var mark int64
		err := rows.Scan(&m.Key, &m.Octets, &mark)
		m.Mark = uint64(mark)
		f.Messages = append(f.Messages, m)
		return err
	})
}

// Hashes returns the sha256 of the octets of each of the messages; nil where
// no body ever passed.
func (l *Ledger) Hashes(ctx context.Context, keys []int64) ([][]byte, error) {
	out := make([][]byte, len(keys))
	for i, key := range keys {
		err := l.db.QueryRowContext(ctx, "SELECT sha256 FROM message WHERE key = ?", key).Scan(&out[i])
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, l.wrap(err, "look for former ids")
		}
	}
	return out, nil
}

// Recognised says that a message has another id now.
type Recognised struct {
	Key int64 // Former.Key
	ID  message.ID
}

// Recognise gives messages the ids that they have now, in box, with all that
// is known of them: nothing of them is to be written again. Names and records
// stay those of the id that they were exported under (Entry.Exported). What
// else the former boxes hold of refusals and dead letters is dropped: the
// messages are listed anew. It is all done or nothing is, so that a crash in
// between only has the comparison made again.
func (l *Ledger) Recognise(ctx context.Context, box Box, found []Recognised, former []Box) error {
	err := l.write(ctx, "recognise messages", func(ctx context.Context, tx *transaction) error {
		w := &writer{ctx: ctx, tx: tx}
		keys, err := w.keys(len(found), func(i int) (Box, message.ID) { return box, found[i].ID })
		if err != nil {
			return err
		}
		if err := w.exec("CREATE TEMP TABLE moved (old INTEGER PRIMARY KEY, new INTEGER NOT NULL)"); err != nil {
			return err
		}
		moved := w.rows("INSERT INTO moved VALUES ", 2)
		for i, f := range found {
			if err := moved.put(f.Key, keys[i]); err != nil {
				return err
			}
		}
		if err := moved.end(); err != nil {
			return err
		}
		for _, q := range []string{
			"INSERT INTO alias SELECT m.new, COALESCE(a.was, m.old) FROM moved m LEFT JOIN alias a ON a.key = m.old",
			"DELETE FROM alias WHERE key IN (SELECT old FROM moved)",
			"UPDATE message SET key = (SELECT new FROM moved WHERE old = key) WHERE key IN (SELECT old FROM moved)",
			"UPDATE changed SET key = (SELECT new FROM moved WHERE old = key) WHERE key IN (SELECT old FROM moved)",
			"UPDATE finished SET key = (SELECT new FROM moved WHERE old = key) WHERE key IN (SELECT old FROM moved)",
			"UPDATE OR REPLACE claim SET key = (SELECT new FROM moved WHERE old = key) WHERE key IN (SELECT old FROM moved)",
			"UPDATE holder SET key = (SELECT new FROM moved WHERE old = key) WHERE key IN (SELECT old FROM moved)",
			"UPDATE refusal SET key = (SELECT new FROM moved WHERE old = key) WHERE key IN (SELECT old FROM moved)",
			"UPDATE letter SET key = (SELECT new FROM moved WHERE old = key) WHERE key IN (SELECT old FROM moved)",
			`UPDATE letter SET (uidl, header_hash, ordinal) = (SELECT s.uidl, s.header_hash, s.ordinal FROM string_id s
				WHERE s.box = letter.key >> 33 AND s.num = letter.key & 0xffffffff)
				WHERE uidl <> '' AND key IN (SELECT new FROM moved)`,
			"DELETE FROM suspect WHERE key IN (SELECT old FROM moved)",
			"DROP TABLE moved",
		} {
			if err := w.exec(q); err != nil {
				return err
			}
		}
		for _, b := range former {
			for _, table := range []string{"refusal", "letter", "suspect"} {
				if err := w.exec("DELETE FROM "+table+" WHERE key BETWEEN ? AND ?", b.key(0), b.stringKey(math.MaxUint32)); err != nil {
					return err
				}
			}
			if err := w.exec("UPDATE box SET superseded = 1, content = '' WHERE id = ?", b); err != nil {
				return err
			}
		}
		return w.exec("UPDATE box SET superseded = 0 WHERE id = ?", box)
	})
	if err == nil && len(found) > 0 {
		l.aliased.Store(true)
	}
	return err
}

// exported adds to entries the ids that their messages were exported under,
// where those are others than the ids of now.
func (l *Ledger) exported(ctx context.Context, run []wanted, out []Entry) error {
	type alias struct {
		at  int
		was int64
	}
	var found []alias
	rest := run
	err := l.each(ctx, "SELECT key, was FROM alias WHERE key BETWEEN ? AND ? ORDER BY key", []any{run[0].key, run[len(run)-1].key}, func(rows *sql.Rows) error {
		var key, was int64
		if err := rows.Scan(&key, &was); err != nil {
			return err
		}
		i, there := slices.BinarySearchFunc(rest, key, func(w wanted, key int64) int {
			switch {
			case w.key < key:
				return -1
			case w.key > key:
				return 1
			}
			return 0
		})
		for ; there && i < len(rest) && rest[i].key == key; i++ { // an id may stand in a page twice
			found = append(found, alias{rest[i].at, was})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, f := range found {
		id, err := l.idOf(ctx, f.was)
		if err != nil {
			return err
		}
		out[f.at].Exported = &id
	}
	return nil
}

// idOf returns the id that a key stood for. It is for few messages: a string
// id is looked for among all of its mailbox.
func (l *Ledger) idOf(ctx context.Context, key int64) (message.ID, error) {
	box := Box(key >> boxBits)
	var id message.ID
	err := l.db.QueryRowContext(ctx, "SELECT source, mailbox, uid_validity FROM box WHERE id = ?", box).Scan(&id.Source, &id.Mailbox, &id.UIDValidity)
	if err != nil {
		return id, err
	}
	num := uint32(key & math.MaxUint32)
	if key>>numBits&1 == 0 {
		id.UID = num
		return id, nil
	}
	id.UIDValidity = 0
	err = l.db.QueryRowContext(ctx, "SELECT uidl, header_hash, ordinal FROM string_id WHERE box = ? AND num = ?", box, num).Scan(&id.UIDL, &id.HeaderHash, &id.Ordinal)
	return id, err
}
