package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/config"
)

// TestStages: what is wrong with stages, each at its place; all of a file at
// once.
func TestStages(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		stages string
		want   []string
	}{
		{"all kinds", `- {name: a, filter: size > 1 && vars.team == "" && vars.who == "x"}
- {name: b, drop: seen, unknown: drop}
- {name: c, limit: 5}
- {name: d, dedupe: content}
- {name: e, header: {set: {X-A: "1"}}, when: 'vars.team == "x"', unknown: keep}
- {name: f, mailbox: {prefix: "X/"}}
- {name: g, attachments: strip, on_error: stop}
- {name: h, attachments: {strip: {min_size: 10MB}}}
- {name: i, tag: {team: sales}, when: subject contains "x"}
`, nil},
		{"a plugin's variables nobody knows", `- {name: a, plugin: classify, config: {model: "${env:MODEL}"}}
- {name: b, filter: vars.anything == "x"}
`, nil},
		{"a variable that no stage sets", `- {name: a, tag: {team: sales}}
- {name: b, filter: vars.taem == "x"}
`, []string{`7:26: stages[1].filter: no source or stage gives the variable taem; did you mean "team"?`}},
		{"what doesn't stand beside it", `- {name: a, filter: seen, when: seen}
- {name: b, limit: 5, on_error: drop}
- {name: c, header: {remove: [X-A]}, unknown: drop}
- {name: d, drop: seen, config: {}}
`, []string{
			"6:33: stages[0].when: when stands beside header, mailbox, attachments, tag, plugin only, not beside filter",
			"7:33: stages[1].on_error: on_error stands beside attachments, plugin only, not beside limit",
			"8:47: stages[2].unknown: without when a header reads no values that could be absent",
			"9:33: stages[3].config: config stands beside plugin only, not beside drop",
		}},
		{"in a stage's own keys", `- {name: a, header: {remove: ["X A"]}}
- {name: b, header: {set: {X-A: "1"}, remove: [x-a]}}
- {name: c, mailbox: {replace: {pattern: "("}}}
- {name: d, mailbox: {}}
- {name: e, tag: {"a b": x}}
- {name: f, attachments: {strip: {media_types: [pdf]}}}
- {name: g, attachments: strp}
- {name: h, dedupe: message-id}
- {name: i, header: {sett: {}}}
- {name: j, tag: {a: b}, when: sizee > 1}
`, []string{
			`6:30: stages[0].header.remove: "X A" is no name of a field: expected one as in X-Spam-Status`,
			"7:27: stages[1].header.set: X-A stands under remove too",
			"8:42: stages[2].mailbox.replace.pattern: error parsing regexp: missing closing ): `(`",
			"9:22: stages[3].mailbox: expected map, replace or prefix",
			`10:18: stages[4].tag: "a b" can't be read as vars.a b: expected letters, digits and _`,
			`11:48: stages[5].attachments.strip.media_types: "pdf" is no media type: expected one as in application/pdf or image/*`,
			"12:26: stages[6].attachments: expected strip, or {strip: {media_types: …, names: …, min_size: …}}",
			`13:21: stages[7].dedupe: "message-id" isn't allowed: expected one of message_id, content; did you mean "message_id"?`,
			`14:22: stages[8].header.sett: unknown key; did you mean "set"?`,
			`15:32: stages[9].when: unknown field sizee; did you mean "size"?`,
		}},
		{"one dedupe, and no limit behind it", `- {name: a, dedupe: content}
- {name: b, limit: 5}
- {name: c, dedupe: message_id}
`, []string{
			"7:20: stages[1].limit: it would count before it is known which copies dedupe lets pass: put the limit before stage a",
			"8:21: stages[2].dedupe: stage a compares messages already: one pipeline has one dedupe",
		}},
		{"a reference where none is evaluated", `- {name: a, tag: {team: "${env:TEAM}"}}
`, []string{"6:25: stages[0].tag.team: a reference isn't evaluated here: it may stand in state, in a source's vars and in config"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := "version: 1\ntimezone: Europe/Berlin\nsources: [{name: a, plugin: imap, vars: {who: x}}]\nsinks: [{name: b, plugin: eml, when: 'true'}]\nstages:\n" + tt.stages
			_, err := config.Parse("x.yaml", []byte(file))
			var got []string
			for _, p := range problems(err) {
				got = append(got, strings.TrimPrefix(p, "x.yaml:"))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
