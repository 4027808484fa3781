package config

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// PluginConfig is the config of one source or sink: YAML that only its plugin
// understands. It doesn't change and is safe for concurrent use.
type PluginConfig struct {
	file string
	base string // path of the key config, as in "sources[0].config"
	node *node

	absent bool // the file has no such key, or has it under a wrong name

	pattern *PluginConfig     // as the file has it, of one that a row made
	row     string            // where that row stands; "" without one
	cells   map[string]string // of the row
}

// ofRow returns the config for a row of a table.
func (c *PluginConfig) ofRow(at string, cells map[string]string) *PluginConfig {
	made := *c
	made.pattern, made.row, made.cells = c, at, cells
	return &made
}

// Pattern returns the config as it stands in the file, the same for all rows
// of a table; of one that no row made, itself.
func (c *PluginConfig) Pattern() *PluginConfig {
	if c.pattern != nil {
		return c.pattern
	}
	return c
}

// Absent reports whether the file has no config at this place.
func (c *PluginConfig) Absent() bool { return c.absent }

// Constant returns the text of a key that has no reference in it; false for any
// other.
func (c *PluginConfig) Constant(key string) (string, bool) {
	n := c.node.get(key)
	if n == nil || n.kind != text {
		return "", false
	}
	t, err := parseTemplate(n.value)
	if err != nil {
		return "", false
	}
	return t.constant()
}

// Secret gives the value of a secret as it is now. Errors name the reference,
// the key and the place, never a value.
type Secret func(ctx context.Context) (string, error)

// Store keeps a new value of a secret in its place. It is durable when Store
// returns.
type Store func(ctx context.Context, value string) error

// Resolved is a plugin's config as it goes over the wire.
type Resolved struct {
	JSON        []byte            // secrets stand as {"$secret": ref}
	Secrets     map[string]Secret // by ref: the path of the key within the config, made unique
	Stores      map[string]Store  // by ref: of those secrets that stand as ${store:NAME}
	Fingerprint string            // the same as long as JSON means the same; no secret is in it (I9)
}

// Check is CheckWith for a schema that is used once. One that can't be read is
// a fault.Bug.
func (c *PluginConfig) Check(schemaJSON []byte) error {
	s, err := ParseSchema(schemaJSON)
	if err != nil {
		return err
	}
	return c.CheckWith(s)
}

// Resolve is ResolveWith for a schema that is used once. One that can't be
// read is a fault.Bug.
func (c *PluginConfig) Resolve(ctx context.Context, schemaJSON []byte, v Values) (*Resolved, error) {
	s, err := ParseSchema(schemaJSON)
	if err != nil {
		return nil, err
	}
	return c.ResolveWith(ctx, s, v)
}

// CheckWith checks the config against its plugin's JSON Schema, offline: nothing
// is evaluated, and what a reference will give is taken as right, but for
// references to a row: those are known. The error is Problems.
func (c *PluginConfig) CheckWith(s *PluginSchema) error {
	var b bytes.Buffer
	var known func(path []string) bool
	var put func(b *bytes.Buffer, n *node, path []string) bool
	if c.row != "" {
		from := map[string]bool{} // paths of what the row gives
		known = func(path []string) bool { return from[strings.Join(path, "\x00")] }
		put = func(b *bytes.Buffer, n *node, path []string) bool {
			if n.kind != text || !strings.Contains(n.value, "${") {
				return false
			}
			t, err := parseTemplate(n.value)
			if err != nil || !t.only("row") {
				return false
			}
			value, err := t.eval(context.Background(), Values{Row: c.cells})
			if err != nil {
				return false // the pattern's mistake
			}
			from[strings.Join(path, "\x00")] = true
			writeTyped(b, s, path, value, n.plain)
			return true
		}
	}
	c.node.json(&b, nil, put)
	list, err := s.check(b.Bytes(), known)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(f found) bool {
		return !f.missing && f.unknown == "" && c.open(f.path) && (known == nil || !known(f.path))
	})
	return c.problems(list)
}

// open reports whether the value at a path has a reference in it.
func (c *PluginConfig) open(path []string) bool {
	n := c.node
	for _, step := range path {
		next := n.get(step)
		if n.kind == list {
			if i, err := strconv.Atoi(step); err == nil && i < len(n.items) {
				next = n.items[i]
			}
		}
		if next == nil {
			return false
		}
		n = next
	}
	if n.kind != text {
		return false
	}
	t, err := parseTemplate(n.value)
	if err != nil {
		return true // said already, when the file was read
	}
	_, constant := t.constant()
	return !constant
}

// ResolveWith evaluates the config's references and returns what goes to the
// plugin. Secrets stay references, evaluated whenever the plugin asks. The
// error is Problems: a variable that isn't set, a value that doesn't fit.
func (c *PluginConfig) ResolveWith(ctx context.Context, s *PluginSchema, v Values) (*Resolved, error) {
	v.Row = c.cells
	r := &Resolved{Secrets: map[string]Secret{}, Stores: map[string]Store{}}
	var problems Problems
	var b bytes.Buffer
	written := map[string][]byte{} // by path, what isn't as in the file
	c.node.json(&b, nil, func(b *bytes.Buffer, n *node, path []string) bool {
		if n.kind != text {
			return false
		}
		key, at := pathKey(c.node, path), strings.Join(path, "\x00")
		if s.secret(path) {
			ref := key
			for r.Secrets[ref] != nil { // "a.b" and b within a have one key
				ref += "'"
			}
			b.Write(spec.SecretJSON(ref))
			r.Secrets[ref] = c.secret(n, key, v)
			if t, err := parseTemplate(n.value); err == nil { // else said when it is asked for
				if keep := t.store(v); keep != nil {
					r.Stores[ref] = keep
				}
			}
			if err := unset(n.value, v); err != nil {
				problems = append(problems, c.problem(n.line, n.column, key, err.Error()))
			}
			written[at] = []byte(`"secret"`)
			return true
		}
		if !strings.Contains(n.value, "${") {
			return false
		}
		value, err := evalText(ctx, n, v)
		if err != nil {
			problems = append(problems, c.problem(n.line, n.column, key, err.Error()))
			value = ""
		}
		from := b.Len()
		writeTyped(b, s, path, value, n.plain)
		written[at] = bytes.Clone(b.Bytes()[from:])
		return true
	})
	if len(problems) > 0 {
		return nil, problems
	}
	r.JSON = b.Bytes()
	// A secret is checked as the text that it will be, whatever text.
	var checked bytes.Buffer
	c.node.json(&checked, nil, func(b *bytes.Buffer, _ *node, path []string) bool {
		w, ok := written[strings.Join(path, "\x00")]
		b.Write(w)
		return ok
	})
	list, err := s.check(checked.Bytes(), c.open)
	if err != nil {
		return nil, err
	}
	if err := c.problems(list); err != nil {
		return nil, err
	}
	if r.Fingerprint, err = fingerprint(r.JSON); err != nil {
		return nil, err
	}
	return r, nil
}

// unset returns an error when a text has a reference to an environment
// variable that isn't set. It evaluates nothing: a secret is only asked for
// when it is needed, but what can't come is told before anything starts.
func unset(text string, v Values) error {
	if !strings.Contains(text, "${env:") {
		return nil
	}
	t, err := parseTemplate(text)
	if err != nil {
		return err
	}
	return t.unset(v)
}

// Runs reports whether ResolveWith runs commands: a ${exec:} stands where no
// secret does.
func (c *PluginConfig) Runs(s *PluginSchema) bool {
	runs := false
	var b bytes.Buffer
	c.node.json(&b, nil, func(_ *bytes.Buffer, n *node, path []string) bool {
		if n.kind == text && strings.Contains(n.value, "${exec:") && !s.secret(path) {
			t, err := parseTemplate(n.value)
			runs = runs || err == nil && t.has("exec")
		}
		return false
	})
	return runs
}

// OfRow reports whether an error of ResolveWith or CheckWith is about what a
// row gives, and not about the file: then no other row has it.
func OfRow(err error) bool {
	var ps Problems
	return errors.As(err, &ps) && !slices.ContainsFunc(ps, func(p Problem) bool { return p.Line > 0 })
}

func evalText(ctx context.Context, n *node, v Values) (string, error) {
	t, err := parseTemplate(n.value)
	if err != nil {
		return "", err
	}
	return t.eval(ctx, v)
}

// writeTyped writes a value that a reference gave: as a number or a boolean
// where the schema wants one and the value stands without quotes.
func writeTyped(b *bytes.Buffer, s *PluginSchema, path []string, value string, plain bool) {
	if plain && !s.takes(path, "string") {
		_, notNumber := strconv.ParseFloat(value, 64)
		isNumber := notNumber == nil && json.Valid([]byte(value))
		switch {
		case isNumber && (s.takes(path, "integer") || s.takes(path, "number")),
			(value == "true" || value == "false") && s.takes(path, "boolean"):
			b.WriteString(value)
			return
		}
	}
	quote(b, value)
}

func (c *PluginConfig) secret(n *node, key string, v Values) Secret {
	return func(ctx context.Context) (string, error) {
		value, err := evalText(ctx, n, v)
		if err != nil {
			p := c.problem(n.line, n.column, key, err.Error())
			return "", &fault.Error{Class: fault.Config, Text: p.Error(), Key: p.Key, Err: err}
		}
		return value, nil
	}
}

// PlainSecrets returns a warning for each secret that stands in the file
// itself, where whoever reads the file reads it too.
func (c *PluginConfig) PlainSecrets(s *PluginSchema) Problems {
	var out Problems
	var b bytes.Buffer
	c.node.json(&b, nil, func(_ *bytes.Buffer, n *node, path []string) bool {
		if n.kind == text && s.secret(path) && !c.open(path) {
			out = append(out, c.problem(n.line, n.column, pathKey(c.node, path), "a secret stands in the file: write ${env:NAME}, ${file:path} or ${exec:command}"))
		}
		return false
	})
	return out
}

// Place puts a plugin's own complaint at its place in the file: err is what
// the plugin says of its config, with fault.Error.Key within it. What isn't
// about a key of this config is returned as it is.
func (c *PluginConfig) Place(err error) error {
	var out Problems
	var rest []error
	for _, e := range parts(err) {
		f := fault.As(e)
		if f == nil || f.Class != fault.Config {
			rest = append(rest, e)
			continue
		}
		_, line, column, _ := c.node.locate(f.Key)
		text := strings.TrimPrefix(f.Text, f.Key+": ")
		if f.Hint != "" {
			text += " (" + f.Hint + ")"
		}
		out = append(out, c.problem(line, column, f.Key, text))
	}
	if len(out) > 0 {
		rest = append(rest, out)
	}
	if len(rest) == 1 {
		return rest[0]
	}
	return errors.Join(rest...)
}

func parts(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range many.Unwrap() {
			out = append(out, parts(e)...)
		}
		return out
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

func (c *PluginConfig) problem(line, column int, key, text string) Problem {
	full := c.base
	if key != "" {
		full = c.base + "." + key
		if key[0] == '[' {
			full = c.base + key
		}
	}
	if n, _, _, whole := c.node.locate(key); c.row != "" && whole && strings.Contains(n.value, "${row:") {
		// The file has the column; the value is the row's.
		return Problem{c.row, 0, 0, full, text}
	}
	return Problem{c.file, line, column, full, text}
}

func (c *PluginConfig) problems(list []found) error {
	if len(list) == 0 {
		return nil
	}
	var out Problems
	for _, f := range list {
		key := pathKey(c.node, f.path)
		_, line, column, _ := c.node.locate(key)
		if f.unknown != "" {
			key = joinKey(key, f.unknown)
			line, column = c.node.keyPlace(key)
		}
		out = append(out, c.problem(line, column, key, f.text))
	}
	// The checker finds them in the order of a map.
	slices.SortFunc(out, func(a, b Problem) int { return strings.Compare(a.Key, b.Key) })
	out.Sort()
	return out
}

// pathKey writes a path of the checker as a key.
func pathKey(n *node, path []string) string {
	key := ""
	for _, step := range path {
		if n != nil && n.kind == list {
			key += "[" + step + "]"
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(n.items) {
				n = nil
				continue
			}
			n = n.items[i]
			continue
		}
		key = joinKey(key, step)
		n = n.get(step)
	}
	return key
}

// fingerprint hashes JSON with the keys of its mappings sorted.
func fingerprint(raw []byte) (string, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return "", fault.New(fault.Bug, "hash a config: %w", err)
	}
	sortedJSON, err := json.Marshal(v)
	if err != nil {
		return "", fault.New(fault.Bug, "hash a config: %w", err)
	}
	sum := sha256.Sum256(append([]byte("config 1\n"), sortedJSON...))
	return hex.EncodeToString(sum[:16]), nil
}

func quote(b *bytes.Buffer, s string) {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("a text that isn't one: %v", err)) // a string always marshals
	}
	b.Write(raw)
}

func sorted(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// Sort puts problems in the order of the file.
func (ps Problems) Sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
}
