package expression

import (
	"fmt"
	"time"

	"github.com/expr-lang/expr/ast"

	"github.com/mailhaul/pipeline/pkg/message"
)

// equality is a term that compares a text field with a constant.
type equality struct {
	field, value string
}

// equalityOf returns the equality that a term is, nil for none. Fields of which
// a message has several values are none: it may have both.
func equalityOf(n ast.Node, negate bool) *equality {
	b, ok := n.(*ast.BinaryNode)
	if !ok || negate || b.Operator != "==" {
		return nil
	}
	left, right := b.Left, b.Right
	if _, ok := left.(*ast.StringNode); ok {
		left, right = right, left
	}
	field, ok := left.(*ast.IdentifierNode)
	value, constant := right.(*ast.StringNode)
	if !ok || !constant {
		return nil
	}
	return &equality{field.Value, value.Value}
}

// Equals returns the values that a field must have for the program to be true,
// as in mailbox == "INBOX" && …; none when it doesn't say.
func (p *Program) Equals(field string) []string {
	var out []string
	for _, t := range p.Terms {
		if t.equal != nil && t.equal.field == field {
			out = append(out, t.equal.value)
		}
	}
	return out
}

// Contradiction says in words why no message can fulfil all of the programs, or
// "" when it finds no reason: it looks at single terms that are false whatever
// the message, and at comparisons of one field with constants. now is the time
// that now() stands for.
func Contradiction(now time.Time, programs ...*Program) string {
	bounds := map[string]*bound{}
	values := map[string]string{}
	for _, p := range programs {
		for _, t := range p.Terms {
			if len(t.inputs) == 0 {
				if v, _ := t.judge(&message.Summary{}, now); v == no {
					return "it is false whatever the message"
				}
			}
			if e := t.equal; e != nil {
				if other, ok := values[e.field]; ok && other != e.value {
					return fmt.Sprintf("%s can't be both %q and %q", e.field, other, e.value)
				}
				values[e.field] = e.value
			}
			c, ok := t.Condition(now)
			if !ok {
				continue
			}
			b := bounds[c.Field+c.Flag]
			if b == nil {
				b = &bound{}
				bounds[c.Field+c.Flag] = b
			}
			if other := b.add(c); other != nil {
				if !c.Time.IsZero() {
					return fmt.Sprintf("no %s is in the range", c.Field) // a Condition's date is widened
				}
				return fmt.Sprintf("%s and %s can't both be", *other, c)
			}
		}
	}
	return ""
}

// bound is what conditions on one field leave of it.
type bound struct {
	low, high, has, lacks *Condition
}

// add narrows the bound, and returns the condition that contradicts c.
func (b *bound) add(c Condition) *Condition {
	switch c.Op {
	case "has":
		b.has = &c
		return b.lacks
	case "lacks":
		b.lacks = &c
		return b.has
	case ">", ">=":
		if b.low == nil || c.after(b.low) {
			b.low = &c
		}
	default:
		if b.high == nil || b.high.after(&c) {
			b.high = &c
		}
	}
	if b.low == nil || b.high == nil {
		return nil
	}
	strict := b.low.Op == ">" || b.high.Op == "<"
	if b.low.after(b.high) || strict && !b.high.after(b.low) {
		if c.Op == ">" || c.Op == ">=" {
			return b.high
		}
		return b.low
	}
	return nil
}

// after compares what two conditions compare a field with.
func (c *Condition) after(o *Condition) bool {
	if c.Field == "size" {
		return c.Size > o.Size
	}
	return c.Time.After(o.Time)
}
