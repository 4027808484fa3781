package e2e

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

// midway is a run that is held in its middle: the server falls silent after
// so many octets, until the test lets it go on.
type midway struct {
	*job
	server *dovecot.Server
	proxy  *wireproxy.Proxy
	held   atomic.Bool
}

// With few mails nearly all are asked for when the run is held; with many, the
// smaller part.
const (
	few  = 60
	many = 6000
)

// newMidway delivers n mails, of 10 kB or 6 MB in all.
func newMidway(t *testing.T, n int) *midway {
	t.Helper()
	m := &midway{server: dovecot.Start(t, dovecot.Options{})}
	deliver(m.server, n, max(6_000_000/n, 10_000))
	m.proxy = wireproxy.Start(t, m.server.IMAP)
	var passed atomic.Int64
	m.proxy.Tap(func(fromServer bool, p []byte) {
		if fromServer && passed.Add(int64(len(p))) > 2_500_000 && m.held.CompareAndSwap(false, true) {
			m.proxy.Stall(true)
		}
	})
	m.job = newJob(t, file{address: m.proxy.Addr}.String())
	return m
}

// hold starts the run and waits until it is in its middle, and something
// stands at a path of its export.
func (m *midway) hold(path string) *running {
	m.t.Helper()
	r := m.start("run")
	until(m.t, "the middle of the run", func() bool {
		_, err := os.Stat(m.path("export", path))
		return err == nil && m.held.Load()
	})
	return r
}

func (m *midway) release() { m.proxy.Stall(false) }

// TestPluginKilled kills a plugin in mid-run. The run goes on with a new
// process and completes, with nothing lost and nothing doubled (I1, I2).
func TestPluginKilled(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ plugin, after, warning string }{
		"data sink":                   {"pipeline-sink-eml", "eml/alice", "the process of sink archive died"},
		"data sink, after a commit":   {"pipeline-sink-eml", "index.jsonl", "the process of sink archive died"},
		"record sink, after a commit": {"pipeline-sink-json", "index.jsonl", "the process of sink index died"},
		"source":                      {"pipeline-source-imap", "eml/alice", "the process of source alice died"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMidway(t, few)
			r := m.hold(tc.after)
			r.kill(tc.plugin)
			time.Sleep(50 * time.Millisecond) // let it be noticed while all else stands still
			m.release()
			o := r.wait()
			t.Logf("%s", o)
			if o.code != 0 {
				t.Fatalf("exit code %d, want 0", o.code)
			}
			if n := strings.Count(o.err, "warning: "+tc.warning); n != 1 {
				t.Errorf("%d warnings that %s, want one", n, tc.warning)
			}
			if lines := errorLines(o.err); len(lines) > 0 {
				t.Errorf("the run completed, and yet it says %q", lines)
			}
			holds(t, m.job, m.server, few)
			if o := m.run(0, "run"); !strings.Contains(o.out, "= 0 written") {
				t.Errorf("the next run had something to do: %s", o)
			}
			holds(t, m.job, m.server, few)
		})
	}
}

// TestHostKilled kills the command itself. Its plugins end with it, and the
// next run completes.
func TestHostKilled(t *testing.T) {
	t.Parallel()
	m := newMidway(t, few)
	r := m.hold("eml/alice")
	plugins := children(r.cmd.Process.Pid)
	r.signal(syscall.SIGKILL)
	m.release()
	r.wait()
	for pid, name := range plugins {
		until(t, name+" ends with its host", func() bool { return syscall.Kill(pid, 0) != nil })
	}
	complete(t, m.job, m.server, few)
}

// TestInterruptedOnce has the run finish what is in flight, commit, and say
// how to go on.
func TestInterruptedOnce(t *testing.T) {
	t.Parallel()
	m := newMidway(t, many)
	r := m.hold("eml/alice")
	r.signal(os.Interrupt)
	time.Sleep(50 * time.Millisecond)
	m.release()
	o := r.wait()
	t.Logf("%s", o)
	if o.code != 1 {
		t.Errorf("exit code %d, want 1", o.code)
	}
	needs(t, o.err, "stopping: ", "run again to go on")
	if lines := errorLines(o.err); len(lines) > 0 {
		t.Errorf("the user asked for it, and yet it is an error: %q", lines)
	}
	files := mails(t, m.path("export/eml"))
	lines := index(t, m.path("export/index.jsonl"))
	if len(files) == 0 || len(files) == many || len(files) != len(lines) {
		t.Errorf("%d files and %d lines in the index, want the same number, of some of %d", len(files), len(lines), many)
	}
	o = complete(t, m.job, m.server, many)
	needs(t, o.out, " done before")
}

// TestTerminated has a machine end the run while the server is silent in the
// middle of a message: nobody waits for it, and what came before is committed.
func TestTerminated(t *testing.T) {
	t.Parallel()
	m := newMidway(t, many)
	r := m.hold("eml/alice")
	terminated := time.Now()
	r.signal(syscall.SIGTERM)
	o := r.wait()
	t.Logf("%s after SIGTERM: %s", time.Since(terminated).Round(time.Millisecond), o)
	if o.code != 1 {
		t.Errorf("exit code %d, want 1", o.code)
	}
	needs(t, o.err, "stopping: ", "run again to go on")
	if lines := errorLines(o.err); len(lines) > 0 {
		t.Errorf("it was asked for, and yet it is an error: %q", lines)
	}
	files := mails(t, m.path("export/eml"))
	lines := index(t, m.path("export/index.jsonl"))
	if len(files) == 0 || len(files) == many || len(files) != len(lines) {
		t.Errorf("%d files and %d lines in the index, want the same number, of some of %d", len(files), len(lines), many)
	}
	m.release()
	o = complete(t, m.job, m.server, many)
	needs(t, o.out, fmt.Sprintf(" + %d done before", len(files)))
}

// TestInterruptedTwice ends at once, whatever the server does.
func TestInterruptedTwice(t *testing.T) {
	t.Parallel()
	m := newMidway(t, many)
	r := m.hold("eml/alice")
	r.signal(os.Interrupt)
	time.Sleep(100 * time.Millisecond)
	again := time.Now()
	r.signal(os.Interrupt)
	o := r.wait()
	took := time.Since(again)
	t.Logf("%s after the second interrupt: %s", took.Round(time.Millisecond), o)
	if o.code != 1 || took > 5*time.Second {
		t.Errorf("exit code %d after %s, want 1 at once", o.code, took)
	}
	needs(t, o.err, "run again to go on")
	if lines := errorLines(o.err); len(lines) > 0 {
		t.Errorf("the user asked for it, and yet it is an error: %q", lines)
	}
	m.release()
	complete(t, m.job, m.server, many)
}
