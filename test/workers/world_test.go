package workers

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/natsserver"
	"github.com/mailhaul/pipeline/test/program"
	"github.com/mailhaul/pipeline/test/s3server"
)

// world is the servers that all processes of a test share.
type world struct {
	mail  *dovecot.Server
	s3    *s3server.Server
	nats  *natsserver.Server
	users []string
	sinks []string // eml, json, msg
	lease time.Duration
}

// newWorld starts the servers, with mail for so many users: of each the
// mailboxes, of each of those the messages.
func newWorld(t *testing.T, nats *natsserver.Server, users, mailboxes, messages int, octets func(*rand.Rand) int) *world {
	t.Helper()
	w := &world{nats: nats, sinks: []string{"eml", "json"}, lease: 30 * time.Second}
	for i := range users {
		w.users = append(w.users, fmt.Sprintf("user%02d", i))
	}
	w.s3 = s3server.Start(t, "mail")
	w.mail = dovecot.Start(t, dovecot.Options{Users: w.users})
	r := rand.New(rand.NewPCG(1, 1))
	for _, user := range w.users {
		for m := range mailboxes {
			mailbox := "INBOX"
			if m > 0 {
				mailbox = fmt.Sprintf("Projects/%02d", m)
			}
			for n := range messages {
				date := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Hour)
				w.mail.Deliver(user, mailbox, letter(r, fmt.Sprintf("%s.%d.%d", user, m, n), octets(r), date), date)
			}
		}
	}
	return w
}

// letter is a message of about so many octets, with an attachment where it is a
// large one.
func letter(r *rand.Rand, id string, octets int, date time.Time) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "Received: from mx.example.com by mail.example.org with ESMTP id %08x; %s\r\n", r.Uint32(), date.Format(time.RFC1123Z))
	fmt.Fprintf(&b, "Date: %s\r\nFrom: Bob <bob@example.com>\r\nTo: Alice <alice@example.org>\r\nSubject: Project %d, part %s\r\nMessage-ID: <%s@example.com>\r\nMIME-Version: 1.0\r\n",
		date.Format(time.RFC1123Z), r.IntN(1000), id, id)
	line := func() {
		for range 9 {
			fmt.Fprintf(&b, "%07x ", r.Uint32()>>4)
		}
		b.WriteString("\r\n")
	}
	b.WriteString("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n")
	for b.Len() < octets/2 {
		line()
	}
	b.WriteString("--b\r\nContent-Type: text/csv; name=figures.csv\r\nContent-Disposition: attachment; filename=figures.csv\r\n\r\n")
	for b.Len() < octets-8 {
		line()
	}
	b.WriteString("--b--\r\n")
	return []byte(b.String())
}

// job is a folder with a pipeline file, whose sinks write below a place in the
// bucket.
type job struct {
	t   *testing.T
	w   *world
	dir string
	env []string
	out string // what the sinks wrote, as the server of the bucket has it
}

// newJob makes the folder. The name is that of its place and of its streams.
func (w *world) newJob(t *testing.T, name string, shared bool) *job {
	t.Helper()
	j := &job{t: t, w: w, dir: t.TempDir(), out: filepath.Join(w.s3.Folder, "mail", name)}
	j.env = append([]string{"PATH=/usr/bin:/bin", "HOME=" + j.dir, "TMPDIR=" + os.TempDir(), "PASSWORD=" + dovecot.Password}, w.s3.Environ()...)
	var b strings.Builder
	b.WriteString("version: 1\nname: mail\nstate: state\n")
	if shared {
		fmt.Fprintf(&b, "engine: {type: nats, url: %q, stream: %s, replicas: %d, lease: %s, objects: %q}\n",
			w.nats.URL, strings.ToUpper(name), len(w.nats.Nodes), w.lease, w.s3.Address("mail/"+name+"-state"))
	}
	b.WriteString("sources:\n")
	for _, user := range w.users {
		fmt.Fprintf(&b, "  - name: %s\n    plugin: imap\n    config: {address: %q, security: none, username: %s, password: \"${env:PASSWORD}\"}\n", user, w.mail.IMAP, user)
	}
	b.WriteString("sinks:\n")
	for _, s := range w.sinks {
		path, more := s, ""
		if s == "json" {
			path, more = "index.jsonl", ", detail: structure"
		}
		fmt.Fprintf(&b, "  - name: %s\n    plugin: %s\n    config: {path: %q%s}\n", s, s, w.s3.Address("mail/"+name+"/"+path), more)
	}
	if err := os.WriteFile(filepath.Join(j.dir, "pipeline.yaml"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return j
}

// process is a command under way.
type process struct {
	cmd   *exec.Cmd
	said  program.Output
	ended chan struct{}
}

// command is the pipeline's, in the job's folder.
func (j *job) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(binaries, "pipeline"), args...)
	cmd.Dir, cmd.Env = j.dir, j.env
	return cmd
}

// start starts the command, which dies with the test.
func (j *job) start(args ...string) *process {
	j.t.Helper()
	p := &process{cmd: j.command(args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	if err := p.cmd.Start(); err != nil {
		j.t.Error(err) // not Fatal: a crew calls it from goroutines
		close(p.ended)
		return p
	}
	go func() {
		_ = p.cmd.Wait() // the exit code is looked at where it matters
		close(p.ended)
	}()
	j.t.Cleanup(func() {
		p.kill()
		if j.t.Failed() {
			j.t.Logf("pipeline %s said:\n%s", strings.Join(args, " "), tail(p.said.String()))
		}
	})
	return p
}

// tail returns the end of a text.
func tail(s string) string { return s[max(0, len(s)-4000):] }

// kill ends it as kill -9 does, and waits until it is gone.
func (p *process) kill() {
	if p.cmd.Process != nil {
		_ = p.cmd.Process.Kill() // it may have ended
	}
	<-p.ended
}

// complete waits for the end and wants exit code 0.
func (p *process) complete(t *testing.T) {
	t.Helper()
	<-p.ended
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("pipeline %s ended with exit code %d:\n%s", strings.Join(p.cmd.Args[1:], " "), code, tail(p.said.String()))
	}
}

// stop asks for a clean end and waits for it.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	p.complete(t)
}
