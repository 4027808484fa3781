package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

const (
	// maxNodes bounds a file with all aliases expanded: a few lines of YAML can
	// stand for billions of values.
	maxNodes   = 1_000_000
	maxAliased = 200_000 // of them within aliases
	maxDepth   = 50
)

// kind is what a node is, in JSON's terms.
type kind int

const (
	mapping kind = iota + 1
	list
	text
	number
	boolean
	nothing // refused, but kept so that the rest can be checked
)

func (k kind) String() string {
	return [...]string{"", "a mapping", "a list", "a text", "a number", "true or false", "nothing"}[k]
}

// node is a YAML value with its place, aliases and merges expanded, doubled
// keys refused.
type node struct {
	kind         kind
	line, column int
	value        string // of a scalar: the text; a number as JSON has it
	plain        bool   // a scalar without quotes
	block        bool   // a scalar written with | or >
	quoted       bool
	comment      bool // a comment follows on the line
	stuck        bool // and begins with # and no space: it may be meant as text
	members      []member
	items        []*node
}

type member struct {
	name         string
	line, column int
	node         *node
}

func (n *node) get(name string) *node {
	if n == nil {
		return nil
	}
	for _, m := range n.members {
		if m.name == name {
			return m.node
		}
	}
	return nil
}

// reader turns YAML into nodes and collects what is wrong with it.
type reader struct {
	file     string
	problems Problems
	budget   int
	aliased  int // how much is left of maxAliased
	inAlias  int // how deep in aliases
	over     bool
}

func (r *reader) fail(line, column int, key, format string, args ...any) {
	r.problems = append(r.problems, Problem{r.file, line, column, key, fmt.Sprintf(format, args...)})
}

// read parses one YAML document. The node is nil when nothing could be read.
func (r *reader) read(data []byte) *node {
	if i := bytes.IndexByte(data, '\t'); i >= 0 && onlySpace(data[bytes.LastIndexByte(data[:i], '\n')+1:i]) {
		r.fail(1+bytes.Count(data[:i], []byte("\n")), 1, "", "YAML is indented with spaces, here is a tab")
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		r.fail(1, 1, "", "the file is empty: expected at least version, sources and sinks")
		return nil
	case err != nil:
		r.syntax(data, err)
		return nil
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		r.fail(second.Line, second.Column, "", "a second document begins here: expected one; put it in a file of its own")
	} else if !errors.Is(err, io.EOF) {
		r.syntax(data, err)
	}
	if len(doc.Content) == 0 {
		r.fail(1, 1, "", "the file is empty: expected at least version, sources and sinks")
		return nil
	}
	r.budget, r.aliased = maxNodes, maxAliased
	return r.convert(doc.Content[0], "", 0)
}

func onlySpace(b []byte) bool { return len(bytes.TrimLeft(b, " \t")) == 0 }

var atLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

func (r *reader) syntax(data []byte, err error) {
	line, words := 0, err.Error()
	if m := atLine.FindStringSubmatch(words); m != nil {
		line, _ = strconv.Atoi(m[1])
		words = m[2]
	}
	// The library counts from 0 in some messages and points behind the
	// trouble in others: the line is the best it knows.
	hint := ""
	switch {
	case strings.Contains(words, "mapping values are not allowed"):
		hint = `; a text that contains ": " stands in quotes: '…'`
	case strings.Contains(words, "alphabetic or numeric character"):
		hint = `; a text that begins with * or & stands in quotes: "**"`
	case strings.Contains(words, "cannot start any token"):
		hint = "; a text that begins with @, %, ` or a tab stands in quotes"
	case strings.Contains(words, "did not find expected"):
		hint = "; look at the indentation and the quotes of this line and those above"
	case strings.Contains(words, "unknown anchor"):
		hint = `; a text that begins with * stands in quotes: "*"`
	}
	if line > 1+bytes.Count(data, []byte("\n")) {
		line = 0
	}
	r.fail(line, 0, "", "this isn't YAML: %s%s", words, hint)
}

var jsonInt = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

func (r *reader) convert(y *yaml.Node, key string, depth int) *node {
	if r.over {
		return nil
	}
	if r.inAlias > 0 {
		r.aliased--
	}
	if r.budget--; r.budget < 0 || r.aliased < 0 || depth > maxDepth {
		r.over = true
		what := fmt.Sprintf("more than %d values, or more than %d where aliases stand for them", maxNodes, maxAliased)
		if depth > maxDepth {
			what = fmt.Sprintf("more than %d levels of nesting, or an alias within itself", maxDepth)
		}
		r.fail(y.Line, y.Column, key, "the file has %s", what)
		return nil
	}
	n := &node{line: y.Line, column: y.Column, comment: y.LineComment != "", stuck: len(y.LineComment) > 1 && y.LineComment[1] != ' ' && y.LineComment[1] != '#',
		plain: y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0,
		block: y.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0, quoted: y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0}
	switch y.Kind {
	case yaml.AliasNode:
		r.inAlias++
		c := r.convert(y.Alias, key, depth+1)
		r.inAlias--
		if c != nil {
			// The place of the alias is what the user looks at.
			c.line, c.column = y.Line, y.Column
		}
		return c
	case yaml.MappingNode:
		n.kind = mapping
		r.mapping(n, y, key, depth)
	case yaml.SequenceNode:
		n.kind = list
		for i, item := range y.Content {
			c := r.convert(item, key+"["+strconv.Itoa(i)+"]", depth+1)
			if c == nil {
				return nil
			}
			n.items = append(n.items, c)
		}
	default:
		r.scalar(n, y, key)
	}
	if y.Style&yaml.TaggedStyle != 0 {
		r.fail(y.Line, y.Column, key, "%s is read as a YAML tag: put the whole value in quotes", y.Tag)
	}
	return n
}

func (r *reader) mapping(n *node, y *yaml.Node, key string, depth int) {
	var merged []*node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		if k.ShortTag() == "!!merge" {
			m := r.convert(v, key, depth+1)
			if m == nil {
				return
			}
			switch m.kind {
			case mapping:
				merged = append(merged, m)
			case list:
				merged = append(merged, m.items...)
			default:
				r.fail(v.Line, v.Column, key, "<< merges a mapping, found %s", m.kind)
			}
			continue
		}
		name := k.Value
		if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
			r.fail(k.Line, k.Column, key, "a key is a text: put it in quotes")
			if k.Kind != yaml.ScalarNode {
				continue
			}
		}
		at := joinKey(key, name)
		if first := n.get(name); first != nil {
			r.fail(k.Line, k.Column, at, "this key stands there already, in line %d", first.line)
			continue
		}
		c := r.convert(v, at, depth+1)
		if c == nil {
			return
		}
		n.members = append(n.members, member{name, k.Line, k.Column, c})
	}
	for _, m := range merged {
		for _, mm := range m.members {
			if n.get(mm.name) == nil {
				n.members = append(n.members, mm)
			}
		}
	}
}

func (r *reader) scalar(n *node, y *yaml.Node, key string) {
	n.kind, n.value = text, y.Value
	if !n.plain || y.Style&yaml.TaggedStyle != 0 {
		return
	}
	switch y.ShortTag() {
	case "!!null":
		n.kind = nothing
		r.fail(y.Line, y.Column, key, "nothing stands here: give a value, or leave it out")
	case "!!bool":
		n.kind, n.value = boolean, strings.ToLower(y.Value)
	case "!!int":
		n.kind = number
		if !jsonInt.MatchString(y.Value) {
			r.fail(y.Line, y.Column, key, "%s isn't a plain number (octal? hexadecimal?): write it in decimal without leading zeros, or in quotes if it is a text", y.Value)
			n.value = "0"
		}
	case "!!float":
		n.kind = number
		f, err := strconv.ParseFloat(y.Value, 64)
		if err != nil || f != f || f > 1e308 || f < -1e308 {
			r.fail(y.Line, y.Column, key, "%s isn't a plain number: write it in decimal, or in quotes if it is a text", y.Value)
			f = 0
		}
		n.value = strconv.FormatFloat(f, 'g', -1, 64)
		if jsonInt.MatchString(y.Value) {
			n.value = y.Value
		}
	}
}

func joinKey(base, name string) string {
	if base == "" {
		return name
	}
	return base + "." + name
}

// locate walks the path of a key as package spec writes it. It returns the
// deepest node on the way and the place to point at; whole reports whether
// the path was walked to its end. Keys may contain dots: the longest wins.
func (n *node) locate(key string) (found *node, line, column int, whole bool) {
	line, column = n.line, n.column
	keyLine, keyColumn := line, column
	for key != "" {
		key = strings.TrimPrefix(key, ".")
		var next *node
		rest := ""
		if n.kind == list {
			end := strings.IndexByte(key, ']')
			i, err := strconv.Atoi(strings.TrimPrefix(key[:max(end, 0)], "["))
			if err != nil || i < 0 || i >= len(n.items) {
				return n, line, column, false
			}
			next, rest = n.items[i], key[end+1:]
			keyLine, keyColumn = next.line, next.column
		} else {
			longest := -1
			for _, m := range n.members {
				if tail, ok := strings.CutPrefix(key, m.name); ok && len(m.name) > longest && (tail == "" || tail[0] == '.' || tail[0] == '[') {
					next, rest, longest = m.node, tail, len(m.name)
					keyLine, keyColumn = m.line, m.column
				}
			}
			if next == nil {
				return n, keyLine, keyColumn, false
			}
		}
		n, key = next, rest
		line, column = n.line, n.column
	}
	return n, line, column, true
}

// keyPlace returns where the name of a key stands.
func (n *node) keyPlace(key string) (line, column int) {
	if i := strings.LastIndexAny(key, "."); i >= 0 {
		for ; i >= 0; i = strings.LastIndexByte(key[:i], '.') {
			if parent, _, _, ok := n.locate(key[:i]); ok {
				for _, m := range parent.members {
					if m.name == key[i+1:] {
						return m.line, m.column
					}
				}
			}
		}
	}
	for _, m := range n.members {
		if m.name == key {
			return m.line, m.column
		}
	}
	_, line, column, _ = n.locate(key)
	return line, column
}

// json writes the node as JSON. What write writes, if it isn't nil, it answers
// with true; it must not keep path.
func (n *node) json(b *bytes.Buffer, path []string, write func(b *bytes.Buffer, n *node, path []string) bool) {
	if write != nil && write(b, n, path) {
		return
	}
	switch n.kind {
	case mapping:
		b.WriteByte('{')
		for i, m := range n.members {
			if i > 0 {
				b.WriteByte(',')
			}
			quote(b, m.name)
			b.WriteByte(':')
			m.node.json(b, append(path, m.name), write)
		}
		b.WriteByte('}')
	case list:
		b.WriteByte('[')
		for i, item := range n.items {
			if i > 0 {
				b.WriteByte(',')
			}
			item.json(b, append(path, strconv.Itoa(i)), write)
		}
		b.WriteByte(']')
	case text:
		quote(b, n.value)
	case nothing:
		b.WriteString("null")
	default:
		b.WriteString(n.value)
	}
}
