package soak

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/program"
)

const file = `version: 1
name: soak
sources:
  - name: alice
    plugin: imap
    config: {address: %q, security: none, username: alice, password: "${env:PASSWORD}", connections: 3}
  - name: bob
    plugin: pop3
    config: {address: %q, security: none, username: bob, password: "${env:PASSWORD}"}
sinks:
  - name: archive
    plugin: eml
    config: {path: out/eml}
  - name: outlook
    plugin: msg
    config: {path: out/msg}
  - name: index
    plugin: json
    config: {path: out/index.jsonl, detail: structure}
`

// patience is how long a run, or an end, may take on a busy machine.
const patience = 3 * time.Minute

// pipeline is a folder with a pipeline in it.
type pipeline struct {
	t       *testing.T
	name    string
	dir     string
	env     []string
	lasting []*serving // plugins that outlast the runs, by name

	took     time.Duration // the last undisturbed run
	peak     int64         // resident size of the last undisturbed host, KiB
	runs     int
	killed   int // runs that were
	orphaned int // runs whose plugin was

	// What a killed run wrote and didn't commit stays, when the message is gone
	// from the server before the next run comes to it.
	uncommitted map[string]bool
	stayed      map[string]bool
}

func newPipeline(t *testing.T, name string, server *dovecot.Server) *pipeline {
	t.Helper()
	dir, err := os.MkdirTemp("", "sk") // not TempDir, whose paths are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(dir)
		}
	})
	// Executables of its own, that its processes are known by.
	p := &pipeline{t: t, name: name, dir: dir, took: time.Second, uncommitted: map[string]bool{}}
	if err = os.CopyFS(p.path("bin"), os.DirFS(binaries)); err == nil {
		err = os.Mkdir(p.path("tmp"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(p.path("pipeline.yaml"), fmt.Appendf(nil, file, server.IMAP, server.POP3), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "TMPDIR=" + p.path("tmp"), "PASSWORD=" + dovecot.Password}
	return p
}

func (p *pipeline) path(name string) string { return filepath.Join(p.dir, name) }

// serving is a plugin that serves one run after the other.
type serving struct {
	name    string
	cmd     *exec.Cmd
	errs    bytes.Buffer
	sockets int // open before the first host came
	open    int // descriptors at the last rest
}

// serve starts the plugins as for a debugger, and has all runs use them.
func (p *pipeline) serve() {
	p.t.Helper()
	sockets := map[string]string{}
	for _, name := range []string{"source-imap", "source-pop3", "sink-eml", "sink-msg", "sink-json"} {
		s := &serving{name: "pipeline-" + name}
		s.cmd = exec.Command(filepath.Join(p.path("bin"), s.name), "serve", "--debug")
		s.cmd.Dir, s.cmd.Env, s.cmd.Stderr = p.dir, p.env, &s.errs
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := s.cmd.StdoutPipe()
		if err == nil {
			err = s.cmd.Start()
		}
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() {
			_ = s.cmd.Process.Signal(syscall.SIGTERM) // no effect once it has ended
			_ = s.cmd.Wait()
		})
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if value, ok := strings.CutPrefix(lines.Text(), "export MAILHAUL_REATTACH='"); ok {
				if err := json.Unmarshal([]byte(strings.TrimSuffix(value, "'")), &sockets); err != nil {
					p.t.Fatal(err)
				}
				break
			}
		}
		if sockets[s.name] == "" {
			p.t.Fatalf("%s doesn't say where it serves", s.name)
		}
		s.sockets, _ = s.descriptors(p.t)
		p.lasting = append(p.lasting, s)
	}
	value, err := json.Marshal(sockets)
	if err != nil {
		p.t.Fatal(err)
	}
	p.env = append(p.env, "MAILHAUL_REATTACH="+string(value))
}

// command starts the command.
func (p *pipeline) command(args ...string) (*exec.Cmd, *bytes.Buffer) {
	p.t.Helper()
	cmd := exec.Command(filepath.Join(p.path("bin"), "pipeline"), args...)
	out := &bytes.Buffer{}
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.dir, p.env, out, out
	cmd.WaitDelay = 100 * time.Millisecond // plugins that outlive a killed host hold its output
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = cmd.Process.Kill() }) // no effect once it has ended
	return cmd, out
}

// wait waits for the end, which must come.
func (p *pipeline) wait(cmd *exec.Cmd, out *bytes.Buffer) int {
	p.t.Helper()
	hung := time.AfterFunc(patience, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	err := cmd.Wait()
	if !hung.Stop() {
		p.t.Fatalf("%s: it hung:\n%s", p.name, out)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		p.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// disturb runs it while mail arrives, and mostly kills the host or a plugin.
func (p *pipeline) disturb(r *rand.Rand, w *world) {
	p.t.Helper()
	p.runs++
	cmd, out := p.command("run")
	w.arrive()
	switch who := r.IntN(4); {
	case who < 2:
		time.Sleep(time.Duration(r.Int64N(int64(p.took))))
		_ = cmd.Process.Kill() // it may have ended
		p.killed++
	case who == 2 && p.lasting == nil:
		time.Sleep(time.Duration(r.Int64N(int64(p.took))))
		if all := p.processes(); len(all) > 0 {
			// Gone meanwhile is gone as well.
			_ = syscall.Kill(all[r.IntN(len(all))], syscall.SIGKILL)
			p.orphaned++
		}
	}
	w.arrive()
	// A plugin that dies before the run has begun stops it.
	if code := p.wait(cmd, out); code > 1 {
		p.t.Errorf("%s: exit code %d, want 0, 1 or a killed one:\n%s", p.name, code, out)
	}
	p.rest()
	_, known := p.index()
	for name := range p.exported() {
		if !known[name] {
			p.uncommitted[name] = true
		}
	}
}

// settle runs it undisturbed: it must complete.
func (p *pipeline) settle() {
	p.t.Helper()
	p.runs++
	began := time.Now()
	cmd, out := p.command("run")
	ended, peak := make(chan struct{}), make(chan int64)
	go func() { peak <- highest(cmd.Process.Pid, ended) }()
	code := p.wait(cmd, out)
	close(ended)
	p.peak = <-peak
	if code != 0 {
		p.t.Fatalf("%s: exit code %d of an undisturbed run:\n%s", p.name, code, out)
	}
	p.took = time.Since(began)
}

// highest returns the highest resident size of a process, in KiB, as it was
// seen until the process ended.
func highest(pid int, ended <-chan struct{}) (peak int64) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return peak
		case <-tick.C:
		}
		peak = max(peak, program.Peak(pid)>>10)
	}
}

// wantNothingToDo checks that one more run writes nothing.
func (p *pipeline) wantNothingToDo() {
	p.t.Helper()
	cmd, out := p.command("run")
	if code := p.wait(cmd, out); code != 0 || !strings.Contains(out.String(), "= 0 written") {
		p.t.Errorf("%s: exit code %d of a run with nothing to do:\n%s", p.name, code, out)
	}
}

// verifies has the command itself hold the export against manifests and
// ledger.
func (p *pipeline) verifies() {
	p.t.Helper()
	want := 0
	if len(p.stayed) > 0 {
		want = 1
	}
	cmd, out := p.command("verify", "--offline")
	if code := p.wait(cmd, out); code != want || strings.Count(out.String(), "\n  extra ") != len(p.stayed) ||
		want == 1 && !strings.Contains(out.String(), fmt.Sprintf("\n%d findings of ", len(p.stayed))) {
		p.t.Errorf("%s: exit code %d of verify; %d files that a killed run wrote stayed:\n%s", p.name, code, len(p.stayed), out)
	}
}

// key is a message in a mailbox: each that was delivered is another.
type key struct{ Source, Mailbox, SHA256 string }

// index returns how often the index has each message, and the files that it
// names, as exported does.
func (p *pipeline) index() (messages map[key]int, files map[string]bool) {
	p.t.Helper()
	messages, files = map[key]int{}, map[string]bool{}
	octets, err := os.ReadFile(p.path("out/index.jsonl"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.t.Fatal(err)
	}
	for line := range bytes.Lines(octets) {
		var e struct {
			key
			Files map[string]string
		}
		if err := json.Unmarshal(line, &e); err != nil {
			p.t.Fatal(err)
		}
		messages[e.key]++
		for sink, name := range e.Files {
			files[sink+" "+name] = true
		}
	}
	return messages, files
}

// exported returns the sinks' files, each after the name of its sink.
func (p *pipeline) exported() map[string]bool {
	p.t.Helper()
	out := map[string]bool{}
	for sink, folder := range map[string]string{"archive": "out/eml", "outlook": "out/msg"} {
		for name := range p.tree(folder) {
			if !strings.HasPrefix(name, ".mailhaul/") {
				out[sink+" "+name] = true
			}
		}
	}
	return out
}

// holds checks that all that the server has now is exported once from where it
// is, and that no file and no line of the index is without the other.
func (p *pipeline) holds(w *world) {
	p.t.Helper()
	found, known := p.index()
	for k, n := range found {
		if n > 1 {
			p.t.Errorf("I2: %s: %d lines of the index are of %+v", p.name, n, k)
		}
	}
	for _, user := range []string{alice, bob} {
		for box, sums := range w.has(user) {
			for _, sum := range sums {
				if found[key{user, box, sum}] == 0 {
					p.t.Errorf("I1: %s: a message of %s of %s isn't exported: %s", p.name, box, user, sum)
				}
			}
		}
	}
	files := p.exported()
	for name := range known {
		if !files[name] {
			p.t.Errorf("I1: %s: the index names a file that isn't there: %s", p.name, name)
		}
	}
	p.stayed = map[string]bool{}
	for name := range files {
		if !known[name] {
			p.stayed[name] = true
			if !p.uncommitted[name] {
				p.t.Errorf("I2: %s: no line of the index knows this file, and no killed run wrote it: %s", p.name, name)
			}
		}
	}
	if len(known) != 2*len(found) {
		p.t.Errorf("%s: %d files for %d messages in the index", p.name, len(known), len(found))
	}
}

// tree returns the sizes of the files below a folder by their paths in it.
func (p *pipeline) tree(folder string) map[string]int64 {
	p.t.Helper()
	out := map[string]int64{}
	err := filepath.WalkDir(p.path(folder), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // not yet made
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(p.path(folder), path)
		out[name] = info.Size()
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}
