package crash

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// renumbered is the pipeline when its server has given all messages new ids.
var renumbered = strings.Replace(file, "refuse: 44}", "refuse: 44, validity: 8}", 1)

// TestKilledWhileIDsChange kills the host while it compares mailboxes that
// have another UIDVALIDITY with what is exported, and after: nothing is written
// a second time, and what the ledger knows is what it would know.
func TestKilledWhileIDsChange(t *testing.T) {
	t.Parallel()
	changed := func(t *testing.T) *pipeline {
		p := newPipeline(t)
		p.wantWhole(p.run(nil))
		p.write(renumbered)
		p.validity = 8
		return p
	}
	p := changed(t)
	before := p.left()
	e := p.run(nil)
	p.wantWhole(e)
	if n := strings.Count(e.report, "UIDVALIDITY changed 7 → 8"); n != mailboxes {
		t.Errorf("%d mailboxes were compared: %s", n, e)
	}
	want := p.left()
	for name, was := range before {
		if _, of, _ := strings.Cut(name, " "); of == "" && want[name] != was {
			t.Errorf("%s changed", name)
		}
	}
	for _, point := range []string{
		"engine.recognise=1", "engine.recognise=3", "engine.recognised=1", "engine.recognised=2", "engine.before.commit=1", "engine.after.commit=1",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			p := changed(t)
			if e := p.run([]string{"MAILHAUL_FAULTPOINT=pipeline:" + point}); e.code != -1 {
				t.Fatalf("the host wasn't killed: %s", e)
			}
			p.wantWhole(p.run(nil))
			p.wantSame(want)
			p.wantNothingToDo()
		})
	}
}

// TestKilledWhileFinishing kills the host and the source while exported
// messages are flagged on the server: all that were exported are, in the end,
// and nothing else is (I3).
func TestKilledWhileFinishing(t *testing.T) {
	t.Parallel()
	want, _ := made.reference(t)
	for _, point := range []string{
		"pipeline:engine.finish=1", "pipeline:engine.finish=4", "pipeline:engine.finished=1", "pipeline:engine.finished=3",
		"pipeline:engine.after.commit=4", "pipeline-source-synthetic:source.finish=2", "pipeline-source-synthetic:source.finished=2",
		"pipeline:engine.rehash=2", "pipeline:engine.rehashed=1", "pipeline:engine.rehashed=4",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			p := newPipeline(t)
			p.write(strings.Replace(file, "refuse: 44}", fmt.Sprintf("refuse: 44, finished: %q}\n    after: {flag: $Done, batch: 20, rehash: true}", p.path("finished")), 1))
			dead := p.path("dead")
			e := p.run([]string{"MAILHAUL_FAULTPOINT=" + point, "MAILHAUL_FAULTPOINT_ONCE=" + dead})
			if _, err := os.Stat(dead); err != nil {
				t.Fatalf("nobody passed the point: %s", e)
			}
			p.wantWhole(p.run(nil))
			p.wantSame(want)
			p.wantNothingToDo()
			text, err := os.ReadFile(p.path("finished"))
			if err != nil {
				t.Fatal(err)
			}
			done := map[string]bool{}
			for line := range strings.Lines(string(text)) {
				mailbox, uid, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
				done[fmt.Sprintf("ledger made://%s UID %s", mailbox, uid)] = true
			}
			written := 0
			for name, what := range want {
				if strings.HasPrefix(name, "ledger ") && strings.Contains(what, "archive: written") {
					written++
				}
			}
			if len(done) != written {
				t.Errorf("%d messages are flagged, %d are exported", len(done), written)
			}
		})
	}
}
