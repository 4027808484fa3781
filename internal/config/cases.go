package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// casesDoc is a file of cases as it is written. Its tags are the reference.
type casesDoc struct {
	Now   *string   `json:"now" doc:"what now() is, so that the cases mean the same next year; the time of the test when left out" example:"2026-11-21"`
	Cases []caseDoc `json:"cases" required:"true" doc:"messages, and what is to become of each"`
}

type caseDoc struct {
	Name         string            `json:"name" required:"true" doc:"what the case is called when it fails; unique" example:"a newsletter is dropped"`
	Mail         string            `json:"mail" required:"true" doc:"the message: the path of a file, from the folder of the cases; or, where it is more than one line, the text itself"`
	Source       string            `json:"source" doc:"name of the source that it comes from; the first of the pipeline's file when left out"`
	Mailbox      string            `json:"mailbox" default:"INBOX" doc:"where it is"`
	UID          int               `json:"uid" default:"1" min:"1" max:"4294967295" doc:"its UID"`
	Size         *spec.Bytes       `json:"size" doc:"what the server says of its size; its octets when left out" example:"30MB"`
	InternalDate *string           `json:"internal_date" doc:"when the server got it; absent when left out" example:"2026-11-20 18:30"`
	Flags        []string          `json:"flags" doc:"flags, with their backslash, and keywords" example:"[\"\\\\Seen\", \"work\"]"`
	Labels       []string          `json:"labels" doc:"labels, where servers have such"`
	Vars         map[string]string `json:"vars" doc:"variables of its source, beside those in the pipeline's file"`
	Expect       expectDoc         `json:"expect" required:"true" doc:"what is to become of it: what is left out may be anything"`
}

type expectDoc struct {
	Stages  map[string]string `json:"stages" doc:"of stages, by name: keep, change, drop, dead_letter, undecided (it couldn't tell, and kept it) or unreached" example:"{\"recent\": \"keep\", \"nospam\": \"drop\"}"`
	Sinks   *[]string         `json:"sinks" doc:"names of all sinks that it reaches; [] for none" example:"[\"archive\", \"index\"]"`
	Vars    map[string]string `json:"vars" doc:"variables that it has in the end" example:"{\"team\": \"sales\"}"`
	LandsIn string            `json:"lands_in" doc:"the mailbox that it lands in" example:"Archive/2025"`
}

// Case is a message and what is to become of it.
type Case struct {
	Name         string
	Octets       []byte
	Source       string
	Mailbox      string
	UID          uint32
	Size         int64 // -1: that of the octets
	InternalDate time.Time
	Flags        []string // with keywords
	Labels       []string
	Vars         map[string]string

	Stages  map[string]string // verdicts by stage
	Sinks   *[]string         // nil: any
	WantVar map[string]string
	LandsIn string // empty: any
}

// Verdicts are the words that a case can expect of a stage.
var Verdicts = []string{"keep", "change", "drop", "dead_letter", "undecided", "unreached"}

// CasesSchema returns the JSON Schema of a file of cases.
func CasesSchema() ([]byte, error) { return spec.SchemaOf(casesDoc{}) }

// LoadCases reads a file of cases for f. now is zero where the file doesn't
// say. The error is Problems, or says why a file can't be read.
func LoadCases(path string, f *File) (cases []Case, now time.Time, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, now, fault.New(fault.Config, "read the cases: %w", err).WithHint("see docs/reference/test.md")
	}
	r := &reader{file: path}
	root := r.read(data)
	if root == nil || r.over {
		r.problems.Sort()
		return nil, now, r.problems
	}
	if root.kind != mapping {
		r.fail(root.line, root.column, "", "expected a mapping with cases, found %s", root.kind)
		return nil, now, r.problems
	}
	b := &builder{reader: r, root: root, said: map[string]bool{}}
	for _, p := range r.problems {
		b.said[p.Key] = true
	}
	var raw bytes.Buffer
	root.json(&raw, nil, nil)
	var doc casesDoc
	for _, e := range parts(spec.Decode(raw.Bytes(), &doc, nil)) {
		b.decoding(e)
	}
	if doc.Now != nil {
		now = b.when("now", *doc.Now, f.Timezone)
	}
	cases = b.cases(doc.Cases, filepath.Dir(path), f)
	if len(r.problems) > 0 {
		r.problems.Sort()
		return nil, now, r.problems
	}
	return cases, now, nil
}

func (b *builder) when(key, text string, loc *time.Location) time.Time {
	at, err := expression.ParseDate(text, loc)
	if err != nil {
		b.at(key, "%v", err)
	}
	return at
}

func (b *builder) cases(docs []caseDoc, folder string, f *File) []Case {
	if len(docs) == 0 && b.root.get("cases") != nil {
		b.at("cases", "expected at least one case")
	}
	var stages, sinks, sources []string
	for _, s := range f.Stages {
		stages = append(stages, s.Name)
	}
	for i := range f.Sinks {
		sinks = append(sinks, f.Sinks[i].Name)
	}
	for i := range f.Sources {
		sources = append(sources, f.Sources[i].Name)
	}
	names := map[string]int{}
	var out []Case
	for i, d := range docs {
		key := fmt.Sprintf("cases[%d]", i)
		b.unique(names, d.Name, key, i)
		c := Case{
			Name: d.Name, Source: d.Source, Mailbox: d.Mailbox, UID: uint32(d.UID), Size: -1, Flags: d.Flags, Labels: d.Labels, Vars: d.Vars,
			Stages: d.Expect.Stages, Sinks: d.Expect.Sinks, WantVar: d.Expect.Vars, LandsIn: d.Expect.LandsIn,
		}
		if d.Size != nil {
			c.Size = int64(*d.Size)
		}
		if d.InternalDate != nil {
			c.InternalDate = b.when(key+".internal_date", *d.InternalDate, f.Timezone)
		}
		if c.Source == "" && len(sources) > 0 {
			c.Source = sources[0]
		} else if len(sources) > 0 {
			b.known(key+".source", "source", c.Source, sources)
		}
		for name, verdict := range c.Stages {
			k := key + ".expect.stages." + name
			b.known(k, "stage", name, stages)
			b.word(k, verdict, Verdicts)
		}
		if c.Sinks != nil {
			for j, name := range *c.Sinks {
				b.known(fmt.Sprintf("%s.expect.sinks[%d]", key, j), "sink", name, sinks)
			}
		}
		c.Octets = b.mail(key+".mail", d.Mail, folder)
		out = append(out, c)
	}
	return out
}

// known reports a name that the pipeline's file doesn't have.
func (b *builder) known(key, what, name string, names []string) {
	if slices.Contains(names, name) {
		return
	}
	text := fmt.Sprintf("the pipeline's file has no %s %q", what, name)
	if near := spec.Nearest(name, names); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	b.at(key, "%s", text)
}

// word reports a word that isn't one of those that have a meaning there.
func (b *builder) word(key, word string, words []string) {
	if slices.Contains(words, word) {
		return
	}
	text := fmt.Sprintf("%q is none of %s", word, strings.Join(words, ", "))
	if near := spec.Nearest(word, words); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	b.at(key, "%s", text)
}

// mail reads a file, or takes the text as a message, whose lines end in CRLF.
func (b *builder) mail(key, text, folder string) []byte {
	if strings.Contains(text, "\n") {
		return []byte(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n"))
	}
	if text == "" {
		return nil // said already
	}
	if !filepath.IsAbs(text) {
		text = filepath.Join(folder, text)
	}
	octets, err := os.ReadFile(text)
	var path *os.PathError
	if errors.As(err, &path) {
		b.at(key, "read the mail %s: %v", text, path.Err)
	} else if err != nil {
		b.at(key, "%v", err)
	}
	return octets
}
