// Package config reads the pipeline file: YAML in, typed values out, and every
// error at once, with its place in the file, what was expected and the nearest
// right word. It starts nothing and evaluates nothing: references as
// ${env:NAME} are evaluated by Resolve and Settle, when a run needs them.
package config

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/internal/stages/filter"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// document is the file as it is written. Its tags are the reference.
type document struct {
	Version     int             `json:"version" required:"true" doc:"version of this file's format: 1"`
	Name        string          `json:"name" pattern:"[a-z0-9][a-z0-9._-]*" doc:"name of the pipeline, and of its ledger; the file's name when left out" example:"acme"`
	State       string          `json:"state" default:".pipeline/" doc:"folder of the ledger; may hold references"`
	Timezone    string          `json:"timezone" default:"UTC" doc:"of the dates in expressions" example:"Europe/Berlin"`
	Concurrency Concurrency     `json:"concurrency" doc:"how much is done at once"`
	Sources     []sourceDoc     `json:"sources" required:"true" doc:"where messages come from"`
	Stages      []stages.Config `json:"stages" doc:"what each message passes, in order"`
	Sinks       []sinkDoc       `json:"sinks" required:"true" doc:"where messages go"`
	Engine      Engine          `json:"engine" doc:"who does the work"`
	Report      Report          `json:"report" doc:"what a run did, written at its end"`
	Custody     *Custody        `json:"custody" doc:"evidence of what was exported: manifests, a signed record of each run"`
}

// Concurrency bounds what a run does at once.
type Concurrency struct {
	Sources   int           `json:"sources" default:"24" min:"1" max:"10000" doc:"sources that are exported at once"`
	PerHost   int           `json:"per_host" default:"100" min:"1" max:"10000" doc:"connections to one host at once, over all sources; the host is that of the config's address or provider"`
	ParkAfter time.Duration `json:"park_after" default:"1m" min:"1s" doc:"a source that must wait longer for its server is parked: the others go on, and it is taken up again when its wait ends before they do"`
}

type sourceDoc struct {
	Name      string            `json:"name" required:"true" doc:"names the source in the ledger and in file names for ever; unique; with foreach it holds references to the row" example:"alice|${row:user}"`
	Foreach   *foreachDoc       `json:"foreach" doc:"makes many sources of this one, one for each row of a table"`
	Plugin    string            `json:"plugin" required:"true" pattern:"[a-z0-9][a-z0-9-]*" doc:"NAME of the executable pipeline-source-NAME" example:"imap"`
	Config    json.RawMessage   `json:"config" doc:"the plugin's own keys; values may hold references"`
	Mailboxes mailboxesDoc      `json:"mailboxes" doc:"which mailboxes are exported"`
	Order     string            `json:"order" enum:"oldest,newest" default:"oldest" doc:"which messages of a mailbox come first"`
	Limit     *int              `json:"limit" min:"1" doc:"at most so many messages of this source, in its order"`
	After     *After            `json:"after" doc:"what is done on the server with messages that are exported; nothing when left out"`
	Vars      map[string]string `json:"vars" doc:"words of your own for filters, the index and file names; values may hold references" example:"{\"custodian\": \"Ann\"}"`
}

type foreachDoc struct {
	CSV string `json:"csv" required:"true" doc:"path of a CSV file with a header, from the folder of this file; ${row:COLUMN} reads a row in name, vars and config" example:"accounts.csv"`
}

type mailboxesDoc struct {
	Include []string `json:"include" default:"[\"**\"]" doc:"patterns: one must match"`
	Exclude []string `json:"exclude" doc:"patterns: none may match" example:"[\"special:trash\", \"Old/**\"]"`
}

type sinkDoc struct {
	Name      string          `json:"name" required:"true" pattern:"[a-z0-9][a-z0-9._-]*" doc:"names the sink in the ledger and in the index; unique" example:"archive"`
	Plugin    string          `json:"plugin" required:"true" pattern:"[a-z0-9][a-z0-9-]*" doc:"NAME of the executable pipeline-sink-NAME" example:"eml"`
	When      *string         `json:"when" doc:"an expression: only messages for which it is true go to this sink" example:"mailbox startsWith \"Projects\""`
	Config    json.RawMessage `json:"config" doc:"the plugin's own keys; values may hold references"`
	OnFailure string          `json:"on_failure" enum:"stop,continue" default:"stop" doc:"whether the run goes on without this sink when it fails"`
}

// File is a pipeline file that has been read and found right, but for the
// plugins' own configs: those are checked with PluginConfig.Check or CheckWith. It doesn't
// change after Settle.
type File struct {
	Path        string
	Name        string
	State       string // as written until Settle
	Timezone    *time.Location
	Concurrency Concurrency
	Sources     []Source
	Stages      []*stages.Stage
	Plugins     []*PluginConfig // of each stage; nil where it is no plugin
	Sinks       []Sink
	BadRows     []BadRow // of the tables, in their order
	Engine      Engine
	Report      Report
	Custody     *Custody // nil: none is kept

	// Sum is the hash of the file's text and of its tables', as they were read:
	// who has another works on something else.
	Sum string

	root *node
}

// BadRow is a row of a table that makes no source. It is one account that
// fails, and stops no other (I6).
type BadRow struct {
	At   string // as in "accounts.csv:17"
	Name string // of the source that it would make; "" when it has none
	Err  error  // names no value
}

// Error returns the row's trouble in a line that begins with its place.
func (r BadRow) Error() string {
	text := r.Err.Error()
	if strings.HasPrefix(text, r.At+": ") {
		return text
	}
	return r.At + ": " + text
}

// Unwrap returns Err.
func (r BadRow) Unwrap() error { return r.Err }

// Source is one source of the file.
type Source struct {
	Name      string
	Plugin    string
	Config    *PluginConfig
	Mailboxes *Matcher
	Newest    bool              // newest first
	Limit     int               // 0: none
	After     *After            // nil: nothing
	Vars      map[string]string // as written until Settle
	Key       string            // where it stands in the file, as in "sources[0]"
	Row       string            // where the row stands that made it, as in "accounts.csv:17"; "" for one of its own

	cells map[string]string
}

// Sink is one sink of the file.
type Sink struct {
	Name     string
	Plugin   string
	Config   *PluginConfig
	When     *expression.Program // nil: every message
	Continue bool                // the run goes on when this sink fails
}

// Fingerprint is the same as long as the source's selection is: mailboxes,
// order, limit and variables. The plugin's config isn't in it.
func (s *Source) Fingerprint() (string, error) {
	raw, err := s.selection()
	if err != nil {
		return "", fault.New(fault.Bug, "hash the selection of source %s: %w", s.Name, err)
	}
	return fingerprint(raw)
}

// Needs returns what When reads of a message.
func (s *Sink) Needs() message.Needs {
	if s.When == nil {
		return 0
	}
	return s.When.Needs()
}

// Routes reports whether a message goes to this sink. A When that can't tell
// counts as true: a message too many is found, one too few is lost (I1);
// undecided says so, for the totals.
func (s *Sink) Routes(m *message.Summary, now time.Time) (routed, undecided bool) {
	if s.When == nil {
		return true, false
	}
	// An error is a value that this message lacks: undecided is set then.
	value, undecided, _ := s.When.Eval(m, now)
	return value || undecided, undecided
}

// Schema returns the JSON Schema of the whole file, the plugins' own configs
// left open.
func Schema() ([]byte, error) { return spec.SchemaOf(document{}) }

// Load reads the file at path. The error is Problems, or says why the file
// can't be read.
func Load(path string) (*File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.Config, "read the pipeline file: %w", err).WithHint("name another one with --config, or write one: docs/reference/config.md")
	}
	return Parse(path, data)
}

// Parse reads a file's text; path is for its errors and its default name. The
// error is Problems. A File that comes with them is what could be made of the
// text, good for nothing but finding more of what is wrong.
func Parse(path string, data []byte) (*File, error) {
	return ParseWith(path, data, os.ReadFile)
}

// ParseWith is Parse for a file whose tables are read by readFile.
func ParseWith(path string, data []byte, readFile func(path string) ([]byte, error)) (*File, error) {
	r := &reader{file: path}
	root := r.read(data)
	if root == nil || r.over {
		r.problems.Sort()
		return nil, r.problems
	}
	if root.kind != mapping {
		r.fail(root.line, root.column, "", "expected a mapping with version, sources and sinks, found %s", root.kind)
		return nil, r.problems
	}
	read := [][]byte{data}
	noting := func(path string) ([]byte, error) {
		text, err := readFile(path)
		read = append(read, text)
		return text, err
	}
	b := &builder{reader: r, root: root, readFile: noting, said: map[string]bool{}, tables: map[string]*table{}}
	for _, p := range r.problems {
		b.said[p.Key] = true
	}
	f := b.build(path)
	f.Sum = sum(read)
	if len(r.problems) > 0 {
		r.problems.Sort()
		return f, r.problems
	}
	return f, nil
}

// builder makes a File of nodes.
type builder struct {
	*reader
	root     *node
	readFile func(path string) ([]byte, error)
	said     map[string]bool   // keys that something is wrong with already
	tables   map[string]*table // by the source's key; nil where a table can't be read
}

// at reports a problem of a key, at its value.
func (b *builder) at(key, format string, args ...any) {
	if b.said[key] {
		return
	}
	b.said[key] = true
	_, line, column, _ := b.root.locate(key)
	b.fail(line, column, key, format, args...)
}

func (b *builder) build(path string) *File {
	var raw bytes.Buffer
	b.root.json(&raw, nil, nil)
	var doc document
	for _, e := range parts(spec.Decode(raw.Bytes(), &doc, nil)) {
		b.decoding(e)
	}
	f := &File{Path: path, Name: doc.Name, State: doc.State, Timezone: time.UTC, Concurrency: doc.Concurrency, Engine: doc.Engine, Report: doc.Report, Custody: doc.Custody, root: b.root}
	if doc.Version != 1 && b.root.get("version") != nil {
		b.at("version", "this program reads version 1")
	}
	if f.Name == "" {
		f.Name = b.defaultName(path)
	}
	if loc, err := time.LoadLocation(doc.Timezone); err != nil || doc.Timezone == "Local" {
		b.at("timezone", "%q is no timezone: expected one as in UTC or Europe/Berlin", doc.Timezone)
	} else {
		f.Timezone = loc
	}
	for i, d := range doc.Sources {
		if d.Foreach != nil {
			key := fmt.Sprintf("sources[%d]", i)
			b.tables[key] = b.table(key+".foreach.csv", d.Foreach.CSV)
		}
	}
	b.references("", b.root)
	b.sources(f, doc.Sources)
	vars := varNames(doc.Sources, doc.Stages)
	b.stages(f, doc.Stages, vars)
	b.sinks(f, doc.Sinks, vars)
	b.proof(f)
	b.engine(f)
	return f
}

// decoding places an error of spec.Decode.
func (b *builder) decoding(err error) {
	e := fault.As(err)
	if e == nil || b.said[e.Key] {
		return
	}
	text := strings.TrimPrefix(e.Text, e.Key+": ")
	if strings.HasPrefix(text, "unknown key") {
		b.said[e.Key] = true
		line, column := b.root.keyPlace(e.Key)
		b.fail(line, column, e.Key, "%s", text)
		return
	}
	b.at(e.Key, "%s", text)
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

func (b *builder) defaultName(path string) string {
	base := filepath.Base(path)
	name := strings.ToLower(strings.TrimSuffix(base, filepath.Ext(base)))
	if !nameForm.MatchString(name) {
		b.at("name", "the file's name can't be the pipeline's: expected name: with letters a-z, digits, dots, dashes")
	}
	return name
}

// references checks every ${…} of the file, and refuses them where they aren't
// evaluated.
func (b *builder) references(key string, n *node) {
	for _, m := range n.members {
		b.references(joinKey(key, m.name), m.node)
	}
	for i, item := range n.items {
		b.references(fmt.Sprintf("%s[%d]", key, i), item)
	}
	if n.kind != text || !strings.Contains(n.value, "${") {
		return
	}
	if !evaluated.MatchString(key) {
		// In an expression it would be a syntax error that explains nothing.
		b.at(key, "a reference isn't evaluated here: it may stand in state, in a source's vars and in config")
		return
	}
	t, err := parseTemplate(n.value)
	if err != nil {
		b.at(key, "%v", err)
		return
	}
	if t.has("store") && !strings.Contains(key, ".config") {
		b.at(key, "${store:…} is for secrets in config: it isn't read here")
	}
	if t.has("shard") && !ofSink.MatchString(key) {
		b.at(key, "${shard} is for the config of a sink: all else that a shard has is its own anyway")
		return
	}
	source := ofSource.FindString(key)
	table, foreach := b.tables[source]
	if key == source+".name" && !foreach {
		b.at(key, "a reference isn't evaluated here, but with foreach")
		return
	}
	for ref := range t.references() {
		switch {
		case ref.kind != "row" && key == source+".name":
			b.at(key, "a name is made of the row alone: expected ${row:COLUMN}")
		case ref.kind != "row":
		case !foreach:
			b.at(key, "${row:…} stands only in a source with foreach")
		case table != nil && table.lacks(ref.name) != "":
			b.at(key, "%s", table.lacks(ref.name))
		}
	}
}

var (
	evaluated = regexp.MustCompile(`^(state$|engine\.(url|credentials|objects)$|sources\[\d+\]\.(name$|vars\.)|(sources|stages|sinks)\[\d+\]\.config[.\[])`)
	ofSource  = regexp.MustCompile(`^sources\[\d+\]`)
	ofSink    = regexp.MustCompile(`^sinks\[\d+\]\.config[.\[]`)
)

var varForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// varNames returns the variables of all sources, and what stages tag messages
// with, never nil: a name that nobody has is a mistake. What a plugin tags them
// with nobody knows: then it is nil.
func varNames(docs []sourceDoc, tagging []stages.Config) []string {
	out := []string{}
	for _, s := range tagging {
		if s.Plugin != nil {
			return nil
		}
		out = append(out, s.Tag.Names()...)
	}
	for _, d := range docs {
		for name := range d.Vars {
			out = append(out, name)
		}
	}
	return sorted(out)
}

func (b *builder) unique(names map[string]int, name, key string, i int) {
	if first, ok := names[name]; ok && name != "" {
		b.at(key+".name", "the name %q is taken by %s[%d]", name, key[:strings.IndexByte(key, '[')], first)
		return
	}
	names[name] = i
}

// plugin returns the config of a source or sink, an empty one when none
// stands there.
func (b *builder) plugin(key string) *PluginConfig {
	parent, line, column, _ := b.root.locate(key)
	n := parent.get("config")
	if n == nil {
		n = &node{kind: mapping, line: line, column: column}
	}
	if n.kind != mapping {
		b.at(key+".config", "expected a mapping, found %s", n.kind)
		n = &node{kind: mapping, line: line, column: column}
	}
	return &PluginConfig{file: b.file, base: key + ".config", node: n, absent: parent.get("config") == nil}
}

// saidBelow reports whether something is wrong with a key below that one.
func (b *builder) saidBelow(key string) bool {
	for said := range b.said {
		if strings.HasPrefix(said, key+".") {
			return true
		}
	}
	return false
}

func (b *builder) stages(f *File, docs []stages.Config, vars []string) {
	names := map[string]int{}
	once := "" // name of the dedupe
	for i, d := range docs {
		key := fmt.Sprintf("stages[%d]", i)
		b.unique(names, d.Name, key, i)
		if _, ok := d.Kind(); !ok {
			continue // said by its Validate
		}
		var own *PluginConfig
		if d.Plugin != nil {
			own = b.plugin(key)
		}
		f.Plugins = append(f.Plugins, own)
		s, err := stages.Build(d, filter.Options{Location: f.Timezone, Vars: vars})
		for _, e := range parts(err) {
			k := key
			if fe := fault.As(e); fe != nil {
				k = joinKey(key, fe.Key)
			}
			if b.saidBelow(k) {
				continue // what is missing there stands under a wrong name
			}
			b.expression(k, e)
		}
		f.Stages = append(f.Stages, s)
		switch {
		case d.Dedupe == nil && d.Limit == nil:
		case once == "":
			if d.Dedupe != nil {
				once = d.Name
			}
		case d.Dedupe != nil:
			b.at(key+".dedupe", "stage %s compares messages already: one pipeline has one dedupe", once)
		default:
			b.at(key+".limit", "it would count before it is known which copies dedupe lets pass: put the limit before stage %s", once)
		}
	}
}

func (b *builder) sinks(f *File, docs []sinkDoc, vars []string) {
	if len(docs) == 0 && b.root.get("sinks") != nil {
		b.at("sinks", "expected at least one sink")
	}
	names := map[string]int{}
	for i, d := range docs {
		key := fmt.Sprintf("sinks[%d]", i)
		b.unique(names, d.Name, key, i)
		s := Sink{Name: d.Name, Plugin: d.Plugin, Continue: d.OnFailure == "continue", Config: b.plugin(key)}
		if d.When != nil {
			var err error
			s.When, err = expression.Compile(*d.When, expression.Options{Location: f.Timezone, Vars: vars})
			for _, e := range parts(err) {
				b.expression(key+".when", e)
			}
		}
		f.Sinks = append(f.Sinks, s)
	}
}

// expression places an error within an expression: exactly where the text
// stands in one line, else at its line.
func (b *builder) expression(key string, err error) {
	if b.said[key] {
		return
	}
	n, line, column, whole := b.root.locate(key)
	var e *expression.Error
	if !errors.As(err, &e) || !whole || n.kind != text {
		b.at(key, "%v", err)
		return
	}
	if strings.Contains(n.value, "${") {
		return // references said it
	}
	words := e.Error()
	switch {
	case n.plain && n.comment:
		words += "; YAML takes what follows # for a comment: put the whole expression in single quotes"
	case n.block:
		line, column = line+e.Line, 0
	case !strings.Contains(n.value, "\n"):
		column += e.Column - 1
		if n.quoted {
			column++
		}
	}
	b.fail(line, column, key, "%s", words)
}

// Place puts an error at the value of a key, as in "sources[3].plugin". Its
// hint stays.
func (f *File) Place(key string, err error) error {
	_, line, column, _ := f.root.locate(key)
	p := Problem{f.Path, line, column, key, err.Error()}
	placed := &fault.Error{Class: fault.Config, Text: p.Error(), Key: key, Err: err}
	if e := fault.As(err); e != nil {
		placed.Hint = e.Hint
	}
	return placed
}

// Chain returns the stages as a chain.
func (f *File) Chain() *stages.Chain { return stages.NewChain(f.Stages) }

// SettleState evaluates the references in State alone: who looks at the ledger
// needs no more. The error is Problems.
func (f *File) SettleState(ctx context.Context, v Values) error {
	if f.root.get("state") == nil {
		return nil
	}
	n, line, column, _ := f.root.locate("state")
	state, err := evalText(ctx, n, v)
	if err != nil {
		return Problems{{f.Path, line, column, "state", err.Error()}}
	}
	f.State = state
	return nil
}

// Settle evaluates the references in State and in the sources' Vars. Call it
// once, before a run; lint leaves them as they are. A row whose vars can't be
// evaluated becomes a bad row. The error is Problems.
func (f *File) Settle(ctx context.Context, v Values) error {
	var problems Problems
	settle := f.settler(ctx, &problems)
	if err := f.SettleState(ctx, v); err != nil {
		problems = err.(Problems)
	}
	f.settleEngine(settle, v)
	f.Sources = slices.DeleteFunc(f.Sources, func(s Source) bool {
		before := len(problems)
		v := v
		v.Row = s.cells
		for name := range s.Vars {
			s.Vars[name] = settle(s.Key+".vars."+name, v)
		}
		if s.Row == "" || len(problems) == before {
			return false
		}
		f.BadRows = append(f.BadRows, BadRow{s.Row, s.Name, problems[before]})
		problems = problems[:before]
		return true
	})
	if len(problems) > 0 {
		problems.Sort()
		return problems
	}
	return nil
}
