package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/program"
	"github.com/mailhaul/pipeline/test/s3server"
)

// inBucket is a pipeline whose sinks are all in a bucket.
func inBucket(address string, s *s3server.Server) file {
	return file{address: address, only: true, sinks: fmt.Sprintf(`  - name: archive
    plugin: eml
    config: {path: %q}
  - name: outlook
    plugin: msg
    config: {path: %q}
  - name: parts
    plugin: attachments
    config: {path: %q}
  - name: index
    plugin: json
    config: {path: %q, detail: structure}
`, s.Address("mail/acme/eml"), s.Address("mail/acme/msg"), s.Address("mail/acme/attachments"), s.Address("mail/acme/index.jsonl"))}
}

// inFolders is the same pipeline over folders.
const inFolders = `  - name: archive
    plugin: eml
    config: {path: export/eml}
  - name: outlook
    plugin: msg
    config: {path: export/msg}
  - name: parts
    plugin: attachments
    config: {path: export/attachments}
  - name: index
    plugin: json
    config: {path: export/index.jsonl, detail: structure}
`

// buildStore puts the store of objects beside the command, once. Unlike the
// others it is built as the tests of its own package are: compiling the clouds'
// SDKs a second time, without cgo, would take longer than all these tests.
var buildStore = sync.OnceValue(func() error {
	b, err := builds()
	if err != nil {
		return err
	}
	return program.Build{To: b.dir, Cgo: true}.Run("./plugins/pipeline-store-objects")
})

// newBucketJob is newJob with the store and the server's credentials.
func newBucketJob(t *testing.T, s *s3server.Server, yaml string, env ...string) *job {
	t.Helper()
	if err := buildStore(); err != nil {
		t.Fatal(err)
	}
	j := newJob(t, yaml)
	j.env = append(append(j.env, s.Environ()...), env...)
	return j
}

// outputOf is what sinks left in a folder: names and sums, without their books;
// of an index the lines, in any order.
func outputOf(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && (d.Name() == ".mailhaul" || d.Name() == ".sgwtmp") {
				return fs.SkipDir
			}
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".jsonl") {
			lines := strings.SplitAfter(string(b), "\n")
			slices.Sort(lines)
			b = []byte(strings.Join(lines, ""))
		}
		sum := sha256.Sum256(b)
		out[filepath.ToSlash(strings.TrimPrefix(path, root))] = hex.EncodeToString(sum[:])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sameOutput(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for name, sum := range want {
		if got[name] != sum {
			t.Errorf("%s: %s isn't what it is in a folder (%.8q, want %.8q)", what, name, got[name], sum)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %s shouldn't be there", what, name)
		}
	}
}

// reference runs the pipeline over folders, undisturbed.
func reference(t *testing.T, address string) map[string]string {
	t.Helper()
	j := newJob(t, file{address: address, only: true, sinks: inFolders}.String())
	j.run(0, "run")
	return outputOf(t, j.path("export"))
}

func fill(t *testing.T, messages int) *dovecot.Server {
	t.Helper()
	s := dovecot.Start(t, dovecot.Options{})
	for n := range messages {
		body := strings.Repeat(fmt.Sprintf("line %d of the message\r\n", n), 20+n*7%200)
		mail := fmt.Sprintf("From: bob@example.org\r\nTo: alice@example.org\r\nSubject: Message %d\r\nDate: Mon, 02 Jan 2006 15:04:05 +0000\r\nMessage-ID: <m%d@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n%s--b\r\nContent-Type: application/pdf; name=a.pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\r\npaper %d\r\n--b--\r\n", n, n, body, n)
		s.Deliver("alice", "INBOX", []byte(mail), time.Unix(1136214245, 0))
	}
	return s
}

func TestOutputInABucket(t *testing.T) {
	t.Parallel()
	mail := fill(t, 25)
	s3 := s3server.Start(t, "mail")
	want := reference(t, mail.IMAP)
	j := newBucketJob(t, s3, inBucket(mail.IMAP, s3).String())
	o := j.run(0, "run")
	if strings.Contains(o.String(), s3server.SecretKey) || strings.Contains(o.String(), s3server.AccessKey) {
		t.Error("a credential was printed")
	}
	sameOutput(t, "the bucket", outputOf(t, filepath.Join(s3.Folder, "mail", "acme")), want)
	puts := s3.Calls(http.MethodPut)
	j.run(0, "run")
	if again := s3.Calls(http.MethodPut); again != puts {
		t.Errorf("the second run wrote %d objects", again-puts)
	}
	// The index holds the sums of what is in the bucket.
	b, err := os.ReadFile(filepath.Join(s3.Folder, "mail", "acme", "index.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for _, line := range lines {
		var l struct {
			SHA256 string            `json:"sha256"`
			Files  map[string]string `json:"files"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		eml, err := os.ReadFile(filepath.Join(s3.Folder, "mail", "acme", "eml", filepath.FromSlash(l.Files["archive"])))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(eml); hex.EncodeToString(sum[:]) != l.SHA256 {
			t.Errorf("%s: the index says sha256 %s, the bucket has %x", l.Files["archive"], l.SHA256, sum)
		}
	}
	if len(lines) != 25 {
		t.Errorf("the index has %d lines, want 25", len(lines))
	}
}

// An index of some size takes longer to be merged than other sinks have to end.
func TestAnIndexThatTakesLongToMerge(t *testing.T) {
	t.Parallel()
	mail := fill(t, 3)
	s3 := s3server.Start(t, "mail")
	j := newBucketJob(t, s3, inBucket(mail.IMAP, s3).String())
	s3.Fail(func(r *http.Request) s3server.Mishap {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/acme/index.jsonl") {
			time.Sleep(12 * time.Second) // that is what is tested: 10 s are given to a sink in a folder
		}
		return s3server.None
	})
	j.run(0, "run")
	b, err := os.ReadFile(filepath.Join(s3.Folder, "mail", "acme", "index.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "\n"); n != 3 {
		t.Errorf("the index has %d lines, want 3", n)
	}
}

func TestABucketThatFails(t *testing.T) {
	t.Parallel()
	mail := fill(t, 12)
	s3 := s3server.Start(t, "mail")
	want := reference(t, mail.IMAP)
	j := newBucketJob(t, s3, inBucket(mail.IMAP, s3).String())
	s3.Fail(s3server.Sometimes(7, 6, s3server.SlowDown, s3server.Broken, s3server.CutOff, s3server.CutAfter))
	j.run(0, "run")
	s3.Fail(nil)
	sameOutput(t, "the bucket", outputOf(t, filepath.Join(s3.Folder, "mail", "acme")), want)
}

func TestKilledWhileUploading(t *testing.T) {
	t.Parallel()
	mail := fill(t, 25)
	s3 := s3server.Start(t, "mail")
	want := reference(t, mail.IMAP)
	j := newBucketJob(t, s3, inBucket(mail.IMAP, s3).String())
	for _, after := range []int64{9, 31, 55} {
		var puts atomic.Int64
		reached := make(chan struct{})
		s3.Fail(func(r *http.Request) s3server.Mishap {
			if r.Method == http.MethodPut && puts.Add(1) == after {
				close(reached)
			}
			return s3server.None
		})
		r := j.start("run")
		ended := make(chan struct{})
		go func() {
			r.wait()
			close(ended)
		}()
		select {
		case <-reached:
			r.signal(syscall.SIGKILL)
		case <-ended: // there was less to upload
		}
		<-ended
	}
	s3.Fail(nil)
	j.run(0, "run")
	sameOutput(t, "the bucket", outputOf(t, filepath.Join(s3.Folder, "mail", "acme")), want)
	needs(t, j.run(0, "verify", "--offline").out, "all holds: 25 messages")
}

func TestBucketsThatCantBeWritten(t *testing.T) {
	t.Parallel()
	mail := fill(t, 1)
	s3 := s3server.Start(t, "mail")
	for name, c := range map[string]struct {
		path string
		env  []string
		says []string
	}{
		"no such bucket":  {path: s3.Address("male/acme"), says: []string{"NoSuchBucket", "make the bucket", "hint:"}},
		"a wrong secret":  {path: s3.Address("mail/acme"), env: []string{"AWS_SECRET_ACCESS_KEY=wrong"}, says: []string{"SignatureDoesNotMatch", "credentials", "hint:"}},
		"an unknown kind": {path: "ftp://mail/acme", says: []string{"ftp://", "pipeline.yaml:11:20", "(s3://, gs:// and azblob:// are known"}},
		"no credentials":  {path: s3.Address("mail/acme"), env: []string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="}, says: []string{"no credentials were found", "docs/reference/object-storage.md", "hint:"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newBucketJob(t, s3, file{address: mail.IMAP, only: true, sinks: fmt.Sprintf("  - name: archive\n    plugin: eml\n    config: {path: %q}\n", c.path)}.String(), c.env...)
			r := j.start("run")
			o := r.wait()
			if o.code == 0 {
				t.Error("the run ended well")
			}
			needs(t, o.String(), append(c.says, "error:")...)
			// Who asks before the run is told the same.
			o = j.start("plan", "--connect").wait()
			if o.code == 0 {
				t.Error("plan --connect ended well")
			}
			needs(t, o.String(), append(c.says, "error:")...)
		})
	}
}

// TestReportsInABucket: the reports of a run go where its mail goes, and a place
// that takes none is told before a message is fetched.
func TestReportsInABucket(t *testing.T) {
	t.Parallel()
	s3 := s3server.Start(t, "mail")
	yaml := file{address: fill(t, 3).IMAP, only: true, sinks: bucketSinks(s3, "archive")}.String()
	with := func(bucket string) string {
		return yaml + fmt.Sprintf("report: {json: %q, html: %q}\n", s3.Address(bucket+"/reports/last.json"), s3.Address(bucket+"/last.html"))
	}
	j := newBucketJob(t, s3, with("nowhere"))
	o := j.run(2, "run")
	needs(t, o.err, "error: see where the report goes: look into s3://nowhere/reports: ", "NoSuchBucket", "hint: make the bucket")
	j.write(with("mail"))
	j.run(0, "lint")
	j.run(0, "run")
	for name, has := range map[string]string{"reports/last.json": `"exit": 0`, "last.html": "<html"} {
		b, err := os.ReadFile(filepath.Join(s3.Folder, "mail", name))
		if err != nil || !strings.Contains(string(b), has) {
			t.Errorf("%s: %d octets without %s (%v)", name, len(b), has, err)
		}
	}
	if left, err := filepath.Glob(j.path("s3:*")); err != nil || len(left) > 0 {
		t.Errorf("the folder has %v (%v)", left, err)
	}
}
