// Package expression compiles and judges the expressions of the file: filters
// and the routing of sinks. An expression reads the documented fields of a
// message; which ones it reads says what must be known of a message to judge
// it, and so what a source is asked for.
package expression

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/optimizer"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"

	"github.com/mailhaul/pipeline/pkg/message"
)

// maxNodes bounds what an expression may be made of.
const maxNodes = 2000

// Options say how an expression is read.
type Options struct {
	Location *time.Location // of date("…"); nil is UTC
	Vars     []string       // the variables that exist; nil: any name is taken
	Negate   bool           // the program is true where the expression is false
}

// Program is a compiled expression. It is safe for concurrent use.
type Program struct {
	// Terms are the parts of the top-level &&, cheapest first: a message that
	// a cheap one refuses needs no dear one.
	Terms []*Term

	text     string
	location string
	negate   bool
}

// Term is one part of the top-level && of an expression. It is safe for
// concurrent use.
type Term struct {
	needs  message.Needs
	inputs []*Field // what it reads, now() left out
	now    bool
	logic  *logic

	compare *comparison // nil: no server can be asked
	equal   *equality   // nil: it compares no text with a constant
}

// logic is a term's tree of and, or and not, with programs at its leaves. It
// is kept apart from the library's programs so that an absent value spreads as
// "undecided" does: undecided || true is true, whatever the order (Kleene).
type logic struct {
	op     string // "&&", "||", "!", or "" at a leaf
	kids   []*logic
	run    *vm.Program
	inputs []int // at a leaf: indices into Term.inputs
}

// Compile reads an expression. All errors that can be found at once are
// joined; each is an *Error.
func Compile(text string, opts Options) (*Program, error) {
	if strings.TrimSpace(text) == "" {
		return nil, &Error{Line: 1, Column: 1, Text: "the expression is empty"}
	}
	parsing := conf.CreateNew()
	parsing.MaxNodes = maxNodes
	tree, err := parser.ParseWithConfig(text, parsing)
	if err != nil {
		return nil, syntaxError(text, err)
	}
	r := &rewriter{text: text, opts: opts, fields: map[string]*Field{}, locals: map[string]bool{}}
	for _, f := range Fields() {
		r.fields[f.Name] = &f
	}
	ast.Walk(&tree.Node, locate{r})
	r.rewrite(&tree.Node)
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}

	p := &Program{text: text, location: "UTC", negate: opts.Negate}
	if opts.Location != nil {
		p.location = opts.Location.String()
	}
	c := newCompiler(text, tree, r.fields)
	// A negated || is an && of negations: it splits as well.
	op := "&&"
	if opts.Negate {
		op = "||"
	}
	for _, n := range split(tree.Node, op) {
		t := &Term{compare: comparisonOf(n, opts.Negate), equal: equalityOf(n, opts.Negate)} // before the optimizer changes the tree
		t.logic = c.logic(n, t)
		if opts.Negate {
			t.logic = &logic{op: "!", kids: []*logic{t.logic}}
		}
		t.now = c.readsNow
		c.readsNow = false
		p.Terms = append(p.Terms, t)
	}
	if len(c.errs) > 0 {
		return nil, errors.Join(c.errs...)
	}
	slices.SortStableFunc(p.Terms, func(a, b *Term) int { return cmp.Compare(a.needs, b.needs) })
	return p, nil
}

// unit is what stands where an operator was expected, as in `100 KB`.
var unit = regexp.MustCompile(`^unexpected token [A-Za-z]+\("([KMG]B)"\)$`)

var unexpected = regexp.MustCompile(`^unexpected token [A-Za-z]+\("(.*)"\)$`)

func syntaxError(text string, err error) error {
	var f *file.Error
	if !errors.As(err, &f) {
		return &Error{Line: 1, Column: 1, Text: plain(err.Error())}
	}
	line, column := position(text, f.From)
	e := &Error{Line: line, Column: column, Text: plain(f.Message)}
	switch {
	case strings.Contains(e.Text, `Operator("=")`):
		e.Text = "a single = compares nothing: write =="
	case unit.MatchString(e.Text):
		e.Text = unit.ReplaceAllString(e.Text, "a size is a product: write it as in 100 * $1")
	case unexpected.MatchString(e.Text):
		e.Text = unexpected.ReplaceAllString(e.Text, `unexpected "$1"`) + "; text stands in quotes, conditions are joined with && and ||"
	case strings.Contains(e.Text, `unknown operator`) || strings.Contains(e.Text, "unrecognized character"):
		e.Text += "; text stands in quotes, conditions are joined with && and ||"
	}
	return e
}

// split returns the operands of a run of one operator, left to right.
func split(n ast.Node, op string) []ast.Node {
	if b, ok := n.(*ast.BinaryNode); ok && operator(b.Operator) == op {
		return append(split(b.Left, op), split(b.Right, op)...)
	}
	return []ast.Node{n}
}

func operator(op string) string {
	switch op {
	case "and":
		return "&&"
	case "or":
		return "||"
	case "not":
		return "!"
	default:
		return op
	}
}

type termCompiler struct {
	text     string
	tree     *parser.Tree
	fields   map[string]*Field
	config   *conf.Config
	errs     []error
	readsNow bool
}

func newCompiler(text string, tree *parser.Tree, fields map[string]*Field) *termCompiler {
	env := types.Map{nowName: types.TypeOf(time.Time{})}
	for name, f := range fields {
		env[name] = types.TypeOf(f.zero())
	}
	names := &inputs{}
	ast.Walk(&tree.Node, names)
	c := &termCompiler{text: text, tree: tree, fields: fields}
	for _, name := range names.list {
		if f := userField(name); f != nil {
			fields[name] = f
			env[name] = types.String
		}
	}
	c.config = conf.New(env)
	c.config.Expect = reflect.Bool
	c.config.Functions[overlapFunc] = &builtin.Function{Name: "in", Func: overlap, Types: []reflect.Type{reflect.TypeFor[func([]string, []any) bool](), reflect.TypeFor[func([]string, []string) bool]()}}
	c.config.Functions[hasFunc] = &builtin.Function{Name: "in", Func: has, Types: []reflect.Type{reflect.TypeFor[func([]string, string) bool]()}}
	return c
}

// overlap reports whether one of the first list is one of the second, in any
// case: addresses, flags and labels compare so.
func overlap(params ...any) (any, error) {
	left, _ := params[0].([]string)
	switch right := params[1].(type) {
	case []string:
		for _, s := range right {
			if contains(left, s) {
				return true, nil
			}
		}
	case []any:
		for _, v := range right {
			if s, ok := v.(string); ok && contains(left, s) {
				return true, nil
			}
		}
	case map[string]struct{}: // what the optimizer makes of a list of constants
		for s := range right {
			if contains(left, s) {
				return true, nil
			}
		}
	}
	return false, nil
}

func has(params ...any) (any, error) {
	left, _ := params[0].([]string)
	s, _ := params[1].(string)
	return contains(left, s), nil
}

func contains(list []string, s string) bool {
	return slices.ContainsFunc(list, func(e string) bool { return strings.EqualFold(e, s) })
}

// userField returns the field of a name that the user chose, or nil.
func userField(name string) *Field {
	if header, ok := strings.CutPrefix(name, "header:"); ok {
		return &Field{Name: name, Type: "text", Needs: message.NeedHeaders, get: func(s *message.Summary) (any, bool) { return s.Header.Text(header), true }}
	}
	if v, ok := strings.CutPrefix(name, "vars."); ok {
		return &Field{Name: name, Type: "text", get: func(s *message.Summary) (any, bool) { return s.Vars[v], true }}
	}
	return nil
}

// inputs collects the names that a tree reads.
type inputs struct{ list []string }

func (in *inputs) Visit(n *ast.Node) {
	if id, ok := (*n).(*ast.IdentifierNode); ok && !slices.Contains(in.list, id.Value) {
		in.list = append(in.list, id.Value)
	}
}

func (c *termCompiler) logic(n ast.Node, t *Term) *logic {
	switch v := n.(type) {
	case *ast.BinaryNode:
		if op := operator(v.Operator); op == "&&" || op == "||" {
			l := &logic{op: op}
			for _, kid := range split(n, op) {
				l.kids = append(l.kids, c.logic(kid, t))
			}
			return l
		}
	case *ast.UnaryNode:
		if operator(v.Operator) == "!" {
			return &logic{op: "!", kids: []*logic{c.logic(v.Node, t)}}
		}
	}
	return c.leaf(n, t)
}

func (c *termCompiler) leaf(n ast.Node, t *Term) *logic {
	l := &logic{}
	names := &inputs{}
	ast.Walk(&n, names)
	for _, name := range names.list {
		if name == nowName {
			c.readsNow = true
			continue
		}
		f := c.fields[name]
		if f == nil {
			continue // a function, or a name made by let
		}
		i := slices.Index(t.inputs, f)
		if i < 0 {
			i = len(t.inputs)
			t.inputs = append(t.inputs, f)
			t.needs |= f.Needs
		}
		l.inputs = append(l.inputs, i)
	}
	tree := &parser.Tree{Node: n, Source: c.tree.Source}
	if _, err := checker.Check(tree, c.config); err != nil {
		c.fail(n, err)
		return l
	}
	// The optimizer loses the type of filter(…)[0], on which the compiler then
	// fails (expr 1.17.8).
	if ast.Find(tree.Node, isFilterCall) == nil {
		if err := optimizer.Optimize(&tree.Node, c.config); err != nil {
			c.fail(n, err)
			return l
		}
	}
	run, err := compiler.Compile(tree, c.config)
	if err != nil {
		c.fail(n, err)
		return l
	}
	l.run = run
	return l
}

func isFilterCall(n ast.Node) bool {
	b, ok := n.(*ast.BuiltinNode)
	return ok && b.Name == "filter"
}

func (c *termCompiler) fail(n ast.Node, err error) {
	var f *file.Error
	if errors.As(err, &f) {
		line, column := position(c.text, f.From)
		c.errs = append(c.errs, &Error{Line: line, Column: column, Text: friendly(f.Message)})
		return
	}
	line, column := position(c.text, n.Location().From)
	text := plain(err.Error())
	if got, ok := strings.CutPrefix(text, "expected bool, but got "); ok {
		text = fmt.Sprintf("a condition is true or false, this is %s: compare it with something", kindWord(got))
	}
	first, _, _ := strings.Cut(text, "\n")
	c.errs = append(c.errs, &Error{Line: line, Column: column, Text: first})
}

func kindWord(t string) string {
	switch t {
	case "string":
		return "a text"
	case "int", "float64":
		return "a number"
	default:
		return t
	}
}

// friendly adds what to write to the library's commonest complaints.
func friendly(text string) string {
	text = plain(text)
	switch {
	case strings.Contains(text, "mismatched types a time and string"):
		text += `; write date("2024-01-31")`
	case strings.Contains(text, "mismatched types int and string"):
		text += "; a number stands without quotes, as in 25 * MB"
	case strings.Contains(text, "mismatched types a list and string"):
		text += `; write "x" in LIST`
	}
	return text
}

// Text returns the expression as it was written.
func (p *Program) Text() string { return p.text }

// Needs returns what must be known of a message to judge it.
func (p *Program) Needs() message.Needs {
	var n message.Needs
	for _, t := range p.Terms {
		n |= t.needs
	}
	return n
}

// Fields returns the names of the values that are read, sorted.
func (p *Program) Fields() []string {
	var out []string
	for _, t := range p.Terms {
		out = append(out, t.Fields()...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ReadsNow reports whether the judgement depends on the time of the run.
func (p *Program) ReadsNow() bool {
	return slices.ContainsFunc(p.Terms, (*Term).ReadsNow)
}

// ReadsFlags reports whether it reads what changes on the server without the
// message changing: flags, keywords, labels (I8).
func (p *Program) ReadsFlags() bool {
	return slices.ContainsFunc(p.Terms, (*Term).ReadsFlags)
}

// Fingerprint is the same as long as the expression means the same.
func (p *Program) Fingerprint() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "expression 1\n%s\n%t\n%s", p.location, p.negate, p.text))
	return hex.EncodeToString(sum[:16])
}

// Needs returns what must be known of a message to judge the term.
func (t *Term) Needs() message.Needs { return t.needs }

// Fields returns the names of the values that the term reads, in the order of
// reading: field names, header:NAME in lower case, vars.NAME.
func (t *Term) Fields() []string {
	out := make([]string, len(t.inputs))
	for i, f := range t.inputs {
		out[i] = f.Name
	}
	return out
}

// ReadsNow reports whether the term calls now().
func (t *Term) ReadsNow() bool { return t.now }

// ReadsFlags reports whether the term reads flags, keywords or labels.
func (t *Term) ReadsFlags() bool {
	return t.needs&message.NeedFlags != 0 || slices.ContainsFunc(t.inputs, func(f *Field) bool { return f.Name == "gmail_labels" })
}
