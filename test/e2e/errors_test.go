package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
)

// deliver puts so many messages of a size into the INBOX, and some into a
// mailbox below another.
func deliver(server *dovecot.Server, n, size int) {
	for i := range n {
		raw := fmt.Appendf(nil, "Subject: %d\r\nMessage-ID: <%d@x.test>\r\n\r\n", i, i)
		raw = append(raw, strings.Repeat("0123456789abcdef\r\n", max(1, (size-len(raw))/18))...)
		server.Deliver("alice", []string{"INBOX", "INBOX", "Work/2025"}[i%3], raw, time.Unix(1_700_000_000, 0))
	}
}

// complete runs the pipeline and fails the test unless its export then holds
// just what the server has: each message once, every octet of it, with one
// line in the index (I1, I2, I4).
func complete(t *testing.T, j *job, server *dovecot.Server, n int) outcome {
	t.Helper()
	o := j.run(0, "run")
	holds(t, j, server, n)
	return o
}

func holds(t *testing.T, j *job, server *dovecot.Server, n int) {
	t.Helper()
	want := map[string]int{}
	for _, box := range []string{"INBOX", "Work/2025"} {
		for _, raw := range server.Octets("alice", box) {
			want[sum(raw)]++
		}
	}
	files := mails(t, j.path("export/eml"))
	for _, s := range files {
		want[s]--
	}
	for s, left := range want {
		if left != 0 {
			t.Errorf("the message with sha256 %s has %d files too few", s, left)
		}
	}
	if len(files) != n {
		t.Errorf("%d files, want %d", len(files), n)
	}
	lines := index(t, j.path("export/index.jsonl"))
	if len(lines) != n {
		t.Errorf("the index has %d lines, want %d", len(lines), n)
	}
	for _, e := range lines {
		if files[e.Files["archive"]] != e.SHA256 {
			t.Errorf("the index says that %s has sha256 %s; it has %s", e.Files["archive"], e.SHA256, files[e.Files["archive"]])
		}
	}
}

// TestServerErrors are what can be wrong between the user and the server. Each
// is one clear line, the exit code 4, and no loss: with the cause removed the
// next run completes.
func TestServerErrors(t *testing.T) {
	t.Parallel()
	good := dovecot.Start(t, dovecot.Options{})
	deliver(good, 30, 2000)
	expired := dovecot.Start(t, dovecot.Options{ExpiredCert: true})
	closed := refusing(t)
	for name, tc := range map[string]struct {
		file  file
		env   string
		words []string
		hint  string
	}{
		"wrong password": {
			file: file{address: good.IMAP}, env: "PASSWORD=wrong",
			words: []string{"alice", good.IMAP, "Authentication failed"}, hint: "password",
		},
		"unknown host": {
			file:  file{address: "mail.invalid:993", security: "tls"},
			words: []string{"alice", "mail.invalid"}, hint: "spelling",
		},
		"nobody listens": {
			file:  file{address: closed},
			words: []string{"alice", closed, "refused"}, hint: "port",
		},
		"expired certificate": {
			file:  file{address: expired.IMAPS, security: "tls", config: fmt.Sprintf(", tls: {ca_file: %q}", expired.CAFile)},
			words: []string{"alice", expired.IMAPS, "expired"}, hint: "certificate",
		},
		"unknown authority": {
			file:  file{address: good.IMAPS, security: "tls"},
			words: []string{"alice", good.IMAPS, "unknown authority"}, hint: "ca_file",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJob(t, tc.file.String())
			env := j.env
			if tc.env != "" {
				j.env = append(j.env, tc.env)
			}
			o := j.run(4, "run")
			oneClearError(t, o, tc.hint, tc.words...)
			if strings.Contains(o.err+o.out, dovecot.Password) {
				t.Error("the password is told (I9)")
			}
			j.env = env
			j.write(file{address: good.IMAP}.String())
			complete(t, j, good, 30)
		})
	}
}

// TestFullDisk runs out of space in mid-run.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	const n = 220 // more than an epoch of 64 MiB fits, and not all
	deliver(server, n, 400_000)
	j := newJob(t, file{address: server.IMAP}.String())
	disk := mount(t, j.path("export"), "80m")
	o := j.run(1, "run")
	oneClearError(t, o, "space", "archive", "no space left on device")
	needs(t, o.err, "run again to go on")
	written := len(mails(t, j.path("export/eml")))
	if written == 0 || written >= n {
		t.Errorf("%d files on the full disk, want some of %d", written, n)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=200m"); err != nil {
		t.Fatal(err)
	}
	o = complete(t, j, server, n)
	if !strings.Contains(o.out, "done before") {
		t.Errorf("the second run did all anew: %s", o)
	}
}

// mount puts a small disk of its own at a path.
func mount(t *testing.T, at, size string) string {
	t.Helper()
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a small tmpfs: %v; run this test as root, or in a user namespace: unshare -rm go test", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil && err != syscall.EINVAL {
			t.Error(err)
		}
	})
	return at
}

// TestUnmountedTarget finds the folder of the export empty, as a disk that
// isn't mounted leaves it: nothing is written where it doesn't belong, and
// nothing is taken for done that isn't there.
func TestUnmountedTarget(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	deliver(server, 30, 2000)
	j := newJob(t, file{address: server.IMAP}.String())
	j.run(0, "run")
	if err := os.Rename(j.path("export"), j.path("elsewhere")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(j.path("export"), 0o755); err != nil {
		t.Fatal(err)
	}
	deliver(server, 1, 3000)
	o := j.run(1, "run")
	oneClearError(t, o, "mount the disk", j.path("export/eml"))
	needs(t, o.err, "--rewrite archive")
	if found := mails(t, j.path("export")); len(found) > 0 {
		t.Errorf("these were written to a disk that isn't there: %v", found)
	}
	if err := os.Remove(j.path("export")); err != nil {
		t.Error("the mount point isn't as it was:", err)
	}
	if err := os.Rename(j.path("elsewhere"), j.path("export")); err != nil {
		t.Fatal(err)
	}
	complete(t, j, server, 31)
}

// TestForeignTarget refuses a folder that holds somebody else's files until
// the user says --adopt.
func TestForeignTarget(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	deliver(server, 3, 2000)
	j := newJob(t, file{address: server.IMAP}.String())
	if err := os.MkdirAll(j.path("export/eml"), 0o755); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(j.path("export/eml"), "letter.txt")
	if err := os.WriteFile(foreign, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	oneClearError(t, j.run(1, "run"), "--adopt archive", j.path("export/eml"))
	j.run(0, "run", "--adopt", "archive")
	if b, err := os.ReadFile(foreign); err != nil || string(b) != "mine" {
		t.Errorf("the user's own file: %q, %v", b, err)
	}
}

// TestTargetErrors are what can be wrong with where the export goes.
func TestTargetErrors(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	deliver(server, 3, 2000)
	for name, tc := range map[string]struct {
		spoil func(j *job) error
		mend  func(j *job) error
		words []string
		hint  string
	}{
		"a file in the place of a folder": {
			spoil: func(j *job) error { return os.WriteFile(j.path("export"), nil, 0o644) },
			mend:  func(j *job) error { return os.Remove(j.path("export")) },
			words: []string{"sink archive", "pipeline.yaml:11:20: ", "export", "not a directory"}, hint: "another path",
		},
		"a folder in the place of the index": {
			spoil: func(j *job) error { return os.MkdirAll(j.path("export/index.jsonl/x"), 0o755) },
			mend:  func(j *job) error { return os.RemoveAll(j.path("export/index.jsonl")) },
			words: []string{"sink index", "pipeline.yaml:14:20: ", "export/index.jsonl", "directory"}, hint: "name a file",
		},
		"a read-only disk": {
			spoil: func(j *job) error {
				mount(j.t, j.path("export"), "3m")
				return syscall.Mount("tmpfs", j.path("export"), "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
			},
			mend: func(j *job) error {
				return syscall.Mount("tmpfs", j.path("export"), "tmpfs", syscall.MS_REMOUNT, "")
			},
			words: []string{"sink archive", "export/eml", "read-only file system"}, hint: "another path",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJob(t, file{address: server.IMAP}.String())
			if err := tc.spoil(j); err != nil {
				t.Fatal(err)
			}
			oneClearError(t, j.run(1, "run"), tc.hint, tc.words...)
			if err := tc.mend(j); err != nil {
				t.Fatal(err)
			}
			complete(t, j, server, 3)
		})
	}
}

// TestFullStateDisk has no room for the ledger: what isn't in it isn't done.
func TestFullStateDisk(t *testing.T) {
	t.Parallel()
	server := dovecot.Start(t, dovecot.Options{})
	const n = 1400
	deliver(server, n, 500)
	j := newJob(t, file{address: server.IMAP}.String())
	disk := mount(t, j.path("state"), "300k")
	oneClearError(t, j.run(1, "run"), "room", "state", "full")
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=50m"); err != nil {
		t.Fatal(err)
	}
	complete(t, j, server, n)
}
