package config

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"strings"
	"time"
)

// execTimeout bounds a ${exec:…}: a password manager that waits for a person
// would hold a nightly run for ever.
const execTimeout = 30 * time.Second

// Values is where ${…} gets its values from.
type Values struct {
	LookupEnv func(name string) (string, bool)
	ReadFile  func(path string) ([]byte, error)
	// Exec runs a command, without a shell, and returns what it printed.
	Exec func(ctx context.Context, argv []string) ([]byte, error)
	Row  map[string]string // the columns of the row of a foreach; nil where there is none
	// Shard is what ${shard} stands for: as in "0-of-3", empty in a run of all
	// accounts.
	Shard string
	// ReadStore and WriteStore are the place of secrets that are renewed:
	// ${store:NAME}. One that isn't there yet is empty.
	ReadStore  func(name string) (string, error)
	WriteStore func(name, value string) error
}

// System returns the values of this process: its environment, files, commands.
func System() Values {
	return Values{LookupEnv: os.LookupEnv, ReadFile: os.ReadFile, Exec: func(ctx context.Context, argv []string) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, execTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.WaitDelay = time.Second
		out, err := cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			first, _, _ := strings.Cut(strings.TrimSpace(string(exit.Stderr)), "\n")
			return nil, fmt.Errorf("%w: %.200s", err, first)
		}
		return out, err
	}}
}

// template is a text with references: literals and ${…} in turn.
type template []part

type part struct {
	literal string
	ref     *reference
}

// reference is one ${kind:argument}.
type reference struct {
	kind   string   // "env", "file", "exec", "row", "store", "shard"
	name   string   // env, row
	path   template // file; store: the name
	words  []template
	preset *template // env, row and shard: after :-
	source string    // as it was written, for errors
}

// parseTemplate reads the references of a text. `$${` stands for a plain `${`,
// any other $ for itself. References may stand within the arguments of file
// and exec and within the default of env: the inner ones come first.
func parseTemplate(s string) (template, error) {
	p := &templateParser{s: s}
	t, err := p.parse("")
	if err != nil {
		return nil, err
	}
	return t, nil
}

// constant reports whether there is nothing to evaluate, and the text then.
func (t template) constant() (string, bool) {
	var b strings.Builder
	for _, p := range t {
		if p.ref != nil {
			return "", false
		}
		b.WriteString(p.literal)
	}
	return b.String(), true
}

// references yields every reference of the template, those within others too.
func (t template) references() iter.Seq[*reference] {
	return func(yield func(*reference) bool) { t.each(yield) }
}

func (t template) each(yield func(*reference) bool) bool {
	for _, p := range t {
		if p.ref == nil {
			continue
		}
		if !yield(p.ref) || !p.ref.path.each(yield) || p.ref.preset != nil && !p.ref.preset.each(yield) {
			return false
		}
		for _, w := range p.ref.words {
			if !w.each(yield) {
				return false
			}
		}
	}
	return true
}

// only reports whether all references of the template are of that kind.
func (t template) only(kind string) bool {
	for ref := range t.references() {
		if ref.kind != kind {
			return false
		}
	}
	return true
}

// has reports whether a reference of the template is of that kind.
func (t template) has(kind string) bool {
	for ref := range t.references() {
		if ref.kind == kind {
			return true
		}
	}
	return false
}

// unset returns an error when a variable isn't set that the template will need.
func (t template) unset(v Values) error {
	for _, p := range t {
		if p.ref == nil {
			continue
		}
		if p.ref.kind == "env" {
			if _, ok := v.LookupEnv(p.ref.name); !ok && p.ref.preset == nil {
				return p.ref.notSet()
			}
		}
		for _, inner := range append([]template{p.ref.path}, p.ref.words...) {
			if err := inner.unset(v); err != nil {
				return err
			}
		}
	}
	return nil
}

type templateParser struct {
	s     string
	i     int
	depth int
}

// parse reads until one of the bytes in stop, or the end.
func (p *templateParser) parse(stop string) (template, error) {
	if p.depth++; p.depth > 8 {
		return nil, errors.New("more than 8 ${…} within each other")
	}
	defer func() { p.depth-- }()
	var t template
	var lit strings.Builder
	flush := func() {
		if lit.Len() > 0 {
			t = append(t, part{literal: lit.String()})
			lit.Reset()
		}
	}
	for p.i < len(p.s) && !strings.ContainsRune(stop, rune(p.s[p.i])) {
		rest := p.s[p.i:]
		switch {
		case strings.HasPrefix(rest, "$${"):
			lit.WriteString("${")
			p.i += 3
		case strings.HasPrefix(rest, "${"):
			flush()
			ref, err := p.reference()
			if err != nil {
				return nil, err
			}
			t = append(t, part{ref: ref})
		default:
			lit.WriteByte(p.s[p.i])
			p.i++
		}
	}
	flush()
	return t, nil
}

func (p *templateParser) reference() (*reference, error) {
	start := p.i
	p.i += 2
	kind, _, ok := strings.Cut(p.s[p.i:], ":")
	if !ok || strings.Contains(kind, "}") {
		kind = ""
	}
	if alone, _, _ := strings.Cut(p.s[p.i:], "}"); alone == "shard" || strings.HasPrefix(alone, "shard:") {
		kind = "shard"
	}
	ref := &reference{kind: kind}
	p.i += len(kind)
	var err error
	if kind == "shard" {
		err = p.preset(ref)
	} else {
		p.i++
	}
	switch kind {
	case "shard":
	case "env", "row":
		err = p.named(ref)
	case "file":
		ref.path, err = p.parse("}")
		if err == nil && len(ref.path) == 0 {
			err = errors.New("${file:} names no file")
		}
	case "store":
		ref.path, err = p.parse("}")
		if err == nil && len(ref.path) == 0 {
			err = errors.New("${store:} has no name")
		}
	case "exec":
		err = p.command(ref)
	default:
		return nil, fmt.Errorf("%q is no reference: expected ${env:NAME}, ${env:NAME:-default}, ${file:path}, ${exec:command}, ${row:COLUMN}, ${store:NAME} or ${shard}; write $${ for a plain ${", snippet(p.s[start:]))
	}
	if err != nil {
		return nil, err
	}
	if p.i >= len(p.s) || p.s[p.i] != '}' {
		return nil, fmt.Errorf("the } of %q is missing", snippet(p.s[start:]))
	}
	p.i++
	ref.source = p.s[start:p.i]
	return ref, nil
}

func (p *templateParser) named(ref *reference) error {
	start := p.i
	for p.i < len(p.s) && p.s[p.i] != '}' && p.s[p.i] != ':' {
		p.i++
	}
	ref.name = p.s[start:p.i]
	refused := "${ \t\n="
	if ref.kind == "row" {
		refused = "${\n" // a column's name may have spaces
	}
	if ref.name == "" || strings.ContainsAny(ref.name, refused) {
		return fmt.Errorf("${%s:%s}: expected a name", ref.kind, ref.name)
	}
	return p.preset(ref)
}

// preset reads the default behind :-, if there is one.
func (p *templateParser) preset(ref *reference) error {
	if !strings.HasPrefix(p.s[p.i:], ":") {
		return nil
	}
	if !strings.HasPrefix(p.s[p.i:], ":-") {
		words := ref.kind
		if ref.name != "" {
			words += ":" + ref.name
		}
		return fmt.Errorf("${%s: what follows the name isn't understood: a default is written ${%s:-default}", words, words)
	}
	p.i += 2
	preset, err := p.parse("}")
	ref.preset = &preset
	return err
}

// command splits a command into words before anything is put in: a value with
// spaces stays one word. Quotes hold words together; there is no shell.
func (p *templateParser) command(ref *reference) error {
	for p.i < len(p.s) && p.s[p.i] != '}' {
		if p.s[p.i] == ' ' {
			p.i++
			continue
		}
		var word template
		for p.i < len(p.s) && p.s[p.i] != ' ' && p.s[p.i] != '}' {
			stop := ` }'"`
			quote := p.s[p.i]
			if quote == '\'' || quote == '"' {
				p.i++
				stop = string(quote)
			}
			t, err := p.parse(stop)
			if err != nil {
				return err
			}
			word = append(word, t...)
			if quote == '\'' || quote == '"' {
				if p.i >= len(p.s) {
					return errors.New("a quote in ${exec:…} isn't closed")
				}
				p.i++
			}
		}
		ref.words = append(ref.words, word)
	}
	if len(ref.words) == 0 {
		return errors.New("${exec:} names no command")
	}
	return nil
}

func snippet(s string) string {
	if i := strings.IndexAny(s, " }\n"); i >= 0 {
		s = s[:i]
	}
	if len(s) > 40 {
		s = s[:40]
	}
	return s
}

// eval returns the text with all references in place. Errors name the
// references and never a value (I9).
func (t template) eval(ctx context.Context, v Values) (string, error) {
	if len(t) == 1 && t[0].ref == nil {
		return t[0].literal, nil
	}
	var b strings.Builder
	for _, p := range t {
		if p.ref == nil {
			b.WriteString(p.literal)
			continue
		}
		s, err := p.ref.eval(ctx, v)
		if err != nil {
			return "", err
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

func (r *reference) notSet() error {
	return fmt.Errorf("the environment variable %s isn't set: set it, or give a default as ${env:%s:-…}", r.name, r.name)
}

func (r *reference) eval(ctx context.Context, v Values) (string, error) {
	switch r.kind {
	case "env":
		if s, ok := v.LookupEnv(r.name); ok && (s != "" || r.preset == nil) {
			return s, nil
		}
		if r.preset != nil {
			return r.preset.eval(ctx, v)
		}
		return "", r.notSet()
	case "row":
		s, ok := v.Row[r.name]
		switch {
		case s == "" && r.preset != nil:
			return r.preset.eval(ctx, v)
		case !ok:
			return "", fmt.Errorf("there is no column %s", r.name)
		}
		return s, nil
	case "shard":
		if v.Shard == "" && r.preset != nil {
			return r.preset.eval(ctx, v)
		}
		return v.Shard, nil
	case "file":
		path, err := r.path.eval(ctx, v)
		if err != nil {
			return "", err
		}
		b, err := v.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read the file of %s: %w", r.source, cause(err))
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	case "store":
		name, err := r.path.eval(ctx, v)
		if err != nil {
			return "", err
		}
		if v.ReadStore == nil {
			return "", fmt.Errorf("%s: there is no state directory here to read it from", r.source)
		}
		return v.ReadStore(name)
	default:
		argv := make([]string, len(r.words))
		for i, w := range r.words {
			var err error
			if argv[i], err = w.eval(ctx, v); err != nil {
				return "", err
			}
		}
		b, err := v.Exec(ctx, argv)
		if err != nil {
			return "", fmt.Errorf("run the command of %s: %w", r.source, err)
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
}

// store returns the function that keeps a new value of the text; nil when the
// text isn't one ${store:NAME} and nothing else.
func (t template) store(v Values) func(ctx context.Context, value string) error {
	if len(t) != 1 || t[0].ref == nil || t[0].ref.kind != "store" || v.WriteStore == nil {
		return nil
	}
	return func(ctx context.Context, value string) error {
		name, err := t[0].ref.path.eval(ctx, v)
		if err != nil {
			return err
		}
		return v.WriteStore(name, value)
	}
}

// cause leaves the path out of a file error: it may hold a value that was put
// in.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
