package expression

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/expr-lang/expr/vm"

	"github.com/mailhaul/pipeline/pkg/message"
)

// verdict is a truth value of three.
type verdict int8

const (
	no verdict = iota
	undecided
	yes
)

// desk is what one judgement works on; desks are reused.
type desk struct {
	env    map[string]any
	absent []bool
	vm     vm.VM
	err    error // of the first leaf that failed
}

var desks = sync.Pool{New: func() any { return &desk{env: map[string]any{}} }}

// Eval judges a message. undecided is true when the answer depends on a value
// that this message doesn't have, or that its summary wasn't asked for; value
// is false then. An error is a leaf that failed at this message (an index out
// of range): undecided is true then too.
func (p *Program) Eval(s *message.Summary, now time.Time) (value, isUndecided bool, err error) {
	all := yes
	for _, t := range p.Terms {
		v, e := t.judge(s, now)
		if v == no {
			return false, false, nil
		}
		if v == undecided {
			all = undecided
			if err == nil {
				err = e
			}
		}
	}
	return all == yes, all == undecided, err
}

// Eval judges a message by this term alone, as Program.Eval does.
func (t *Term) Eval(s *message.Summary, now time.Time) (value, isUndecided bool, err error) {
	v, err := t.judge(s, now)
	return v == yes, v == undecided, err
}

func (t *Term) judge(s *message.Summary, now time.Time) (verdict, error) {
	d := desks.Get().(*desk)
	defer d.put()
	for _, f := range t.inputs {
		var v any
		ok := s.Have.Has(f.Needs) && (f.Needs&message.NeedHeaders == 0 || s.Header != nil)
		if ok {
			v, ok = f.get(s)
		}
		d.env[f.Name] = v
		d.absent = append(d.absent, !ok)
	}
	return d.judge(t, now)
}

func (d *desk) put() {
	clear(d.env)
	d.absent = d.absent[:0]
	d.err = nil
	desks.Put(d)
}

func (d *desk) judge(t *Term, now time.Time) (verdict, error) {
	if t.now {
		d.env[nowName] = now
	}
	v := d.eval(t.logic)
	if v != undecided {
		return v, nil
	}
	return v, d.err
}

func (d *desk) eval(l *logic) verdict {
	switch l.op {
	case "&&":
		v := yes
		for _, k := range l.kids {
			if v = min(v, d.eval(k)); v == no {
				break
			}
		}
		return v
	case "||":
		v := no
		for _, k := range l.kids {
			if v = max(v, d.eval(k)); v == yes {
				break
			}
		}
		return v
	case "!":
		return yes - d.eval(l.kids[0])
	}
	for _, i := range l.inputs {
		if d.absent[i] {
			return undecided
		}
	}
	out, err := d.vm.Run(l.run, d.env)
	if err != nil {
		if d.err == nil {
			d.err = fmt.Errorf("judge a message: %w", err)
		}
		return undecided
	}
	if b, ok := out.(bool); ok && b {
		return yes
	}
	return no
}

// Values adds to into what the term reads of a message, as JSON can hold it;
// null is a value that the message doesn't have. What the summary wasn't asked
// for is left out. EvalValues judges from it later, without the message (I8).
func (t *Term) Values(s *message.Summary, into map[string]any) {
	for _, f := range t.inputs {
		if !s.Have.Has(f.Needs) || f.Needs&message.NeedHeaders != 0 && s.Header == nil {
			continue
		}
		if v, ok := f.get(s); ok {
			into[f.Name] = v
		} else {
			into[f.Name] = nil
		}
	}
}

// EvalValues judges from kept values, as Eval does from a message. A value that
// is needed and wasn't kept is a *MissingError: only the message can tell.
func (p *Program) EvalValues(values map[string]json.RawMessage, now time.Time) (value, isUndecided bool, err error) {
	all := yes
	var missing error
	for _, t := range p.Terms {
		v, e := t.judgeValues(values, now)
		if _, ok := e.(*MissingError); ok {
			missing = e
			continue
		}
		if v == no {
			return false, false, nil
		}
		if v == undecided {
			all = undecided
			if err == nil {
				err = e
			}
		}
	}
	if missing != nil {
		return false, false, missing
	}
	return all == yes, all == undecided, err
}

// EvalValues judges from kept values by this term alone.
func (t *Term) EvalValues(values map[string]json.RawMessage, now time.Time) (value, isUndecided bool, err error) {
	v, err := t.judgeValues(values, now)
	return v == yes, v == undecided, err
}

func (t *Term) judgeValues(values map[string]json.RawMessage, now time.Time) (verdict, error) {
	d := desks.Get().(*desk)
	defer d.put()
	for _, f := range t.inputs {
		raw, kept := values[f.Name]
		if !kept {
			return undecided, &MissingError{Field: f.Name}
		}
		if string(raw) == "null" {
			d.env[f.Name] = nil
			d.absent = append(d.absent, true)
			continue
		}
		v, err := f.decode(raw)
		if err != nil {
			return undecided, &MissingError{Field: f.Name}
		}
		d.env[f.Name] = v
		d.absent = append(d.absent, false)
	}
	return d.judge(t, now)
}

// decode reads a kept value back in the field's type.
func (f *Field) decode(raw json.RawMessage) (any, error) {
	switch f.Type {
	case "number":
		return decodeAs[int](raw)
	case "time":
		return decodeAs[time.Time](raw)
	case "boolean":
		return decodeAs[bool](raw)
	case "list":
		return decodeAs[[]string](raw)
	case "attachments":
		return decodeAs[[]Attachment](raw)
	default:
		return decodeAs[string](raw)
	}
}

func decodeAs[T any](raw json.RawMessage) (any, error) {
	var v T
	err := json.Unmarshal(raw, &v)
	return v, err
}
