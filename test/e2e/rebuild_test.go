package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/test/dovecot"
)

// everything returns the files below a folder with their octets and inodes: a
// file that was written again has another inode.
func everything(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if d.Name() == "lock" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		out[rel] = string(b) + info.ModTime().String()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRebuild loses the ledger and makes it anew: the next run writes nothing
// again (I2), though there are copies that a dedupe kept out, drops, and a file
// that is no more what it was, which alone is written.
func TestRebuild(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"message_id", "content"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			server := dovecot.Start(t, dovecot.Options{Users: []string{"alice"}})
			deliver := func(mailbox, subject string) {
				server.Deliver("alice", mailbox, []byte("From: a@x.test\r\nSubject: "+subject+"\r\nMessage-ID: <"+subject+"@x.test>\r\nDate: Sat, 31 Oct 2026 10:00:00 +0100\r\n\r\n"+subject+"\r\n"),
					time.Date(2026, 10, 31, 9, 0, 0, 0, time.UTC))
			}
			for _, s := range []string{"one", "two", "three", "dropped"} {
				deliver("INBOX", s)
			}
			deliver("Copies", "one")
			deliver("Copies", "four")
			deliver("Copies", "three")
			yaml := file{address: server.IMAP,
				stages: "  - {name: some, drop: 'subject == \"dropped\"'}\n  - {name: once, dedupe: " + mode + "}\n",
				sinks:  "  - {name: outlook, plugin: msg, config: {path: export/msg}}\n"}.String()
			j := newJob(t, yaml)
			j.run(0, "run")
			before := everything(t, j.path("export"))
			oneClearError(t, j.run(2, "verify", "--rebuild"), "move it away first", "there is a ledger")
			if err := os.RemoveAll(j.path("state")); err != nil {
				t.Fatal(err)
			}
			// A run before that writes nothing, and says what to do.
			o := j.run(1, "run")
			needs(t, o.err, "belongs to the sink", "hint: if this pipeline wrote it, and its state was lost: pipeline verify --rebuild makes that anew")
			o = j.run(0, "verify", "--rebuild")
			needs(t, o.err, "warning: the ledger that was there is kept as "+j.path("state", "mail.db.unused-1"))
			needs(t, o.out, "archive: 4 taken\n", "outlook: 4 taken\n", "index: 4 taken\n", "the ledger is made anew, of 4 messages")
			needs(t, j.run(0, "verify", "--offline").out, "all holds: 4 messages")
			o = j.run(0, "run")
			needs(t, o.out, "0 written", "1 dropped by some", "2 duplicates")
			if diff := cmp.Diff(before, everything(t, j.path("export"))); diff != "" {
				t.Errorf("the run wrote again: %s", diff)
			}
			o = j.run(0, "run")
			needs(t, o.out, "total: 7 listed = 0 written + 7 done before")
			if mode == "content" {
				return
			}

			// A file that was damaged meanwhile isn't taken.
			matches, err := filepath.Glob(j.path("export/eml/alice/INBOX/*-two-*"))
			if err != nil || len(matches) != 1 {
				t.Fatal(matches, err)
			}
			whole, err := os.ReadFile(matches[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(matches[0], []byte("damaged"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(j.path("state")); err != nil {
				t.Fatal(err)
			}
			o = j.run(1, "verify", "--rebuild")
			needs(t, o.err, "isn't what its manifest says: the next run writes it again")
			needs(t, o.out, "archive: 3 taken, 1 left\n")
			needs(t, j.run(0, "run").out, "1 written")
			if again, err := os.ReadFile(matches[0]); err != nil || string(again) != string(whole) {
				t.Errorf("the damaged file isn't mended: %v", err)
			}
			needs(t, j.run(0, "verify").out, "all holds: 6 messages")
		})
	}
}

// TestRebuildBesidesAttachments: verify makes no empty ledger in the place of one
// that is lost; and a sink that makes several files of a message isn't
// taken from its rows, but written again, over the same names.
func TestRebuildBesidesAttachments(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{Users: []string{"alice"}})
	mail := "From: a@x.test\r\nSubject: one\r\nMessage-ID: <1@x.test>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
		"--b\r\n\r\nhi\r\n--b\r\nContent-Type: application/pdf; name=offer.pdf\r\n\r\nHello\r\n--b--\r\n"
	server.Deliver("alice", "INBOX", []byte(mail), time.Date(2026, 10, 31, 9, 0, 0, 0, time.UTC))
	j := newJob(t, file{address: server.IMAP, sinks: "  - {name: parts, plugin: attachments, config: {path: export/parts}}\n"}.String())
	j.run(0, "run")
	if err := os.RemoveAll(j.path("state")); err != nil {
		t.Fatal(err)
	}
	oneClearError(t, j.run(2, "verify", "--offline"), "pipeline verify --rebuild", "it has no ledger")
	o := j.run(1, "verify", "--rebuild")
	needs(t, o.out, "archive: 1 taken\n", "index: 1 taken\n", "the ledger is made anew, of 1 message")
	needs(t, o.err, "sink parts: it makes several files of a message: the next run writes them again")
	j.run(0, "run")
	if got := everything(t, j.path("export/parts/alice")); len(got) != 1 {
		t.Errorf("%d files of attachments, want the one: %v", len(got), got)
	}
	needs(t, j.run(0, "verify").out, "all holds: 1 message")
}

// TestDamagedLedger flips a bit of a ledger, and cuts it off: the next run says so
// and touches nothing, --rebuild keeps it aside and makes a new one, and the run
// after that writes nothing again (I2).
func TestDamagedLedger(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	deliver(server, 30, 2000)
	j := newJob(t, file{address: server.IMAP}.String())
	j.run(0, "run")
	path := j.path("state/mail.db")
	before := everything(t, j.path("export"))
	for name, damage := range map[string]func([]byte) []byte{
		"a flipped bit": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"cut off":       func(b []byte) []byte { return b[:len(b)*2/3] },
		"emptied":       func([]byte) []byte { return nil },
	} {
		// Of the ledger that the last run closed: the seal of another file says
		// nothing of this one.
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := damage(slices.Clone(whole))
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		oneClearError(t, j.run(2, "run"), "verify --rebuild", "ledger", path)
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, bad) {
			t.Errorf("%s: the damaged ledger was changed: %v", name, err)
		}
		o := j.run(0, "verify", "--rebuild")
		needs(t, o.err, "the ledger that was there is kept as "+path+".damaged-")
		needs(t, j.run(0, "verify").out, "all holds: 30 messages")
		needs(t, j.run(0, "run").out, " 0 written")
		if diff := cmp.Diff(before, everything(t, j.path("export"))); diff != "" {
			t.Errorf("%s: the run wrote again: %s", name, diff)
		}
	}
}

// TestVerifyKnowsNewIDs: a message that the server gave a new id, or that was
// deleted there because the file says so, is as it should be; and a header that
// a stage changed isn't damage.
func TestVerifyKnowsNewIDs(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{Users: []string{"alice"}})
	raw := []byte("From: a@x.test\r\nSubject: one\r\nX-Out: 1\r\nMessage-ID: <1@x.test>\r\nDate: Sat, 31 Oct 2026 10:00:00 +0100\r\n\r\nx\r\n")
	server.Deliver("alice", "Work", raw, time.Date(2026, 10, 31, 9, 0, 0, 0, time.UTC))
	server.Deliver("alice", "INBOX", raw, time.Date(2026, 10, 31, 9, 0, 0, 0, time.UTC))
	j := newJob(t, file{address: server.IMAP, stages: "  - {name: clean, header: {remove: [X-Out]}}\n"}.String())
	j.run(0, "run")
	needs(t, j.run(0, "verify").out, "all holds: 2 messages")
	server.Doveadm("expunge", "-u", "alice", "mailbox", "Work", "all")
	server.Doveadm("mailbox", "delete", "-u", "alice", "Work")
	server.Doveadm("mailbox", "create", "-u", "alice", "Work")
	server.Doveadm("copy", "-u", "alice", "Work", "mailbox", "INBOX", "all")
	needs(t, j.run(1, "verify").out, "UIDVALIDITY was")
	needs(t, j.run(0, "run").out, "2 listed = 0 written + 2 done before")
	needs(t, j.run(0, "verify").out, "all holds: 2 messages")

	// The ledger made anew has the ids of the manifest; the server's are known
	// again, and nothing is written.
	before := everything(t, j.path("export"))
	if err := os.RemoveAll(j.path("state")); err != nil {
		t.Fatal(err)
	}
	j.run(0, "verify", "--rebuild")
	needs(t, j.run(0, "run").out, " 0 written")
	if diff := cmp.Diff(before, everything(t, j.path("export"))); diff != "" {
		t.Errorf("the run wrote again: %s", diff)
	}
	needs(t, j.run(0, "verify").out, "all holds: 2 messages")
}
