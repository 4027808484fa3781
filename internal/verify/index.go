package verify

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mailhaul/pipeline/internal/output"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/target"
)

// indexLine is what is read of a line of an index (docs/reference/index.md).
type indexLine struct {
	ID        string         `json:"id"`
	Source    string         `json:"source"`
	Mailbox   string         `json:"mailbox"`
	MessageID string         `json:"message_id"`
	Subject   string         `json:"subject"`
	Date      string         `json:"date"`
	From      []indexAddress `json:"from"`
	Octets    *int64         `json:"octets"`

	UIDValidity uint32 `json:"uid_validity"`
	UID         uint32 `json:"uid"`
	UIDL        string `json:"uidl"`

	SHA256  string            `json:"sha256"`
	Files   map[string]string `json:"files"`
	Changed []string          `json:"changed_by"`
}

type indexAddress struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// indexPoint is the checkpoint of an index: how much of it is committed.
type indexPoint struct {
	Version    int    `json:"v"`
	Generation int64  `json:"generation"`
	Length     *int64 `json:"length"`
	Pending    int64  `json:"pending"`
}

// idText returns a message's id as the index has it (docs/reference/index.md).
func idText(id message.ID) string {
	s := id.String()
	if id.HeaderHash != "" {
		s += ";HEADER=" + id.HeaderHash
	}
	if id.Ordinal != 0 {
		s += fmt.Sprintf(";ORDINAL=%d", id.Ordinal)
	}
	return s
}

// readIndex reads the lines of a record sink.
func (v *verifier) readIndex(ctx context.Context, k *kept) error {
	if k.index != nil {
		return v.readIndexObject(ctx, k)
	}
	path := k.plan.Prepared.Target
	var cp indexPoint
	marks := indexBooks(filepath.Join(filepath.Dir(path), target.Books, filepath.Base(path)))
	if k.target.Checkpoint == nil {
		v.nothingYet(ctx, k, marks)
		return nil
	}
	if json.Unmarshal(k.target.Checkpoint, &cp) != nil || cp.Length == nil || cp.Version != 1 {
		k.gone = true
		k.result.Note = "not checked: the index isn't of a form that is known here"
		return nil
	}
	books := string(marks)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		k.gone = true
		v.found(-1, Finding{Kind: Missing, Place: Target, Sink: k.plan.Name, Count: k.result.Messages}, "the index %s isn't there", path)
		return nil
	}
	if err != nil {
		return target.DiskError(err, "read the index %s", path)
	}
	defer f.Close()
	if err := v.checkMarks(ctx, marks, Finding{Kind: Missing, Place: Target, Sink: k.plan.Name}, "the index "+path); err != nil {
		return err
	}
	known := v.byText(k)
	length := *cp.Length
	if to, ok := swapped(books, cp); ok {
		length = to
	}
	var in io.Reader = f
	if k.target.Dirty {
		in = io.LimitReader(f, length) // what is behind was left by a run that was cut short: the next one cuts it off
	}
	if err := v.readLines(ctx, k, in, known, false); err != nil {
		return err
	}
	// Lines that replace others wait beside the index until its sink is closed:
	// after a crash, that is the next run.
	if cp.Pending > 0 {
		if p, err := os.Open(filepath.Join(books, fmt.Sprintf("pending-%d.jsonl", cp.Generation))); err == nil {
			defer p.Close()
			return v.readLines(ctx, k, io.LimitReader(p, cp.Pending), known, true)
		}
	}
	return nil
}

// swapped returns the length of the generation that took the place of the one
// that the ledger knows.
func swapped(books string, cp indexPoint) (int64, bool) {
	var s struct {
		From indexPoint `json:"from"`
		To   indexPoint `json:"to"`
	}
	b, err := os.ReadFile(filepath.Join(books, "swap.json"))
	if err != nil || json.Unmarshal(b, &s) != nil || s.From.Length == nil || s.To.Length == nil {
		return 0, false
	}
	same := s.From.Generation == cp.Generation && *s.From.Length == *cp.Length && s.From.Pending == cp.Pending
	return *s.To.Length, same
}

// indexBooks is the folder of an index's books.
type indexBooks string

// Marked implements marks.
func (b indexBooks) Marked(context.Context) (pipeline, sink string, err error) {
	return target.Marked(string(b))
}

// byText returns the messages by the hash of their id as an index has it.
func (v *verifier) byText(k *kept) map[uint64]int32 {
	known := make(map[uint64]int32, len(v.table.items))
	for n := range v.table.items {
		known[k.hash(idText(v.table.id(int32(n))))] = int32(n)
	}
	for id, n := range v.table.former {
		known[k.hash(idText(id))] = n
	}
	return known
}

// readIndexObject reads the lines of an index in a bucket: those of the object,
// and those of its parts that aren't merged into it yet.
func (v *verifier) readIndexObject(ctx context.Context, k *kept) error {
	if k.target.Checkpoint == nil {
		v.nothingYet(ctx, k, k.index)
		return nil
	}
	point, ok := output.ParseIndexPoint(k.target.Checkpoint)
	if !ok {
		k.gone = true
		k.result.Note = "not checked: the index isn't of a form that is known here"
		return nil
	}
	f := Finding{Kind: Missing, Place: Target, Sink: k.plan.Name}
	what := "the index " + k.plan.Prepared.Target
	var err error
	if k.state, err = k.index.At(ctx, point); errors.Is(err, fs.ErrNotExist) {
		k.gone = true
		f.Count = k.result.Messages
		v.found(-1, f, "%s isn't there", what)
		return nil
	}
	if err != nil {
		return err
	}
	if err := v.checkMarks(ctx, k.index, f, what); err != nil {
		return err
	}
	if k.state.Wrong != "" {
		f.Kind = Changed
		v.found(-1, f, "%s can't be gone on with: %s", what, k.state.Wrong)
	}
	for _, flaw := range k.state.Flaws {
		at := Finding{Kind: Extra, Place: Index, Sink: k.plan.Name, Path: flaw.Name}
		switch {
		case k.target.Dirty && !flaw.Missing:
			continue // the next run puts it in order
		case flaw.Missing:
			at.Kind = Missing
		case !flaw.Part:
			at.Kind = Changed
		}
		v.found(-1, at, "%s", flaw.Text)
	}
	known := v.byText(k)
	return k.index.Each(ctx, k.state, func(in io.Reader, replaces bool) error {
		return v.readLines(ctx, k, in, known, replaces)
	})
}

// readLines holds each line against the ledger.
func (v *verifier) readLines(ctx context.Context, k *kept, in io.Reader, known map[uint64]int32, replacing bool) error {
	r := bufio.NewReaderSize(in, 1<<20)
	for ctx.Err() == nil {
		text, err := r.ReadSlice('\n')
		var long []byte
		for errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, text...)
			text, err = r.ReadSlice('\n')
		}
		if long != nil {
			text = append(long, text...)
		}
		if err == io.EOF && len(text) == 0 {
			return nil
		}
		if err != nil && err != io.EOF {
			if fault.As(err) == nil {
				err = target.DiskError(err, "read the index %s", k.plan.Prepared.Target)
			}
			return err
		}
		k.result.Lines++
		number := int(k.result.Lines)
		var l indexLine
		bound := json.Unmarshal(text, &l)
		if bound == nil && !bytes.HasSuffix(text, []byte("\n")) {
			bound = errors.New("it is cut short")
		}
		if bound != nil || l.ID == "" {
			why := "it has no id"
			if bound != nil {
				why = bound.Error()
			}
			k.broken = append(k.broken, brokenLine{number, why})
			continue
		}
		v.line(k, &l, number, known, replacing)
	}
	return ctx.Err()
}

// line holds one line against the ledger.
func (v *verifier) line(k *kept, l *indexLine, number int, known map[uint64]int32, replacing bool) {
	at := Finding{Kind: Extra, Place: Index, Sink: k.plan.Name, Source: l.Source, Mailbox: l.Mailbox, ID: l.ID, Subject: l.Subject, Date: l.Date}
	if len(l.From) > 0 {
		at.From = l.From[0].Address
	}
	n, ok := known[k.hash(l.ID)]
	if !ok {
		v.found(-1, at, "line %d: neither the ledger nor a manifest has this message", number)
		return
	}
	r, it := k.row(n), &v.table.items[n]
	if r.line && !replacing {
		v.found(n, at, "line %d: the message stands there twice", number)
		return
	}
	r.line, r.seen = true, true
	if !it.known || r.stale {
		return
	}
	it.line = lineHead(l)
	if what := v.differs(l, it, n); what != "" {
		at.Kind = Changed
		r.bad = true
		v.found(n, at, "line %d: %s", number, what)
	}
}

func lineHead(l *indexLine) uint64 {
	var from []string
	for _, a := range l.From {
		from = append(from, a.Name, a.Address)
	}
	return headHash(l.Subject, l.MessageID, from)
}

// differs says what of a line isn't what the ledger has.
func (v *verifier) differs(l *indexLine, it *item, n int32) string {
	switch {
	case it.hashed && l.SHA256 != "" && l.SHA256 != hex.EncodeToString(it.sum[:]) && !v.ledgerIsWrong(l.SHA256, n):
		return "its sha256 isn't that of the ledger"
	case it.octets >= 0 && l.Octets != nil && *l.Octets != it.octets:
		return fmt.Sprintf("it says %d octets, the ledger %d", *l.Octets, it.octets)
	}
	for _, k := range v.sinks {
		if k.plan.Prepared.Record || int(n) >= len(k.rows) || !k.rows[n].written || k.rows[n].told == 0 {
			continue
		}
		if k.hash(l.Files[k.plan.Name]) != k.rows[n].told {
			return fmt.Sprintf("its file in %s isn't the one of the ledger", k.plan.Name)
		}
	}
	return ""
}

// ledgerIsWrong reports whether a manifest of the server's octets agrees with
// the index: then it is the ledger that differs, which is said where the file
// is read.
func (v *verifier) ledgerIsWrong(sum string, n int32) bool {
	for _, k := range v.sinks {
		if k.exact && int(n) < len(k.rows) && k.rows[n].row && hex.EncodeToString(k.rows[n].sum[:]) == sum {
			return true
		}
	}
	return false
}
