package expression

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"

	"github.com/mailhaul/pipeline/pkg/spec"
)

// Names that the rewriting makes; no user can write them.
const (
	nowName     = "now()"
	overlapFunc = "·overlap"
	hasFunc     = "·has"
)

// constants are the sizes that an expression can name.
var constants = map[string]spec.Bytes{"KB": spec.KB, "MB": spec.MB, "GB": spec.GB, "TB": spec.TB, "KiB": spec.KiB, "MiB": spec.MiB, "GiB": spec.GiB, "TiB": spec.TiB}

// functions are our own; the library's stand beside them.
var functions = []string{"date", "now", "days", "hours", "header", "vars"}

// rewriter turns what the user wrote into plain reads of named values:
// header("X-Any"), vars.NAME and now() become names like any field's, so that
// one table of values is all that an expression reads, live or from the ledger
// (I8). date("…") and the sizes become constants.
type rewriter struct {
	text   string
	opts   Options
	fields map[string]*Field
	locals map[string]bool // names made by let
	errs   []error
}

// locate collects the names of let before anything is rewritten.
type locate struct{ r *rewriter }

func (l locate) Visit(n *ast.Node) {
	if v, ok := (*n).(*ast.VariableDeclaratorNode); ok {
		if l.r.fields[v.Name] != nil || constants[v.Name] != 0 || slices.Contains(functions, v.Name) {
			l.r.fail(v, "", "let can't give %q a new meaning", v.Name)
		}
		l.r.locals[v.Name] = true
	}
}

func (r *rewriter) fail(n ast.Node, nearest, format string, args ...any) {
	line, column := position(r.text, n.Location().From)
	r.errs = append(r.errs, &Error{Line: line, Column: column, Text: fmt.Sprintf(format, args...), Nearest: nearest})
}

// rewrite goes down by hand, not with ast.Walk: a call must be seen before
// its parts.
func (r *rewriter) rewrite(n *ast.Node) {
	switch v := (*n).(type) {
	case nil:
	case *ast.IdentifierNode:
		r.identifier(n, v)
	case *ast.CallNode:
		r.call(n, v)
	case *ast.BuiltinNode:
		r.builtin(n, v)
	case *ast.MemberNode:
		r.member(n, v)
	case *ast.BinaryNode:
		r.rewrite(&v.Left)
		r.rewrite(&v.Right)
		if v.Operator == "in" {
			r.in(n, v)
		}
	case *ast.UnaryNode:
		r.rewrite(&v.Node)
	case *ast.ChainNode:
		r.rewrite(&v.Node)
	case *ast.SliceNode:
		r.rewrite(&v.Node)
		r.rewrite(&v.From)
		r.rewrite(&v.To)
	case *ast.PredicateNode:
		r.rewrite(&v.Node)
	case *ast.VariableDeclaratorNode:
		r.rewrite(&v.Value)
		r.rewrite(&v.Expr)
	case *ast.SequenceNode:
		r.all(v.Nodes)
	case *ast.ConditionalNode:
		r.rewrite(&v.Cond)
		r.rewrite(&v.Exp1)
		r.rewrite(&v.Exp2)
	case *ast.ArrayNode:
		r.all(v.Nodes)
	case *ast.MapNode:
		r.all(v.Pairs)
	case *ast.PairNode:
		r.rewrite(&v.Key)
		r.rewrite(&v.Value)
	}
}

func (r *rewriter) all(nodes []ast.Node) {
	for i := range nodes {
		r.rewrite(&nodes[i])
	}
}

func (r *rewriter) identifier(n *ast.Node, v *ast.IdentifierNode) {
	if r.locals[v.Value] || r.fields[v.Value] != nil {
		return
	}
	if size, ok := constants[v.Value]; ok {
		ast.Patch(n, &ast.IntegerNode{Value: int(size)})
		return
	}
	switch v.Value {
	case "vars":
		r.fail(v, "", "vars is read by name: vars.NAME")
	case "now", "days", "hours", "header":
		r.fail(v, "", "%s is a function: write %s()", v.Value, v.Value)
	default:
		r.fail(v, spec.Nearest(v.Value, r.words()), "unknown field %s", v.Value)
	}
}

// words are all that a name could have been meant to be.
func (r *rewriter) words() []string {
	var out []string
	for _, f := range Fields() {
		out = append(out, f.Name)
	}
	for name := range constants {
		out = append(out, name)
	}
	slices.Sort(out[len(out)-len(constants):])
	return append(out, functions...)
}

func (r *rewriter) call(n *ast.Node, v *ast.CallNode) {
	callee, ok := v.Callee.(*ast.IdentifierNode)
	if !ok {
		r.rewrite(&v.Callee)
		r.all(v.Arguments)
		return
	}
	switch callee.Value {
	case "header":
		r.header(n, v)
	case "days", "hours":
		r.all(v.Arguments)
		unit := time.Hour
		if callee.Value == "days" {
			unit *= 24
		}
		if len(v.Arguments) == 1 {
			switch a := v.Arguments[0].(type) {
			case *ast.IntegerNode:
				ast.Patch(n, &ast.ConstantNode{Value: time.Duration(a.Value) * unit})
				return
			case *ast.FloatNode:
				ast.Patch(n, &ast.ConstantNode{Value: time.Duration(a.Value * float64(unit))})
				return
			}
		}
		r.fail(v, "", "%s() takes a number, as in %s(30)", callee.Value, callee.Value)
	case "address":
		r.fail(v, "", `address() is no function: write "a@example.com" in from_address`)
	default:
		r.fail(callee, spec.Nearest(callee.Value, append(functions, "lower", "upper", "trim", "len", "any", "all", "none", "one", "count", "filter", "map", "split", "replace", "int", "float", "string")), "unknown function %s()", callee.Value)
	}
}

func (r *rewriter) header(n *ast.Node, v *ast.CallNode) {
	if len(v.Arguments) == 1 {
		if name, ok := v.Arguments[0].(*ast.StringNode); ok && headerName(name.Value) {
			ast.Patch(n, &ast.IdentifierNode{Value: headerField(name.Value)})
			return
		}
	}
	r.fail(v, "", `header() takes the name of a header in quotes, as in header("X-Spam-Flag")`)
}

func headerName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == ':' || c > '~' })
}

// headerField is the name under which a header's text is kept.
func headerField(name string) string { return "header:" + strings.ToLower(name) }

func (r *rewriter) builtin(n *ast.Node, v *ast.BuiltinNode) {
	switch v.Name {
	case "now":
		if len(v.Arguments) > 0 {
			r.fail(v, "", "now() takes nothing")
			return
		}
		ast.Patch(n, &ast.IdentifierNode{Value: nowName})
	case "date":
		if len(v.Arguments) == 1 {
			if text, ok := v.Arguments[0].(*ast.StringNode); ok {
				t, err := ParseDate(text.Value, r.opts.Location)
				if err != nil {
					r.fail(text, "", "%v", err)
					return
				}
				ast.Patch(n, &ast.ConstantNode{Value: t})
				return
			}
		}
		r.fail(v, "", `date() takes a date in quotes, as in date("2024-01-31")`)
	case "keys", "values", "toPairs", "timezone":
		// The order of a map's keys differs from run to run (I2).
		r.fail(v, "", "%s() isn't available here", v.Name)
	default:
		r.all(v.Arguments)
	}
}

// ParseDate reads a date, with or without a time of day, in loc; nil is UTC.
func ParseDate(text string, loc *time.Location) (time.Time, error) {
	if loc == nil {
		loc = time.UTC
	}
	for _, layout := range []string{time.DateOnly, "2006-01-02 15:04", time.DateTime, "2006-01-02T15:04:05", time.RFC3339Nano} {
		if t, err := time.ParseInLocation(layout, text, loc); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no date: expected one as in 2024-01-31, 2024-01-31 18:30 or 2024-01-31T18:30:00+01:00", text)
}

func (r *rewriter) member(n *ast.Node, v *ast.MemberNode) {
	if id, ok := v.Node.(*ast.IdentifierNode); ok && id.Value == "vars" && !r.locals["vars"] {
		name, ok := v.Property.(*ast.StringNode)
		if !ok {
			r.fail(v, "", "vars is read by name: vars.NAME")
			return
		}
		if r.opts.Vars != nil && !slices.Contains(r.opts.Vars, name.Value) {
			r.fail(v, spec.Nearest(name.Value, r.opts.Vars), "no source or stage gives the variable %s", name.Value)
			return
		}
		ast.Patch(n, &ast.IdentifierNode{Value: varField(name.Value)})
		return
	}
	r.rewrite(&v.Node)
	r.rewrite(&v.Property)
}

func varField(name string) string { return "vars." + name }

// in gives `in` the meaning that a reader expects of lists: one of these is
// one of those; and lets addresses differ in case.
func (r *rewriter) in(n *ast.Node, v *ast.BinaryNode) {
	if left := r.list(v.Left); left != nil {
		ast.Patch(n, &ast.CallNode{Callee: &ast.IdentifierNode{Value: overlapFunc}, Arguments: []ast.Node{v.Left, v.Right}})
	} else if right := r.list(v.Right); right != nil && strings.HasSuffix(right.Name, "_address") {
		ast.Patch(n, &ast.CallNode{Callee: &ast.IdentifierNode{Value: hasFunc}, Arguments: []ast.Node{v.Right, v.Left}})
	}
}

func (r *rewriter) list(n ast.Node) *Field {
	if id, ok := n.(*ast.IdentifierNode); ok && !r.locals[id.Value] {
		if f := r.fields[id.Value]; f != nil && f.Type == "list" {
			return f
		}
	}
	return nil
}
