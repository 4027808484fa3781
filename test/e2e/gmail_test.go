package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/test/imapscript"
)

// gmail is a small account as Gmail shows it: each mail is in All Mail and in a
// mailbox for each of its labels.
func gmail(t *testing.T, allMail bool) *imapscript.Server {
	mails := []struct{ subject, labels string }{
		{"archived", ""}, {"inbox", `\Inbox`}, {"both", `\Inbox "Work"`}, {"work", `"Work"`},
	}
	script := imapscript.Script{Capabilities: "IMAP4rev1 X-GM-EXT-1 UIDPLUS"}
	for n, b := range []struct{ name, attr, label string }{
		{"INBOX", "", `\Inbox`}, {"Work", "", `"Work"`}, {"[Gmail]", `\Noselect`, "-"}, {"[Gmail]/All Mail", `\All`, ""}, {"[Gmail]/Trash", `\Trash`, "-"},
	} {
		if b.attr == `\All` && !allMail {
			continue
		}
		box := imapscript.Mailbox{Name: b.name, Attributes: b.attr, UIDValidity: uint32(n + 1)}
		for i, m := range mails {
			if strings.Contains(m.labels, b.label) {
				box.Messages = append(box.Messages, imapscript.Message{UID: uint32(n*10 + i + 1),
					Raw:   fmt.Sprintf("Subject: %s\r\nMessage-ID: <%d@example.org>\r\n\r\nHello\r\n", m.subject, i),
					Extra: map[string]string{"X-GM-MSGID": fmt.Sprint(100 + i), "X-GM-THRID": "7", "X-GM-LABELS": "(" + strings.TrimSpace(strings.Replace(m.labels, b.label, "", 1)) + ")"}})
				if b.label == "" {
					box.Messages[len(box.Messages)-1].Extra["X-GM-LABELS"] = "(" + m.labels + ")"
				}
			}
		}
		script.Mailboxes = append(script.Mailboxes, box)
	}
	return imapscript.Start(t, script)
}

var fileName = regexp.MustCompile(`/[^/]*-(inbox|both|work|archived)-[^/]*$`)

// filed returns the mailboxes and subjects of an export's files.
func filed(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".eml") {
			rel, _ := filepath.Rel(dir, path)
			out = append(out, fileName.ReplaceAllString(strings.TrimPrefix(filepath.ToSlash(rel), "alice/"), ": $1"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// TestGmail: from YAML, each mail of Gmail's becomes one file, in the folder
// that a person would look in, and the index has all its labels.
func TestGmail(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		allMail   bool
		mailboxes string
		want      string
		says      string
	}{
		{"everything", true, "", "INBOX: inbox, Work: both, Work: work, [Gmail]/All Mail: archived", ""},
		{"the inbox alone", true, "    mailboxes: {include: [INBOX]}\n", "INBOX: both, INBOX: inbox", ""},
		{"two labels", true, "    mailboxes: {include: [INBOX, Work]}\n", "INBOX: inbox, Work: both, Work: work", ""},
		{"All Mail is hidden", false, "", "INBOX: inbox, Work: both, Work: work", "All Mail is hidden"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			yaml := file{address: gmail(t, tt.allMail).Addr}.String()
			j := newJob(t, strings.Replace(yaml, "stages:\n", "", 1))
			if tt.mailboxes != "" {
				j.write(strings.Replace(yaml, "sinks:\n", tt.mailboxes+"sinks:\n", 1))
			}
			o := j.run(0, "run")
			if got := strings.Join(filed(t, j.path("export", "eml")), ", "); got != tt.want {
				t.Errorf("filed are %s\nwant %s\n%s", got, tt.want, o)
			}
			needs(t, o.out+o.err, tt.says)
			if strings.Contains(o.out, "the server counts") {
				t.Errorf("what is listed elsewhere is told as missing: %s", o)
			}
			index, err := os.ReadFile(j.path("export", "index.jsonl"))
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(index)) {
				if strings.Contains(line, `"both"`) {
					needs(t, line, `"Work"`, `\\Inbox`)
				}
			}
			t.Logf("%s", o)
			j.run(0, "verify")
			again := j.run(0, "run")
			if got := strings.Join(filed(t, j.path("export", "eml")), ", "); got != tt.want {
				t.Errorf("after a second run filed are %s\n%s", got, again)
			}
		})
	}
}

// TestGmailFields: what Gmail alone tells stands in `ls`, and a filter reads it.
func TestGmailFields(t *testing.T) {
	t.Parallel()
	yaml := file{address: gmail(t, true).Addr, stages: "  - name: work\n    filter: '\"Work\" in gmail_labels'\n"}.String()
	j := newJob(t, yaml)
	o := j.run(0, "ls", "alice", "[Gmail]/All Mail", "--fields", "uid,gmail_message_id,gmail_thread_id,gmail_labels")
	for _, want := range []string{"101\t7", "102\t7", "103\t7"} {
		needs(t, o.out, want)
	}
	for line := range strings.Lines(o.out) {
		if strings.Contains(line, "102\t7") {
			needs(t, line, `\Inbox`, "Work")
		}
	}
	j.run(0, "run")
	if got, want := strings.Join(filed(t, j.path("export", "eml")), ", "), "Work: both, Work: work"; got != want {
		t.Errorf("filed are %s\nwant %s", got, want)
	}
}
