package ledger

import (
	"context"
	"database/sql"
	"errors"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Known is a message that has a fate other than a stage's drop, as it stands
// in the ledger. Letters and refusals are left out: see Lookup.
type Known struct {
	Box Box
	ID  message.ID
	// Exported is the id that names and records have, where the server gave
	// the message another one since; else nil.
	Exported *message.ID
	Octets   int64  // -1 when no body ever passed
	SHA256   []byte // nil when no body ever passed
	Fates    []Fate

	Changed bool // a stage changed octets: what was written isn't what was received
	Removed bool // it was deleted or moved on the server, as the file wants
}

// Known calls f for each message of the pipeline that has a fate other than a
// stage's drop, in a stable order. What f is given is valid until it returns;
// f's error ends it, and is returned as it is. f may call the ledger. A
// mailbox's string ids are held in memory, one mailbox at a time.
func (l *Ledger) Known(ctx context.Context, f func(*Known) error) error {
	boxes, err := l.boxIDs(ctx)
	if err != nil {
		return l.wrap(err, "read the mailboxes")
	}
	var own error // of f
	var known Known
	var at *message.ID
	aliases, err := l.aliases(ctx)
	if err != nil {
		return l.wrap(err, "read the former ids")
	}
	texts, textsOf := map[uint32]message.ID{}, Box(-1)
	err = l.each(ctx, `SELECT m.key, COALESCE(m.octets, -1), m.sha256, m.fates, c.key IS NOT NULL, d.key IS NOT NULL
		FROM message m LEFT JOIN changed c ON c.key = m.key LEFT JOIN finished d ON d.key = m.key AND d.flag = ? ORDER BY m.key`, []any{Removed}, func(rows *sql.Rows) error {
		var key int64
		var sum, packed sql.RawBytes
		if err := rows.Scan(&key, &known.Octets, &sum, &packed, &known.Changed, &known.Removed); err != nil {
			return err
		}
		if box := Box(key >> boxBits); at == nil || box != known.Box {
			known.Box = box
			id, ok := boxes[box]
			if !ok {
				return &damage{"a message's mailbox", errors.New("it has no row")}
			}
			at = &id
		}
		known.ID = *at
		if num := uint32(key); key>>numBits&1 == 0 {
			known.ID.UID = num
		} else {
			if textsOf != known.Box {
				var err error
				if texts, err = l.stringIDs(ctx, known.Box); err != nil {
					return err
				}
				textsOf = known.Box
			}
			id, ok := texts[num]
			if !ok {
				return &damage{"a message's id", errors.New("it has no row")}
			}
			known.ID.UIDL, known.ID.HeaderHash, known.ID.Ordinal = id.UIDL, id.HeaderHash, id.Ordinal
		}
		known.Exported = nil
		if was, ok := aliases[key]; ok {
			former := boxes[Box(was>>boxBits)]
			if num := uint32(was); was>>numBits&1 == 0 {
				former.UID = num
			} else {
				former.UIDL, former.HeaderHash, former.Ordinal = texts[num].UIDL, texts[num].HeaderHash, texts[num].Ordinal
			}
			known.Exported = &former
		}
		known.SHA256 = sum
		if len(sum) == 0 {
			known.SHA256 = nil
		}
		var err error
		if known.Fates, err = unpack(known.Fates[:0], packed); err != nil {
			return err
		}
		own = f(&known)
		return own
	})
	if own != nil {
		return own
	}
	return l.wrap(err, "read the messages")
}

// aliases returns the keys of messages that have other ids now, and what they
// were. A mailbox with string ids is always the same one.
func (l *Ledger) aliases(ctx context.Context) (map[int64]int64, error) {
	out := map[int64]int64{}
	err := l.each(ctx, "SELECT key, was FROM alias", nil, func(rows *sql.Rows) error {
		var key, was int64
		err := rows.Scan(&key, &was)
		out[key] = was
		return err
	})
	return out, err
}

// boxIDs returns the mailboxes as ids that lack the message's own part.
func (l *Ledger) boxIDs(ctx context.Context) (map[Box]message.ID, error) {
	out := map[Box]message.ID{}
	err := l.each(ctx, "SELECT id, source, mailbox, uid_validity FROM box", nil, func(rows *sql.Rows) error {
		var box Box
		var id message.ID
		if err := rows.Scan(&box, &id.Source, &id.Mailbox, &id.UIDValidity); err != nil {
			return err
		}
		out[box] = id
		return nil
	})
	return out, err
}

func (l *Ledger) stringIDs(ctx context.Context, box Box) (map[uint32]message.ID, error) {
	out := map[uint32]message.ID{}
	err := l.each(ctx, "SELECT num, uidl, header_hash, ordinal FROM string_id WHERE box = ?", []any{box}, func(rows *sql.Rows) error {
		var num uint32
		var id message.ID
		if err := rows.Scan(&num, &id.UIDL, &id.HeaderHash, &id.Ordinal); err != nil {
			return err
		}
		out[num] = id
		return nil
	})
	return out, err
}
