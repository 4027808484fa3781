package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/pkg/target"
	"github.com/mailhaul/pipeline/plugins/pipeline-store-objects/internal/store"
	"github.com/mailhaul/pipeline/test/s3server"
)

// TestMain sets the server's credentials for all tests, which run in parallel.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": s3server.AccessKey, "AWS_SECRET_ACCESS_KEY": s3server.SecretKey,
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(withClouds(m.Run))
}

// serve answers calls on a socket, as the store's process does, and returns
// the socket.
func serve(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mhst-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: store.Handler(slog.New(slog.DiscardHandler))}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // it is closed
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return socket
}

// kinds are the targets of files; each test runs over all of them.
var kinds = append([]string{"directory", "folder as bucket", "S3"}, clouds...)

// where returns a new path of a kind.
func where(t *testing.T, kind string) string {
	t.Helper()
	switch kind {
	case "directory":
		return filepath.Join(t.TempDir(), "out")
	case "folder as bucket":
		return "file://" + filepath.Join(t.TempDir(), "out")
	case "S3":
		return s3server.Start(t, "mail").Address("mail/acme/eml")
	default:
		return cloudAddress(t, kind)
	}
}

func overAll(t *testing.T, f func(t *testing.T, path string, o target.Owner)) {
	socket := serve(t)
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f(t, where(t, kind), target.Owner{Sink: "archive", Pipeline: "p1", Store: socket})
		})
	}
}

func id(n int) message.ID {
	return message.ID{Source: "alice", Mailbox: "INBOX", UIDValidity: 1, UID: uint32(n)}
}

func open(t *testing.T, path string, o target.Owner, cp []byte) target.Files {
	t.Helper()
	f, err := target.Open(t.Context(), path, o, cp)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return f
}

func write(t *testing.T, files target.Files, n int, name string, octets []byte) {
	t.Helper()
	f, err := files.Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadFrom(bytes.NewReader(octets)); err != nil {
		t.Fatal(err)
	}
	if f.Size() != int64(len(octets)) {
		t.Fatalf("the file has %d octets, %d were written", f.Size(), len(octets))
	}
	if err := f.Place(id(n), name, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
}

func flush(t *testing.T, files target.Files) []byte {
	t.Helper()
	cp, err := files.Flush(t.Context())
	if err != nil {
		t.Fatalf("flush: %v", err)
	}
	return cp
}

// held returns the octets of a file that a target keeps.
func held(t *testing.T, path string, o target.Owner, name string) ([]byte, error) {
	t.Helper()
	if !objects.IsAddress(path) {
		return os.ReadFile(filepath.Join(path, name))
	}
	return bucket(t, path, o).Read(t.Context(), name)
}

func bucket(t *testing.T, path string, o target.Owner) *objects.Bucket {
	t.Helper()
	l, err := objects.Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := objects.Dial(o.Store, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// rows returns what the manifest says at a checkpoint: path to size and sha256.
func rows(t *testing.T, path string, o target.Owner, cp []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	lines := target.ManifestLines(path)
	if objects.IsAddress(path) {
		p, err := target.Look(t.Context(), path, false, o.Store)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		parts, ok := target.CommittedParts(cp)
		if !ok {
			t.Fatalf("the checkpoint %s can't be read", cp)
		}
		lines = manifestOf(t, p, parts)
	}
	for l, err := range lines {
		if err != nil || l.Err != nil {
			t.Fatal(errors.Join(err, l.Err))
		}
		out[l.Row.Path] = fmt.Sprintf("%d %s", l.Row.Size, l.Row.SHA256)
	}
	return out
}

// manifestOf returns the lines of the parts of a manifest.
func manifestOf(t *testing.T, p *target.Place, parts []target.Part) iter.Seq2[target.ManifestLine, error] {
	t.Helper()
	var all bytes.Buffer
	for _, x := range parts {
		in, size, err := p.Part(t.Context(), target.ManifestStem, x, 0)
		if err != nil || size != x.Octets {
			t.Fatalf("part %v has %d octets: %v", x, size, err)
		}
		_, err = all.ReadFrom(in)
		if err = errors.Join(err, in.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return target.LinesOf(&all, "read the manifest", 0)
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func octets(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

func TestFilesAreThereAfterAFlush(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, path string, o target.Owner) {
		sizes := map[string]int{
			"alice/INBOX/a.eml": 12, "alice/INBOX/empty.eml": 0, "alice/Ünïcode ünd %41/b c.eml": 400 << 10,
			"alice/held.eml": 256 << 10, "alice/spooled.eml": 256<<10 + 1, "alice/parts.eml": 17 << 20,
		}
		files := open(t, path, o, nil)
		n := 0
		for name, size := range sizes {
			n++
			write(t, files, n, name, octets(size))
		}
		cp := flush(t, files)
		if err := files.Close(); err != nil {
			t.Fatal(err)
		}
		told := rows(t, path, o, cp)
		if len(told) != len(sizes) {
			t.Errorf("the manifest has %d rows, want %d", len(told), len(sizes))
		}
		for name, size := range sizes {
			got, err := held(t, path, o, name)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, octets(size)) {
				t.Errorf("%s: other octets than were written (%d, want %d)", name, len(got), size)
			}
			if want := fmt.Sprintf("%d %s", size, sum(got)); told[name] != want {
				t.Errorf("%s: the manifest says %q, the target has %q", name, told[name], want)
			}
		}
	})
}

func TestWhatWasNotCommittedIsForgotten(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, path string, o target.Owner) {
		files := open(t, path, o, nil)
		write(t, files, 1, "1.eml", octets(10))
		committed := flush(t, files)
		write(t, files, 2, "2.eml", octets(20))
		flush(t, files) // the ledger never hears of it
		if err := files.Close(); err != nil {
			t.Fatal(err)
		}
		o.Known = true
		again := open(t, path, o, committed)
		write(t, again, 2, "2.eml", octets(30)) // the same name, in place of what is there
		cp := flush(t, again)
		if err := again.Committed(t.Context(), cp); err != nil {
			t.Fatal(err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"1.eml": "10 " + sum(octets(10)), "2.eml": "30 " + sum(octets(30))}
		if got := rows(t, path, o, cp); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the manifest has %v, want %v", got, want)
		}
		if b, err := held(t, path, o, "2.eml"); err != nil || !bytes.Equal(b, octets(30)) {
			t.Errorf("2.eml has %d octets (%v), want 30", len(b), err)
		}
	})
}

func TestManyFlushesStayFewParts(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, path string, o target.Owner) {
		files := open(t, path, o, nil)
		const most = 80
		var cp []byte
		for n := range most {
			write(t, files, n+1, fmt.Sprintf("%d.eml", n), octets(n))
			cp = flush(t, files)
			if err := files.Committed(t.Context(), cp); err != nil {
				t.Fatal(err)
			}
		}
		if err := files.Close(); err != nil {
			t.Fatal(err)
		}
		if got := rows(t, path, o, cp); len(got) != most {
			t.Errorf("the manifest has %d rows, want %d", len(got), most)
		}
		if !objects.IsAddress(path) {
			return
		}
		parts := 0
		for l, err := range bucket(t, path, o).List(t.Context(), target.Books+"/manifest-", false) {
			if err != nil {
				t.Fatal(err)
			}
			_ = l
			parts++
		}
		if parts > 32 {
			t.Errorf("%d flushes left %d parts of the manifest, want 32 at most", most, parts)
		}
	})
}

func TestABodyThatBreaksOffLeavesNothing(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, path string, o target.Owner) {
		files := open(t, path, o, nil)
		f, err := files.Create()
		if err != nil {
			t.Fatal(err)
		}
		broken := errors.New("the source broke off")
		if _, err := f.ReadFrom(io.MultiReader(bytes.NewReader(octets(1<<20)), failing{broken})); !errors.Is(err, broken) {
			t.Fatalf("got %v, want the source's error", err)
		}
		f.Discard()
		cp := flush(t, files)
		if err := files.Close(); err != nil {
			t.Fatal(err)
		}
		if got := rows(t, path, o, cp); len(got) != 0 {
			t.Errorf("the manifest has %v", got)
		}
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestWhoseATargetIs(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, path string, o target.Owner) {
		files := open(t, path, o, nil)
		write(t, files, 1, "1.eml", octets(10))
		flush(t, files)
		if err := files.Close(); err != nil {
			t.Fatal(err)
		}
		refused := func(what string, o target.Owner) {
			t.Helper()
			f, err := target.Open(t.Context(), path, o, nil)
			if err == nil {
				f.Close()
			}
			if !fault.Is(err, fault.Config) {
				t.Errorf("%s: got %v, want a refusal", what, err)
			}
		}
		other := o
		other.Pipeline = "p2"
		refused("another pipeline", other)
		other = o
		other.Sink = "outlook"
		refused("another sink", other)
		other.Adopt = true
		adopted := open(t, path, other, nil)
		if err := adopted.Close(); err != nil {
			t.Fatal(err)
		}
		refused("the first one, after it was adopted", o)
	})
}

// Of pipelines that come to an empty place at once, one gets it.
func TestPipelinesRace(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, path string, o target.Owner) {
		const racers = 8
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for n := range racers {
			wg.Go(func() {
				mine := o
				mine.Pipeline = fmt.Sprintf("p%d", n)
				f, err := target.Open(context.WithoutCancel(t.Context()), path, mine, nil)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won++
					f.Close()
				case !fault.Is(err, fault.Config):
					t.Errorf("got %v, want a refusal", err)
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Errorf("%d of %d pipelines got the target, want 1", won, racers)
		}
	})
}

func TestAMarkerThatIsGone(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, path string, o target.Owner) {
		o.Known = true
		if _, err := target.Open(t.Context(), path, o, nil); !fault.Is(err, fault.Config) {
			t.Errorf("rows in the ledger and no marker: got %v, want a refusal", err)
		}
		o.Rewrite = true
		open(t, path, o, nil).Close()
	})
}

func TestNamesThatObjectStorageRefuses(t *testing.T) {
	t.Parallel()
	socket := serve(t)
	files := open(t, "file://"+t.TempDir()+"/out", target.Owner{Sink: "a", Pipeline: "p", Store: socket}, nil)
	defer files.Close()
	for name, class := range map[string]fault.Class{
		"../out.eml": fault.Bug,
		string(bytes.Repeat([]byte("x"), 1025)) + ".eml": fault.Message,
	} {
		f, err := files.Create()
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Place(id(1), name, time.Time{}); !fault.Is(err, class) {
			t.Errorf("%.20s: got %v, want class %v", name, err, class)
		}
	}
}
