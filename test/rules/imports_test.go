package rules

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A pattern is a package, "a/..." for it and all below, or "." for the folder
// of the importing package's own owner: a plugin's, a stage's.
type importRule struct {
	from   string   // who
	except []string // of from, those that another rule speaks of
	may    []string // what of ours it may import; everything else is refused
	why    string
}

var data = []string{"pkg/message", "pkg/fault", "pkg/spec"}

var importRules = []importRule{
	{from: "pkg/fault", why: "the classes of error stand alone, so that all may import them"},
	{from: "pkg/message", may: []string{"pkg/fault"}, why: "the data that flows knows nothing of who moves it"},
	{from: "pkg/spec", may: []string{"pkg/fault"}, why: "a config schema knows nothing of what is configured"},
	{from: "pkg/mailnet/...", may: data, why: "a source of a third party imports it, and gets nothing else with it"},
	{from: "pkg/naming/...", may: data, why: "a sink of a third party imports it, and gets nothing else with it"},
	{from: "pkg/attachment/...", may: data, why: "a sink of a third party imports it, and gets nothing else with it"},
	{from: "pkg/target/...", may: append([]string{"pkg/objects", "pkg/naming"}, data...), why: "a sink of a third party imports it, and gets nothing else with it"},
	{from: "pkg/objects", may: []string{"pkg/fault"}, why: "every sink has it in it: it talks to the store over a socket, and knows no cloud"},
	{from: "pkg/source/...", may: append([]string{"internal/wire/..."}, data...), why: "an author sees the contract; the wire stays behind internal/wire"},
	{from: "pkg/sink/...", may: append([]string{"internal/wire/..."}, data...), why: "an author sees the contract; the wire stays behind internal/wire"},
	{from: "pkg/stage/...", may: append([]string{"internal/wire/..."}, data...), why: "an author sees the contract; the wire stays behind internal/wire"},
	{from: "pkg/plugintest/...", may: []string{"pkg/...", "internal/pluginhost", "internal/wire"}, why: "the conformance suite tests what an author can see, and starts it as the host does"},
	{from: "plugins/...", may: []string{"pkg/...", "."}, why: "our plugins have no privilege that a third party lacks"},
	{from: "internal/pluginpb/...", why: "it is generated from proto/"},
	{from: "internal/wire/...", may: []string{"pkg/...", "internal/pluginpb", "internal/arena", "internal/faultpoint", "internal/headroom", "internal/profile", "."}, why: "it turns the contract into pb and back, and nothing else"},
	{from: "internal/demo/...", why: "the demo server is somebody else's mail server, as far as the pipeline knows"},
	{from: "internal/faultpoint", why: "a process that dies there needs nobody's help"},
	{from: "internal/headroom", why: "it is a process's own affair, whatever that does"},
	{from: "internal/profile", why: "it records a process, whatever that does"},
	{from: "internal/msgfile", why: "it reads what another program wrote, and must not share its mistakes"},
	{from: "internal/output", may: []string{"pkg/..."}, why: "it reads what sinks have left, whoever asks"},
	{from: "internal/readback", may: []string{"pkg/fault", "pkg/target", "pkg/objects", "pkg/message", "pkg/spec"}, why: "it reads files and their manifest, whoever asks"},
	{from: "internal/arena", may: []string{"pkg/fault"}, why: "it is memory, whatever lies there"},
	{from: "internal/relay/...", may: []string{"pkg/message", "pkg/fault"}, why: "it passes octets on, whoever reads them"},
	{from: "internal/expression/...", may: []string{"pkg/..."}, why: "an expression reads one message"},
	{from: "internal/shard", may: []string{"pkg/fault"}, why: "which account falls to whom hangs on its name alone"},
	{from: "internal/config/...", may: []string{"pkg/...", "internal/expression", "internal/shard", "internal/stages/..."}, why: "the file is checked offline, before anything starts"},
	{from: "internal/browse/...", may: []string{"pkg/...", "internal/config", "internal/expression"}, why: "who only looks needs no run, and is tested without a plugin process"},
	{from: "internal/plan/...", may: []string{"pkg/...", "internal/config", "internal/expression", "internal/stages/..."}, why: "a plan is made of the file and of what plugins say of themselves"},
	{from: "internal/pluginhost/...", may: []string{"pkg/...", "internal/wire/...", "internal/arena", "internal/faultpoint", "."}, why: "it starts processes and speaks the wire, whatever they are for"},
	{from: "internal/livepage/...", may: []string{"pkg/...", "internal/engine", "internal/progress", "internal/report"}, why: "it shows a run; it starts and decides nothing"},
	{from: "internal/trial/...", may: []string{"pkg/...", "internal/config", "internal/expression", "internal/stages/..."}, why: "it tries the stages alone: no engine, no plugin process of its own"},
	{from: "internal/ledger/...", may: []string{"pkg/...", "internal/faultpoint", "."}, why: "the ledger remembers, it decides nothing"},
	{from: "internal/preview/...", may: []string{"pkg/...", "internal/plan", "internal/stages/...", "internal/expression", "internal/ledger"}, why: "what a run would do is told without running it"},
	{from: "internal/status/...", may: []string{"pkg/...", "internal/ledger"}, why: "where a pipeline stands is in its ledger"},
	{from: "internal/stages/...", except: []string{"internal/stages"}, may: []string{"pkg/...", "internal/expression", "internal/stages", "."}, why: "a stage knows neither the engine nor another stage"},
}

// Nobody may import these, whatever else a rule allows.
var forbidden = []struct{ from, to, why string }{
	{"pkg/...", "internal/pluginpb/...", "only internal/wire sees pb types"},
	{"cmd/...", "internal/pluginpb/...", "only internal/wire sees pb types"},
	{"internal/pluginhost/...", "internal/pluginpb/...", "only internal/wire sees pb types"},
	{"...", "cmd/...", "a command is wiring; what others need belongs into a package"},
	{"...", "test/...", "fixtures are for tests"},
	{"internal/...", "plugins/...", "the host knows plugins by their executables only"},
	{"pkg/...", "plugins/...", "the SDK knows no plugin"},
	{"cmd/...", "plugins/...", "the command starts plugins, it doesn't contain them"},
	{"internal/engine/...", "internal/pluginhost/...", "the engine is tested in-process, on the pkg interfaces"},
	{"internal/engine/...", "internal/wire/...", "the engine is tested in-process, on the pkg interfaces"},
	{"internal/engine/...", "internal/pluginpb/...", "only internal/wire sees pb types"},
	{"internal/engine/...", "internal/config/...", "a plan is all that the engine needs of the file"},
	{"internal/pluginhost/...", "internal/engine/...", "the host starts processes; it doesn't know what for"},
	{"internal/stages/...", "internal/engine/...", "a stage judges one message"},
	{"internal/plan/...", "internal/engine/...", "a plan is made, printed and tested without running it"},
}

// The SDKs of the clouds weigh on nobody who doesn't use them: they are in one
// executable alone.
var clouds = []string{"gocloud.dev", "github.com/aws/", "github.com/Azure/", "cloud.google.com/", "google.golang.org/api"}

const cloudOwner = "plugins/pipeline-store-objects"

func TestCloudSDKsStayInTheirProcess(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.path() == cloudOwner || strings.HasPrefix(p.path(), cloudOwner+"/") {
			continue
		}
		for _, dep := range p.Deps {
			if slices.ContainsFunc(clouds, func(c string) bool { return strings.HasPrefix(dep, c) }) {
				t.Errorf("%s depends on %s: only %s may, which is started when an output is in a bucket", p.path(), dep, cloudOwner)
				break
			}
		}
	}
}

// These may not even be reached through others.
var unreachable = []struct{ from, to, why string }{
	{"internal/engine", "internal/pluginhost", "the engine runs without a plugin process"},
	{"internal/plan", "internal/pluginhost", "a plan is made without a plugin process"},
	{"pkg/message", "google.golang.org/grpc", "who reads a message needs no RPC library"},
	{"pkg/message", "github.com/hashicorp/go-plugin", "who reads a message needs no RPC library"},
}

func TestImports(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module+"/")
			if !ours {
				continue
			}
			for _, r := range importRules {
				if matches(r.from, p.path(), "") && !slices.Contains(r.except, p.path()) && !allowed(r.may, p.path(), to) {
					t.Errorf("%s imports %s: it may import %s of ours, because %s", p.path(), to, orNothing(r.may), r.why)
				}
			}
			for _, f := range forbidden {
				if matches(f.from, p.path(), "") && matches(f.to, to, "") && !strings.HasPrefix(p.path(), "test/") && owner(p.path()) != owner(to) {
					t.Errorf("%s imports %s: nothing in %s may, because %s", p.path(), to, f.from, f.why)
				}
			}
		}
		for _, u := range unreachable {
			if p.path() != u.from {
				continue
			}
			for _, dep := range p.Deps {
				if rel := strings.TrimPrefix(dep, module+"/"); rel == u.to || strings.HasPrefix(rel, u.to+"/") {
					t.Errorf("%s depends on %s through another package: %s", u.from, dep, u.why)
				}
			}
		}
	}
}

// The examples are modules of their own whose paths the compiler would let see
// internal/: they show that the public surface is enough.
func TestExamplesUseThePublicSurface(t *testing.T) {
	t.Parallel()
	dir, err := root()
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(dir, "examples"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return ignoreMissing(err)
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if filepath.Dir(rel) == "examples" {
			return nil // what runs the examples isn't one, and belongs to our module
		}
		f := parseFile(t, path, filepath.ToSlash(rel))
		if f == nil {
			return nil
		}
		for _, spec := range f.syntax.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			to, ours := strings.CutPrefix(imp, module+"/")
			if ours && !strings.HasPrefix(to, "pkg/") && !strings.HasPrefix(to, "examples/") {
				t.Errorf("%s imports %s: an example imports pkg/ only, as a third party would", f.at(spec.Pos()), imp)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// The rules themselves are tested on what they must refuse.
func TestImportRulesRefuse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		from, to string
		allowed  bool
	}{
		{"plugins/pipeline-source-imap/internal/pool", "internal/wire", false},
		{"plugins/pipeline-source-imap", "plugins/pipeline-source-pop3/internal/x", false},
		{"plugins/pipeline-source-imap", "plugins/pipeline-source-imap/internal/pool", true},
		{"plugins/pipeline-source-imap", "pkg/mailnet", true},
		{"pkg/message", "pkg/source", false},
		{"pkg/message", "pkg/fault", true},
		{"pkg/fault", "pkg/message", false},
		{"pkg/naming", "pkg/mailnet", false},
		{"pkg/sink", "internal/wire", true},
		{"pkg/sink", "internal/pluginpb", false},
		{"internal/stages/filter", "internal/stages/limit", false},
		{"internal/stages/filter", "internal/stages", true},
		{"internal/stages/filter", "internal/engine", false},
		{"internal/wire", "internal/engine", false},
	}
	for _, tt := range tests {
		ok := true
		for _, r := range importRules {
			if matches(r.from, tt.from, "") && !slices.Contains(r.except, tt.from) && !allowed(r.may, tt.from, tt.to) {
				ok = false
			}
		}
		if ok != tt.allowed {
			t.Errorf("%s importing %s: allowed is %v, want %v", tt.from, tt.to, ok, tt.allowed)
		}
	}
}

func allowed(may []string, from, to string) bool {
	return slices.ContainsFunc(may, func(pattern string) bool { return matches(pattern, to, owner(from)) })
}

// owner is the folder that a package belongs to: plugins/NAME, internal/stages/NAME, else its second level.
func owner(path string) string {
	levels := strings.Split(path, "/")
	n := 2
	if strings.HasPrefix(path, "internal/stages/") {
		n = 3
	}
	return strings.Join(levels[:min(n, len(levels))], "/")
}

func matches(pattern, path, own string) bool {
	if pattern == "." {
		return path == own || strings.HasPrefix(path, own+"/")
	}
	prefix, tree := strings.CutSuffix(pattern, "...")
	if !tree {
		return path == pattern
	}
	return prefix == "" || path == strings.TrimSuffix(prefix, "/") || strings.HasPrefix(path, prefix)
}

func orNothing(may []string) string {
	if len(may) == 0 {
		return "nothing"
	}
	return strings.ReplaceAll(strings.Join(may, ", "), "., ", "its own folder, ")
}
