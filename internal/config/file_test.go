package config_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// whole is a file with most of what can stand in one.
const whole = `
version: 1
name: acme
state: ${env:STATE:-.pipeline/}
timezone: Europe/Berlin
concurrency: {sources: 24}

sources:
  - &alice
    name: alice
    plugin: imap
    config:
      address: imap.example.com:993
      password: ${env:ALICE_PASSWORD}
    mailboxes: {include: ["**"], exclude: ["special:trash", "Old/**"]}
    order: newest
    limit: 10000
    vars: {custodian: "${env:WHO}"}
  - <<: *alice
    name: bob
    order: oldest

stages:
  - name: recent
    filter: date >= now() - days(365) && size < 25 * MB
  - {name: first, limit: {messages: 5, per: mailbox}}
  - {name: nospam, drop: 'subject contains "#spam"', unknown: drop}

sinks:
  - name: archive
    plugin: eml
    config: {path: export/eml}
  - name: outlook
    plugin: msg
    when: mailbox startsWith "Projects" && vars.custodian == "Ann"
    on_failure: continue
`

// bare puts text below the least that a file needs.
func bare(text string) string {
	return "version: 1\nsources: [{name: a, plugin: imap}]\nsinks: [{name: b, plugin: eml}]\n" + text
}

func TestParse(t *testing.T) {
	t.Parallel()
	f, err := config.Parse("acme.yaml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "acme" || f.Timezone.String() != "Europe/Berlin" || f.Concurrency != (config.Concurrency{Sources: 24, PerHost: 100, ParkAfter: time.Minute}) {
		t.Errorf("top: %+v", f)
	}
	if len(f.Sources) != 2 || f.Sources[0].Name != "alice" || !f.Sources[0].Newest || f.Sources[0].Limit != 10000 ||
		f.Sources[1].Name != "bob" || f.Sources[1].Newest || f.Sources[1].Plugin != "imap" {
		t.Errorf("sources: %+v", f.Sources)
	}
	if m := f.Sources[0].Mailboxes; m.Match(message.Mailbox{Name: "Old/2019"}) || !m.Match(message.Mailbox{Name: "INBOX"}) {
		t.Error("mailboxes")
	}
	var kinds []stages.Kind
	for _, s := range f.Stages {
		kinds = append(kinds, s.Kind)
	}
	if diff := cmp.Diff([]stages.Kind{stages.Filter, stages.Limit, stages.Drop}, kinds); diff != "" {
		t.Error(diff)
	}
	if f.Stages[2].Unknown != stages.UnknownDrop || f.Chain().NeededForList() != message.NeedSize {
		t.Error("stages")
	}
	if f.Sinks[0].When != nil || f.Sinks[0].Continue || f.Sinks[1].When == nil || !f.Sinks[1].Continue {
		t.Errorf("sinks: %+v", f.Sinks)
	}
	if f.State != "${env:STATE:-.pipeline/}" {
		t.Errorf("state was evaluated when the file was read: %s", f.State)
	}
	if err := f.Settle(t.Context(), values(map[string]string{"WHO": "Ann"})); err != nil {
		t.Fatal(err)
	}
	if f.State != ".pipeline/" || f.Sources[0].Vars["custodian"] != "Ann" {
		t.Errorf("settled: %q %v", f.State, f.Sources[0].Vars)
	}
}

func TestSettleNamesTheMissingVariable(t *testing.T) {
	t.Parallel()
	f, err := config.Parse("acme.yaml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	err = f.Settle(t.Context(), values(nil))
	want := "acme.yaml:18:23: sources[0].vars.custodian: the environment variable WHO isn't set: set it, or give a default as ${env:WHO:-…}\n" +
		"acme.yaml:18:23: sources[1].vars.custodian: the environment variable WHO isn't set: set it, or give a default as ${env:WHO:-…}"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	text := bare("") + "  - {name: big, plugin: eml, when: size > 5 && date > date('2020-01-01')}"
	f, err := config.Parse("x.yaml", []byte(strings.Replace(text, "[{name: b, plugin: eml}]", "\n  - {name: b, plugin: eml}", 1)))
	if err != nil {
		t.Fatal(err)
	}
	all, big := &f.Sinks[0], &f.Sinks[1]
	if all.Needs() != 0 || big.Needs() != message.NeedSize|message.NeedHeaders {
		t.Errorf("needs %v and %v", all.Needs(), big.Needs())
	}
	for name, tt := range map[string]struct {
		size              int64
		date              string
		routed, undecided bool
	}{"yes": {6, "Sat, 31 Oct 2026 10:00:00 +0100", true, false}, "no": {5, "never", false, false}, "can't tell": {6, "never", true, true}} {
		m := &message.Summary{Have: message.AllSummary, Size: tt.size, Header: message.NewHeader([]byte("Date: " + tt.date + "\r\n\r\n"))}
		if routed, undecided := big.Routes(m, time.Now()); routed != tt.routed || undecided != tt.undecided {
			t.Errorf("%s: %v, undecided %v", name, routed, undecided)
		}
		if routed, undecided := all.Routes(m, time.Now()); !routed || undecided {
			t.Errorf("%s: no when, but %v, %v", name, routed, undecided)
		}
	}
}

func TestSourceFingerprint(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, keys := range []string{"", "order: newest", "limit: 5", "vars: {a: b}", "mailboxes: {exclude: [x]}", "mailboxes: {include: [x]}", "mailboxes: {include: ['**']}", "config: {a: b}"} {
		f, err := config.Parse("x.yaml", []byte(strings.Replace(bare(""), "imap}", "imap, "+keys+"}", 1)))
		if err != nil {
			t.Fatal(err)
		}
		print, err := f.Sources[0].Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		same := keys == "mailboxes: {include: ['**']}" || strings.HasPrefix(keys, "config")
		if _, found := seen[print]; found != same {
			t.Errorf("%q: the same as %q", keys, seen[print])
		}
		seen[print] = keys
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	f, err := config.Parse("/some/where/My-Mail.yaml", []byte(bare("")))
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "my-mail" || f.State != ".pipeline/" || f.Timezone != time.UTC || f.Sources[0].Newest || len(f.Stages) != 0 {
		t.Errorf("%+v", f)
	}
}

func TestErrorsWithTheirPlaces(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, yaml string
		want       []string // without "x.yaml:"
	}{
		{"empty", "", []string{`1:1: the file is empty: expected at least version, sources and sinks`}},
		{"only a comment", "# nothing\n", []string{`1:1: the file is empty: expected at least version, sources and sinks`}},
		{"a list", "- a", []string{`1:1: expected a mapping with version, sources and sinks, found a list`}},
		{"missing keys", "name: a", []string{
			`1:1: version: missing: expected a whole number`, `1:1: sources: missing: expected a list`, `1:1: sinks: missing: expected a list`}},
		{"unknown keys", bare("stage: []\nnam: x"), []string{
			`4:1: stage: unknown key; did you mean "stages"?`, `5:1: nam: unknown key; did you mean "name"?`}},
		{"doubled key", bare("name: a\nname: b"), []string{`5:1: name: this key stands there already, in line 4`}},
		{"second document", bare("---\nversion: 1"), []string{`4:1: a second document begins here: expected one; put it in a file of its own`}},
		{"null", bare("name:\nstages: [null, ]"), []string{`4:6: name: nothing stands here: give a value, or leave it out`, `5:10: stages[0]: nothing stands here: give a value, or leave it out`}},
		{"octal", bare("concurrency: {sources: 017}"), []string{`4:24: concurrency.sources: 017 isn't a plain number (octal? hexadecimal?): write it in decimal without leading zeros, or in quotes if it is a text`}},
		{"wrong types", bare("name: 5\nconcurrency: {sources: many}\nstages: {a: b}"), []string{
			`4:7: name: expected a string, found the number 5`, `5:24: concurrency.sources: expected a whole number, found a string`,
			`6:9: stages: expected a list, found a mapping`}},
		{"out of range", bare("concurrency: {sources: 0}"), []string{`4:24: concurrency.sources: 0 is out of range: expected 1 to 10000`}},
		{"version", strings.Replace(bare(""), "1", "2", 1), []string{`1:10: version: this program reads version 1`}},
		{"source", "version: 1\nsinks: [{name: b, plugin: eml}]\nsources:\n  - nmae: a\n    plugin: IMAP\n    order: newst\n    later: x\n    config: [1]\n    limit: 0", []string{
			`4:5: sources[0].nmae: unknown key; did you mean "name"?`,
			`4:5: sources[0].name: missing: expected a string`,
			`5:13: sources[0].plugin: "IMAP" isn't allowed: expected what matches [a-z0-9][a-z0-9-]*`,
			`6:12: sources[0].order: "newst" isn't allowed: expected one of oldest, newest; did you mean "newest"?`,
			`7:5: sources[0].later: unknown key`,
			`8:13: sources[0].config: expected a mapping, found a list`,
			`9:12: sources[0].limit: 0 is out of range: expected 1 or more`}},
		{"buckets where none can be", bare("state: s3://b/state\nreport: {json: s3://b, csv: ftp://b/x.csv}\ncustody: {path: gs://b/custody}"), []string{
			`4:8: state: expected a folder of this machine, found the address of a bucket: the ledger is a database in files`,
			`5:16: report.json: s3://b names a bucket and no object in it: write it as s3://bucket/reports/last.json`,
			`5:29: report.csv: ftp://b/x.csv: no store of objects has addresses that begin with ftp:// (s3://, gs:// and azblob:// are known; a path without :// is a folder)`,
			`6:17: custody.path: expected a folder of this machine, found the address of a bucket: copy the folder there after the run`}},
		{"doubled names", "version: 1\nsources: [{name: a, plugin: imap}, {name: a, plugin: imap}]\nsinks: [{name: b, plugin: eml}, {name: b, plugin: eml}]\nstages: [{name: c, limit: 1}, {name: c, limit: 2}]", []string{
			`2:43: sources[1].name: the name "a" is taken by sources[0]`, `3:40: sinks[1].name: the name "b" is taken by sinks[0]`, `4:38: stages[1].name: the name "c" is taken by stages[0]`}},
		{"no sources", "version: 1\nsources: []\nsinks: []", []string{`2:10: sources: expected at least one source`, `3:8: sinks: expected at least one sink`}},
		{"patterns", "version: 1\nsinks: [{name: b, plugin: eml}]\nsources: [{name: a, plugin: imap, mailboxes: {include: [''], exclude: ['special:trsh']}}]", []string{
			`3:57: sources[0].mailboxes.include[0]: the pattern is empty: "**" stands for all mailboxes`,
			`3:72: sources[0].mailboxes.exclude[0]: special:trsh isn't known: expected one of all, archive, drafts, flagged, important, inbox, junk, sent, trash; did you mean "trash"?`}},
		{"stages", bare("stages:\n  - name: a\n  - {name: b, filter: seen, limit: 1}\n  - {name: c, filtr: seen}\n  - {name: d, limit: 0}"), []string{
			`5:5: stages[0]: a stage has a name and exactly one of filter, drop, limit, dedupe, header, mailbox, attachments, tag, plugin`,
			`6:5: stages[1]: a stage has a name and exactly one of filter, drop, limit, dedupe, header, mailbox, attachments, tag, plugin`,
			`7:15: stages[2].filtr: unknown key; did you mean "filter"?`,
			`8:22: stages[3].limit: expected a whole number of 1 or more, or {messages: N, per: mailbox}`}},
		{"expressions", bare("stages:\n  - name: a\n    filter: sizee < 3 && form == 'x'\n  - {name: b, drop: \"subjekt == 'x'\"}\n  - name: c\n    filter: |\n      seen &&\n      sean\n") + "timezone: Mars", []string{
			`6:13: stages[0].filter: unknown field sizee; did you mean "size"?`,
			`6:26: stages[0].filter: unknown field form; did you mean "from"?`,
			`7:22: stages[1].drop: unknown field subjekt; did you mean "subject"?`,
			`11: stages[2].filter: unknown field sean; did you mean "seen"?`,
			`12:11: timezone: "Mars" is no timezone: expected one as in UTC or Europe/Berlin`}},
		{"cut at the hash", bare("stages:\n  - name: a\n    filter: subject contains \"ACME #12\""), []string{
			`6:13: stages[0].filter: literal not terminated; YAML takes what follows # for a comment: put the whole expression in single quotes`}},
		{"a tag", bare("stages:\n  - name: a\n    filter: !seen"), []string{`6:13: stages[0].filter: !seen is read as a YAML tag: put the whole value in quotes`}},
		{"an alias", bare("stages:\n  - name: a\n    filter: **"), []string{`6: this isn't YAML: did not find expected alphabetic or numeric character; a text that begins with * or & stands in quotes: "**"`}},
		{"a colon", bare("stages:\n  - name: a\n    filter: subject == \"Re: x\""), []string{`6: this isn't YAML: mapping values are not allowed in this context; a text that contains ": " stands in quotes: '…'`}},
		{"a tab", bare("stages:\n\t- name: a"), []string{`5:1: YAML is indented with spaces, here is a tab`}},
		{"vars", strings.Replace(bare("stages: [{name: a, filter: vars.custodan == 'x'}]"), "imap}", "imap, vars: {custodian: a, 1-2: b}}", 1), []string{
			`2:61: sources[0].vars.1-2: expected a name of letters, digits and _, since expressions read it as vars.NAME`,
			`4:33: stages[0].filter: no source or stage gives the variable custodan; did you mean "custodian"?`}},
		{"references", "version: 1\nname: ${env:X}\nsinks: [{name: b, plugin: eml, config: {a: ['${evn:X}', '${env:}', '${env:X', '${row:x}', '$${fine}', '${exec:}']}}]\nsources: [{name: a, plugin: imap, limit: '${env:N}'}]", []string{
			`2:7: name: "${env:X}" isn't allowed: expected what matches [a-z0-9][a-z0-9._-]*`,
			`3:45: sinks[0].config.a[0]: "${evn:X" is no reference: expected ${env:NAME}, ${env:NAME:-default}, ${file:path}, ${exec:command}, ${row:COLUMN}, ${store:NAME} or ${shard}; write $${ for a plain ${`,
			`3:57: sinks[0].config.a[1]: ${env:}: expected a name`,
			`3:68: sinks[0].config.a[2]: the } of "${env:X" is missing`,
			`3:79: sinks[0].config.a[3]: ${row:…} stands only in a source with foreach`,
			`3:103: sinks[0].config.a[5]: ${exec:} names no command`,
			`4:42: sources[0].limit: expected a whole number, found a string`}},
		{"a reference in an expression", bare("stages: [{name: a, filter: 'size < ${env:N}'}]"), []string{`4:28: stages[0].filter: a reference isn't evaluated here: it may stand in state, in a source's vars and in config`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Parse("x.yaml", []byte(tt.yaml))
			if diff := cmp.Diff(tt.want, problems(err)); diff != "" {
				t.Error(diff)
			}
			if err != nil && !fault.Is(err, fault.Config) {
				t.Errorf("%v is no fault of the config", err)
			}
		})
	}
}

func problems(err error) []string {
	var ps config.Problems
	if !errors.As(err, &ps) {
		return nil
	}
	var out []string
	for _, p := range ps {
		out = append(out, strings.TrimPrefix(p.Error(), "x.yaml:"))
	}
	return out
}

func TestBombsAreRefused(t *testing.T) {
	t.Parallel()
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 10; i++ {
		p := string(rune('0' + i - 1))
		bomb += "a" + string(rune('0'+i)) + ": &a" + string(rune('0'+i)) + " [" + strings.Repeat("*a"+p+",", 9) + "*a" + p + "]\n"
	}
	for name, text := range map[string]string{"bomb": bomb, "loop": "a: &a [*a]\n", "deep": strings.Repeat("[", 5000) + strings.Repeat("]", 5000)} {
		start := time.Now()
		if _, err := config.Parse("x.yaml", []byte(text)); err == nil {
			t.Errorf("%s: taken", name)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: took %v", name, d)
		}
	}
}

func TestLoadSaysWhatToDo(t *testing.T) {
	t.Parallel()
	_, err := config.Load(t.TempDir() + "/none.yaml")
	if f := fault.As(err); f == nil || f.Class != fault.Config || f.Hint == "" {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(bare("stages: [{name: a, filter: 'size < 3'}]")))
	f.Add([]byte("a: &a [*a]\n<<: 1\n? [x]: 2\n017: 3"))
	f.Add([]byte("a:\n\t- b\n---\nb"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := config.Parse("x.yaml", text)
		if file == nil && err == nil {
			t.Fatal("neither a file nor an error")
		}
		if err != nil && len(problems(err)) == 0 {
			t.Errorf("%v says nothing", err)
		}
	})
}

func BenchmarkParse3000Sources(b *testing.B) {
	var text strings.Builder
	text.WriteString("version: 1\nsinks: [{name: b, plugin: eml}]\nsources:\n")
	for i := range 3000 {
		text.WriteString("  - {name: a" + strings.Repeat("x", i%7) + strings.ReplaceAll(time.Duration(i).String(), "µ", "u") + ", plugin: imap, config: {address: 'localhost:143', username: u, password: '${env:P}'}}\n")
	}
	for b.Loop() {
		if _, err := config.Parse("x.yaml", []byte(text.String())); err != nil {
			b.Fatal(err)
		}
	}
}
