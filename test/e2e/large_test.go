package e2e

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
)

// large is a message of some 200 MB: an attachment in base64.
func large() []byte {
	const octets = 200 << 20
	var b bytes.Buffer
	b.Grow(octets + 1024)
	b.WriteString("Subject: large\r\nMessage-ID: <large@x.test>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nsee it\r\n--b\r\n" +
		"Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=large.bin\r\n" +
		"Content-Transfer-Encoding: base64\r\n\r\n")
	block := make([]byte, 57*1024)
	rand.Read(block)
	lines := make([]byte, 0, 78*1024)
	for p := block; len(p) > 0; p = p[57:] {
		lines = append(base64.StdEncoding.AppendEncode(lines, p[:57]), '\r', '\n')
	}
	for b.Len()+len(lines) < octets {
		b.Write(lines)
	}
	b.WriteString("--b--\r\n")
	return b.Bytes()
}

// deliverLarge delivers it and returns its size and sha256.
func deliverLarge(server *dovecot.Server) (int64, string) {
	raw := large()
	server.Deliver("alice", "INBOX", raw, time.Unix(1_700_000_000, 0))
	return int64(len(raw)), sum(raw)
}

// TestLargeMessage has a message of 200 MB pass to a file, the index and a
// sink that takes 5 s for it, while no process grows (I5).
func TestLargeMessage(t *testing.T) {
	server := dovecot.Start(t, dovecot.Options{})
	size, want := deliverLarge(server)
	for name, tc := range map[string]struct {
		file  file
		args  []string
		at    []string
		procs []string
	}{
		"from POP3": {
			file: file{plugin: "pop3"}, at: []string{"export/eml"}, procs: []string{"pipeline-sink-eml", "pipeline-sink-json"},
		},
		"to a file and the index": {
			at: []string{"export/eml"}, procs: []string{"pipeline-sink-eml", "pipeline-sink-json"},
		},
		"to a slow sink": {
			file: file{only: true, sinks: "  - name: slow\n    plugin: slow\n    config: {path: export/slow, rate: 40MB/s}\n"},
			at:   []string{"export/slow"}, procs: []string{"pipeline-sink-slow"},
		},
		"to all of them": {
			file: file{sinks: "  - name: slow\n    plugin: slow\n    config: {path: export/slow, rate: 40MB/s}\n"},
			at:   []string{"export/slow", "export/eml"}, procs: []string{"pipeline-sink-slow", "pipeline-sink-eml", "pipeline-sink-json"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.file.address = server.IMAP
			if tc.file.plugin == "pop3" {
				tc.file.address = server.POP3
			}
			j := newJob(t, tc.file.String())
			j.env = append(j.env, "TMPDIR="+t.TempDir())
			o := j.run(0, "run", "--plugin-dir", j.bin.third)
			for _, at := range tc.at {
				files := mails(t, j.path(at))
				if len(files) != 1 {
					t.Errorf("%s has the files %v, want one", at, files)
				}
				for name, got := range files {
					if got != want {
						t.Errorf("%s isn't what was sent: sha256 %s, want %s", name, got, want)
					}
				}
			}
			needs(t, o.out, "1 listed = 1 written\n")
			bounded(t, o, append(tc.procs, "pipeline", "pipeline-source-"+cmp.Or(tc.file.plugin, "imap"))...)
			t.Logf("%.0f MB in %s: %.0f MB/s", float64(size)/1e6, o.took, float64(size)/1e6/o.took.Seconds())
			if !tc.file.only {
				for _, e := range index(t, j.path("export/index.jsonl")) {
					if e.SHA256 != want || e.Octets != size || len(e.Attachments) != 1 {
						t.Errorf("the index has %s", e.line)
					}
				}
			}
		})
	}
}
