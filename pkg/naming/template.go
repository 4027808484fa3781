// Package naming makes the names that file sinks give to messages: from a
// template, portable to every file system in use, unique, and the same every
// time for the same message (I2). It touches no disk.
package naming

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// Default is the template of file names, without the extension.
const Default = "{source}/{mailbox}/{date}-{uid}-{subject}-{hash}"

// The bounds of a name.
const (
	DefaultMaxPath = 240 // UTF-16 units of a whole name, the target's own path not counted
	MinMaxPath     = 64  // the least MaxPath that Parse takes
	MaxElement     = 200 // bytes of one element: ext4 and APFS take 255, encrypted file systems less
	maxLiterals    = 40  // bytes of literal text in the last element
	maxFields      = 16  // fields in the last element
)

// Options are what a sink's config adds to the template.
type Options struct {
	// Extension is put after the last element when the template doesn't end
	// in it, with its dot, as in ".eml". It may be empty.
	Extension string
	// MaxPath is the most UTF-16 units of a name; 0 means DefaultMaxPath.
	// What stands before the name, the target's own path, isn't counted: a
	// target that moves would change every name.
	MaxPath int
	// Fence is the number of the owner who writes, where several machines
	// share a target: it stands behind the hash. 0: none. MaxPath and
	// MaxElement don't count it: but for the fence, a name is what it is
	// without one.
	Fence uint64
}

// Template is a parsed template. It is immutable and safe for concurrent use.
type Template struct {
	text    string
	pieces  []piece
	needs   message.Needs
	maxPath int
	fence   string // behind the hash
}

// piece is a literal, a separator between elements, or a field.
type piece struct {
	field   field
	literal string // of a literal
	name    string // of vars.x: the x
	last    bool   // stands in the last element
}

type field int

const (
	literal field = iota
	separator
	hash
	source
	mailbox
	uid
	uidl
	date
	year
	month
	day
	internalDate
	subject
	from
	messageID
	vars
)

// fields are the words that a template may use.
var fields = [...]struct {
	name  string
	field field
	needs message.Needs
}{
	{"source", source, 0},
	{"mailbox", mailbox, 0},
	{"uid", uid, 0},
	{"uidl", uidl, 0},
	{"hash", hash, 0},
	{"date", date, message.NeedHeaders},
	{"year", year, message.NeedHeaders},
	{"month", month, message.NeedHeaders},
	{"day", day, message.NeedHeaders},
	{"internal_date", internalDate, message.NeedInternalDate},
	{"subject", subject, message.NeedHeaders},
	{"from", from, message.NeedHeaders},
	{"message_id", messageID, message.NeedHeaders},
}

// Parse reads a template: text with fields in braces, "/" between
// directories, "{{" and "}}" for braces. The levels of {mailbox} become
// directories. {hash} is put before the extension where the last element
// leaves it out. Errors are of class fault.Config, with the key name, and say the
// position.
func Parse(text string, opts Options) (*Template, error) {
	t, err := parse(text, opts)
	if err != nil {
		return nil, fault.As(err).WithKey("name")
	}
	return t, nil
}

func parse(text string, opts Options) (*Template, error) {
	t := &Template{text: text, maxPath: cmp.Or(opts.MaxPath, DefaultMaxPath), fence: fenceMark(opts.Fence)}
	if t.maxPath < MinMaxPath {
		return nil, fault.New(fault.Config, "a name of at most %d UTF-16 units is too short", t.maxPath).
			WithHint("set max_path to %d or more", MinMaxPath)
	}
	if opts.Extension != "" && !strings.HasSuffix(text, opts.Extension) {
		text += opts.Extension
	}
	if err := t.scan(text); err != nil {
		return nil, err
	}
	t.finish()
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, nil
}

// scan cuts the text into pieces.
func (t *Template) scan(text string) error {
	var lit strings.Builder
	flush := func() {
		if lit.Len() > 0 {
			t.pieces = append(t.pieces, piece{field: literal, literal: lit.String()})
			lit.Reset()
		}
	}
	wrong := func(at int, format string, args ...any) error {
		return fault.New(fault.Config, "file name template, character %d: %s",
			utf8.RuneCountInString(text[:at])+1, fmt.Sprintf(format, args...))
	}
	for i := 0; i < len(text); {
		rest := text[i:]
		switch {
		case strings.HasPrefix(rest, "{{"), strings.HasPrefix(rest, "}}"):
			lit.WriteByte(rest[0])
			i += 2
		case rest[0] == '}':
			return wrong(i, `"}" without "{"; write "}}" for a brace`)
		case rest[0] == '{':
			end := strings.IndexByte(rest, '}')
			if end < 0 {
				return wrong(i, `"{" without "}"; write "{{" for a brace`)
			}
			p, needs, why := lookup(rest[1:end])
			if why != "" {
				return wrong(i, "%s", why)
			}
			flush()
			t.pieces = append(t.pieces, p)
			t.needs |= needs
			i += end + 1
		case rest[0] == '/':
			flush()
			t.pieces = append(t.pieces, piece{field: separator})
			if i == 0 || i == len(text)-1 || rest[1] == '/' {
				return wrong(i, `"/" stands between two names only: a file's name is relative to the sink's path`)
			}
			i++
		default:
			r, n := utf8.DecodeRuneInString(rest)
			if c, ok := portable(r); !ok || c != r || (r == utf8.RuneError && n == 1) {
				return wrong(i, "%q can't stand in a file name on every system", rest[:n])
			}
			lit.WriteString(rest[:n])
			i += n
		}
	}
	flush()
	if len(t.pieces) == 0 {
		return wrong(0, "it is empty")
	}
	return nil
}

// lookup finds a field by its word; why says what is wrong with it.
func lookup(word string) (p piece, needs message.Needs, why string) {
	if name, ok := strings.CutPrefix(word, "vars."); ok && name != "" {
		return piece{field: vars, name: name}, 0, ""
	}
	for _, f := range fields {
		if f.name == word {
			return piece{field: f.field}, f.needs, ""
		}
	}
	why = fmt.Sprintf("unknown field {%s}", word)
	names := make([]string, 0, len(fields)+1)
	for _, f := range fields {
		names = append(names, f.name)
	}
	if near := spec.Nearest(word, names); near != "" {
		return p, 0, why + fmt.Sprintf("; did you mean {%s}?", near)
	}
	for i, name := range names {
		names[i] = "{" + name + "}"
	}
	return p, 0, why + "; known are " + strings.Join(append(names, "{vars.NAME}"), " ")
}

// finish marks the last element, and puts the hash into it where it isn't:
// before the extension, so that two messages never share a name.
func (t *Template) finish() {
	start := 0
	for i, p := range t.pieces {
		if p.field == separator {
			start = i + 1
		}
	}
	if !slices.ContainsFunc(t.pieces[start:], func(p piece) bool { return p.field == hash }) {
		at, n := len(t.pieces), len(t.pieces)
		add := []piece{{field: literal, literal: "-"}, {field: hash}}
		if end := t.pieces[n-1]; end.field == literal {
			if dot := strings.LastIndexByte(end.literal, '.'); dot >= 0 {
				t.pieces[n-1].literal = end.literal[:dot]
				add = append(add, piece{field: literal, literal: end.literal[dot:]})
			}
		}
		t.pieces = slices.Insert(t.pieces, at, add...)
	}
	for i := start; i < len(t.pieces); i++ {
		t.pieces[i].last = true
	}
}

// check refuses what no cutting of fields could bring within the bounds.
func (t *Template) check() error {
	literals, n := 0, 0
	element := "" // the literal text of an element without fields
	bare := true
	whole := func() error {
		if bare && strings.Trim(element, ". ") == "" {
			return fault.New(fault.Config, "file name template %q: %q is no name of a directory", t.text, element)
		}
		element, bare = "", true
		return nil
	}
	for _, p := range t.pieces {
		switch {
		case p.field == separator:
			if err := whole(); err != nil {
				return err
			}
		case p.field == literal:
			element += p.literal
			if p.last {
				literals += len(p.literal)
			}
		default:
			bare = false
			if p.last {
				n++
			}
		}
	}
	if literals > maxLiterals {
		return fault.New(fault.Config, "file name template %q: %d bytes of fixed text in the last element, %d are allowed", t.text, literals, maxLiterals)
	}
	if n > maxFields {
		return fault.New(fault.Config, "file name template %q: %d fields in the last element, %d are allowed", t.text, n, maxFields)
	}
	return nil
}

// Needs returns what the template reads of a message.
func (t *Template) Needs() message.Needs { return t.needs }

// String returns the template as it was written.
func (t *Template) String() string { return t.text }
