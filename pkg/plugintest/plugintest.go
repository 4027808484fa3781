// Package plugintest is the conformance suite: what the contracts of the
// packages source, sink and stage promise, as cases that a plugin passes or
// not. An author runs it in `go test`, in-process and against the plugin as a
// process of its own:
//
//	func TestConformance(t *testing.T) {
//		plugintest.Sink(t, plugin, plugintest.Fixture{
//			Config: map[string]any{"path": "{dir}/out"},
//		})
//	}
//
// `pipeline plugin test` runs the same cases against any executable, in
// whatever language it is written.
package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// Fixture says how the plugin under test is configured, and how patient the
// suite is.
type Fixture struct {
	// Config is the plugin's config, as it stands in the file. In its strings
	// "{dir}" stands for a fresh, empty directory of the case. Secrets stand
	// in it as plain strings: the suite hands them over as the host does.
	//
	// A source's config leads to a server with messages: at least three in
	// one mailbox. The more there are, and the odder, the more is tested.
	Config map[string]any

	// Configure returns the Config of a plugin that needs something started
	// first, such as a server. It is called once, in the test's own process:
	// not in the one that the suite starts as the plugin. Only for `go test`.
	Configure func(t testing.TB) map[string]any

	// Patience is how long the other side is slow where the suite tests
	// that; 0: 2 s. `pipeline plugin test --patience 3m` is minutes.
	Patience time.Duration

	// Large is the size of the message with which a sink's and a stage's
	// memory is measured, in octets; 0: 64 MiB. A source is measured with
	// the largest message that it lists, if that is as large.
	Large int64

	// Cases are the names of those to run; empty: all.
	Cases []string
}

// Result is what became of one case.
type Result struct {
	Case     string   // its name, as in "lists-in-pages"
	Promise  string   // what it tests, in a sentence
	NotTried string   // why it wasn't tried; empty when it was
	Problems []string // what is wrong; empty when all is well
	Took     time.Duration
}

// Passed reports whether nothing was found wrong.
func (r Result) Passed() bool { return len(r.Problems) == 0 }

// Source tests a source plugin: each case in this process, and as a process of
// its own. For the latter the test's executable starts itself.
func Source[C any](t *testing.T, p source.Plugin[C], f Fixture) {
	t.Helper()
	run(t, f, direct(sourceOf(p)), func() { source.Serve(p) })
}

// Sink tests a sink plugin, as Source does.
func Sink[C any](t *testing.T, p sink.Plugin[C], f Fixture) {
	t.Helper()
	run(t, f, direct(sinkOf(p)), func() { sink.Serve(p) })
}

// Stage tests a stage plugin, as Source does.
func Stage[C any](t *testing.T, p stage.Plugin[C], f Fixture) {
	t.Helper()
	run(t, f, direct(stageOf(p)), func() { stage.Serve(p) })
}

// run tests a plugin both ways.
func run(t *testing.T, f Fixture, here *direction, serve func()) {
	t.Helper()
	if startedByHost() {
		serve() // doesn't return
	}
	if f.Configure != nil {
		f.Config = f.Configure(t)
	}
	t.Run("inprocess", func(t *testing.T) { all(t, f, here) })
	t.Run("process", func(t *testing.T) {
		out, err := itself(t.Name()[:strings.LastIndex(t.Name(), "/")], here.kind, here.name)
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(out.folder)
		all(t, f, out.direction())
	})
}

// all runs the cases as subtests. A case that can't be tried is logged.
func all(t *testing.T, f Fixture, d *direction) {
	t.Helper()
	for _, c := range casesOf(d, f) {
		t.Run(c.name, func(t *testing.T) {
			r := c.try(t.Context(), d, f)
			for _, p := range r.Problems {
				t.Error(p)
			}
			if r.NotTried != "" {
				t.Log("not tried: " + r.NotTried)
			}
		})
	}
}

// Executable tests the plugin whose executable is at path, in any language,
// and calls report after each case. The file's name is what the host would
// look for: pipeline-sink-NAME. The error is one of the test itself: there is
// no such file, or it doesn't start.
func Executable(ctx context.Context, path string, f Fixture, report func(Result)) error {
	out, err := executable(path)
	if err != nil {
		return err
	}
	d := out.direction()
	if f.Config == nil {
		if f.Config, err = presets(ctx, d); err != nil {
			return err
		}
	}
	if _, err := json.Marshal(f.Config); err != nil {
		return fmt.Errorf("the config can't be written as JSON: %w", err)
	}
	for _, name := range f.Cases {
		if !slices.ContainsFunc(cases(), func(c testCase) bool { return c.name == name && c.of(d.kind) }) {
			return fmt.Errorf("there is no case %q for a %s: there are %s", name, d.kind, strings.Join(names(d), ", "))
		}
	}
	for _, c := range casesOf(d, f) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		report(c.try(ctx, d, f))
	}
	return nil
}

func names(d *direction) []string {
	var out []string
	for _, c := range casesOf(d, Fixture{}) {
		out = append(out, c.name)
	}
	return out
}
