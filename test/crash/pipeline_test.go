package crash

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/test/dovecot"
)

// What the source has, and how small the epochs are: some twelve commits a
// run, messages that travel as streams, some that can't be had.
const (
	mailboxes  = 4
	inEach     = 105
	epochItems = 30
)

// file is the pipeline: a stage that drops, one that limits, a sink that gets
// all, one that gets a part, and an index of both.
const file = `version: 1
name: crash
sources:
  - name: made
    plugin: synthetic
    config: {messages: 420, mailboxes: 4, big: 52, refuse: 44}
stages:
  - name: kind
    drop: subject contains "kind 3"
  - name: first
    limit: {messages: 90, per: mailbox}
sinks:
  - name: archive
    plugin: eml
    config: {path: out/all}
  - name: work
    plugin: eml
    when: mailbox startsWith "Work"
    config: {path: out/work}
  - name: index
    plugin: json
    config: {path: out/index.jsonl, detail: structure}
`

// half is the pipeline before a sink was added to it: the run that follows
// writes the backlog, and the records of all messages anew.
var half = strings.Replace(file, `  - name: work
    plugin: eml
    when: mailbox startsWith "Work"
    config: {path: out/work}
`, "", 1)

// scenario is a pipeline with the mail that its sources have.
type scenario struct {
	file    string
	state   string                   // the folder of the ledger
	sinks   map[string]string        // by name, where each writes
	listed  func(mailbox string) int // what a source has, by the mailbox's name in the report
	undated string                   // in the names of files whose time is when they were written: the server has none
	ids     func(p *pipeline) []box
}

// box is a mailbox with all of its messages.
type box struct {
	source, mailbox string
	validity        uint32
	ids             []message.ID
}

// made is the scenario of the source whose messages are made.
var made = &scenario{
	file:   file,
	state:  ".pipeline",
	sinks:  map[string]string{"archive": "out/all", "work": "out/work", "index": "out/index.jsonl"},
	listed: func(string) int { return inEach },
	ids: func(p *pipeline) (out []box) {
		for _, mailbox := range names {
			b := box{source: "made", mailbox: mailbox, validity: p.validity}
			for uid := range uint32(inEach) {
				b.ids = append(b.ids, message.ID{Source: b.source, Mailbox: mailbox, UIDValidity: p.validity, UID: uid + 1})
			}
			out = append(out, b)
		}
		return out
	},
}

// pipeline is a folder with a pipeline in it.
type pipeline struct {
	*scenario
	t        testing.TB
	dir      string
	temp     string // its temporary files
	binaries string // the folder of the executables
	validity uint32 // of the mailboxes of messages that are made
}

func newPipeline(t testing.TB) *pipeline {
	t.Helper()
	return made.pipeline(t)
}

func (s *scenario) pipeline(t testing.TB) *pipeline {
	t.Helper()
	// Not t.TempDir, whose paths are too long for the sockets. In memory where
	// that can be had: a killed process, unlike a power cut, loses nothing that
	// it wrote.
	base := "/dev/shm"
	if info, err := os.Stat(base); err != nil || !info.IsDir() {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "c")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(dir)
		}
	})
	p := &pipeline{scenario: s, t: t, dir: dir, temp: filepath.Join(dir, "tmp"), binaries: binaries, validity: 7}
	p.write(s.file)
	if err := os.Mkdir(p.temp, 0o700); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pipeline) path(name string) string { return filepath.Join(p.dir, name) }

func (p *pipeline) write(file string) {
	p.t.Helper()
	if err := os.WriteFile(p.path("pipeline.yaml"), []byte(file), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// before runs an earlier version of the pipeline.
func (p *pipeline) before(earlier string) {
	p.t.Helper()
	p.write(earlier)
	p.wantWhole(p.run(nil))
	p.write(p.file)
}

// ended is how a run ended.
type ended struct {
	code   int // -1: killed
	report string
	errors string
	took   time.Duration
}

func (e *ended) String() string {
	return "exit code " + strconv.Itoa(e.code) + "\n" + e.report + e.errors
}

// running is a run that goes on.
type running struct {
	p         *pipeline
	cmd       *exec.Cmd
	out, errs bytes.Buffer
	began     time.Time
}

// start starts a run. environment arms fault points.
func (p *pipeline) start(environment []string, args ...string) *running {
	p.t.Helper()
	r := &running{p: p, began: time.Now()}
	// Not Cmd.Dir: to change there before the exec is to wait for a file system
	// that this process may be serving, while it can't.
	r.cmd = exec.Command("env", append([]string{"-C", p.dir, filepath.Join(p.binaries, "pipeline"), "run"}, args...)...)
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.errs
	// Plugins that outlive a killed host hold its output: what they say then
	// is nobody's business.
	r.cmd.WaitDelay = 100 * time.Millisecond
	r.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + p.temp, "PASSWORD=" + dovecot.Password,
		"MAILHAUL_EPOCH_ITEMS=" + strconv.Itoa(epochItems)}, environment...)
	if err := r.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	return r
}

// patience is how long a run may take on a busy machine.
const patience = 2 * time.Minute

func (r *running) wait() *ended {
	r.p.t.Helper()
	hung := time.AfterFunc(patience, func() { _ = r.cmd.Process.Signal(syscall.SIGQUIT) })
	err := r.cmd.Wait()
	if !hung.Stop() {
		r.p.t.Fatalf("the run hung:\n%s%s", r.out.String(), r.errs.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		r.p.t.Fatal(err)
	}
	return &ended{code: r.cmd.ProcessState.ExitCode(), report: r.out.String(), errors: r.errs.String(), took: time.Since(r.began)}
}

// run runs to the end.
func (p *pipeline) run(environment []string, args ...string) *ended {
	p.t.Helper()
	return p.start(environment, args...).wait()
}

// line is a mailbox's sum in the report.
var line = regexp.MustCompile(`(?m)^  (.+?)\s+(\d+) listed = ([^(;\n]*)(.*)$`)

// wantWhole checks that a run says it is complete, and that its sums hold (I1).
func (p *pipeline) wantWhole(e *ended) {
	p.t.Helper()
	if e.code != engine.ExitLetters {
		p.t.Fatalf("the run isn't whole: %s", e)
	}
	for _, m := range line.FindAllStringSubmatch(e.report, -1) {
		listed, err := strconv.Atoi(m[2])
		if err != nil {
			p.t.Fatal(err)
		}
		sum := 0
		for part := range strings.SplitSeq(m[3], " + ") {
			number, what, _ := strings.Cut(strings.TrimSpace(part), " ")
			n, err := strconv.Atoi(number)
			if err != nil {
				p.t.Fatalf("%q: %v", m[0], err)
			}
			if what == "pending" || what == "vanished" {
				p.t.Errorf("I1: a whole run has %d messages %s: %s", n, what, m[0])
			}
			sum += n
		}
		if want := p.listed(m[1]); listed != want || sum != listed {
			p.t.Errorf("I1: the source has %d messages, the parts make %d: %s", want, sum, m[0])
		}
	}
}

// wantNothingToDo checks that another run opens no sink and changes no byte.
func (p *pipeline) wantNothingToDo() {
	p.t.Helper()
	before := p.times()
	opened := p.path("opened")
	e := p.run([]string{"MAILHAUL_FAULTPOINT=pipeline-sink-*:session.open", "MAILHAUL_FAULTPOINT_ONCE=" + opened})
	if e.code != engine.ExitLetters {
		p.t.Errorf("a run with nothing to do: %s", e)
	}
	if _, err := os.Stat(opened); err == nil {
		p.t.Errorf("a run with nothing to do opened a sink: %s", e)
	}
	for name, at := range p.times() {
		if before[name] != at {
			p.t.Errorf("a run with nothing to do touched %s", name)
		}
	}
}
