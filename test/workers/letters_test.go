package workers

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/natsserver"
	"github.com/mailhaul/pipeline/test/s3server"
)

// ask runs a verb to its end, wants the exit code, and returns what it printed.
func (j *job) ask(code int, args ...string) string {
	j.t.Helper()
	cmd := j.command(args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if got := cmd.ProcessState.ExitCode(); got != code {
		j.t.Fatalf("pipeline %s ended with exit code %d, want %d: %v\n%s%s", strings.Join(args, " "), got, code, err, out, said.String())
	}
	return string(out)
}

// number returns the number of the last run, as NATS has it; 0 before the first.
func (j *job) number(at jetstream.JetStream) int {
	j.t.Helper()
	var run struct{ Number int }
	books, err := at.KeyValue(j.t.Context(), "LETTERS_BOOKS")
	if err == nil {
		var e jetstream.KeyValueEntry
		if e, err = books.Get(j.t.Context(), "run"); err == nil {
			err = json.Unmarshal(e.Value(), &run)
		}
	}
	if err != nil && !errors.Is(err, jetstream.ErrBucketNotFound) && !errors.Is(err, jetstream.ErrKeyNotFound) {
		j.t.Fatal(err)
	}
	return run.Number
}

// withJobs runs a verb that divides work, and two workers as jobs that begin
// when it has. It wants the verb's exit code; the jobs end with 0.
func (j *job) withJobs(code int, args ...string) {
	j.t.Helper()
	nats := j.w.nats.Connect(j.t)
	before := j.number(nats)
	p := j.start(args...)
	for j.number(nats) == before {
		select {
		case <-p.ended:
			j.t.Fatalf("pipeline %s has ended: %s", strings.Join(args, " "), p.said.String())
		default:
		}
	}
	jobs := []*process{j.start("worker", "--once"), j.start("worker", "--once", "--tasks", "1")}
	for _, w := range jobs {
		w.complete(j.t)
	}
	<-p.ended
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		j.t.Fatalf("pipeline %s ended with exit code %d, want %d:\n%s", strings.Join(args, " "), got, code, p.said.String())
	}
}

// Dead letters of workers are listed like those of a local run, and those that
// are chosen are tried again, alone.
func TestDeadLettersOfWorkers(t *testing.T) {
	t.Parallel()
	w := &world{nats: natsserver.Start(t), sinks: []string{"eml"}, users: []string{"ann"}, lease: 30 * time.Second}
	w.s3 = s3server.Start(t, "mail")
	w.mail = dovecot.Start(t, dovecot.Options{Users: w.users})
	at := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, text := range []string{
		"Date: Wed, 1 Jan 2025 00:00:00 +0000\r\nSubject: dated\r\n\r\nhello\r\n",
		"Subject: undated 1\r\n\r\nhello\r\n",
		"Subject: undated 2\r\n\r\nhello\r\n",
	} {
		w.mail.Deliver("ann", "INBOX", []byte(text), at)
	}
	j := w.newJob(t, "letters", true)
	file := filepath.Join(j.dir, "pipeline.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	stage := "stages:\n  - {name: dated, filter: 'date > internal_date - days(30)', unknown: dead_letter}\n"
	write := func(stage string) {
		if err := os.WriteFile(file, append(text[:len(text):len(text)], stage...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(stage)
	if said, err := j.command("run", "-q", "--rewrite", "eml", "--adopt", "eml").CombinedOutput(); err == nil || !strings.Contains(string(said), "error: --adopt, --rewrite: not for a run with workers") {
		t.Errorf("what workers can't do: %v\n%s", err, said)
	}
	j.withJobs(3, "run", "-q")
	letters := func() (keys []string) {
		for line := range strings.Lines(j.ask(0, "failed", "list", "--json")) {
			var l struct{ Key, By, Reason string }
			if err := json.Unmarshal([]byte(line), &l); err != nil || l.By != "dated" || l.Reason != "undecided" {
				t.Fatalf("dead letter %s: %v", line, err)
			}
			keys = append(keys, l.Key)
		}
		return keys
	}
	keys := letters()
	if len(keys) != 2 {
		t.Fatalf("the dead letters are %v, want 2", keys)
	}
	write(strings.Replace(stage, "dead_letter", "keep", 1))
	j.withJobs(3, "failed", "retry", "-q", keys[0])
	if left := letters(); len(left) != 1 || left[0] != keys[1] {
		t.Errorf("%v is left, want %s", left, keys[1])
	}
	j.withJobs(0, "failed", "retry", "-q")
	if left := letters(); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
	var now struct {
		Workers struct {
			Run struct {
				Number int
				Stage  string
			}
			Done int
		}
	}
	if err := json.Unmarshal([]byte(j.ask(0, "status", "--json")), &now); err != nil || now.Workers.Run.Number != 3 || now.Workers.Run.Stage != "ended" || now.Workers.Done != 1 {
		t.Errorf("status says %+v, %v; want run 3, ended, with one task done", now.Workers, err)
	}
	if text := j.ask(0, "failed", "list"); !strings.Contains(text, "no dead letters") {
		t.Errorf("failed list says %q", text)
	}
	found, err := filepath.Glob(filepath.Join(j.out, "eml", "ann", "INBOX", "*.eml"))
	if err != nil || len(found) != 3 {
		t.Errorf("%d messages were exported, want 3: %v", len(found), err)
	}
}
