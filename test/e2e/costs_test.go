package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/cost"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

var update = flag.Bool("update", false, "record what runs cost")

// costly is how many messages the runs of TestCosts are over: four pages of a
// listing with headers.
const costly = 2048

// costlyMail has 4 KB, and a subject by which the filters tell: one in a
// hundred is rare, every other one even.
func costlyMail(i int) []byte {
	subject := fmt.Sprintf("number %d", i)
	if i%2 == 0 {
		subject += " even"
	}
	if i%100 == 50 {
		subject += " rare"
	}
	head := fmt.Sprintf("Return-Path: <bob@example.com>\nReceived: from mx.example.com by mail.example.org with ESMTP id %08d;\n\tMon, 01 Jan 2024 10:00:00 +0000\n"+
		"Date: Mon, 01 Jan 2024 10:00:00 +0000\nFrom: Bob <bob@example.com>\nTo: Alice <alice@example.org>\nSubject: %s\nMessage-ID: <%d@example.com>\n"+
		"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n", i, subject, i)
	line := "The quick brown fox jumps over the lazy dog, and nobody has seen why.\n"
	return []byte(head + strings.Repeat(line, (4000-len(head))/len(line)))
}

// TestCosts counts what whole runs cost, on the wire and in system calls that
// read or write: the same on every machine but for how pieces happen to arrive.
// It is what keeps a slower way from coming in unseen where seconds wobble; and
// it shows what it is worth to read headers with the bodies.
func TestCosts(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	for i := range costly {
		server.Deliver("alice", "INBOX", costlyMail(i), time.Date(2024, 1, 1, 10, 0, 0, 0, time.UTC))
	}
	const archive = "  - {name: archive, plugin: eml, config: {path: export/eml}}\n"
	const index = "  - {name: index, plugin: json, config: {path: export/index.jsonl, detail: headers}}\n"
	filter := func(text string) string { return "  - name: chosen\n    filter: " + text + "\n" }
	var counts []cost.Count
	for _, tc := range []struct {
		name, plugin, stages, sinks string
		again                       bool
		out                         string
	}{
		{name: "IMAP", plugin: "imap", sinks: archive, again: true, out: "2048 listed = 2048 written"},
		{name: "IMAP, index only", plugin: "imap", sinks: index, out: "2048 listed = 2048 written"},
		{name: "IMAP, 99 % pass a header filter", plugin: "imap", sinks: archive, stages: filter(`not (subject contains "rare")`), out: "2028 written"},
		{name: "IMAP, 50 % pass", plugin: "imap", sinks: archive, stages: filter(`subject contains "even"`), out: "1024 written"},
		{name: "IMAP, 1 % pass", plugin: "imap", sinks: archive, stages: filter(`subject contains "rare"`), out: "20 written"},
		{name: "POP3", plugin: "pop3", sinks: archive, again: true, out: "2048 listed = 2048 written"},
		{name: "POP3, 99 % pass a header filter", plugin: "pop3", sinks: archive, stages: filter(`not (subject contains "rare")`), out: "2028 written"},
		{name: "POP3, 1 % pass", plugin: "pop3", sinks: archive, stages: filter(`subject contains "rare"`), out: "20 written"},
	} {
		at := map[string]string{"imap": server.IMAP, "pop3": server.POP3}[tc.plugin]
		proxy := wireproxy.Start(t, at)
		var commands atomic.Int64
		proxy.Tap(func(fromServer bool, p []byte) {
			if !fromServer {
				commands.Add(int64(strings.Count(string(p), "\n")))
			}
		})
		j := newJob(t, file{address: proxy.Addr, plugin: tc.plugin, stages: tc.stages, sinks: tc.sinks, only: true}.String())
		run := func(name, out string) {
			proxy.Reset()
			commands.Store(0)
			o, calls := j.counted()
			needs(t, o, out)
			// How many ids go into one command depends on how fast the first
			// messages come; a connection more or less logs in once more, and by
			// POP3 lists the UIDLs again.
			down := 3000.0
			if tc.plugin == "pop3" {
				down += 70_000
			}
			counts = append(counts,
				cost.Count{Name: name + ": commands", Got: float64(commands.Load()), Slack: .02, Plus: 16},
				cost.Count{Name: name + ": octets up", Got: float64(proxy.Up()), Slack: .05, Plus: 1500},
				cost.Count{Name: name + ": octets down", Got: float64(proxy.Down()), Slack: .005, Plus: down},
				cost.Count{Name: name + ": reads and writes a message", Got: float64(calls) / costly, Slack: .5, Plus: .5})
		}
		run(tc.name, tc.out)
		if tc.again {
			run(tc.name+", nothing new", "2048 done before")
		}
	}
	cost.Hold(t, filepath.Join("testdata", "costs.golden"), *update, counts...)
}

// counted runs the pipeline and returns what it said, and how often it and
// its plugins called the system to read or write: what the kernel counts for a
// process and for those that it has waited for (proc_pid_io(5)).
func (j *job) counted() (out string, calls int64) {
	j.t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `"$0" run >out 2>&1; code=$?; cat /proc/$$/io >io; exit $code`, filepath.Join(j.bin.dir, "pipeline"))
	cmd.Dir, cmd.Env = j.dir, j.env
	err := cmd.Run()
	said, _ := os.ReadFile(j.path("out"))
	if err != nil {
		j.t.Fatalf("run: %v\n%s", err, said)
	}
	io, err := os.ReadFile(j.path("io"))
	if err != nil {
		j.t.Fatal(err)
	}
	for line := range strings.Lines(string(io)) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if name != "syscr" && name != "syscw" {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			j.t.Fatal(err)
		}
		calls += n
	}
	if calls == 0 {
		j.t.Fatalf("the kernel counts no reads and writes: /proc/PID/io says\n%s", io)
	}
	return string(said), calls
}
