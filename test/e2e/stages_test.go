package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/test/dovecot"
)

// TestStages has all kinds of stages in one pipeline: what they let pass, what
// they make of it, what the index says of that, and what a changed stage does.
func TestStages(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	at := time.Unix(1_700_000_000, 0)
	mail := func(n int, more, body string) []byte {
		return fmt.Appendf(nil, "From: Ann <ann@example.com>\r\nTo: sales@example.com\r\nSubject: mail %d\r\nMessage-ID: <%d@x.test>\r\nDate: Mon, 03 Feb 2025 10:00:00 +0000\r\nX-Spam-Status: no,\r\n\tnot at all\r\n%s\r\n%s", n, n, more, body)
	}
	attached := "--b\r\nContent-Type: text/plain\r\n\r\nabout ACME-4711\r\n--b\r\nContent-Type: application/pdf; name=\"offer.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nSGVsbG8sIHdvcmxk\r\n--b--\r\n"
	mixed := "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n"
	offer, large := mail(1, mixed, attached), mail(2, "", strings.Repeat("all about ACME-4711, and on\r\n", 100_000))
	server.Deliver("alice", "INBOX", offer, at)
	server.Deliver("alice", "INBOX", large, at)
	server.Deliver("alice", "INBOX", mail(3, "X-Spam-Flag: YES\r\n", "buy"), at)
	server.Deliver("alice", "INBOX", mail(4, "", "old"), time.Unix(1_000_000_000, 0))
	server.Deliver("alice", "Work/2025/Q1", offer, at)                                                            // a copy
	server.Deliver("alice", "Work/2025/Q1", bytes.Replace(mail(5, "", "x"), []byte("<5@"), []byte("<1@"), 1), at) // the same Message-ID, another subject

	f := file{address: server.IMAP, sinks: "  - name: parts\n    plugin: attachments\n    config: {path: export/parts}\n"}
	f.stages = `  - {name: recent, filter: internal_date > date("2010-01-01")}
  - {name: nospam, drop: header("X-Spam-Flag") == "YES"}
  - {name: once, dedupe: message_id}
  - {name: team, tag: {team: sales}, when: '"sales@example.com" in to_address'}
  - {name: land, mailbox: {map: {Work: Archive}}}
  - {name: clean, header: {remove: [X-Spam-Status], set: {X-Exported-By: mailhaul, X-Who: "Jörg"}}}
  - {name: secret, plugin: redact, config: {words: [ACME-4711]}, when: vars.team == "sales"}
`
	slim := "  - {name: slim, attachments: {strip: {media_types: [application/pdf]}}}\n"
	j := newJob(t, f.String())
	plan := j.run(0, "plan", "--plugin-dir", j.bin.third)
	needs(t, plan.out, "stage secret (plugin redact)", "changes octets of what is written from now on", "stage once (dedupe)")
	o := j.run(0, "run", "--plugin-dir", j.bin.third)
	needs(t, o.out, "6 listed = 3 written + 1 dropped by nospam + 1 dropped by recent + 1 duplicates\n")
	needs(t, o.err, "note: stage once: 1 Message-IDs stand in messages that differ in date, sender or subject")

	wants := func(came []byte) []byte {
		want := bytes.Replace(came, []byte("X-Spam-Status: no,\r\n\tnot at all\r\n"), nil, 1)
		head, body, _ := bytes.Cut(want, []byte("\r\n\r\n"))
		want = fmt.Appendf(nil, "%s\r\nX-Exported-By: mailhaul\r\nX-Who: =?utf-8?q?J=C3=B6rg?=\r\n\r\n%s", head, body)
		return bytes.ReplaceAll(want, []byte("ACME-4711"), []byte("xxxxxxxxx"))
	}
	lines := index(t, j.path("export/index.jsonl"))
	if len(lines) != 3 {
		t.Errorf("the index has %d lines, want 3", len(lines))
	}
	for id, e := range lines {
		got, err := os.ReadFile(j.path("export/eml", e.Files["archive"]))
		if err != nil {
			t.Fatal(err)
		}
		for _, came := range [][]byte{offer, large} {
			if e.SHA256 != fmt.Sprintf("%x", sha256.Sum256(came)) {
				continue
			}
			if want := wants(came); !bytes.Equal(got, want) {
				t.Errorf("%s: %d octets, want %d: %.1000s", id, len(got), len(want), got)
			}
		}
		if diff := cmp.Diff([]string{"clean", "secret"}, e.ChangedBy); diff != "" && e.Subject != "mail 5" {
			t.Errorf("%s: %s", id, diff)
		}
		if e.Vars["team"] != "sales" {
			t.Errorf("%s: vars %v", id, e.Vars)
		}
		if e.Subject == "mail 5" && (e.LandsIn != "Archive/2025/Q1" || !strings.HasPrefix(e.Files["archive"], "alice/Archive/2025/Q1/") || e.Mailbox != "Work/2025/Q1") {
			t.Errorf("%s: lands in %q, file %s", id, e.LandsIn, e.Files["archive"])
		}
		if (e.Files["parts"] != "") != (e.Subject == "mail 1") {
			t.Errorf("%s: files %v", id, e.Files)
		}
		if folder := e.Files["parts"]; folder != "" {
			if b, err := os.ReadFile(j.path("export/parts", path.Join(folder, "offer.pdf"))); string(b) != "Hello, world" || err != nil {
				t.Errorf("offer.pdf is %q, %v", b, err)
			}
		}
	}

	// A stage that changes octets is for new messages; --rewrite redoes (I8).
	before := mails(t, j.path("export/eml"))
	f.stages += slim
	j.write(f.String())
	needs(t, j.run(0, "run", "--plugin-dir", j.bin.third).out, "= 0 written")
	unchangedMails := mails(t, j.path("export/eml"))
	if diff := cmp.Diff(before, unchangedMails); diff != "" {
		t.Errorf("a changed stage rewrote files: %s", diff)
	}
	j.run(0, "run", "--plugin-dir", j.bin.third, "--rewrite", "archive")
	for id, e := range index(t, j.path("export/index.jsonl")) {
		if e.Subject != "mail 1" {
			continue
		}
		got, err := os.ReadFile(j.path("export/eml", e.Files["archive"]))
		if err != nil {
			t.Fatal(err)
		}
		needs(t, string(got), "An attachment was taken out of this message.", "Name: offer.pdf", "Size: 12 octets", fmt.Sprintf("%x", sha256.Sum256([]byte("Hello, world"))))
		if !slices.Contains(e.ChangedBy, "slim") || e.SHA256 != fmt.Sprintf("%x", sha256.Sum256(offer)) {
			t.Errorf("%s: changed by %v, sha256 %s", id, e.ChangedBy, e.SHA256)
		}
		if len(e.Attachments) != 1 {
			t.Errorf("the index forgot the attachment that was stripped: %v", e.Attachments)
		}
	}
}
