package pluginhost_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/stage"
	"github.com/mailhaul/pipeline/test/program"
)

// logged is a log that a test can look into.
type logged struct{ program.Output }

// await waits until the log has all words.
func (l *logged) await(t *testing.T, words ...string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		missing := ""
		for _, w := range words {
			if !strings.Contains(l.String(), w) {
				missing = w
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log doesn't say %q:\n%s", missing, l)
		}
	}
}

// link makes plugins of this test program and returns their folder.
func link(t *testing.T, names ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range names {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func newHost(t *testing.T, o pluginhost.Options) (*pluginhost.Host, *logged) {
	t.Helper()
	log := &logged{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	if o.SocketDir == "" {
		o.SocketDir = short(t)
	}
	h, err := pluginhost.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(o.SocketDir); len(left) > 0 {
			t.Errorf("%d folders of sockets are left", len(left))
		}
	})
	return h, log
}

func short(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "mh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func uids(n int) iter.Seq[[]message.ID] {
	return func(yield func([]message.ID) bool) {
		for u := 1; u <= n; u++ {
			if !yield([]message.ID{{Mailbox: "INBOX", UIDValidity: 1, UID: uint32(u)}}) {
				return
			}
		}
	}
}

func openSource(t *testing.T, h *pluginhost.Host, config string, isolated bool) source.Opened {
	t.Helper()
	o, err := h.OpenSource(t.Context(), pluginhost.SessionSpec{Name: "alice", Plugin: "test", Config: []byte(config)}, isolated)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, pluginhost.Options{Dirs: []string{link(t, "pipeline-source-test", "pipeline-sink-test", "pipeline-stage-test")}})
	d, err := h.Describe(t.Context(), pluginhost.Source, "test")
	if err != nil || d.Version != "1.0.0" || !strings.Contains(string(d.Schema), `"x-secret"`) {
		t.Fatalf("%v, described as %+v", err, d)
	}
	in := openSource(t, h, `{"size": 100000}`, false)
	spec := pluginhost.SessionSpec{Name: "out", Plugin: "test", Config: []byte(`{"path": "/x"}`)}
	p, err := h.Prepare(t.Context(), pluginhost.Sink, spec)
	if err != nil || p.Target != "/x" || p.Lanes != 4 || p.Needs != message.NeedBody {
		t.Fatalf("%v, prepared as %+v", err, p)
	}
	out, err := h.OpenSink(t.Context(), spec, sink.State{Checkpoint: sink.Checkpoint("c")}, false)
	if err != nil {
		t.Fatal(err)
	}
	lane, err := out.Lane(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var octets int64
	answers := 0
	for f, err := range in.Source.Fetch(t.Context(), source.FetchRequest{Mailbox: "INBOX", Needs: message.NeedBody, IDs: uids(50)}) {
		if err != nil {
			t.Fatal(err)
		}
		err := lane.Put(t.Context(), f.Message, func(r sink.Receipt, err error) {
			if err != nil || r.Path != "INBOX" {
				t.Errorf("%+v, %v", r, err)
			}
			octets += r.Octets
			answers++
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := lane.Close(); err != nil || answers != 50 || octets != 50*100000 {
		t.Errorf("%v, %d answers, %d octets", err, answers, octets)
	}
	if c, err := out.Flush(t.Context()); err != nil || string(c) != "c+" {
		t.Errorf("flushed %q, %v", c, err)
	}
	if err := out.Committed(t.Context(), sink.Checkpoint("c+")); err != nil {
		t.Error(err)
	}
	if err := out.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := in.Source.Close(); err != nil {
		t.Error(err)
	}
	st, err := h.OpenStage(t.Context(), pluginhost.SessionSpec{Name: "up", Plugin: "test", Config: []byte(`{}`)},
		pluginhost.Prepared{Needs: message.NeedBody}, false)
	if err != nil {
		t.Fatal(err)
	}
	m := &message.Message{Body: message.BodyOf([]byte("hello"))}
	if v, err := st.Apply(t.Context(), m); err != nil || v != stage.Keep {
		t.Errorf("%v, %v", v, err)
	}
	if b, err := io.ReadAll(m.Body); err != nil || string(b) != "HELLO" {
		t.Errorf("body is %q, %v", b, err)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
}

func TestConfigErrorHasItsKey(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, pluginhost.Options{Dirs: []string{link(t, "pipeline-source-test", "pipeline-sink-test")}})
	_, err := h.Prepare(t.Context(), pluginhost.Sink, pluginhost.SessionSpec{Plugin: "test", Config: []byte(`{}`)})
	if f := fault.As(err); f == nil || f.Class != fault.Config || f.Key != "path" {
		t.Errorf("%#v", err)
	}
	_, err = h.OpenSource(t.Context(), pluginhost.SessionSpec{Plugin: "test", Config: []byte(`{"sice": 1}`)}, false)
	if f := fault.As(err); f == nil || f.Class != fault.Config || !strings.Contains(f.Key, "sice") {
		t.Errorf("%#v", err)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	first, second := link(t, "pipeline-source-imap"), link(t, "pipeline-source-imap", "pipeline-source-pop3", "pipeline-sink-eml")
	if err := os.WriteFile(filepath.Join(first, "pipeline-sink-text"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	h, _ := newHost(t, pluginhost.Options{
		Beside: "/nowhere", Dirs: []string{first}, PluginPath: second, Path: "/usr/bin" + string(filepath.ListSeparator),
	})
	f, err := h.Find(pluginhost.Source, "imap")
	if err != nil || f.Path != filepath.Join(first, "pipeline-source-imap") || f.Why != "--plugin-dir" {
		t.Errorf("%+v, %v", f, err)
	}
	f, err = h.Find(pluginhost.Source, "pop3")
	if err != nil || f.Why != "PIPELINE_PLUGIN_PATH" {
		t.Errorf("%+v, %v", f, err)
	}
	if all := h.All(); len(all) != 3 || all[0].Name != "imap" || all[1].Name != "pop3" || all[2].Name != "eml" {
		t.Errorf("all are %+v", all)
	}
	for _, c := range []struct {
		kind       pluginhost.Kind
		name, hint string
		says       []string
	}{
		{pluginhost.Source, "imab", `did you mean "imap"?`, []string{"/nowhere (beside the pipeline command)", first + " (--plugin-dir)", second, "/usr/bin (PATH)", "pipeline-source-imab"}},
		{pluginhost.Source, "jmapper", "--plugin-dir", []string{"pipeline-source-jmapper"}},
		{pluginhost.Sink, "imap", "--plugin-dir", []string{"pipeline-sink-imap"}},
		{pluginhost.Sink, "text", "", []string{"isn't executable"}},
		{pluginhost.Sink, "../x", "", []string{"isn't a plugin's name"}},
	} {
		_, err := h.Find(c.kind, c.name)
		f := fault.As(err)
		if f == nil || f.Class != fault.Config || !strings.Contains(f.Hint, c.hint) {
			t.Errorf("%s: %#v", c.name, err)
			continue
		}
		for _, w := range c.says {
			if !strings.Contains(f.Text, w) {
				t.Errorf("%s: %q doesn't say %q", c.name, f.Text, w)
			}
		}
	}
	id, err := h.Identity(pluginhost.Source, "imap")
	if err != nil || id.Size == 0 || id.Modified.IsZero() {
		t.Errorf("%+v, %v", id, err)
	}
}

func TestStrayPrints(t *testing.T) {
	t.Parallel()
	h, log := newHost(t, pluginhost.Options{Dirs: []string{link(t, "pipeline-source-chatty")}})
	_, err := h.OpenSource(t.Context(), pluginhost.SessionSpec{Plugin: "chatty", Config: []byte(`{"do": "print"}`)}, false)
	if err != nil {
		t.Fatal(err)
	}
	log.await(t, "printed before Serve", "a stray print", "a stray error", "plugin=chatty")
}

// What the store of objects says is logged as what plugins say.
func TestTheStoreIsHeard(t *testing.T) {
	t.Parallel()
	h, log := newHost(t, pluginhost.Options{Dirs: []string{link(t, "pipeline-store-objects")}})
	if _, err := h.Store(); err != nil {
		t.Fatal(err)
	}
	log.await(t, `level=WARN msg="the bucket is slow"`, "a stray error")
}

func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	h, log := newHost(t, pluginhost.Options{Dirs: []string{link(t, "pipeline-source-test")}})
	_, err := h.OpenSource(t.Context(), pluginhost.SessionSpec{
		Plugin: "test", Config: []byte(`{"do": "leak", "password": {"$secret": "p"}}`),
		Secrets: pluginhost.Secrets{Value: func(context.Context, string) (string, error) { return "tr0ub4dor", nil }},
	}, false)
	if !fault.Is(err, fault.Auth) || strings.Contains(err.Error(), "tr0ub4dor") {
		t.Errorf("the error is %v", err)
	}
	log.await(t, "the password is (secret)", "again=(secret)", "from=stdout")
	if strings.Contains(log.String(), "tr0ub4dor") {
		t.Errorf("the log has the password:\n%s", log)
	}
}

func TestEnvironmentAndFolder(t *testing.T) {
	t.Setenv("MAILHAUL_TEST_PRIVATE", "mine")
	dir := t.TempDir()
	h, _ := newHost(t, pluginhost.Options{
		Dirs: []string{link(t, "pipeline-source-test")}, WorkDir: dir, Env: []string{"GIVEN=yes"},
	})
	env := strings.Join(openSource(t, h, `{"do": "environment"}`, false).Notes, "\n")
	if strings.Contains(env, "MAILHAUL_TEST_PRIVATE") || !strings.Contains(env, "GIVEN=yes") || !strings.Contains(env, "PATH=") {
		t.Errorf("the plugin's environment is\n%s", env)
	}
	if got := openSource(t, h, `{"do": "folder"}`, false).URL; got != dir {
		t.Errorf("the plugin runs in %s, want %s", got, dir)
	}
}

func TestCrashInOpen(t *testing.T) {
	t.Parallel()
	// Who waited for a start until its time is over would wait for ever.
	h, log := newHost(t, pluginhost.Options{Dirs: []string{link(t, "pipeline-source-test", "pipeline-source-mute")}, StartTimeout: time.Hour})
	for _, c := range []struct{ plugin, do, says string }{
		{"test", "panic elsewhere", "ended with exit code 2: panic: out of luck"},
		{"test", "exit", "ended with exit code 7"},
		{"mute", "", "ended with exit code 0"},
	} {
		_, err := h.OpenSource(t.Context(), pluginhost.SessionSpec{Plugin: c.plugin, Config: []byte(`{"do": "` + c.do + `"}`)}, false)
		if !fault.Is(err, fault.Crashed) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "plugin "+c.plugin) {
			t.Errorf("%s: %v", c.do, err)
		}
	}
	log.await(t, "panic: out of luck")
	openSource(t, h, `{}`, false) // the next Open starts it anew
}

// kill -9 in the middle of a message: a body that ends in an error, then the
// error that says what happened, on every session; then a new process.
func TestKillInFetch(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, pluginhost.Options{Dirs: []string{link(t, "pipeline-source-test")}})
	o, other := openSource(t, h, `{"size": 1000000000}`, false), openSource(t, h, `{}`, false)
	if o.URL != other.URL {
		t.Errorf("two sessions have the processes %s and %s", o.URL, other.URL)
	}
	alone := openSource(t, h, `{"size": 10}`, true)
	if alone.URL == o.URL {
		t.Errorf("the isolated session shares process %s", o.URL)
	}
	var bodyErr, last error
	for f, err := range o.Source.Fetch(t.Context(), source.FetchRequest{IDs: uids(1)}) {
		if err != nil {
			last = err
			break
		}
		buf := make([]byte, 1<<20)
		if _, err := io.ReadFull(f.Message.Body, buf); err != nil {
			t.Fatal(err)
		}
		kill(t, o.URL)
		_, bodyErr = io.Copy(io.Discard, f.Message.Body)
	}
	for _, err := range []error{bodyErr, last} {
		if !fault.Is(err, fault.Crashed) || !strings.Contains(err.Error(), "plugin test") || !strings.Contains(err.Error(), "signal 9") {
			t.Errorf("%v, want Crashed by signal 9", err)
		}
	}
	for _, err := range other.Source.Mailboxes(t.Context()) {
		if !fault.Is(err, fault.Crashed) {
			t.Errorf("another session says %v", err)
		}
	}
	n := 0
	for _, err := range alone.Source.Fetch(t.Context(), source.FetchRequest{IDs: uids(3)}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 3 {
		t.Errorf("the isolated session gave %d messages", n)
	}
	if err := alone.Source.Close(); err != nil {
		t.Error(err)
	}
	await(t, "the isolated process to end", func() bool { return !running(t, alone.URL) })
	if again := openSource(t, h, `{}`, false); again.URL == o.URL {
		t.Error("the next Open got the dead process")
	}
}

func TestKillInWrite(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, pluginhost.Options{Dirs: []string{link(t, "pipeline-sink-test", "pipeline-source-test")}})
	spec := pluginhost.SessionSpec{Plugin: "test", Config: []byte(`{"path": "process", "slow": true}`)}
	p, err := h.Prepare(t.Context(), pluginhost.Sink, spec)
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.OpenSink(t.Context(), spec, sink.State{}, false)
	if err != nil {
		t.Fatal(err)
	}
	lane, err := s.Lane(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var done []error
	accepted := 0
	time.AfterFunc(200*time.Millisecond, func() { kill(t, p.Target) })
	var putErr error
	for putErr == nil {
		m := &message.Message{Body: message.NewBody(io.LimitReader(zeros{}, 1<<20), 1<<20, nil)}
		putErr = lane.Put(t.Context(), m, func(_ sink.Receipt, err error) {
			mu.Lock()
			done = append(done, err)
			mu.Unlock()
		})
		if putErr == nil {
			accepted++
		}
	}
	if err := lane.Close(); !fault.Is(err, fault.Crashed) {
		t.Errorf("Close says %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(done) != accepted || accepted == 0 {
		t.Errorf("%d messages were accepted, %d answered", accepted, len(done))
	}
	for _, err := range append(done, putErr) {
		if !fault.Is(err, fault.Crashed) || !strings.Contains(err.Error(), "signal 9") {
			t.Errorf("%v, want Crashed by signal 9", err)
		}
	}
	if _, err := s.Flush(t.Context()); !fault.Is(err, fault.Crashed) {
		t.Errorf("Flush says %v", err)
	}
}

func kill(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil || n <= 1 {
		t.Fatalf("process %q: %v", pid, err)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

func running(t *testing.T, pid string) bool {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil || n <= 1 {
		t.Fatalf("process %q: %v", pid, err)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n)); err == nil && bytes.Contains(b, []byte(") Z ")) {
		return false
	}
	return syscall.Kill(n, 0) == nil
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 2 minutes for %s", what)
		}
	}
}

// hostMain is a host that opens a source, says which process it is, and
// sleeps until it is killed.
func hostMain() {
	h, err := pluginhost.New(pluginhost.Options{Dirs: []string{os.Args[1]}, SocketDir: os.Args[2]})
	if err == nil {
		var o source.Opened
		o, err = h.OpenSource(context.Background(), pluginhost.SessionSpec{Plugin: "test", Config: []byte(`{}`)}, false)
		fmt.Println(o.URL)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	time.Sleep(time.Minute)
}

// A host that is killed takes its plugins with it; the next one removes its
// sockets.
func TestHostKilled(t *testing.T) {
	t.Parallel()
	sockets := short(t)
	host := exec.Command(filepath.Join(link(t, "host"), "host"), link(t, "pipeline-source-test"), sockets)
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid := strings.TrimSpace(line)
	if err != nil || !running(t, pid) {
		t.Fatalf("the host says %q, %v", line, err)
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = host.Wait() // killed
	await(t, "the plugin to end", func() bool { return !running(t, pid) })
	newHost(t, pluginhost.Options{SocketDir: sockets}) // its cleanup looks into the folder
}

func TestLongSocketPath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(short(t), strings.Repeat("x", 90))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := pluginhost.New(pluginhost.Options{SocketDir: dir})
	if !fault.Is(err, fault.Config) || fault.As(err).Hint == "" {
		t.Errorf("%v, want Config with a hint", err)
	}
}

func TestByHand(t *testing.T) {
	t.Parallel()
	path := filepath.Join(link(t, "pipeline-source-test"), "pipeline-source-test")
	out, err := exec.Command(path, "describe").Output()
	for _, w := range []string{`"name": "test"`, `"kind": "source"`, `"version": "1.0.0"`, `"config_schema"`, `"size"`} {
		if err != nil || !strings.Contains(string(out), w) {
			t.Errorf("%v, describe doesn't say %s:\n%s", err, w, out)
		}
	}
	both, err := exec.Command(path).CombinedOutput()
	if err == nil || !strings.Contains(string(both), "pipeline-source-test") || !strings.Contains(string(both), "plugin: test") {
		t.Errorf("%v:\n%s", err, both)
	}
}

// Nothing is left of a host: no process, no goroutine.
func TestNothingIsLeft(t *testing.T) {
	dir, sockets := link(t, "pipeline-source-test"), short(t)
	before := runtime.NumGoroutine()
	h, err := pluginhost.New(pluginhost.Options{Dirs: []string{dir}, SocketDir: sockets})
	if err != nil {
		t.Fatal(err)
	}
	shared, alone := openSource(t, h, `{}`, false), openSource(t, h, `{}`, true)
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for _, pid := range []string{shared.URL, alone.URL} {
		if running(t, pid) {
			t.Errorf("process %s still runs", pid)
		}
	}
	await(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
	if _, err := h.OpenSource(t.Context(), pluginhost.SessionSpec{Plugin: "test"}, false); err == nil {
		t.Error("a closed host starts plugins")
	}
}
