package crash

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// points are the places where a process is killed, by executable.
type points map[string][]string

// madePoints are those of the scenario with messages that are made,
// mixedPoints those of both protocols and all file formats.
var (
	madePoints = points{
		"pipeline": hostPoints, "pipeline-source-synthetic": sourcePoints, "pipeline-sink-eml": sealerPoints, "pipeline-sink-json": sinkPoints,
	}
	mixedPoints = points{
		"pipeline": hostPoints, "pipeline-source-imap": sourcePoints, "pipeline-source-pop3": sourcePoints,
		"pipeline-sink-eml": sealerPoints, "pipeline-sink-msg": sealerPoints, "pipeline-sink-json": sinkPoints,
	}
)

var (
	hostPoints = []string{
		"engine.deliver", "engine.delivered", "engine.sink.dirty", "engine.sink.opened",
		"engine.epoch.closed", "engine.epoch.sealed", "engine.data.flushed", "engine.records.written",
		"engine.before.commit", "engine.after.commit", "engine.committed",
		"engine.sink.close", "engine.sink.closed",
	}
	sourcePoints = []string{
		"plugin.describe", "session.open", "session.opened", "source.mailboxes", "source.list", "source.listed",
		"source.fetch", "source.pulled", "source.answer", "source.frame", "session.close", "session.closed",
	}
	sinkPoints = []string{
		"plugin.describe", "plugin.prepare", "session.open", "session.opened", "sink.frame", "sink.write", "sink.written",
		"sink.flush", "sink.flushed", "sink.commit", "sink.committed", "session.close", "session.closed",
	}
	sealerPoints = append(slices.Clone(sinkPoints), "sink.seal", "sink.sealed") // a record sink is never sealed
)

// reference runs the pipeline undisturbed, and earlier versions of it before.
func (s *scenario) reference(t *testing.T, earlier ...string) (left, *ended) {
	t.Helper()
	p := s.pipeline(t)
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
	made.killAtEach(t, madePoints.all())
}

// TestMixedKilledAtEachPoint does so with both protocols and all file formats.
// CI takes every sixteenth of the list, which goes through all executables and
// takes other points of each; `make crash` takes all.
func TestMixedKilledAtEachPoint(t *testing.T) {
	t.Parallel()
	list := mixedPoints.all()
	if os.Getenv(crashesVariable) == "" {
		var sample []point
		for i := 5; i < len(list); i += 16 {
			sample = append(sample, list[i])
		}
		list = sample
	}
	mixed(t).killAtEach(t, list)
}

// point is where and when a process is killed.
type point struct {
	executable, name string
	pass             int
}

// all are the points in a stable order: each at its first pass, and then each
// at its third.
func (p points) all() (out []point) {
	for _, pass := range []int{1, 3} {
		for _, executable := range slices.Sorted(maps.Keys(p)) {
			for _, name := range p[executable] {
				out = append(out, point{executable, name, pass})
			}
		}
	}
	return out
}

func (s *scenario) killAtEach(t *testing.T, list []point) {
	want, e := s.reference(t)
	t.Logf("an undisturbed run takes %v; %d points:\n%s", e.took, len(list), e.report)
	for _, at := range list {
		t.Run(fmt.Sprintf("%s/%s=%d", at.executable, at.name, at.pass), func(t *testing.T) {
			t.Parallel()
			p := s.pipeline(t)
			dead := p.path("dead")
			e := p.run([]string{
				fmt.Sprintf("MAILHAUL_FAULTPOINT=%s:%s=%d", at.executable, at.name, at.pass), "MAILHAUL_FAULTPOINT_ONCE=" + dead,
			})
			_, err := os.Stat(dead)
			switch {
			case err != nil && at.pass == 1:
				t.Fatalf("nobody passed the point: %s", e)
			case err != nil:
				p.wantWhole(e) // passed less often than that
			case at.executable == "pipeline" && e.code != -1:
				t.Fatalf("the host wasn't killed: %s", e)
			case at.executable != "pipeline":
				p.wantWhole(e)
			}
			p.wantWhole(p.run(nil))
			p.wantSame(want)
			p.wantNothingToDo()
		})
	}
}

// TestKilledInTheNextRun kills the host in the middle of a commit, and then, in
// the run that follows, a process that puts in order what that left.
func TestKilledInTheNextRun(t *testing.T) {
	t.Parallel()
	want, _ := made.reference(t)
	for _, point := range []string{
		"pipeline:engine.sink.opened", "pipeline:engine.epoch.closed", "pipeline:engine.epoch.sealed", "pipeline:engine.after.commit",
		"pipeline-sink-eml:session.open", "pipeline-sink-eml:session.opened", "pipeline-sink-eml:sink.sealed", "pipeline-sink-eml:sink.flushed",
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
