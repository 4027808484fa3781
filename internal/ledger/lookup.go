package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Entry is what is known of one message.
type Entry struct {
	Octets   int64  // -1 when no body ever passed
	SHA256   []byte // nil when no body ever passed
	Mark     uint64 // of its header, see Mark; 0 when that isn't known
	Fates    []Fate
	Exported *message.ID // the id that it was exported under, where it had another one then; else nil
	Changed  []string    // the stages that changed octets of what was written
	Suspects []Suspect
}

// Suspect says that a process died while it had the message in hand.
type Suspect struct {
	Target TargetID // Everywhere: the source's process
	Deaths int
}

// maxGap is how many numbers that aren't asked for may lie between two that
// are read together.
const maxGap = 32

// Lookup returns what is known of each of the ids, in their order. Those that
// the ledger doesn't know are zero with Octets -1.
func (l *Ledger) Lookup(ctx context.Context, box Box, ids []message.ID) ([]Entry, error) {
	p := &page{out: make([]Entry, len(ids))}
	for i := range p.out {
		p.out[i].Octets = -1
	}
	keys, err := l.keys(ctx, box, ids)
	if err != nil {
		return nil, err
	}
	p.wanted = make([]wanted, 0, len(ids))
	for i, key := range keys {
		if key != 0 {
			p.wanted = append(p.wanted, wanted{key, i})
		}
	}
	slices.SortFunc(p.wanted, func(a, b wanted) int { return cmp.Compare(a.key, b.key) })
	rest := p.wanted
	for len(rest) > 0 {
		n := 1
		for n < len(rest) && rest[n].key-rest[n-1].key <= maxGap {
			n++
		}
		err := p.read(ctx, l, rest[:n])
		if err == nil && l.aliased.Load() {
			err = l.exported(ctx, rest[:n], p.out)
		}
		if err != nil {
			return nil, l.wrap(err, "look up")
		}
		rest = rest[n:]
	}
	return p.out, nil
}

// wanted is a message that is looked up, and its place among the ids.
type wanted struct {
	key int64
	at  int
}

// page is a Lookup under way.
type page struct {
	out    []Entry
	wanted []wanted // by key
	sums   []byte   // the hashes of all entries: one piece of memory, not thousands
	fates  []Fate   // so, too
}

// read reads what stands between the first and the last of some messages.
func (p *page) read(ctx context.Context, l *Ledger, run []wanted) error {
	low, high := run[0].key, run[len(run)-1].key
	for _, table := range []struct {
		query string
		scan  func(*sql.Rows) (int64, func(*Entry), error)
	}{
		{"SELECT key, COALESCE(octets, -1), sha256, fates, COALESCE(mark, 0) FROM message WHERE key BETWEEN ? AND ? ORDER BY key", p.message},
		{"SELECT key, target, stage, rules, vals FROM refusal LEFT JOIN rule ON rule.id = rule WHERE key BETWEEN ? AND ? ORDER BY key", refusal},
		{"SELECT key, target, letter FROM letter WHERE key BETWEEN ? AND ? ORDER BY key", letter},
		{"SELECT key, rules FROM changed JOIN rule ON rule.id = rule WHERE key BETWEEN ? AND ? ORDER BY key", changed},
		{"SELECT key, target, deaths FROM suspect WHERE key BETWEEN ? AND ? ORDER BY key", suspect},
	} {
		rest := run
		err := l.each(ctx, table.query, []any{low, high}, func(rows *sql.Rows) error {
			key, put, err := table.scan(rows)
			if err != nil {
				return err
			}
			for len(rest) > 0 && rest[0].key < key {
				rest = rest[1:]
			}
			for _, w := range rest { // an id may stand in a page twice
				if w.key != key {
					break
				}
				put(&p.out[w.at])
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *page) message(rows *sql.Rows) (int64, func(*Entry), error) {
	var key, octets, mark int64
	var sum, packed sql.RawBytes
	if err := rows.Scan(&key, &octets, &sum, &packed, &mark); err != nil {
		return 0, nil, err
	}
	from, first := len(p.sums), len(p.fates)
	p.sums = append(p.sums, sum...)
	var err error
	if p.fates, err = unpack(p.fates, packed); err != nil {
		return 0, nil, err
	}
	return key, func(e *Entry) {
		e.Octets, e.Mark = octets, uint64(mark)
		if to := len(p.sums); to > from {
			e.SHA256 = p.sums[from:to:to]
		}
		if end := len(p.fates); end > first {
			e.Fates = p.fates[first:end:end]
		}
	}, nil
}

func refusal(rows *sql.Rows) (int64, func(*Entry), error) {
	var key int64
	var target TargetID
	r := &Refusal{}
	err := rows.Scan(&key, &target, &r.Stage, &r.Rules, &r.Values)
	return key, func(e *Entry) { e.refuse(target, r) }, err
}

// refuse joins a refusal with its fate: a drop has no message row, so that
// its fate is made here.
func (e *Entry) refuse(target TargetID, r *Refusal) {
	if f := e.fate(target); f != nil {
		f.Refusal = r
	} else if target == Everywhere {
		e.Fates = append(e.Fates, Fate{Target: Everywhere, Class: Dropped, Refusal: r})
	}
}

func (e *Entry) fate(target TargetID) *Fate {
	for i := range e.Fates {
		if e.Fates[i].Target == target {
			return &e.Fates[i]
		}
	}
	return nil
}

func letter(rows *sql.Rows) (int64, func(*Entry), error) {
	var key int64
	var target TargetID
	var text sql.RawBytes
	if err := rows.Scan(&key, &target, &text); err != nil {
		return 0, nil, err
	}
	l, err := decodeLetter(text)
	return key, func(e *Entry) {
		if f := e.fate(target); f != nil {
			f.Letter = l
		}
	}, err
}

func decodeLetter(text []byte) (*Letter, error) {
	l := &Letter{}
	if err := json.Unmarshal(text, l); err != nil {
		return nil, &damage{"a dead letter", err}
	}
	return l, nil
}

func changed(rows *sql.Rows) (int64, func(*Entry), error) {
	var key int64
	var names sql.RawBytes
	if err := rows.Scan(&key, &names); err != nil {
		return 0, nil, err
	}
	var list []string
	if err := json.Unmarshal(names, &list); err != nil {
		return 0, nil, &damage{"the names of stages", err}
	}
	return key, func(e *Entry) { e.Changed = list }, nil
}

func suspect(rows *sql.Rows) (int64, func(*Entry), error) {
	var key int64
	var s Suspect
	err := rows.Scan(&key, &s.Target, &s.Deaths)
	return key, func(e *Entry) { e.Suspects = append(e.Suspects, s) }, err
}

func (l *Ledger) each(ctx context.Context, query string, args []any, f func(*sql.Rows) error) error {
	rows, err := l.db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Letters calls f for each dead letter of the pipeline, in a stable order:
// by source, mailbox, UIDVALIDITY, then UID or the order of discovery. f's
// error ends it, and is returned as it is. f may call the ledger.
func (l *Ledger) Letters(ctx context.Context, f func(id message.ID, sink string, letter Letter) error) error {
	return l.letters(ctx, func(_ int64, _ TargetID, id message.ID, sink string, letter Letter) error {
		return f(id, sink, letter)
	})
}

func (l *Ledger) letters(ctx context.Context, f func(key int64, target TargetID, id message.ID, sink string, letter Letter) error) error {
	var own error // of f
	err := l.each(ctx, fmt.Sprintf(`SELECT e.key, e.target, b.source, b.mailbox, b.uid_validity, CASE WHEN e.key >> %[1]d & 1 THEN 0 ELSE e.key & 0xffffffff END, e.uidl, e.header_hash, e.ordinal,
			COALESCE(t.sink, ''), e.letter
		FROM letter e JOIN box b ON b.id = e.key >> %[2]d LEFT JOIN target t ON t.id = e.target
		ORDER BY b.source, b.mailbox, b.uid_validity, e.key, e.target`, numBits, boxBits), nil,
		func(rows *sql.Rows) error {
			var key int64
			var target TargetID
			var id message.ID
			var sink string
			var text sql.RawBytes
			if err := rows.Scan(&key, &target, &id.Source, &id.Mailbox, &id.UIDValidity, &id.UID, &id.UIDL, &id.HeaderHash, &id.Ordinal, &sink, &text); err != nil {
				return err
			}
			letter, err := decodeLetter(text)
			if err == nil {
				own = f(key, target, id, sink, *letter)
				err = own
			}
			return err
		})
	if own != nil {
		return own
	}
	return l.wrap(err, "read the dead letters")
}
