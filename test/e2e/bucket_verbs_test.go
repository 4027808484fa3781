package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/test/s3server"
)

// bucketSinks are sinks of a pipeline in a bucket, as YAML.
func bucketSinks(s3 *s3server.Server, names ...string) string {
	var b strings.Builder
	for _, name := range names {
		switch name {
		case "archive":
			fmt.Fprintf(&b, "  - name: archive\n    plugin: eml\n    config: {path: %q}\n", s3.Address("mail/eml"))
		case "outlook":
			fmt.Fprintf(&b, "  - name: outlook\n    plugin: msg\n    config: {path: %q}\n", s3.Address("mail/msg"))
		case "files":
			fmt.Fprintf(&b, "  - name: files\n    plugin: attachments\n    config: {path: %q}\n", s3.Address("mail/files"))
		case "index":
			fmt.Fprintf(&b, "  - name: index\n    plugin: json\n    config: {path: %q}\n", s3.Address("mail/index.jsonl"))
		}
	}
	return b.String()
}

// indexIn returns the lines of the index in the bucket.
func indexIn(t *testing.T, s3 *s3server.Server) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s3.Folder, "mail", "index.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// TestVerbsOverABucket: what a pipeline can do with folders it does with
// buckets. Its ledger is carried away and lost, and made anew of what is there:
// no run writes anything again (I2).
func TestVerbsOverABucket(t *testing.T) {
	t.Parallel()
	const messages = 20
	mail := fill(t, messages)
	s3 := s3server.Start(t, "mail")
	with := func(sinks ...string) string {
		return file{address: mail.IMAP, only: true, sinks: bucketSinks(s3, sinks...)}.String()
	}
	root := filepath.Join(s3.Folder, "mail")
	j := newBucketJob(t, s3, with("archive", "index"))
	j.run(0, "run")

	// A new sink changes what each record says: its line is replaced (I8).
	j.write(with("archive", "outlook", "index"))
	j.run(0, "run")
	lines := indexIn(t, s3)
	if len(lines) != messages {
		t.Errorf("the index has %d lines, want %d", len(lines), messages)
	}
	for _, l := range lines {
		needs(t, l, `"archive":"`, `"outlook":"`)
	}
	before := s3.Calls(http.MethodGet) + s3.Calls(http.MethodHead)
	o := j.run(0, "verify", "--offline")
	needs(t, o.out, "archive: 20 files in s3://mail/eml, ", "outlook: 20 files in s3://mail/msg, ", ", 20 .msg opened", "index: 20 lines in s3://mail/index.jsonl\n", "all holds: 20 messages")
	// An EML is read once; a .msg is read, opened, and held against its EML.
	if n := s3.Calls(http.MethodGet) + s3.Calls(http.MethodHead) - before; n > 4*messages+40 {
		t.Errorf("verify asked %d times for %d messages in two sinks", n, messages)
	} else {
		t.Logf("verify asked %d times for %d messages in two sinks", n, messages)
	}
	kept := everything(t, root)

	// The state is carried elsewhere.
	j.run(0, "state", "export", "carried.tar.gz")
	lose := func() {
		t.Helper()
		if err := os.RemoveAll(j.path("state")); err != nil {
			t.Fatal(err)
		}
	}
	lose()
	o = j.run(0, "state", "import", "carried.tar.gz")
	if strings.Contains(o.err, "warning") {
		t.Errorf("the output wasn't found: %s", o)
	}
	needs(t, j.run(0, "run").out, " 0 written")

	// It is lost.
	lose()
	oneClearError(t, j.run(2, "verify", "--offline"), "pipeline verify --rebuild", "it has no ledger")
	o = j.run(0, "verify", "--rebuild")
	needs(t, o.out, "archive: 20 taken\n", "outlook: 20 taken\n", "index: 20 taken\n", "the ledger is made anew, of 20 messages")
	needs(t, j.run(0, "verify", "--offline").out, "all holds: 20 messages")
	needs(t, j.run(0, "run").out, " 0 written")
	if diff := cmp.Diff(kept, everything(t, root)); diff != "" {
		t.Errorf("something was written again: %s", diff)
	}

	// An object that was damaged meanwhile isn't taken, and alone is written
	// again.
	found, err := filepath.Glob(filepath.Join(root, "eml/alice/INBOX/*"))
	if err != nil || len(found) != messages {
		t.Fatal(found, err)
	}
	whole, err := os.ReadFile(found[3])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(found[3], append(bytes.Clone(whole), '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	lose()
	o = j.run(1, "verify", "--rebuild")
	needs(t, o.err, "isn't what its manifest says: the next run writes it again")
	needs(t, o.out, "archive: 19 taken, 1 left\n")
	needs(t, j.run(0, "run").out, " 1 written")
	if again, err := os.ReadFile(found[3]); err != nil || string(again) != string(whole) {
		t.Errorf("the damaged object isn't mended: %v", err)
	}
	needs(t, j.run(0, "verify", "--offline").out, "all holds: 20 messages")

	// One sink is written anew.
	if err := os.Remove(found[4]); err != nil {
		t.Fatal(err)
	}
	needs(t, j.run(1, "verify", "--offline").out, "missing archive: the file isn't there")
	needs(t, j.run(0, "run", "--rewrite", "archive").out, " 20 written")
	needs(t, j.run(0, "verify", "--offline").out, "all holds: 20 messages")
	needs(t, j.run(0, "status").out, "20")
	j.run(0, "failed")
	j.run(0, "failed", "retry")
}

// TestObjectsAreReadBackBeforeDeleting is TestFilesAreReadBackBeforeDeleting
// with the files in a bucket.
func TestObjectsAreReadBackBeforeDeleting(t *testing.T) {
	t.Parallel()
	const messages = 12
	mail := fill(t, messages)
	s3 := s3server.Start(t, "mail")
	yaml := file{address: mail.IMAP, only: true, sinks: bucketSinks(s3, "archive", "outlook", "files", "index")}.String()
	j := newBucketJob(t, s3, yaml)
	j.run(0, "run")
	left := func(want int) {
		t.Helper()
		if got := mail.Doveadm("-f", "flow", "mailbox", "status", "-u", "alice", "messages", "INBOX"); !strings.Contains(got, fmt.Sprintf("messages=%d", want)) {
			t.Errorf("%s, want %d", got, want)
		}
	}
	spoilt := map[string][]byte{}
	for n, tree := range []string{"eml/alice/INBOX/*", "msg/alice/INBOX/*", "files/alice/INBOX/*/*"} {
		found, err := filepath.Glob(filepath.Join(s3.Folder, "mail", tree))
		if err != nil || len(found) != messages {
			t.Fatal(found, err)
		}
		b, err := os.ReadFile(found[n])
		if err != nil {
			t.Fatal(err)
		}
		spoilt[found[n]] = b
		bad := bytes.Clone(b)
		bad[len(bad)/2] ^= 1
		if err := os.WriteFile(found[n], bad, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j.write(strings.Replace(yaml, "    plugin: imap\n", "    plugin: imap\n    after: {delete: true, rehash: true}\n", 1))

	// Where nothing can be read back nothing is deleted.
	s3.Fail(func(r *http.Request) s3server.Mishap {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "manifest.json") {
			return s3server.Forbidden
		}
		return s3server.None
	})
	needs(t, j.run(4, "run").err, "AccessDenied")
	left(messages)
	s3.Fail(nil)

	o := j.run(4, "run")
	left(len(spoilt))
	needs(t, o.out, "9 finished on the server")
	needs(t, o.err, "3 exported messages stay as they are on the server", "has other octets than were written", "hint: ")
	for name, octets := range spoilt {
		if err := os.WriteFile(name, octets, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	needs(t, j.run(0, "run").out, "3 finished on the server")
	left(0)
	j.run(0, "verify", "--offline")
}
