package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

// everySink is the file of a job with each sink of the project that writes to
// a folder, in one of its own.
func everySink(address string) string {
	return file{address: address, only: true, sinks: `  - {name: archive, plugin: eml, config: {path: export/eml}}
  - {name: outlook, plugin: msg, config: {path: export/msg}}
  - {name: parts, plugin: attachments, config: {path: export/parts}}
  - {name: index, plugin: json, config: {path: export/json/index.jsonl, detail: structure}}
`}.String()
}

// allExported is what such a job exported: files, and lines of the index.
func allExported(t *testing.T, j *job, address string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, tree := range []string{"export/eml", "export/msg", "export/parts"} {
		for name, sum := range mails(t, j.path(tree)) {
			out[tree+"/"+name] = sum
		}
	}
	for id, e := range index(t, j.path("export/json/index.jsonl")) {
		out["line of "+strings.ReplaceAll(id, address, "server")] = strings.ReplaceAll(e.line, address, "server")
	}
	return out
}

// TestVanishedFolder takes a folder away in the middle of a run, after its
// first commit: that of each sink, that of the ledger, that of temporary files.
// The run stops, names the folder, and says the way out, which works: what the
// next run leaves is what an undisturbed one does (I2, I3).
func TestVanishedFolder(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	const messages = 24
	const letter = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b\r\nContent-Disposition: attachment; filename=data.txt\r\n\r\n"
	for n := range messages {
		size := 1000
		if n == messages-1 {
			size = 120_000 // two MiB: more than is held in memory
		}
		server.Deliver("alice", "INBOX", []byte("Subject: "+strings.Repeat("a", n+1)+"\r\nMessage-ID: <"+strings.Repeat("a", n+1)+"@x.test>\r\n"+letter+strings.Repeat("0123456789abcdef\r\n", size)+"--b--\r\n"), time.Unix(1_700_000_000, 0))
	}
	undisturbed := newJob(t, everySink(server.IMAP))
	undisturbed.run(0, "run")
	want := allExported(t, undisturbed, server.IMAP)
	if len(want) != 4*messages {
		t.Fatalf("an undisturbed export has %d files and lines", len(want))
	}

	away := func(path string) error { return os.Rename(path, path+".away") }
	back := func(path string) error { return errors.Join(os.RemoveAll(path), os.Rename(path+".away", path)) }
	replace := func(path string) error { return errors.Join(away(path), os.Mkdir(path, 0o755)) }
	none := func(string) error { return nil }
	for name, v := range map[string]struct {
		folder string
		how    func(path string) error
		words  []string                // of the error
		hint   string                  // of it
		then   func(path string) error // what the user does about it
		refuse string                  // what the next run asks for; empty: it runs
		way    []string                // the command that the hint names; nil: run again
		code   int                     // of it
	}{
		"messages removed": {
			folder: "export/eml", how: os.RemoveAll, words: []string{"archive", "export/eml was removed"}, hint: "--rewrite archive",
			then: none, refuse: "--rewrite archive", way: []string{"run", "--rewrite", "archive"},
		},
		".msg files replaced": {
			folder: "export/msg", how: replace, words: []string{"outlook", "export/msg was removed"}, hint: "--rewrite outlook",
			then: none, refuse: "--rewrite outlook", way: []string{"run", "--rewrite", "outlook"},
		},
		"attachments moved away": {
			folder: "export/parts", how: away, words: []string{"parts", "export/parts was removed or moved away"}, hint: "put it back", then: back,
		},
		"index removed": {
			folder: "export/json", how: os.RemoveAll, words: []string{"index", "export/json/index.jsonl was removed"}, hint: "--rewrite index",
			then: none, refuse: "--rewrite index", way: []string{"run", "--rewrite", "index"},
		},
		"state moved away": {
			folder: "state", how: away, words: []string{"ledger", "state/mail.db", "moved away"}, hint: "put the state directory back", then: back,
		},
		"state removed": {
			folder: "state", how: os.RemoveAll, words: []string{"ledger", "state/mail.db", "removed"}, hint: "pipeline verify --rebuild",
			then: none, way: []string{"verify", "--rebuild"}, code: 1, // it doesn't take over what the attachments' sink wrote, and says so
		},
		"temporary files removed": {
			folder: "tmp", how: os.RemoveAll, words: []string{"spool file", "tmp/", "no such file"}, hint: "TMPDIR",
			then: func(path string) error { return os.Mkdir(path, 0o755) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := wireproxy.Start(t, server.IMAP)
			proxy.Break(func(int) (int64, wireproxy.Way) { return 150_000, wireproxy.Silence })
			j := newJob(t, everySink(proxy.Addr))
			if err := os.Mkdir(j.path("tmp"), 0o755); err != nil {
				t.Fatal(err)
			}
			j.env = append(j.env, "TMPDIR="+j.path("tmp"))
			r := j.start("run", "--json")
			until(t, "the first commit", func() bool { return strings.Contains(r.out.String(), `"event":"committed"`) })
			if err := v.how(j.path(v.folder)); err != nil {
				t.Fatal(err)
			}
			proxy.Heal()
			o := r.wait()
			if o.code != 1 {
				t.Errorf("exit code %d, want 1", o.code)
			}
			oneClearError(t, o, v.hint, v.words...)
			if err := v.then(j.path(v.folder)); err != nil {
				t.Fatal(err)
			}
			if v.refuse != "" {
				needs(t, j.run(1, "run").err, v.refuse)
			}
			if v.way != nil {
				j.run(v.code, v.way...)
			}
			j.run(0, "run")
			j.run(0, "verify", "--offline")
			if diff := cmp.Diff(want, allExported(t, j, proxy.Addr)); diff != "" {
				t.Errorf("the export isn't as one that was never disturbed (-want +got):\n%s", diff)
			}
			if left, err := filepath.Glob(j.path("tmp/*")); err != nil || len(left) > 0 {
				t.Errorf("temporary files are left: %v, %v", left, err)
			}
		})
	}
}
