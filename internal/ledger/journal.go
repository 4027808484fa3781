package ledger

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// journal holds what a transaction executed, in order. It is what a scratch
// ledger is made anew from, so that statements must do the same each time:
// they ask no clock and no dice, and read none of the tables of a Head.
//
// Each statement is the number of its text, which follows where it is new, and
// its arguments, each after an octet that says its kind.
type journal struct {
	b     []byte
	texts map[string]uint64
	err   error // the first; the transaction fails with it
}

// The kinds of arguments.
const (
	argNull byte = iota
	argInt
	argFloat
	argText
	argBlob
	argTrue
	argFalse
)

func (j *journal) add(query string, args []any) {
	if j.texts == nil {
		j.texts = map[string]uint64{}
	}
	n, known := j.texts[query]
	if !known {
		n = uint64(len(j.texts))
		j.texts[query] = n
	}
	j.b = binary.AppendUvarint(j.b, n)
	if !known {
		j.text(query)
	}
	j.b = binary.AppendUvarint(j.b, uint64(len(args)))
	for _, arg := range args {
		j.arg(arg)
	}
}

func (j *journal) text(s string) {
	j.b = binary.AppendUvarint(j.b, uint64(len(s)))
	j.b = append(j.b, s...)
}

func (j *journal) arg(arg any) {
	v, err := driver.DefaultParameterConverter.ConvertValue(arg)
	if err != nil && j.err == nil {
		j.err = fmt.Errorf("note an argument: %w", err)
	}
	switch v := v.(type) {
	case nil:
		j.b = append(j.b, argNull)
	case int64:
		j.b = binary.AppendVarint(append(j.b, argInt), v)
	case float64:
		j.b = binary.BigEndian.AppendUint64(append(j.b, argFloat), math.Float64bits(v))
	case string:
		j.b = append(j.b, argText)
		j.text(v)
	case []byte:
		if v == nil {
			j.b = append(j.b, argNull)
			return
		}
		j.b = append(j.b, argBlob)
		j.text(string(v))
	case bool:
		kind := argFalse
		if v {
			kind = argTrue
		}
		j.b = append(j.b, kind)
	default:
		if j.err == nil {
			j.err = fmt.Errorf("note an argument: there is no kind for a %T", v)
		}
	}
}

// errJournal says that a journal isn't one that journal.add wrote.
var errJournal = errors.New("a journal ends within a statement")

// replay executes what a journal holds.
func replay(ctx context.Context, tx *sql.Tx, b []byte) error {
	statements := map[string]*sql.Stmt{}
	defer func() {
		for _, s := range statements {
			_ = s.Close() // the transaction's end does the same
		}
	}()
	return statementsOf(b, func(query string, args []any) error {
		s := statements[query]
		if s == nil {
			var err error
			if s, err = tx.PrepareContext(ctx, query); err != nil {
				return err
			}
			statements[query] = s
		}
		_, err := s.ExecContext(ctx, args...)
		return err
	})
}

// statementsOf calls f for each statement of a journal, in order. Arguments
// may lie in b.
func statementsOf(b []byte, f func(query string, args []any) error) error {
	r := reader{b: b}
	var texts []string
	for len(r.b) > 0 {
		n := r.uvarint()
		if n > uint64(len(texts)) {
			return errJournal
		}
		if n == uint64(len(texts)) {
			texts = append(texts, string(r.octets()))
		}
		count := r.uvarint()
		if r.err != nil || count > uint64(len(r.b)) { // each takes an octet at least
			return errJournal
		}
		args := make([]any, count)
		for i := range args {
			args[i] = r.arg()
		}
		if r.err != nil {
			return r.err
		}
		if err := f(texts[n], args); err != nil {
			return err
		}
	}
	return r.err
}

// reader reads a journal.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	r.b, r.err = nil, errJournal
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) octets() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) arg() any {
	if len(r.b) == 0 {
		r.fail()
		return nil
	}
	kind := r.b[0]
	r.b = r.b[1:]
	switch kind {
	case argNull:
		return nil
	case argInt:
		v, n := binary.Varint(r.b)
		if n <= 0 {
			break
		}
		r.b = r.b[n:]
		return v
	case argFloat:
		if len(r.b) < 8 {
			break
		}
		v := math.Float64frombits(binary.BigEndian.Uint64(r.b))
		r.b = r.b[8:]
		return v
	case argText:
		return string(r.octets())
	case argBlob:
		return r.octets()
	case argTrue:
		return true
	case argFalse:
		return false
	}
	r.fail()
	return nil
}
