package crash

import (
	"os"
	"strings"
	"testing"
)

// staged is a pipeline of two sources with the same messages: one copy of each
// goes on, with another header, under another mailbox.
const staged = `version: 1
name: crash
sources:
  - name: made
    plugin: synthetic
    config: {messages: 420, mailboxes: 4, big: 52, refuse: 44}
  - name: again
    plugin: synthetic
    config: {messages: 420, mailboxes: 4, big: 52, refuse: 44}
stages:
  - name: once
    dedupe: message_id
  - name: mark
    header: {set: {X-Exported-By: mailhaul}}
  - name: land
    mailbox: {prefix: Old/}
  - name: who
    tag: {team: sales}
    when: subject contains "kind 3"
sinks:
  - name: archive
    plugin: eml
    when: lands_in startsWith "Old/"
    config: {path: out/all}
  - name: index
    plugin: json
    config: {path: out/index.jsonl, detail: structure}
`

// TestStagesKilled kills the host, a source and sinks of a pipeline with
// stages that change messages and choose among copies: what is left is the
// same, with the same copies (I2).
func TestStagesKilled(t *testing.T) {
	t.Parallel()
	undisturbed := newPipeline(t)
	undisturbed.write(staged)
	e := undisturbed.run(nil)
	undisturbed.wantWhole(e)
	if !strings.Contains(e.report, " duplicates") {
		t.Fatalf("there are no duplicates: %s", e)
	}
	want := undisturbed.left()
	undisturbed.wantNothingToDo()
	for _, point := range []string{
		"pipeline:engine.deliver=40", "pipeline:engine.data.flushed=3", "pipeline:engine.before.commit=2", "pipeline:engine.after.commit=3",
		"pipeline:engine.committed", "pipeline-source-synthetic:source.listed=3", "pipeline-source-synthetic:source.answer=30",
		"pipeline-sink-eml:sink.flush=2", "pipeline-sink-json:sink.flushed=2",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			p := newPipeline(t)
			p.write(staged)
			dead := p.path("dead")
			killed := p.run([]string{"MAILHAUL_FAULTPOINT=" + point, "MAILHAUL_FAULTPOINT_ONCE=" + dead})
			if _, err := os.Stat(dead); err != nil {
				t.Fatalf("nobody passed the point: %s", killed)
			}
			p.wantWhole(p.run(nil))
			p.wantSame(want)
			p.wantNothingToDo()
		})
	}
}
