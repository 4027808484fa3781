package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/s3server"
)

const storeName = "pipeline-store-objects"

// oneSink is a pipeline with a sink in a bucket.
func oneSink(imap, address string) string {
	return file{address: imap, only: true, sinks: fmt.Sprintf("  - name: archive\n    plugin: eml\n    config: {path: %q}\n", address)}.String()
}

// oneFolder is oneSink over a folder.
const oneFolder = "  - name: archive\n    plugin: eml\n    config: {path: export/eml}\n"

// signalStore sends the store of a run a signal, and reports whether it ran.
func signalStore(r *running, s syscall.Signal) bool {
	for pid, name := range children(r.cmd.Process.Pid) {
		if name == storeName {
			return syscall.Kill(pid, s) == nil
		}
	}
	return false
}

// TestStoreKilled kills the store alone, again and again, while sinks upload.
// The run goes on with a new one, and nothing is lost or doubled (I1, I2).
func TestStoreKilled(t *testing.T) {
	t.Parallel()
	mail := fill(t, 25)
	s3 := s3server.Start(t, "mail")
	want := reference(t, mail.IMAP)
	j := newBucketJob(t, s3, inBucket(mail.IMAP, s3).String())
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	moments := rand.New(rand.NewPCG(seed, 1))
	due := map[int64]bool{}
	for len(due) < 3 {
		due[2+moments.Int64N(50)] = true
	}
	var puts, killed atomic.Int64
	var run atomic.Pointer[running]
	s3.Fail(func(q *http.Request) s3server.Mishap {
		if q.Method == http.MethodPut && due[puts.Add(1)] {
			if r := run.Load(); r != nil && signalStore(r, syscall.SIGKILL) {
				killed.Add(1)
			}
		}
		return s3server.None
	})
	r := j.start("run")
	run.Store(r)
	o := r.wait()
	s3.Fail(nil)
	if o.code != 0 {
		t.Errorf("want exit code 0, got %s", o)
	}
	if killed.Load() > 0 && !strings.Contains(o.err, "it is started again") {
		t.Errorf("the store was killed %d times, and nobody says so: %s", killed.Load(), o)
	}
	sameOutput(t, "the bucket", outputOf(t, filepath.Join(s3.Folder, "mail", "acme")), want)
}

// TestStoreStopped stops the store for good while sinks upload: no call on it
// has an end of its own. The run ends and says who is silent, and the next one
// completes.
func TestStoreStopped(t *testing.T) {
	t.Parallel()
	mail := fill(t, 12)
	s3 := s3server.Start(t, "mail")
	want := oneReference(t, mail.IMAP)
	j := newBucketJob(t, s3, oneSink(mail.IMAP, s3.Address("mail/acme/eml")+"&silence=2s&patience=2s"))
	var puts atomic.Int64
	var run atomic.Pointer[running]
	s3.Fail(func(q *http.Request) s3server.Mishap {
		if r := run.Load(); q.Method == http.MethodPut && r != nil && puts.Add(1) == 4 {
			signalStore(r, syscall.SIGSTOP)
		}
		return s3server.None
	})
	r := j.start("run")
	run.Store(r)
	o := r.wait()
	s3.Fail(nil)
	if o.code != 1 {
		t.Errorf("want exit code 1, got %s", o)
	}
	oneClearError(t, o, "run again", storeName, "said nothing for 2s")
	j.write(oneSink(mail.IMAP, s3.Address("mail/acme/eml")))
	j.run(0, "run")
	sameOutput(t, "the bucket", outputOf(t, filepath.Join(s3.Folder, "mail", "acme")), want)
}

// TestBucketThatStaysBad has a server in a bad way for longer than anybody
// waits: the run ends and says what the server did, and the next one
// completes. Where it asks to slow down, that is said with the exit code too.
func TestBucketThatStaysBad(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mishap     s3server.Mishap
		parameters string
		code       int
		says       []string
		hint       string
	}{
		"asks to slow down":             {s3server.SlowDown, "&patience=1s", 75, []string{"503 SlowDown", "reduce your request rate"}, "later"},
		"takes calls and never answers": {s3server.Silent, "&silence=3s&patience=1s", 1, []string{"the server said nothing for 3s"}, "silence="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mail := fill(t, 8)
			s3 := s3server.Start(t, "mail")
			want := oneReference(t, mail.IMAP)
			j := newBucketJob(t, s3, oneSink(mail.IMAP, s3.Address("mail/acme/eml")+c.parameters))
			var puts atomic.Int64
			s3.Fail(func(q *http.Request) s3server.Mishap {
				if q.Method == http.MethodPut && puts.Add(1) > 3 {
					return c.mishap
				}
				return s3server.None
			})
			o := j.start("run").wait()
			s3.Fail(nil)
			if o.code != c.code {
				t.Errorf("want exit code %d, got %s", c.code, o)
			}
			oneClearError(t, o, c.hint, c.says...)
			j.write(oneSink(mail.IMAP, s3.Address("mail/acme/eml")))
			j.run(0, "run")
			sameOutput(t, "the bucket", outputOf(t, filepath.Join(s3.Folder, "mail", "acme")), want)
		})
	}
}

// oneReference is reference for oneSink.
func oneReference(t *testing.T, imap string) map[string]string {
	t.Helper()
	j := newJob(t, file{address: imap, only: true, sinks: oneFolder}.String())
	j.run(0, "run")
	return outputOf(t, j.path("export"))
}

// TestOneObjectIsRefused has the server refuse the objects of one message for
// good: that message is a dead letter, which can be tried again, and all others
// are there (I6).
func TestOneObjectIsRefused(t *testing.T) {
	t.Parallel()
	mail := fill(t, 12)
	s3 := s3server.Start(t, "mail")
	want := reference(t, mail.IMAP)
	j := newBucketJob(t, s3, inBucket(mail.IMAP, s3).String())
	s3.Fail(func(q *http.Request) s3server.Mishap {
		if q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/acme/eml/") && strings.Contains(q.URL.Path, "Message 7") {
			return s3server.Forbidden
		}
		return s3server.None
	})
	o := j.run(3, "run")
	if lines := errorLines(o.err); len(lines) > 0 {
		t.Errorf("one message is no error of the run: %q", lines)
	}
	needs(t, j.run(0, "failed", "list").out, "refused_by_server", "Message 7")
	s3.Fail(nil)
	j.run(0, "failed", "retry")
	j.run(0, "run")
	sameOutput(t, "the bucket", outputOf(t, filepath.Join(s3.Folder, "mail", "acme")), want)
}
