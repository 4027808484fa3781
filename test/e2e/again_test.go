package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

// wire is what crossed between the source and the server.
type wire struct {
	*wireproxy.Proxy
	mu       sync.Mutex
	up, down strings.Builder
}

func tap(t *testing.T, server *dovecot.Server) *wire {
	w := &wire{Proxy: wireproxy.Start(t, server.IMAP)}
	w.Tap(func(fromServer bool, p []byte) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if fromServer {
			w.down.Write(p)
		} else {
			w.up.Write(p)
		}
	})
	return w
}

// reset forgets what crossed so far.
func (w *wire) reset() {
	w.Reset()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up.Reset()
	w.down.Reset()
}

// said returns what the clients and the server said.
func (w *wire) said() (up, down string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.up.String(), w.down.String()
}

var fetches = regexp.MustCompile(`(?i)(UID )?FETCH [^\r\n]*`)

// watchStarts gives a job a command of its own, with a script beside it in the
// place of each plugin that notes its start and becomes the plugin. It returns
// what reads the notes.
func watchStarts(t *testing.T, j *job) func() string {
	t.Helper()
	dir, notes := t.TempDir(), j.path("starts")
	if err := os.Link(filepath.Join(j.bin.dir, "pipeline"), filepath.Join(dir, "pipeline")); err != nil {
		t.Fatal(err)
	}
	plugins, err := filepath.Glob(filepath.Join(j.bin.dir, "pipeline-*"))
	if err != nil || len(plugins) == 0 {
		t.Fatalf("no plugins in %s: %v", j.bin.dir, err)
	}
	for _, p := range plugins {
		name := filepath.Base(p)
		script := fmt.Sprintf("#!/bin/sh\necho %s >>%s\nexec %s \"$@\"\n", name, notes, p)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	j.bin.dir = dir
	return func() string {
		b, err := os.ReadFile(notes)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		os.Remove(notes)
		return string(b)
	}
}

// TestAgain follows one archive through its life: the first run, one that has
// nothing to do, one with a new message, one with a new sink.
func TestAgain(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	all := samples(t)
	for i, m := range all {
		server.Deliver("alice", boxes[i%len(boxes)][0], m.raw, time.Unix(1_700_000_000, 0))
	}
	w := tap(t, server)
	f := file{address: w.Addr}
	j := newJob(t, f.String())
	starts := watchStarts(t, j)

	o := j.run(0, "run")
	needs(t, o.out, fmt.Sprintf("total: %d listed = %d written\n", len(all), len(all)))
	needs(t, starts(), "pipeline-source-imap", "pipeline-sink-eml", "pipeline-sink-json")
	export, old := tree(t, j.path("export")), index(t, j.path("export/index.jsonl"))

	// Nothing new: a STATUS for each mailbox, and no sink has anything to do.
	w.reset()
	o = j.run(0, "run")
	needs(t, o.out, fmt.Sprintf("%d listed = 0 written + %d done before\n", len(all), len(all)))
	up, _ := w.said()
	if found := fetches.FindAllString(up, -1); found != nil {
		t.Errorf("nothing is new, and yet the source asked for %q", found)
	}
	if strings.Contains(strings.ToUpper(up), "SEARCH") {
		t.Errorf("nothing is new, and yet the source listed:\n%s", up)
	}
	if got := starts(); strings.Contains(got, "sink") {
		t.Errorf("nothing is new, and yet these were started:\n%s", got)
	}
	unchanged(t, j.path("export"), export)
	t.Logf("a run with nothing to do: %s, %d octets up, %d down", o.took, w.Up(), w.Down())

	// One new message costs one message.
	fresh := []byte("Subject: fresh\r\nMessage-ID: <fresh@x.test>\r\n\r\n" + strings.Repeat("new\r\n", 2000))
	server.Deliver("alice", "Work/2025/Q1", fresh, time.Unix(1_700_000_000, 0))
	w.reset()
	o = j.run(0, "run")
	needs(t, o.out, "= 1 written + ")
	up, _ = w.said()
	if bodies := regexp.MustCompile(`(?i)UID FETCH (\S+) \([^\r\n]*BODY\.PEEK\[\][^\r\n]*`).FindAllStringSubmatch(up, -1); len(bodies) != 1 || strings.ContainsAny(bodies[0][1], ":,*") {
		t.Errorf("one message is new; bodies asked for: %q", bodies)
	}
	if most := int64(len(fresh)) + 4096; w.Down() > most {
		t.Errorf("one message of %d octets is new; the server sent %d, want at most %d", len(fresh), w.Down(), most)
	}
	t.Logf("a run with one new message of %d octets: %s, %d octets up, %d down", len(fresh), o.took, w.Up(), w.Down())
	after := tree(t, j.path("export/eml"))
	for name, was := range mails(t, j.path("export/eml")) {
		before, ok := export["eml/"+name]
		if !ok && was != sum(fresh) || ok && after[name] != before {
			t.Errorf("%s is neither new nor as it was", name)
		}
	}
	lines := index(t, j.path("export/index.jsonl"))
	for id, e := range old {
		if lines[id].line != e.line {
			t.Errorf("the line of %s changed", id)
		}
	}
	if len(lines) != len(all)+1 {
		t.Errorf("the index has %d lines, want %d", len(lines), len(all)+1)
	}

	// A sink that is added later gets the backlog, and it alone (I8).
	archive := tree(t, j.path("export/eml"))
	starts()
	f.sinks = "  - name: copy\n    plugin: eml\n    config: {path: export/copy}\n"
	j.write(f.String())
	o = j.run(0, "run")
	t.Logf("a run with a new sink: %s", o.out)
	unchanged(t, j.path("export/eml"), archive)
	copies := mails(t, j.path("export/copy"))
	if !maps.Equal(copies, mails(t, j.path("export/eml"))) {
		t.Errorf("the new sink has %d files that aren't those of the old one", len(copies))
	}
	both := index(t, j.path("export/index.jsonl"))
	if len(both) != len(lines) {
		t.Errorf("the index has %d lines, want %d", len(both), len(lines))
	}
	for id, e := range both {
		if e.Files["archive"] == "" || e.Files["copy"] != e.Files["archive"] || e.Files["archive"] != lines[id].Files["archive"] {
			t.Errorf("%s: the index names the files %v", id, e.Files)
		}
	}
}

// TestFilterBySizeFetchesNoBodyThatItDrops has the filter judged from the
// listing.
func TestFilterBySizeFetchesNoBodyThatItDrops(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	small, large := 0, int64(0)
	for i := range 60 {
		size, mark := 2_000*(i+1), "SMALL"
		if size >= 100_000 {
			mark = "LARGE"
		}
		head := fmt.Sprintf("Subject: %d\r\n\r\n", i)
		raw := head + strings.Repeat(mark+" line of 21 o.\r\n", (size-len(head)-2)/21) + "\r\n"
		raw += strings.Repeat("x", size-len(raw))
		if size < 100_000 {
			small += size
		} else {
			large += int64(size)
		}
		server.Deliver("alice", "INBOX", []byte(raw), time.Unix(1_700_000_000, 0))
	}
	w := tap(t, server)
	j := newJob(t, file{address: w.Addr, stages: "  - name: small\n    filter: size < 100 * KB\n"}.String())
	o := j.run(0, "run")
	needs(t, o.out, "60 listed = 49 written + 11 dropped by small\n")
	_, down := w.said()
	if n := strings.Count(down, "LARGE line"); n > 0 {
		t.Errorf("%d lines of dropped messages crossed the wire", n)
	}
	if n := strings.Count(down, "SMALL line"); n == 0 {
		t.Error("no line of the others did")
	}
	if most := int64(small) + 60*400 + 20_000; w.Down() > most {
		t.Errorf("%d octets came from the server, want at most %d", w.Down(), most)
	}
	t.Logf("%d octets of messages were written and %d dropped; %d octets came from the server", small, large, w.Down())
	if n := len(mails(t, j.path("export/eml"))); n != 49 {
		t.Errorf("%d files, want 49", n)
	}
	// What was dropped isn't asked for again.
	w.reset()
	j.run(0, "run")
	if up, _ := w.said(); fetches.MatchString(up) {
		t.Errorf("nothing is new, and yet the source asked for %q", fetches.FindAllString(up, -1))
	}
}
