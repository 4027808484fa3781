package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
)

// post delivers messages n to m to a mailbox of alice, each its own.
func post(server *dovecot.Server, mailbox string, n, m int) {
	for i := n; i <= m; i++ {
		raw := fmt.Appendf(nil, "From: a@example.com\r\nDate: Mon, 2 Nov 2026 09:%02d:00 +0000\r\nMessage-ID: <%s-%d@example.com>\r\nSubject: %d\r\n\r\n%s\r\n",
			i%60, strings.ReplaceAll(mailbox, "/", "-"), i, i, strings.Repeat("x", 50*i%977))
		server.Deliver("alice", mailbox, raw, time.Unix(1_700_000_000+int64(i), 0))
	}
}

// grew checks that what was exported is as it was, and that so many mails and
// lines of the index came to it.
func grew(t *testing.T, j *job, before map[string]string, lines []string, n int) {
	t.Helper()
	after := mails(t, j.path("export/eml"))
	for name, sum := range before {
		if after[name] != sum {
			t.Errorf("%s was %s, and is %q", name, sum, after[name])
		}
	}
	if got := len(after) - len(before); got != n {
		t.Errorf("%d mails came to the tree, want %d", got, n)
	}
	index := indexLines(t, j)
	if got := len(index) - len(lines); got != n {
		t.Errorf("%d lines came to the index, want %d", got, n)
	}
}

func indexLines(t *testing.T, j *job) []string {
	t.Helper()
	b, err := os.ReadFile(j.path("export/index.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// TestUIDValidityChangesOnTheServer: Dovecot gives a mailbox another
// UIDVALIDITY. The tree stays as it is, and only what is new comes to it.
func TestUIDValidityChangesOnTheServer(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	post(server, "INBOX", 1, 40)
	post(server, "Work/2026", 1, 20)
	post(server, "INBOX", 7, 7) // the same mail, delivered twice
	j := newJob(t, file{address: server.IMAP}.String())
	j.run(0, "run")
	before, lines := mails(t, j.path("export/eml")), indexLines(t, j)

	server.Doveadm("mailbox", "update", "-u", "alice", "--uid-validity", "4242", "INBOX")
	post(server, "INBOX", 41, 42)
	o := j.run(0, "run")
	t.Logf("%s", o)
	needs(t, o.out, "43 listed = 2 written + 41 done before; UIDVALIDITY changed", "→ 4242, 41 recognised")
	grew(t, j, before, lines, 2)
	j.run(0, "verify")

	all := maps.Clone(mails(t, j.path("export/eml")))
	o = j.run(0, "run")
	if strings.Contains(o.err+o.out, "UIDVALIDITY") {
		t.Errorf("it is said again: %s", o)
	}
	grew(t, j, all, indexLines(t, j), 0)
}

// TestPOP3ServerChangesItsIDs: Dovecot makes its unique ids of something else.
func TestPOP3ServerChangesItsIDs(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	post(server, "INBOX", 1, 40)
	post(server, "INBOX", 7, 7)
	j := newJob(t, file{plugin: "pop3", address: server.POP3}.String())
	j.run(0, "run")
	before, lines := mails(t, j.path("export/eml")), indexLines(t, j)

	conf, err := os.ReadFile(filepath.Join(server.Dir, "dovecot.conf"))
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(conf), "pop3_uidl_format = %08Xu%08Xv", "pop3_uidl_format = %f", 1)
	if changed == string(conf) {
		t.Fatal("the server's configuration has no such line")
	}
	if err := os.WriteFile(filepath.Join(server.Dir, "dovecot.conf"), []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	server.Restart()
	post(server, "INBOX", 41, 42)
	o := j.run(0, "run")
	t.Logf("%s", o)
	needs(t, o.out, "43 listed = 2 written + 41 done before; 41 recognised under new ids")
	grew(t, j, before, lines, 2)
	j.run(0, "verify")
	grew(t, j, mails(t, j.path("export/eml")), indexLines(t, j), 0)
}

// TestExportedMessagesAreMovedAndDeleted: what is exported leaves the mailbox,
// and nothing comes twice.
func TestExportedMessagesAreMovedAndDeleted(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		plugin, after string
		left          map[string]int // by mailbox
	}{
		"imap move":   {"imap", "{move: Exported}", map[string]int{"INBOX": 1, "Exported": 40}},
		"imap delete": {"imap", "{delete: true, batch: 7}", map[string]int{"INBOX": 1}},
		"imap flag":   {"imap", `{flag: '\Flagged'}`, map[string]int{"INBOX": 41}},
		"pop3 delete": {"pop3", "{delete: true}", map[string]int{"INBOX": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := dovecot.Start(t, dovecot.Options{})
			post(server, "INBOX", 1, 40)
			server.Deliver("alice", "INBOX", []byte("Subject: keep me\r\n\r\nx\r\n"), time.Unix(1_700_000_100, 0))
			f := file{plugin: tt.plugin, address: server.IMAP, stages: "  - {name: kept, drop: 'subject == \"keep me\"'}\n"}
			if tt.plugin == "pop3" {
				f.address = server.POP3
			}
			j := newJob(t, strings.Replace(f.String(), "    plugin: "+tt.plugin+"\n", "    plugin: "+tt.plugin+"\n    after: "+tt.after+"\n", 1))
			o := j.run(0, "run")
			t.Logf("%s", o)
			needs(t, o.out, "40 finished on the server")
			before, lines := mails(t, j.path("export/eml")), indexLines(t, j)
			if len(before) != 40 {
				t.Errorf("%d mails are exported, want 40", len(before))
			}
			for mailbox, want := range tt.left {
				if got := strings.TrimSpace(server.Doveadm("-f", "flow", "mailbox", "status", "-u", "alice", "messages", mailbox)); !strings.HasSuffix(got, fmt.Sprintf("messages=%d", want)) {
					t.Errorf("%s, want %d", got, want)
				}
			}
			if strings.Contains(tt.after, "flag") {
				if n := len(strings.Fields(server.Doveadm("-f", "flow", "search", "-u", "alice", "mailbox", "INBOX", "flagged"))); n != 2*40 {
					t.Errorf("%d words of flagged messages, want 80", n)
				}
			}
			post(server, "INBOX", 50, 50)
			o = j.run(0, "run")
			needs(t, o.out, "1 finished on the server")
			grew(t, j, before, lines, 1)
		})
	}
}

// TestABudgetParksTheAccount: a budget ends the run with 75 and says when to go
// on; the next run doesn't pass it either.
func TestABudgetParksTheAccount(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	raw := []byte("Subject: large\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 7000))
	for i := range 40 {
		server.Deliver("alice", "INBOX", raw, time.Unix(1_700_000_000+int64(i), 0))
	}
	j := newJob(t, file{address: server.IMAP, config: ", budget: {bytes: 5MB/day}"}.String())
	o := j.run(75, "run")
	t.Logf("%s", o)
	needs(t, o.err, "the budget of 5.0 MB in a day is used up", "parked until", "hint: run again")
	n := len(mails(t, j.path("export/eml")))
	if n < 10 || n == 40 {
		t.Errorf("%d of 40 mails of 0.5 MB are exported under a budget of 5 MB", n)
	}
	o = j.run(75, "run")
	if again := len(mails(t, j.path("export/eml"))); again != n {
		t.Errorf("the next run exported %d more: %s", again-n, o)
	}
	j.write(file{address: server.IMAP}.String())
	j.run(0, "run")
	if all := len(mails(t, j.path("export/eml"))); all != 40 {
		t.Errorf("%d mails are exported, want 40", all)
	}
}
