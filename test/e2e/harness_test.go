// Package e2e runs the real command with its real plugins, as processes,
// against a real Dovecot, and looks at what a user would see: the files, the
// index, the words on the terminal, the exit code and the wire.
package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/program"
)

// binaries is where the command, the plugins and the tests' own sinks are.
type binaries struct {
	dir   string // the command with its plugins beside it
	third string // sinks of third parties
}

var builds = sync.OnceValues(build)

func TestMain(m *testing.M) {
	code := m.Run()
	if b, err := builds(); err == nil {
		os.RemoveAll(filepath.Dir(b.dir))
	}
	os.Exit(code)
}

// build builds what a user would, once for all tests.
func build() (binaries, error) {
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		return binaries{}, err
	}
	b := binaries{dir: filepath.Join(dir, "bin"), third: filepath.Join(dir, "third")}
	err = program.Build{To: b.dir}.Run("./cmd/pipeline", "./plugins/pipeline-source-imap", "./plugins/pipeline-source-pop3",
		"./plugins/pipeline-sink-eml", "./plugins/pipeline-sink-json", "./plugins/pipeline-sink-attachments", "./plugins/pipeline-sink-msg")
	if err == nil {
		err = program.Build{To: b.third}.Run("./test/e2e/testdata/pipeline-sink-slow", "./test/e2e/testdata/pipeline-source-hostile",
			"./test/e2e/testdata/pipeline-source-careless")
	}
	for _, module := range []string{"examples/pipeline-sink-maildir", "examples/pipeline-stage-redact"} {
		if err == nil {
			err = program.Build{To: b.third, Module: module}.Run(".")
		}
	}
	if err != nil {
		os.RemoveAll(dir)
		return binaries{}, err
	}
	return b, nil
}

// job is a folder with a pipeline file, as a user has one.
type job struct {
	t   *testing.T
	bin binaries
	dir string
	env []string
}

// newJob makes the folder and its pipeline.yaml.
func newJob(t *testing.T, yaml string) *job {
	t.Helper()
	bin, err := builds()
	if err != nil {
		t.Fatal(err)
	}
	j := &job{t: t, bin: bin, dir: t.TempDir()}
	j.env = []string{"PATH=/usr/bin:/bin", "HOME=" + j.dir, "PASSWORD=" + dovecot.Password}
	j.write(yaml)
	return j
}

// write replaces the pipeline file.
func (j *job) write(yaml string) {
	j.t.Helper()
	if err := os.WriteFile(j.path("pipeline.yaml"), []byte(yaml), 0o600); err != nil {
		j.t.Fatal(err)
	}
}

func (j *job) path(elements ...string) string {
	return filepath.Join(append([]string{j.dir}, elements...)...)
}

// file is a pipeline.yaml: one account on a server, an EML archive and an
// index. Further sinks and stages are YAML of their own.
type file struct {
	address  string
	plugin   string // imap when empty
	security string // none when empty
	config   string // more keys of the source's config, as in ", tls: {…}"
	stages   string
	sinks    string
	only     bool // no sinks but these
}

func (f file) String() string {
	if f.security == "" {
		f.security = "none"
	}
	if f.plugin == "" {
		f.plugin = "imap"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `version: 1
name: mail
state: state
sources:
  - name: alice
    plugin: %s
    config: {address: %q, security: %s, username: alice, password: "${env:PASSWORD}", connections: 3%s}
`, f.plugin, f.address, f.security, f.config)
	if f.stages != "" {
		b.WriteString("stages:\n" + f.stages)
	}
	b.WriteString("sinks:\n")
	if !f.only {
		b.WriteString(`  - name: archive
    plugin: eml
    config: {path: export/eml}
  - name: index
    plugin: json
    config: {path: export/index.jsonl, detail: structure}
`)
	}
	b.WriteString(f.sinks)
	return b.String()
}

// outcome is how a run of the command ended.
type outcome struct {
	code     int
	out, err string
	took     time.Duration
	peaks    map[string]int64 // of each process by its name, KiB resident
}

func (o outcome) String() string {
	return fmt.Sprintf("exit code %d after %s\n--- stdout\n%s--- stderr\n%s", o.code, o.took.Round(time.Millisecond), o.out, o.err)
}

// running is a command under way.
type running struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, err output
	began    time.Time
	watched  chan map[string]int64
	ended    chan struct{}
}

// output is what a command writes, to be read while it goes on.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start starts the command. It dies with the test.
func (j *job) start(args ...string) *running {
	j.t.Helper()
	return j.startWith(filepath.Join(j.bin.dir, "pipeline"), args...)
}

// startBy has another program start the command, which it is told.
func (j *job) startBy(program string, args ...string) *running {
	j.t.Helper()
	return j.startWith(program, append([]string{filepath.Join(j.bin.dir, "pipeline")}, args...)...)
}

func (j *job) startWith(program string, args ...string) *running {
	j.t.Helper()
	r := &running{t: j.t, began: time.Now(), watched: make(chan map[string]int64, 1), ended: make(chan struct{})}
	r.cmd = exec.Command(program, args...)
	r.cmd.Dir, r.cmd.Env = j.dir, j.env
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.err
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		j.t.Fatal(err)
	}
	j.t.Cleanup(func() { r.cmd.Process.Kill() }) // no effect once it has ended
	go func() { r.watched <- peaks(r.cmd.Process.Pid, r.ended) }()
	return r
}

// wait waits for the end.
func (r *running) wait() outcome {
	r.t.Helper()
	late := time.AfterFunc(5*time.Minute, func() { r.cmd.Process.Signal(syscall.SIGQUIT) })
	defer late.Stop()
	err := r.cmd.Wait()
	close(r.ended)
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		r.t.Fatal(err)
	}
	return outcome{
		code: r.cmd.ProcessState.ExitCode(), out: r.out.String(), err: r.err.String(),
		took: time.Since(r.began), peaks: <-r.watched,
	}
}

func (r *running) signal(s os.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// run runs the command to its end and checks the exit code.
func (j *job) run(code int, args ...string) outcome {
	j.t.Helper()
	o := j.start(args...).wait()
	if o.code != code {
		j.t.Fatalf("pipeline %s: want exit code %d, got %s", strings.Join(args, " "), code, o)
	}
	return o
}

// needs fails the test where a text lacks one of the words.
func needs(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in:\n%s", w, text)
		}
	}
}

// errorLines returns the lines of a text that begin with "error: ".
func errorLines(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "error: ") {
			out = append(out, strings.TrimSuffix(line, "\n"))
		}
	}
	return out
}

// oneClearError fails the test unless stderr has exactly one error line, with
// the words, and a hint with what to do.
func oneClearError(t *testing.T, o outcome, hint string, words ...string) {
	t.Helper()
	lines := errorLines(o.err)
	if len(lines) != 1 {
		t.Errorf("want one error line, got %d: %s", len(lines), o)
	}
	for _, line := range lines {
		if len(line) > 400 {
			t.Errorf("an error line of %d characters is no clear one: %s", len(line), line)
		}
	}
	needs(t, strings.Join(lines, "\n"), words...)
	needs(t, o.err, "\nhint: ")
	needs(t, o.err, hint)
	t.Logf("%s", o)
}

// until waits for a condition, which must come.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			_, at, line, _ := runtime.Caller(1)
			t.Fatalf("%s:%d: this never came: %s", filepath.Base(at), line, what)
		}
	}
}
