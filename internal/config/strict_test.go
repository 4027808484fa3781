package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/config"
)

func TestWarnings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, stages, when, mailboxes string
		want                          []string
	}{
		{"nothing odd", "{name: a, filter: size < 5 && seen}, {name: b, drop: size < 3 || subject == 'x'}, {name: c, limit: 3}", "mailbox == 'INBOX' && source == 'a'", "", nil},
		{"a range", "{name: a, filter: date >= date('2026-01-01') && date < date('2026-02-01')}", "size > 3 && size <= 4", "", nil},
		{"never", "{name: a, filter: 1 > 2}, {name: b, filter: seen}", "", "", []string{`2:28: stages[0].filter: it drops every message: it is false whatever the message`}},
		{"a size", "{name: a, filter: size > 5 * MB && size < 5 * KB}", "", "", []string{`2:28: stages[0].filter: it drops every message: size > 5000000 and size < 5000 can't both be`}},
		{"equal, but not both", "{name: a, filter: size > 5 && size <= 5}", "", "", []string{`2:28: stages[0].filter: it drops every message: size > 5 and size <= 5 can't both be`}},
		{"equal", "{name: a, filter: size >= 5 && size <= 5}", "", "", nil},
		{"the future", "{name: a, filter: date > now() && date < date('2020-01-01')}", "", "", []string{`2:28: stages[0].filter: it drops every message: no date is in the range`}},
		{"flags", "{name: a, filter: seen && !seen}", "", "", []string{`2:28: stages[0].filter: it drops every message: flags has \Seen and flags lacks \Seen can't both be`}},
		{"a drop of all", "{name: a, drop: size < 5 || size >= 5}", "", "", []string{`2:26: stages[0].drop: it drops every message: the expression is true of each`}},
		{"two stages", "{name: a, filter: size > 5}, {name: b, drop: size > 3}", "", "", []string{`2:55: stages[1].drop: with the stages before it, it drops every message: size > 5 and size <= 3 can't both be`}},
		{"two texts", "{name: a, filter: mailbox == 'A' && mailbox == 'B'}", "", "", []string{`2:28: stages[0].filter: it drops every message: mailbox can't be both "A" and "B"`}},
		{"a sink of nobody", "{name: a, filter: size < 5}", "size > 7", "", []string{`4:38: sinks[0].when: no message reaches this sink: size < 5 and size > 7 can't both be`}},
		{"a source that isn't there", "", "source == 'alise'", "", []string{`4:38: sinks[0].when: no message reaches this sink: there is no source "alise"; did you mean "alice"?`}},
		{"a mailbox that is left out", "", "mailbox == 'Old/2019'", "{exclude: ['Old/**']}", []string{`4:38: sinks[0].when: no message reaches this sink: no source exports the mailbox "Old/2019"`}},
		{"a mailbox that may be special", "", "mailbox == 'Papierkorb'", "{include: ['special:trash']}", nil},
		{"either of two", "{name: a, filter: size < 5 || size > 7}", "size == 6", "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := "version: 1\nstages: [" + tt.stages + "]\nsources: [{name: a, plugin: imap}, {name: alice, plugin: imap}]\nsinks: [{name: b, plugin: eml, when: \"WHEN\"}]\n"
			if tt.when == "" {
				text = strings.Replace(text, ", when: \"WHEN\"", "", 1)
			}
			if tt.mailboxes != "" {
				text = strings.ReplaceAll(text, "plugin: imap", "plugin: imap, mailboxes: "+tt.mailboxes)
			}
			f, err := config.Parse("x.yaml", []byte(strings.Replace(text, "WHEN", tt.when, 1)))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range f.Warnings(time.Date(2026, 11, 21, 15, 0, 0, 0, time.UTC)) {
				got = append(got, strings.TrimPrefix(p.Error(), "x.yaml:"))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCutTexts(t *testing.T) {
	t.Parallel()
	f, err := config.Parse("x.yaml", []byte(`version: 1
sources:
  - name: a         # a comment
    plugin: imap
    config:
      password: hunter #2
      note: "all #of it"
      address: x    #- a line -
stages:
  - name: s
    filter: size < 5 #MB
sinks: [{name: b, plugin: eml}]
`))
	if err != nil {
		t.Fatal(err)
	}
	words := ": YAML takes what follows # for a comment: put the whole value in single quotes, or write a space behind the #"
	want := []string{"6:17: sources[0].config.password" + words, "8:16: sources[0].config.address" + words, "11:13: stages[0].filter" + words}
	var got []string
	for _, p := range f.Warnings(time.Now()) {
		got = append(got, strings.TrimPrefix(p.Error(), "x.yaml:"))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
