package plugintest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/plugintest"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/stage"
	"github.com/mailhaul/pipeline/test/leak"
)

// TestMain is also the plugins: the tests link this program under their names,
// in a folder that is called as the fault that it should have.
func TestMain(m *testing.M) {
	broken := filepath.Base(filepath.Dir(os.Args[0]))
	if broken == "none" {
		broken = ""
	}
	switch filepath.Base(os.Args[0]) {
	case "pipeline-source-heap":
		if broken == "print-early" {
			fmt.Print("ready to serve")
		}
		source.Serve(heap(broken))
	case "pipeline-sink-shelf":
		sink.Serve(shelf(broken))
	case "pipeline-stage-stamp":
		stage.Serve(stamp(broken))
	}
	os.Exit(leak.Main(m))
}

// misbehave breaks what a session's Open may do to its process.
func misbehave(broken string) error {
	switch broken {
	case "print":
		fmt.Println("opened a session")
	case "child":
		cmd := exec.Command("sleep", "60")
		return cmd.Start()
	}
	return nil
}

var (
	heapFixture  = plugintest.Fixture{Config: map[string]any{"messages": 12, "large": 24 << 20, "password": password}, Patience: 300 * time.Millisecond, Large: 24 << 20}
	shelfFixture = plugintest.Fixture{Config: map[string]any{"path": "{dir}/out", "password": password}, Patience: 300 * time.Millisecond, Large: 24 << 20}
	stampFixture = plugintest.Fixture{Patience: 300 * time.Millisecond, Large: 24 << 20}
)

func TestHeap(t *testing.T)  { plugintest.Source(t, heap(""), heapFixture) }
func TestShelf(t *testing.T) { plugintest.Sink(t, shelf(""), shelfFixture) }
func TestStamp(t *testing.T) { plugintest.Stage(t, stamp(""), stampFixture) }

// linked makes an executable of this program that is a plugin with a fault.
func linked(t *testing.T, executable, broken string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), broken)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, executable)
	if broken == "orphan" { // the process that the host started outlives what it is
		inner := linked(t, executable, "none")
		script := fmt.Sprintf("#!/bin/sh\n'%s'\nexec sleep 60\n", inner)
		if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each fault is found by its own case, and by that alone: the suite tells an
// author what is wrong, not that something is.
func TestBrokenPluginsFailTheirCase(t *testing.T) {
	t.Parallel()
	here := plugintest.Fixture{Config: map[string]any{"password": password, "large": 5000}, Patience: 200 * time.Millisecond}
	shelfHere, registerHere := here, here
	shelfHere.Config = map[string]any{"path": "{dir}/out"}
	registerHere.Config = map[string]any{"path": "{dir}/records"}
	ofSource := func(broken string) (*plugintest.Direction, plugintest.Fixture) {
		return plugintest.SourceHere(heap(broken)), here
	}
	ofSink := func(broken string) (*plugintest.Direction, plugintest.Fixture) {
		return plugintest.SinkHere(shelf(broken)), shelfHere
	}
	ofLax := func(string) (*plugintest.Direction, plugintest.Fixture) {
		return plugintest.SinkHere(laxShelf()), shelfHere
	}
	ofShared := func(broken string) (*plugintest.Direction, plugintest.Fixture) {
		return plugintest.SinkHere(shared(broken)), shelfHere
	}
	ofReel := func(broken string) (*plugintest.Direction, plugintest.Fixture) {
		return plugintest.SinkHere(reel(broken)), shelfHere
	}
	ofRecords := func(broken string) (*plugintest.Direction, plugintest.Fixture) {
		return plugintest.SinkHere(register(broken)), registerHere
	}
	ofStage := func(broken string) (*plugintest.Direction, plugintest.Fixture) {
		return plugintest.StageHere(stamp(broken)), plugintest.Fixture{Patience: here.Patience}
	}
	tests := []struct {
		name   string
		of     func(broken string) (*plugintest.Direction, plugintest.Fixture)
		faults map[string]string // fault: the case that it fails
	}{
		{"source", ofSource, map[string]string{
			"none": "", "version": "describes-itself", "log-secret": "keeps-secrets", "error-secret": "keeps-secrets",
			"mailboxes": "mailboxes-stably", "twice": "lists-stably", "state": "lists-stably", "order": "lists-in-order",
			"pages": "lists-in-pages", "next": "lists-ahead", "skip": "skips", "where": "fails-only-what-fails", "asked": "lists-what-is-asked-for",
			"no-mailbox": "lists-no-such-mailbox", "octets": "fetches-what-it-listed", "announced": "fetches-what-it-listed",
			"unanswered": "fetches-what-it-listed", "gone": "says-what-is-gone", "race": "fetches-concurrently", "break-off": "breaks-off",
			"cancel-list": "cancels", "cancel-fetch": "cancels", "finish": "finishes", "backpressure": "survives-backpressure",
		}},
		{"sink", ofSink, map[string]string{
			"none": "", "prepare": "prepares-without-traces", "receipt": "writes", "race": "writes-concurrently",
			"empty": "writes-odd-bodies", "names": "survives-hostile-names", "torn": "discards-broken-bodies",
			"twice": "same-message-once", "cancel": "cancels-writes", "impatient": "waits-for-slow-bodies",
			"covers": "seals-epochs",
		}},
		{"sealing sink", ofReel, map[string]string{
			"none": "", "covers": "seals-epochs", "forgets": "seals-epochs", "sticks": "seals-epochs",
		}},
		{"lax sink", ofLax, map[string]string{"config": "rejects-bad-config"}},
		{"fenced sink", ofShared, map[string]string{
			"none": "", "names": "fences-owners", "leftovers": "fences-owners", "loses": "fences-owners",
		}},
		{"record sink", ofRecords, map[string]string{"none": "", "replaces": "replaces-records"}},
		{"stage", ofStage, map[string]string{
			"none": "", "prepare": "prepares-the-same", "verdict": "judges-the-same", "undeclared": "changes-what-it-says",
			"id": "changes-what-it-says", "empty": "judges-odd-bodies", "cancel": "cancels-apply",
		}},
	}
	for _, tt := range tests {
		for broken, want := range tt.faults {
			t.Run(tt.name+"/"+broken, func(t *testing.T) {
				t.Parallel()
				d, f := tt.of(broken)
				if broken == "backpressure" || broken == "impatient" {
					f.Patience = patient
				}
				var failed []string
				for _, r := range plugintest.InProcess(t.Context(), d, f) {
					failed = note(t, failed, r)
				}
				if got := strings.Join(failed, " "); got != want {
					t.Errorf("it fails %q, want %q", got, want)
				}
			})
		}
	}
}

func note(t *testing.T, failed []string, r plugintest.Result) []string {
	t.Helper()
	if r.Passed() {
		return failed
	}
	t.Logf("%s: %s", r.Case, strings.Join(r.Problems, "\n\t"))
	return append(failed, r.Case)
}

// What only a process can break, and the same suite from the outside: what is
// wrong with a plugin's calls is found there too, unless the host makes up for
// it.
func TestBrokenProcessesFailTheirCase(t *testing.T) {
	t.Parallel()
	tests := []struct {
		executable string
		f          plugintest.Fixture
		faults     map[string]string // fault: the case that it fails
	}{
		{"pipeline-source-heap", heapFixture, map[string]string{
			"none": "", "log-secret": "keeps-secrets", "gone": "says-what-is-gone", "memory": "bounded-memory", "one-session": "serves-many-sessions",
			"print": "prints-nothing", "print-early": "prints-nothing", "child": "leaves-nothing", "orphan": "ends-with-its-host",
		}},
		{"pipeline-sink-shelf", shelfFixture, map[string]string{
			"none": "", "torn": "discards-broken-bodies", "flush": "keeps-what-was-flushed", "checkpoint": "resumes-at-checkpoint", "covers": "seals-epochs", "memory": "bounded-memory",
		}},
		{"pipeline-stage-stamp", stampFixture, map[string]string{"none": "", "verdict": "judges-the-same", "memory": "bounded-memory"}},
	}
	for _, tt := range tests {
		for broken, want := range tt.faults {
			if plugintest.Raced && broken != "none" {
				continue // thirty processes a fault, each slow to start then: their calls are the same as in-process
			}
			t.Run(tt.executable+"/"+broken, func(t *testing.T) {
				t.Parallel()
				f := tt.f
				if broken == "orphan" { // each of its processes takes 2 s to end
					f.Cases = []string{want, "fetches-what-it-listed", "prints-nothing", "leaves-nothing"}
				}
				var failed []string
				err := plugintest.Executable(t.Context(), linked(t, tt.executable, broken), f, func(r plugintest.Result) {
					failed = note(t, failed, r)
				})
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(failed, " "); got != want {
					t.Errorf("it fails %q, want %q", got, want)
				}
			})
		}
	}
}

func TestExecutableSaysWhatItNeeds(t *testing.T) {
	t.Parallel()
	ignore := func(plugintest.Result) {}
	path := linked(t, "pipeline-sink-shelf", "none")
	tests := []struct {
		name, path, want string
		f                plugintest.Fixture
	}{
		{"no file", filepath.Join(filepath.Dir(path), "pipeline-sink-other"), "no such file", plugintest.Fixture{}},
		{"no plugin's name", os.Args[0], "isn't named as a plugin", plugintest.Fixture{}},
		{"no such case", path, `no case "lists-stably" for a sink`, plugintest.Fixture{Cases: []string{"lists-stably"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := plugintest.Executable(t.Context(), tt.path, tt.f, ignore)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := plugintest.Executable(ctx, path, shelfFixture, ignore); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}
