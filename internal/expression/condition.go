package expression

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
)

// Condition compares one field of a message with a constant: what a server
// can be asked. It has the fields of source.Condition.
type Condition struct {
	Field string
	Op    string
	Time  time.Time
	Size  int64
	Flag  string
}

// String returns the condition for people.
func (c Condition) String() string {
	switch c.Field {
	case "size":
		return fmt.Sprintf("%s %s %d", c.Field, c.Op, c.Size)
	case "flags":
		return fmt.Sprintf("%s %s %s", c.Field, c.Op, c.Flag)
	}
	return fmt.Sprintf("%s %s %s", c.Field, c.Op, c.Time.UTC().Format("2006-01-02 15:04"))
}

// widened is by how much a date that a server is asked for is moved, so that
// its answer is right whatever timezone it counts its days in: what it refuses
// surely fails, and what it lets pass is judged again.
const widened = 24 * time.Hour

// comparison is a term that can be a Condition, with what is compared with
// still to be folded: now() is that of the run.
type comparison struct {
	field, op, flag string
	right           ast.Node
}

// comparisonOf returns the comparison that a term is; nil when it is none that
// a server can be asked.
func comparisonOf(n ast.Node, negate bool) *comparison {
	switch v := n.(type) {
	case *ast.UnaryNode:
		if operator(v.Operator) == "!" {
			return comparisonOf(v.Node, !negate)
		}
	case *ast.IdentifierNode:
		switch v.Value {
		case "seen", "flagged", "answered", "draft", "deleted":
			return flagOf(`\`+strings.ToUpper(v.Value[:1])+v.Value[1:], negate)
		}
	case *ast.BinaryNode:
		return binaryOf(v, negate)
	}
	return nil
}

func flagOf(flag string, negate bool) *comparison {
	if negate {
		return &comparison{field: "flags", op: "lacks", flag: flag}
	}
	return &comparison{field: "flags", op: "has", flag: flag}
}

// Comparisons read from the other side, and negated. A missing value is
// neither true nor false either way.
var (
	turned  = map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<="}
	negated = map[string]string{"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
)

func binaryOf(v *ast.BinaryNode, negate bool) *comparison {
	if flag, ok := v.Left.(*ast.StringNode); ok && v.Operator == "in" {
		if list, ok := v.Right.(*ast.IdentifierNode); ok && plainFlag(list.Value, flag.Value) {
			return flagOf(flag.Value, negate)
		}
		return nil
	}
	op, left, right := v.Operator, v.Left, v.Right
	if turned[op] == "" {
		return nil
	}
	field, ok := left.(*ast.IdentifierNode)
	if !ok {
		if field, ok = right.(*ast.IdentifierNode); !ok {
			return nil
		}
		op, right = turned[op], left
	}
	switch field.Value {
	case "date", "internal_date", "size":
	default:
		return nil
	}
	if negate {
		op = negated[op]
	}
	return &comparison{field: field.Value, op: op, right: right}
}

// plainFlag says whether a text is the name of a flag as every server compares
// it: `in` compares the case, servers don't, so that only what has one
// spelling is the same.
func plainFlag(list, flag string) bool {
	switch list {
	case "flags":
		switch flag {
		case `\Seen`, `\Flagged`, `\Answered`, `\Draft`, `\Deleted`:
			return true
		}
	}
	return false
}

// Condition returns the condition that the term is, at the time now; ok is
// false when it is none. Dates are widened by a day: what fails the condition
// fails the term, not the reverse.
func (t *Term) Condition(now time.Time) (c Condition, ok bool) {
	if t.compare == nil {
		return Condition{}, false
	}
	c = Condition{Field: t.compare.field, Op: t.compare.op, Flag: t.compare.flag}
	switch c.Field {
	case "flags":
		return c, true
	case "size":
		n, ok := number(t.compare.right)
		c.Size = int64(n)
		return c, ok && n == math.Trunc(n) && math.Abs(n) < 1<<53
	}
	at, ok := instant(t.compare.right, now)
	if !ok {
		return Condition{}, false
	}
	c.Time = at.Add(widened)
	if c.Op == ">" || c.Op == ">=" {
		c.Time = at.Add(-widened)
	}
	return c, true
}

// number folds a constant number.
func number(n ast.Node) (float64, bool) {
	switch v := n.(type) {
	case *ast.IntegerNode:
		return float64(v.Value), true
	case *ast.FloatNode:
		return v.Value, true
	case *ast.UnaryNode:
		f, ok := number(v.Node)
		return -f, ok && v.Operator == "-"
	case *ast.ConstantNode:
		f, err := strconv.ParseFloat(fmt.Sprint(v.Value), 64)
		return f, err == nil
	case *ast.BinaryNode:
		a, ok := number(v.Left)
		b, too := number(v.Right)
		if !ok || !too {
			return 0, false
		}
		switch v.Operator {
		case "+":
			return a + b, true
		case "-":
			return a - b, true
		case "*":
			return a * b, true
		}
	}
	return 0, false
}

// instant folds a constant time.
func instant(n ast.Node, now time.Time) (time.Time, bool) {
	switch v := n.(type) {
	case *ast.IdentifierNode:
		return now, v.Value == nowName
	case *ast.ConstantNode:
		t, ok := v.Value.(time.Time)
		return t, ok
	case *ast.BinaryNode:
		at, ok := instant(v.Left, now)
		d, too := duration(v.Right)
		switch {
		case !ok || !too:
		case v.Operator == "+":
			return at.Add(d), true
		case v.Operator == "-":
			return at.Add(-d), true
		}
	}
	return time.Time{}, false
}

func duration(n ast.Node) (time.Duration, bool) {
	v, ok := n.(*ast.ConstantNode)
	if !ok {
		return 0, false
	}
	d, ok := v.Value.(time.Duration)
	return d, ok
}
