package crash

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// points are the places where a process is killed, by executable.
var points = map[string][]string{
	"pipeline": {
		"engine.deliver", "engine.delivered", "engine.sink.dirty", "engine.sink.opened",
		"engine.epoch.closed", "engine.data.flushed", "engine.records.written",
		"engine.before.commit", "engine.after.commit", "engine.committed",
		"engine.sink.close", "engine.sink.closed",
	},
	"pipeline-source-synthetic": {
		"plugin.describe", "session.open", "session.opened", "source.mailboxes", "source.list", "source.listed",
		"source.fetch", "source.pulled", "source.answer", "source.frame", "session.close", "session.closed",
	},
	"pipeline-sink-eml":  sinkPoints,
	"pipeline-sink-json": sinkPoints,
}

var sinkPoints = []string{
	"plugin.describe", "plugin.prepare", "session.open", "session.opened", "sink.frame", "sink.write", "sink.written",
	"sink.flush", "sink.flushed", "sink.commit", "sink.committed", "session.close", "session.closed",
}

// reference runs the pipeline undisturbed, and earlier versions of it before.
func reference(t *testing.T, earlier ...string) (left, *ended) {
	t.Helper()
	p := newPipeline(t)
	for _, file := range earlier {
		p.before(file)
	}
	e := p.run(nil)
	p.wantWhole(e)
	l := p.left()
	p.wantNothingToDo()
	return l, e
}

// TestKilledAtEachPoint kills each process at each of its points, the first
// and the third time that it passes there. A plugin's death costs the run
// nothing; a host's is made good by the next one.
func TestKilledAtEachPoint(t *testing.T) {
	t.Parallel()
	want, e := reference(t)
	t.Logf("an undisturbed run takes %v:\n%s", e.took, e.report)
	for executable, names := range points {
		for _, name := range names {
			for _, pass := range []int{1, 3} {
				t.Run(fmt.Sprintf("%s/%s=%d", executable, name, pass), func(t *testing.T) {
					t.Parallel()
					p := newPipeline(t)
					dead := p.path("dead")
					e := p.run([]string{
						fmt.Sprintf("MAILHAUL_FAULTPOINT=%s:%s=%d", executable, name, pass), "MAILHAUL_FAULTPOINT_ONCE=" + dead,
					})
					_, err := os.Stat(dead)
					switch {
					case err != nil && pass == 1:
						t.Fatalf("nobody passed the point: %s", e)
					case err != nil:
						p.wantWhole(e) // passed less often than that
					case executable == "pipeline" && e.code != -1:
						t.Fatalf("the host wasn't killed: %s", e)
					case executable != "pipeline":
						p.wantWhole(e)
					}
					p.wantWhole(p.run(nil))
					p.wantSame(want)
					p.wantNothingToDo()
				})
			}
		}
	}
}

// TestKilledInTheNextRun kills the host in the middle of a commit, and then, in
// the run that follows, a process that puts in order what that left.
func TestKilledInTheNextRun(t *testing.T) {
	t.Parallel()
	want, _ := reference(t)
	for _, point := range []string{
		"pipeline:engine.sink.opened", "pipeline:engine.epoch.closed", "pipeline:engine.after.commit",
		"pipeline-sink-eml:session.open", "pipeline-sink-eml:session.opened", "pipeline-sink-eml:sink.flushed",
		"pipeline-sink-json:session.open", "pipeline-sink-json:session.opened", "pipeline-sink-json:sink.flushed",
		"pipeline-source-synthetic:session.open", "pipeline-source-synthetic:source.answer",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			p := newPipeline(t)
			if e := p.run([]string{"MAILHAUL_FAULTPOINT=pipeline:engine.before.commit=3"}); e.code != -1 {
				t.Fatalf("the host wasn't killed: %s", e)
			}
			dead := p.path("dead")
			e := p.run([]string{"MAILHAUL_FAULTPOINT=" + point, "MAILHAUL_FAULTPOINT_ONCE=" + dead})
			if _, err := os.Stat(dead); err != nil {
				t.Fatalf("nobody passed the point: %s", e)
			}
			if !strings.HasPrefix(point, "pipeline:") {
				p.wantWhole(e)
			}
			p.wantWhole(p.run(nil))
			p.wantSame(want)
			p.wantNothingToDo()
		})
	}
}
