package eml

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
)

func config(path string) Config {
	return Config{Path: path, Name: "{source}/{mailbox}/{date}-{uid}-{subject}-{hash}.eml", MaxPath: 240}
}

func state(cp sink.Checkpoint) sink.State {
	return sink.State{Name: "archive", Pipeline: "acme", Checkpoint: cp, Known: cp != nil}
}

func open(t testing.TB, path string, st sink.State) sink.Sink {
	t.Helper()
	s, err := Open(t.Context(), config(path), st)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

// octets is the n-th mail of a run: header, body, and line ends of all kinds.
func octets(n int) []byte {
	return fmt.Appendf(nil, "Subject: mail %d\r\nDate: Mon, 03 Feb 2025 10:00:00 +0000\r\n\r\nbody\n.\r\n\x00\xff\rend %d", n, n)
}

// mail is the n-th message of a run.
func mail(n int) *message.Message {
	b := octets(n)
	return &message.Message{
		Summary: message.Summary{
			ID:           message.ID{Source: "alice", Mailbox: []string{"INBOX", "Work/Ünïcode"}[n%2], UIDValidity: 1, UID: uint32(n + 1)},
			InternalDate: time.Date(2025, 2, 3, 4, 5, n%60, 0, time.UTC),
			Header:       message.NewHeader(b[:bytes.Index(b, []byte("\r\n\r\n"))+4]),
		},
		Body: message.BodyOf(b),
	}
}

func write(t testing.TB, s sink.Sink, m *message.Message) sink.Receipt {
	t.Helper()
	r, err := s.Write(context.Background(), m)
	if err != nil {
		t.Fatalf("Write(%v): %v", m.ID, err)
	}
	return r
}

func flush(t testing.TB, s sink.Sink) sink.Checkpoint {
	t.Helper()
	cp, err := s.Flush(context.Background())
	if err != nil {
		t.Fatalf("Flush: %v", err)
	}
	return cp
}

func shut(t testing.TB, s sink.Sink) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// tree returns what a target holds: files with the hash of their octets, and
// the manifest as a set of lines. Temporary files and the lock are left out.
func tree(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case name == filepath.FromSlash(target.ManifestName):
			out = append(out, strings.SplitAfter(string(b), "\n")...)
		case !strings.HasPrefix(name, target.Books):
			sum := sha256.Sum256(b)
			out = append(out, name+" "+hex.EncodeToString(sum[:]))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func TestWriteKeepsOctets(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "not", "made", "yet")
	s := open(t, root, state(nil))
	m := mail(7)
	r := write(t, s, m)
	want := "alice/Work/Ünïcode/2025-02-03-8-mail 7-" + m.ID.Hash() + ".eml"
	if r.Path != want || r.Octets != int64(len(octets(7))) {
		t.Errorf("receipt %+v, want path %q and %d octets", r, want, len(octets(7)))
	}
	path := filepath.Join(root, filepath.FromSlash(r.Path))
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, octets(7)) {
		t.Errorf("file: %q, %v; want %q", b, err, octets(7))
	}
	if info, err := os.Stat(path); err != nil || !info.ModTime().Equal(m.InternalDate) {
		t.Errorf("time of change: %v, %v; want %v", info.ModTime(), err, m.InternalDate)
	}
	flush(t, s)
	shut(t, s)
	var rows []target.Row
	for row, err := range target.Manifest(root) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	sum := sha256.Sum256(octets(7))
	if len(rows) != 1 || rows[0] != (target.Row{ID: m.ID, Path: r.Path, Size: r.Octets, SHA256: hex.EncodeToString(sum[:])}) {
		t.Errorf("manifest: %+v", rows)
	}
}

// TestNameWithoutHeader has the name the same whether the header came with the
// summary or must be read off the body, whatever the body is read in.
func TestNameWithoutHeader(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), state(nil))
	defer shut(t, s)
	want := write(t, s, mail(1))
	readers := map[string]func() *message.Body{
		"in memory": func() *message.Body { return message.BodyOf(octets(1)) },
		"streamed":  func() *message.Body { return message.NewBody(bytes.NewReader(octets(1)), -1, nil) },
		"an octet at once": func() *message.Body {
			return message.NewBody(iotest.OneByteReader(bytes.NewReader(octets(1))), -1, nil)
		},
		"the end with data": func() *message.Body {
			return message.NewBody(iotest.DataErrReader(bytes.NewReader(octets(1))), -1, nil)
		},
	}
	for name, body := range readers {
		m := mail(1)
		m.Header, m.Body = nil, body()
		if got := write(t, s, m); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestHeaderOf(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"CRLF", "A: b\r\n\r\nbody", "A: b\r\n\r\n"},
		{"LF", "A: b\n\nbody", "A: b\n\n"},
		{"mixed", "A: b\n\r\nbody", "A: b\n\r\n"},
		{"no body", "A: b\r\n", "A: b\r\n"},
		{"no header", "\r\nbody\n\n", "\r\n"},
		{"nothing", "", ""},
	}
	for _, tt := range tests {
		if got := string(headerOf([]byte(tt.in))); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestBrokenBodyLeavesNothing(t *testing.T) {
	t.Parallel()
	cut := errors.New("connection reset")
	for _, header := range []bool{true, false} {
		root := t.TempDir()
		s := open(t, root, state(nil))
		m := mail(1)
		if !header {
			m.Header = nil
		}
		m.Body = message.NewBody(io.MultiReader(bytes.NewReader(octets(1)), iotest.ErrReader(cut)), -1, nil)
		if _, err := s.Write(t.Context(), m); !errors.Is(err, cut) {
			t.Errorf("Write: %v, want the body's error", err)
		}
		flush(t, s)
		if got := tree(t, root); len(got) > 1 || (len(got) == 1 && got[0] != "") {
			t.Errorf("left behind: %q", got)
		}
		if left, err := os.ReadDir(filepath.Join(root, target.Books, "tmp")); err != nil || len(left) != 0 {
			t.Errorf("temporary files left: %v, %v", left, err)
		}
		shut(t, s)
	}
}

// TestCrashesLeaveNoTrace stops a session at every step of a run, opens it
// with what the ledger would know, and goes on: the target ends as if nothing
// had happened (I2).
func TestCrashesLeaveNoTrace(t *testing.T) {
	t.Parallel()
	const epochs, size = 4, 5
	undisturbed := t.TempDir()
	s := open(t, undisturbed, state(nil))
	for n := range epochs * size {
		write(t, s, mail(n))
	}
	flush(t, s)
	shut(t, s)
	want := tree(t, undisturbed)

	// A step is a Write, or the Flush or the commit at an epoch's end.
	for crash := range epochs * (size + 2) {
		root := t.TempDir()
		var committed sink.Checkpoint
		done, step := 0, 0
		crashed := false
		s := open(t, root, state(nil))
		for done < epochs*size {
			next := min(done+size, epochs*size)
			boom := func() bool {
				step++
				if crashed || step-1 != crash {
					return false
				}
				crashed = true
				shut(t, s)
				leaveJunk(t, root)
				s = open(t, root, state(committed))
				return true
			}
			hit := false
			for n := done; n < next && !hit; n++ {
				write(t, s, mail(n))
				hit = boom()
			}
			if hit {
				continue
			}
			cp := flush(t, s)
			if boom() {
				continue
			}
			committed, done = cp, next
			boom()
		}
		shut(t, s)
		if got := tree(t, root); !slices.Equal(got, want) {
			t.Fatalf("crash at step %d:\ngot  %q\nwant %q", crash, got, want)
		}
	}
}

// leaveJunk puts there what a crash in the middle of a Write leaves.
func leaveJunk(t *testing.T, root string) {
	t.Helper()
	books := filepath.Join(root, target.Books)
	if err := os.WriteFile(filepath.Join(books, "tmp", "1"), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(root, filepath.FromSlash(target.ManifestName)), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(`{"id":{"sou`); err != nil {
		t.Fatal(err)
	}
}

// TestForeignFileIsReplaced has a final name on disk that no ledger row
// vouches for: it is never trusted.
func TestForeignFileIsReplaced(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root, state(nil))
	defer shut(t, s)
	path := filepath.Join(root, filepath.FromSlash(write(t, s, mail(1)).Path))
	if err := os.WriteFile(path, []byte("torn"), 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, s, mail(1))
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, octets(1)) {
		t.Errorf("%q, %v", b, err)
	}
}

func TestLanesWriteAtOnce(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root, state(nil))
	const n = 400
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			for i := lane; i < n; i += lanes {
				if _, err := s.Write(t.Context(), mail(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	flush(t, s)
	shut(t, s)
	rows := 0
	for row, err := range target.Manifest(root) {
		if err != nil {
			t.Fatal(err)
		}
		rows++
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(row.Path)))
		sum := sha256.Sum256(b)
		if err != nil || hex.EncodeToString(sum[:]) != row.SHA256 || int64(len(b)) != row.Size || !bytes.Equal(b, octets(int(row.ID.UID-1))) {
			t.Errorf("%s isn't what the manifest says: %v", row.Path, err)
		}
	}
	if rows != n {
		t.Errorf("%d rows, want %d", rows, n)
	}
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Prepare(config("export/eml"))
	if err != nil {
		t.Fatal(err)
	}
	want := sink.Prepared{
		Target: filepath.Join(wd, "export", "eml"), Lanes: lanes, Manifest: true,
		Needs: message.NeedBody | message.NeedInternalDate | message.NeedHeaders,
	}
	if p != want {
		t.Errorf("%+v, want %+v", p, want)
	}
	if _, err := os.Stat(p.Target); !os.IsNotExist(err) {
		t.Errorf("Prepare touched the disk: %v", err)
	}
	bad := config("x")
	bad.Name = "{sujbect}"
	if _, err := Prepare(bad); !fault.Is(err, fault.Config) || fault.As(err).Key != "name" {
		t.Errorf("a wrong template: %v", err)
	}
	if _, err := Prepare(Config{}); !fault.Is(err, fault.Config) || fault.As(err).Key != "path" {
		t.Errorf("no path: %v", err)
	}
}

// TestCorpus writes real mails and reads them back.
func TestCorpus(t *testing.T) {
	t.Parallel()
	corpus := os.Getenv("MAILHAUL_CORPUS")
	if corpus == "" {
		t.Skip("MAILHAUL_CORPUS names no corpus")
	}
	names, err := filepath.Glob(filepath.Join(corpus, "eml", "*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no mails in %s: %v", corpus, err)
	}
	root := t.TempDir()
	s := open(t, root, state(nil))
	defer shut(t, s)
	for i, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m := &message.Message{Body: message.BodyOf(b)}
		m.ID = message.ID{Source: "corpus", Mailbox: "INBOX", UIDValidity: 1, UID: uint32(i + 1)}
		r := write(t, s, m)
		if got, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(r.Path))); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s: not the same octets in %s: %v", filepath.Base(name), r.Path, err)
		}
	}
	flush(t, s)
}

func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := open(b, b.TempDir(), state(nil))
			defer shut(b, s)
			body := append(octets(0), bytes.Repeat([]byte("x"), size-len(octets(0)))...)
			m := mail(0)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				m.ID.UID++
				m.Body = message.BodyOf(body)
				write(b, s, m)
				if m.ID.UID%4096 == 0 {
					flush(b, s)
				}
			}
		})
	}
}
