// Package examples_test builds the examples and runs them as the pipeline
// does.
package examples_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// maxLines is what DESIGN promises the author of a sink.
const maxLines = 59

// TestOnThePublicSurface has each example short, in a module of its own, and
// with no import of ours but those below pkg/.
func TestOnThePublicSurface(t *testing.T) {
	t.Parallel()
	mods, err := filepath.Glob("*/go.mod")
	if err != nil || len(mods) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, mod := range mods {
		dir := filepath.Dir(mod)
		lines := 0
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			lines += bytes.Count(b, []byte{'\n'})
		}
		if lines == 0 || lines > maxLines {
			t.Errorf("%s has %d lines of Go, at most %d are promised", dir, lines, maxLines)
		}
		cmd := exec.CommandContext(t.Context(), "go", "list", "-f", `{{join .Imports "\n"}}`, ".")
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list in %s: %v", dir, err)
		}
		for _, path := range strings.Fields(string(out)) {
			if strings.HasPrefix(path, "github.com/mailhaul/") && !strings.HasPrefix(path, "github.com/mailhaul/pipeline/pkg/") {
				t.Errorf("%s imports %s, which a third party can't", dir, path)
			}
		}
	}
}

func TestMaildir(t *testing.T) {
	t.Parallel()
	plugins := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(plugins, "pipeline-sink-maildir"), ".")
	build.Dir = "pipeline-sink-maildir"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	host, err := pluginhost.New(pluginhost.Options{Dirs: []string{plugins}})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close(t.Context())

	root := filepath.Join(t.TempDir(), "maildir")
	config, err := json.Marshal(map[string]string{"path": root})
	if err != nil {
		t.Fatal(err)
	}
	spec := pluginhost.SessionSpec{Name: "local", Plugin: "maildir", Config: config}
	prepared, err := host.Prepare(t.Context(), wire.KindSink, spec)
	if err != nil || prepared.Target != root || !prepared.Needs.Has(message.NeedBody|message.NeedFlags) {
		t.Fatalf("Prepare: %+v, %v", prepared, err)
	}
	octets := []byte("Subject: x\r\n\r\n\x00\xff bare\nlines\r")
	put := func(session *pluginhost.SinkSession, uid uint32, body io.Reader) (sink.Receipt, error) {
		t.Helper()
		lane, err := session.Lane(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m := &message.Message{Body: message.NewBody(body, -1, nil)}
		m.ID = message.ID{Source: "alice", Mailbox: "Work/2025", UIDValidity: 1, UID: uid}
		m.Have = message.NeedFlags | message.NeedInternalDate
		m.Flags, m.InternalDate = []string{`\Flagged`, `\Seen`}, time.Unix(1_700_000_000, 0)
		var receipt sink.Receipt
		var failed error
		done := make(chan struct{})
		if err := lane.Put(t.Context(), m, func(r sink.Receipt, err error) {
			receipt, failed = r, err
			close(done)
		}); err != nil {
			t.Fatal(err)
		}
		<-done
		if err := lane.Close(); err != nil {
			t.Fatal(err)
		}
		return receipt, failed
	}
	open := func(cp sink.Checkpoint) *pluginhost.SinkSession {
		t.Helper()
		session, err := host.OpenSink(t.Context(), spec, sink.State{Name: "local", Pipeline: "acme", Checkpoint: cp, Known: cp != nil}, false)
		if err != nil {
			t.Fatal(err)
		}
		return session
	}

	session := open(nil)
	receipt, err := put(session, 7, bytes.NewReader(octets))
	if err != nil || !strings.HasPrefix(receipt.Path, "alice/Work/2025/cur/7-") || !strings.HasSuffix(receipt.Path, ":2,FS") {
		t.Fatalf("%+v, %v", receipt, err)
	}
	if b, err := os.ReadFile(filepath.Join(root, receipt.Path)); err != nil || !bytes.Equal(b, octets) {
		t.Errorf("file: %q, %v", b, err)
	}
	cut := errors.New("connection reset")
	if _, err := put(session, 8, io.MultiReader(bytes.NewReader(octets), iotest.ErrReader(cut))); err == nil {
		t.Error("a body that was cut short was written")
	}
	cp, err := session.Flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found, err := filepath.Glob(filepath.Join(root, "alice/Work/2025/cur/*")); err != nil || len(found) != 1 {
		t.Errorf("files: %v, %v", found, err)
	}
	if err := open(cp).Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestRedact has a stage as a process change a small body and a large one.
func TestRedact(t *testing.T) {
	t.Parallel()
	plugins := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(plugins, "pipeline-stage-redact"), ".")
	build.Dir = "pipeline-stage-redact"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	host, err := pluginhost.New(pluginhost.Options{Dirs: []string{plugins}})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close(t.Context())
	spec := pluginhost.SessionSpec{Name: "secret", Plugin: "redact", Config: []byte(`{"words":["ACME-4711"]}`), Spool: &message.Spool{}}
	prepared, err := host.Prepare(t.Context(), wire.KindStage, spec)
	if err != nil || !prepared.Changes || !prepared.Needs.Has(message.NeedBody) {
		t.Fatalf("Prepare: %+v, %v", prepared, err)
	}
	session, err := host.OpenStage(t.Context(), spec, prepared, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, lines := range []int{1, 200_000} {
		mail := "Subject: x\r\n\r\n" + strings.Repeat("all about ACME-4711, once more\r\n", lines)
		m := &message.Message{Body: message.NewBody(strings.NewReader(mail), int64(len(mail)), spec.Spool)}
		came := m.Body
		verdict, err := session.Apply(t.Context(), m)
		if err != nil || verdict != stage.Keep {
			t.Fatalf("verdict %d, %v", verdict, err)
		}
		got, err := io.ReadAll(m.Body)
		if want := strings.ReplaceAll(mail, "ACME-4711", "xxxxxxxxx"); string(got) != want || err != nil {
			t.Errorf("%d lines: got %d octets %.80q, want %d: %v", lines, len(got), got, len(want), err)
		}
		came.Release()
	}
	if err := session.Close(); err != nil {
		t.Error(err)
	}
}
