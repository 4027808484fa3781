package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/test/dovecot"
)

// TestFilesAreReadBackBeforeDeleting: a message is deleted on the server only
// where its files in every sink are still what was written.
func TestFilesAreReadBackBeforeDeleting(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	post(server, "INBOX", 1, 12)
	f := file{address: server.IMAP, sinks: `  - name: outlook
    plugin: msg
    config: {path: export/msg}
  - name: files
    plugin: attachments
    config: {path: export/files}
`}
	j := newJob(t, f.String())
	j.run(0, "run")
	left := func(want string) {
		t.Helper()
		if got := server.Doveadm("-f", "flow", "mailbox", "status", "-u", "alice", "messages", "INBOX"); !strings.Contains(got, "messages="+want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	left("12")
	spoilt := map[string][]byte{}
	for _, tree := range []string{"export/eml", "export/msg"} {
		found, err := filepath.Glob(j.path(tree, "alice/INBOX/*"))
		if err != nil || len(found) != 12 {
			t.Fatal(found, err)
		}
		name := found[len(spoilt)]
		octets, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		spoilt[name] = octets
		if err := os.Truncate(name, int64(len(octets))-1); err != nil {
			t.Fatal(err)
		}
	}
	sure := strings.Replace(f.String(), "    plugin: imap\n", "    plugin: imap\n    after: {delete: true, rehash: true}\n", 1)
	j.write(sure)
	o := j.run(4, "run")
	t.Logf("%s", o)
	left("2")
	needs(t, o.out, "10 finished on the server")
	needs(t, o.err, "2 exported messages stay as they are on the server", "octets, ", "were written", "hint: ")
	for name, octets := range spoilt {
		if err := os.WriteFile(name, octets, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	needs(t, j.run(0, "run").out, "2 finished on the server")
	left("0")
	j.run(0, "verify", "--offline")

	// A sink that can't be read back is told before anything starts.
	j.write(sure + "  - name: slow\n    plugin: slow\n    config: {path: export/slow, rate: 1MB/s}\n")
	j.env = append(j.env, "PIPELINE_PLUGIN_PATH="+j.bin.third)
	oneClearError(t, j.run(2, "run"), "take `rehash` out", "sink slow (plugin slow) keeps no manifest", "pipeline.yaml:")
}
