package plan_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/internal/stages/filter"
	"github.com/mailhaul/pipeline/internal/stages/limit"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
)

// What sources can list.
const (
	imap = message.NeedSize | message.NeedInternalDate | message.NeedFlags | message.NeedHeaders | message.NeedStructure | message.NeedBody
	pop3 = message.NeedSize | message.NeedHeaders | message.NeedBody
	bare = message.NeedBody // ids, and nothing else
)

// What sinks take.
var (
	eml   = sink.Prepared{Needs: message.NeedInternalDate}
	index = sink.Prepared{Needs: message.NeedSize | message.NeedFlags | message.NeedHeaders, Record: true}
	whole = sink.Prepared{Needs: message.NeedHeaders | message.NeedStructure, Record: true}
)

// stage makes a stage; "limit" is one, everything else is an expression.
func stage(t *testing.T, name, text string) *stages.Stage {
	t.Helper()
	c := stages.Config{Name: name, Filter: &text}
	if text == "limit" {
		c = stages.Config{Name: name, Limit: &limit.Config{Messages: 5, Per: "source"}}
	}
	s, err := stages.Build(c, filter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// build makes a plan of one source. Sinks are alternately given by what they
// take and their `when`.
func build(t *testing.T, provides message.Needs, texts []string, sinks ...any) *plan.Plan {
	t.Helper()
	var list []*stages.Stage
	for i, text := range texts {
		list = append(list, stage(t, string(rune('a'+i)), text))
	}
	p := &plan.Plan{Chain: stages.NewChain(list), Sources: []plan.Source{{Name: "alice", Plugin: "imap", Provides: provides}}}
	for i := 0; i < len(sinks); i += 2 {
		s := plan.Sink{Name: "out", Prepared: sinks[i].(sink.Prepared)}
		if text := sinks[i+1].(string); text != "" {
			w, err := expression.Compile(text, expression.Options{})
			if err != nil {
				t.Fatal(err)
			}
			s.When = w
		}
		p.Sinks = append(p.Sinks, s)
	}
	return p
}

// TestSettle is EXPLAIN: what is asked of every message, and what comes with
// the body.
func TestSettle(t *testing.T) {
	t.Parallel()
	const none, size, date, flags, headers, structure = message.Needs(0), message.NeedSize, message.NeedInternalDate, message.NeedFlags, message.NeedHeaders, message.NeedStructure
	tests := []struct {
		name         string
		provides     message.Needs
		stages       []string
		sinks        []any
		first, fetch message.Needs // fetch: beside the body
	}{
		{"copy everything: a listing of ids is enough", imap, nil, []any{eml, ""}, none, date},
		{"what POP3 can't say isn't asked", pop3, nil, []any{eml, ""}, none, none},
		{"an index needs no body, and is asked at once", imap, nil, []any{index, ""}, size | flags | headers, size | flags},
		{"an index with structure", imap, nil, []any{whole, ""}, headers | structure, none},
		{"an index of POP3", pop3, nil, []any{index, ""}, size | headers, size},
		{"an index beside a copy: the headers come with the body", imap, nil, []any{eml, "", index, ""}, none, size | date | flags},
		{"a cheap filter is asked first", imap, []string{"size < 5"}, []any{eml, ""}, size, size | date},
		{"of two filters the cheaper one first", imap, []string{`subject == "x"`, "size < 5 && seen"}, []any{eml, ""}, size | flags, size | date | flags},
		{"headers first when no cheaper filter is there", imap, []string{`subject == "x"`}, []any{eml, ""}, headers, date},
		{"an index behind a filter", imap, []string{"size < 5"}, []any{index, ""}, size, size | flags},
		{"a `when` is read of those that pass", imap, nil, []any{eml, "seen"}, none, date | flags},
		{"a limit reads nothing", imap, []string{"limit"}, []any{eml, ""}, none, date},
		{"ids only", bare, []string{"size < 5"}, []any{eml, "", index, ""}, none, none},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := build(t, tt.provides, tt.stages, tt.sinks...)
			p.Settle()
			s := p.Sources[0]
			if s.FirstNeeds != tt.first {
				t.Errorf("of every message is asked %q, want %q", s.FirstNeeds, tt.first)
			}
			if want := tt.fetch | message.NeedBody; s.FetchNeeds != want {
				t.Errorf("with the body comes %q, want %q", s.FetchNeeds, want)
			}
			if extra := (s.FirstNeeds | s.FetchNeeds) &^ (tt.provides | message.NeedBody); extra != 0 {
				t.Errorf("asked for %s, which it never has", extra)
			}
		})
	}
}

// TestSettleEachSource: one that can say little doesn't keep another from
// being asked.
func TestSettleEachSource(t *testing.T) {
	t.Parallel()
	p := build(t, imap, []string{"seen || size < 5"}, eml, "")
	p.Sources = append(p.Sources, plan.Source{Name: "bob", Plugin: "pop3", Provides: pop3})
	p.Settle()
	if a, b := p.Sources[0].FirstNeeds, p.Sources[1].FirstNeeds; a != message.NeedSize|message.NeedFlags || b != message.NeedSize {
		t.Errorf("alice is asked for %s, bob for %s", a, b)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		provides message.Needs
		stages   []string
		when     string
		want     []string // parts of the errors, in order; none: it can be done
	}{
		{"everything can be had", imap, []string{"seen && size < 5", "limit", `subject == "x"`}, "has_attachments", nil},
		{"nothing is asked", bare, nil, "", nil},
		{"the body tells headers and structure", bare, []string{`subject == "x" && has_attachments`}, `from == "x"`, nil},
		{"flags of POP3", pop3, []string{"size < 5", "seen"}, "", []string{"stages[1]: stage b reads flags, which source alice (plugin imap) never has"}},
		{"a `when` on flags of POP3", pop3, nil, "seen", []string{"sinks[0].when: the `when` of sink out reads flags, which source alice"}},
		{"both, and the dates", pop3, []string{"internal_date < now()"}, "seen", []string{"stages[0]: stage a reads internal_date", "sinks[0].when: the `when`"}},
		{"a limit in the order of the listing", imap, []string{`subject == "x" && has_attachments`, "limit"}, "", nil},
		{"a limit behind a stage that needs the body", pop3, []string{"has_attachments", "limit"}, "", []string{"stages[1]: stage b counts in the order of the listing, but a stage before it needs the body from source alice (structure)"}},
		{"a limit before it", pop3, []string{"limit", "has_attachments"}, "", nil},
		{"two limits, both behind it", pop3, []string{"has_attachments", "limit", "limit"}, "", []string{"stage b counts", "stage c counts"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			errs := list(build(t, tt.provides, tt.stages, eml, tt.when).Check())
			if len(errs) != len(tt.want) {
				t.Fatalf("%d errors, want %d: %v", len(errs), len(tt.want), errs)
			}
			for i, err := range errs {
				f := fault.As(err)
				if f == nil || f.Class != fault.Config || !strings.Contains(f.Key+": "+f.Text, tt.want[i]) {
					t.Errorf("got %v (key %v), want %s", err, f, tt.want[i])
				}
			}
		})
	}
	// Each source is judged by itself.
	p := build(t, imap, []string{"seen"}, eml, "")
	p.Sources = append(p.Sources, plan.Source{Name: "bob", Plugin: "pop3", Provides: pop3})
	if errs := list(p.Check()); len(errs) != 1 || !strings.Contains(errs[0].Error(), "source bob (plugin pop3)") {
		t.Errorf("got %v", errs)
	}
}

func TestTwoSinksInOneTarget(t *testing.T) {
	t.Parallel()
	here, there := t.TempDir(), t.TempDir()
	tests := []struct {
		name    string
		targets []string
		want    []string // keys of the errors
	}{
		{"a directory each", []string{here, there}, nil},
		{"one directory", []string{here, there, here}, []string{"sinks[2].config.path"}},
		{"one service that takes from both", []string{"https://example.com/in", "https://example.com/in"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := build(t, imap, nil, eml, "")
			p.Sinks = nil
			for _, target := range tt.targets {
				p.Sinks = append(p.Sinks, plan.Sink{Name: "out", Prepared: sink.Prepared{Target: target}})
			}
			var got []string
			for _, err := range list(p.Check()) {
				got = append(got, fault.As(err).Key)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Files are read back where their sinks keep a manifest; a plan that can't do
// it is refused, with the sink's place in the file.
func TestCheckRehash(t *testing.T) {
	t.Parallel()
	manifest := plan.Sink{Name: "files", Plugin: "eml", Prepared: sink.Prepared{Needs: message.NeedBody, Manifest: true}}
	bucket := plan.Sink{Name: "far", Plugin: "bucket", Prepared: sink.Prepared{Needs: message.NeedBody}}
	index := plan.Sink{Name: "index", Plugin: "json", Prepared: sink.Prepared{Record: true}}
	for name, tt := range map[string]struct {
		sinks []plan.Sink
		key   string
		want  string // "" can be done
	}{
		"files and an index": {[]plan.Sink{manifest, index}, "", ""},
		"no manifest":        {[]plan.Sink{manifest, bucket}, "sinks[1]", "`rehash` of source alice reads the messages' files back, and sink far (plugin bucket) keeps no manifest of its files"},
		"no files":           {[]plan.Sink{index}, "", "`rehash` of source alice reads the messages' files back, and no sink makes files of them"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := build(t, imap, nil, eml, "")
			p.Sinks = tt.sinks
			if errs := list(p.Check()); len(errs) != 0 {
				t.Errorf("without rehash: %v", errs)
			}
			p.Sources[0].After = plan.After{Action: source.Action{Delete: true}, Rehash: true}
			errs := list(p.Check())
			if tt.want == "" {
				if len(errs) != 0 {
					t.Error(errs)
				}
				return
			}
			if f := fault.As(errs[0]); len(errs) != 1 || f.Class != fault.Config || f.Text != tt.want || f.Key != tt.key || f.Hint == "" {
				t.Errorf("%v", errs)
			}
		})
	}
}

// Several machines write where owners of tasks can be told apart; a plan with
// another sink is refused, with its name, its place in the file and a way out.
func TestCheckFenced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "eml")
	for name, tt := range map[string]struct {
		sink plan.Sink
		key  string
		want string // "" may be shared
		hint string
	}{
		"in a bucket": {sink: plan.Sink{Name: "far", Plugin: "eml", Address: "s3://mail/eml?region=x", Prepared: sink.Prepared{Target: "s3://mail/eml", Fenced: true}}},
		"in a folder": {
			plan.Sink{Name: "files", Plugin: "eml", Prepared: sink.Prepared{Target: path}},
			"sinks[0].config.path", "sink files (plugin eml) writes to " + path + ", which is in a file system: several machines can't write there without harm", "s3://",
		},
		"a plugin of before, in a bucket": {
			plan.Sink{Name: "far", Plugin: "old", Address: "s3://mail/x", Prepared: sink.Prepared{Target: "s3://mail/x"}},
			"sinks[0]", "sink far: plugin old can't write for several machines at once: it knows no fences", "update the plugin",
		},
		"a service": {
			plan.Sink{Name: "hook", Plugin: "webhook", Prepared: sink.Prepared{Target: "https://example.com/in"}},
			"sinks[0]", "sink hook: plugin webhook can't write for several machines at once: it knows no fences", "engine: {type: local}",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			errs := list((&plan.Plan{Sinks: []plan.Sink{tt.sink}}).CheckFenced())
			if tt.want == "" {
				if len(errs) != 0 {
					t.Error(errs)
				}
				return
			}
			if len(errs) != 1 {
				t.Fatalf("%d errors: %v", len(errs), errs)
			}
			if f := fault.As(errs[0]); f.Class != fault.Config || f.Text != tt.want || f.Key != tt.key || !strings.Contains(f.Hint, tt.hint) {
				t.Errorf("%v, key %s, hint %s", f, f.Key, f.Hint)
			}
		})
	}
}

// list takes joined errors apart.
func list(err error) []error {
	if err == nil {
		return nil
	}
	return err.(interface{ Unwrap() []error }).Unwrap()
}

// TestTake: a mailbox that lies within another one is left out where that one
// is taken, and only there.
func TestTake(t *testing.T) {
	t.Parallel()
	all := []message.Mailbox{
		{Name: "INBOX", Selectable: true, Within: "All Mail", Overlaps: true}, {Name: "Work", Selectable: true, Within: "All Mail", Overlaps: true},
		{Name: "[Gmail]"}, {Name: "All Mail", Selectable: true}, {Name: "Trash", Selectable: true},
	}
	for _, tt := range []struct {
		name, wants, taken, left, among string
	}{
		{"all", "INBOX Work [Gmail] All Mail Trash", "All Mail,Trash", "INBOX,Work", ""},
		{"labels", "INBOX Work Trash", "INBOX,Work,Trash", "All Mail", "INBOX,Work"},
		{"one label", "Work", "Work", "INBOX,All Mail,Trash", "Work"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := plan.Source{Selects: func(m message.Mailbox) bool { return strings.Contains(tt.wants, m.Name) }}
			names := func(boxes []message.Mailbox) string {
				var out []string
				for _, m := range boxes {
					out = append(out, m.Name)
				}
				return strings.Join(out, ",")
			}
			taken, left := s.Take(all)
			if names(taken) != tt.taken || names(left) != tt.left {
				t.Errorf("taken are %s, left %s", names(taken), names(left))
			}
			if got := strings.Join(plan.Among(taken[0], taken), ","); got != tt.among {
				t.Errorf("the first is among %s, want %s", got, tt.among)
			}
		})
	}
}

// Only what the source has, and only of the filters that come before anything
// else, is asked of a server; the plan says it.
func TestConditions(t *testing.T) {
	t.Parallel()
	texts := []string{"size < 5 && !seen", "internal_date > now()", "limit", "size > 1"}
	for name, tt := range map[string]struct {
		provides message.Needs
		want     []string
	}{
		"imap": {imap, []string{"fails size < 5, where its server can tell (stage a)", `fails flags lacks \Seen, where its server can tell (stage a)`, "fails internal_date > "}},
		"pop3": {pop3, []string{"fails size < 5"}},
		"bare": {bare, nil},
	} {
		p := build(t, tt.provides, texts, eml, "")
		p.Settle()
		if got := p.Conditions(&p.Sources[0], time.Now()); len(got) != len(tt.want) {
			t.Errorf("%s: %v", name, got)
		}
		text := plan.Explain(p)
		for _, w := range tt.want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: the plan doesn't say %q:\n%s", name, w, text)
			}
		}
	}
}

// Where exported messages go to isn't exported; a source whose only mailbox
// has no name is.
func TestTakeWithoutWhereMessagesAreMoved(t *testing.T) {
	t.Parallel()
	all := []message.Mailbox{{Name: "INBOX", Selectable: true}, {Name: "Exported", Selectable: true}, {Name: "", Selectable: true}}
	s := plan.Source{Selects: func(message.Mailbox) bool { return true }}
	if taken, _ := s.Take(all); len(taken) != 3 {
		t.Errorf("without after: %v", taken)
	}
	s.After.Action.Move = "Exported"
	if taken, left := s.Take(all); len(taken) != 2 || len(left) != 1 || left[0].Name != "Exported" {
		t.Errorf("taken %v, left %v", taken, left)
	}
}

// A filter behind a plugin that reads bodies isn't judged from the listing.
func TestExplainBehindAPlugin(t *testing.T) {
	t.Parallel()
	word, text := "redact", `vars.team == "sales"`
	var list []*stages.Stage
	for _, c := range []stages.Config{{Name: "secret", Plugin: &word}, {Name: "last", Filter: &text}} {
		s, err := stages.Build(c, filter.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if s.Kind == stages.Plugin {
			s.Spec.Needs, s.Spec.Changes = message.NeedBody, true
		}
		list = append(list, s)
	}
	p := &plan.Plan{Chain: stages.NewChain(list)}
	for _, want := range []string{"stage secret (plugin redact)\n  changes octets", "judged after stage secret, when the body is there"} {
		if got := plan.Explain(p); !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
}
