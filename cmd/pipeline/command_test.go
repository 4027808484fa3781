package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// beCommand makes the test's own executable the command.
const beCommand = "MAILHAUL_TEST_IS_PIPELINE"

func TestMain(m *testing.M) {
	if os.Getenv(beCommand) != "" {
		main() // exits
	}
	os.Exit(m.Run())
}

// step is one run of the command in a case's folder.
type step struct {
	args string
	code int
	out  []string // lines, each a regular expression of its own
	err  []string // the same; with none stderr must be empty
}

const good = `version: 1
name: good
state: state
sources:
  - name: alice
    plugin: imap
    config: {address: "127.0.0.1:1", security: none, username: alice, password: x}
stages:
  - name: small
    filter: size < 100 * KB
sinks:
  - {name: archive, plugin: eml, config: {path: export/eml}}
  - {name: index, plugin: json, config: {path: export/index.jsonl}}
`

// TestCommand runs each verb, and each mistake that a user can make with it.
// The plugins are the real ones; no server is needed.
func TestCommand(t *testing.T) {
	t.Parallel()
	repository, err := os.ReadFile("../../pipeline.yaml")
	if err != nil {
		t.Fatal(err)
	}
	plugins := buildPlugins(t)
	for name, tc := range map[string]struct {
		files  map[string]string
		env    []string
		steps  []step
		absent string // what no step may have made
	}{
		"command line": {steps: []step{
			{"runn", 2, nil, []string{`^error: unknown command "runn" for "pipeline"$`, `^hint: did you mean "run"\?$`}},
			{"frobnicate", 2, nil, []string{`^error: unknown command "frobnicate" for "pipeline"$`, `^hint: see "pipeline --help"$`}},
			{"run --adobt", 2, nil, []string{`^error: unknown flag: --adobt$`, `^hint: see "pipeline run --help"$`}},
			{"run extra", 2, nil, []string{`^error: unknown command "extra" for "pipeline run"$`, `^hint: see "pipeline run --help"$`}},
			{"run --rewrite", 2, nil, []string{`^error: flag needs an argument: --rewrite$`, `^hint: see "pipeline run --help"$`}},
			{"--help", 0, []string{`run .*Export what isn't exported yet`, `plan `, `lint `, `demo `, `version `}, nil},
			{"run --help", 0, []string{`4 accounts or mailboxes incomplete; 5 locked`}, nil},
			{"version", 0, []string{`^pipeline .+ \(go.+, .+/.+\)$`}, nil},
		}},
		"no file": {steps: []step{
			{"lint", 2, nil, []string{`^error: .*pipeline\.yaml.*no such file`, `^hint: .*--config`}},
			{"run -c nowhere.yaml", 2, nil, []string{`^error: .*nowhere\.yaml.*no such file`, `^hint: .*--config`}},
		}},
		"no YAML": {
			files: map[string]string{"empty.yaml": "", "broken.yaml": "version: 1\nsources:\n  - name: \"a\n"},
			steps: []step{
				{"lint -c empty.yaml", 2, nil, []string{`^error: empty\.yaml`}},
				{"lint -c broken.yaml", 2, nil, []string{`^error: broken\.yaml:[34]`}},
			},
		},
		"every mistake has its place and the nearest right word": {
			files: map[string]string{"pipeline.yaml": strings.NewReplacer("    config: {addr", "    conifg: {addr", "size <", "sise <").Replace(good)},
			steps: []step{
				{"lint", 2, nil, []string{`^error: pipeline\.yaml:7:5: .*conifg.*config`, `^error: pipeline\.yaml:10:13: .*sise.*size`}},
				{"run", 2, nil, []string{`^error: pipeline\.yaml:7:5: .*conifg.*config`, `^error: pipeline\.yaml:10:13: .*sise.*size`}},
			},
			absent: "state",
		},
		"mistakes in a plugin's own block": {
			files: map[string]string{"pipeline.yaml": strings.NewReplacer("address:", "adress:", "password: x", "password: x, connections: many", "{path: export/eml}", "{}").Replace(good)},
			steps: []step{{"lint", 2, nil, []string{
				`^error: pipeline\.yaml:7:14: sources\[0\]\.config\.adress: .*address`,
				`^error: pipeline\.yaml:7:\d+: sources\[0\]\.config\.connections: `,
				`^error: pipeline\.yaml:12:\d+: sinks\[0\]\.config.*path`,
			}}},
			absent: "state",
		},
		"a value that the plugin refuses": {
			files: map[string]string{"pipeline.yaml": strings.Replace(good, "{path: export/eml}", `{path: export/eml, name: "{nonsense}.eml"}`, 1)},
			steps: []step{{"plan", 2, nil, []string{`^error: pipeline\.yaml:12:\d+: sinks\[0\]\.config\.name: .*nonsense.*known are`}}},
		},
		"a variable that isn't set": {
			files: map[string]string{"pipeline.yaml": strings.Replace(good, `"127.0.0.1:1"`, `"${env:MAILHAUL_TEST_ADDRESS}"`, 1)},
			steps: []step{
				{"lint", 0, []string{`^pipeline\.yaml: no mistakes found$`}, nil},
				{"run", 2, nil, []string{`^error: pipeline\.yaml:7:\d+: sources\[0\]\.config\.address: .*MAILHAUL_TEST_ADDRESS`}},
			},
			absent: "export",
		},
		"a plugin that isn't there": {
			files: map[string]string{"pipeline.yaml": strings.Replace(good, "plugin: eml", "plugin: emll", 1)},
			steps: []step{
				{"lint", 2, nil, []string{`^error: .*there is no sink plugin "emll": no pipeline-sink-emll in .*PIPELINE_PLUGIN_PATH`, `^hint: did you mean "eml"\?$`}},
				{"run", 2, nil, []string{`^error: .*there is no sink plugin "emll"`, `^hint: did you mean "eml"\?$`}},
			},
		},
		"a sink that the file doesn't have": {
			files: map[string]string{"pipeline.yaml": good},
			steps: []step{
				{"run --rewrite archve", 2, nil, []string{`^error: --rewrite archve: pipeline\.yaml has no sink of that name$`}},
				{"run --adopt archve", 2, nil, []string{`^error: --adopt archve: pipeline\.yaml has no sink of that name$`}},
			},
		},
		"plan asks nobody": {
			files:  map[string]string{"pipeline.yaml": good},
			steps:  []step{{"plan", 0, []string{`alice`, `stage small`, `reads size: judged from the listing`, `archive`, `index`}, nil}},
			absent: "export",
		},
		"a state that can't be made": {
			files: map[string]string{"pipeline.yaml": good, "state": "a file"},
			steps: []step{{"run", 2, nil, []string{`^error: .*state`, `^hint: `}}},
		},
		"demo": {
			files: map[string]string{"pipeline.yaml": string(repository)},
			steps: []step{
				{"lint", 0, []string{`no mistakes found`}, nil},
				{"demo", 0, []string{
					`^A sample mailbox is served on 127\.0\.0\.1:\d+; running pipeline\.yaml against it\.$`,
					`^  INBOX +\d+ listed = \d+ written`, `^total: \d+ listed = \d+ written`, `export/index\.jsonl`,
				}, nil},
				{"demo", 0, []string{`^total: \d+ listed = 0 written \+ \d+ done before`}, nil},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, text := range tc.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, s := range tc.steps {
				code, out, stderr := runIn(t, dir, append(tc.env, "PIPELINE_PLUGIN_PATH="+plugins), s.args)
				if code != s.code {
					t.Errorf("pipeline %s: exit code %d, want %d", s.args, code, s.code)
				}
				shows(t, s.args, out, s.out)
				shows(t, s.args, stderr, s.err)
				if len(s.err) == 0 && stderr != "" {
					t.Errorf("pipeline %s: stderr isn't empty:\n%s", s.args, stderr)
				}
				if n := strings.Count(stderr, "error: ") + strings.Count(stderr, "hint: "); n != len(s.err) {
					t.Errorf("pipeline %s: %d lines tell of it, want %d:\n%s", s.args, n, len(s.err), stderr)
				}
			}
			if tc.absent != "" {
				if _, err := os.Stat(filepath.Join(dir, tc.absent)); err == nil {
					t.Errorf("%s was made", tc.absent)
				}
			}
		})
	}
}

// TestLockedByAnotherRun holds the lock as another run does.
func TestLockedByAnotherRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(dir, "state", "good.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pipeline.yaml"), []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := runIn(t, dir, nil, "run")
	if code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
	shows(t, "run", stderr, []string{`^error: .*good\.lock`, `^hint: wait for it to end, or stop it`})
	if _, err := os.Stat(filepath.Join(dir, "export")); err == nil {
		t.Error("it exported in spite of the lock")
	}
}

// runIn runs the command in a folder, with nothing of our environment.
func runIn(t *testing.T, dir string, env []string, args string) (code int, out, stderr string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, strings.Fields(args)...)
	cmd.Dir = dir
	cmd.Env = append([]string{beCommand + "=1", "PATH=/usr/bin:/bin", "HOME=" + dir}, env...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	t.Logf("pipeline %s: exit code %d\n%s%s", args, cmd.ProcessState.ExitCode(), o.String(), e.String())
	return cmd.ProcessState.ExitCode(), o.String(), e.String()
}

// shows checks that a text has a line for each expression, in any order.
func shows(t *testing.T, args, text string, want []string) {
	t.Helper()
	for _, w := range want {
		if !regexp.MustCompile("(?m)" + w).MatchString(text) {
			t.Errorf("pipeline %s: no line is like %s in:\n%s", args, w, text)
		}
	}
}

func buildPlugins(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", dir+"/",
		"./plugins/pipeline-source-imap", "./plugins/pipeline-sink-eml", "./plugins/pipeline-sink-json")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the plugins: %v\n%s", err, out)
	}
	return dir
}
