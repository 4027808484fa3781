package msg_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/msg"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/msgtest"
)

const mail = "From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: Hello\r\nDate: Thu, 29 Feb 2024 12:00:00 +0000\r\n\r\ntext\r\n"

// config is the sink's config with its defaults.
func config(path string) msg.Config {
	return msg.Config{Path: path, Name: "{mailbox}/{date}-{uid}-{subject}-{hash}.msg", MaxPath: 240, Codepage: "original"}
}

func open(t *testing.T, path string, cp sink.Checkpoint) sink.Sink {
	t.Helper()
	s, err := msg.Open(t.Context(), config(path), sink.State{Name: "outlook", Pipeline: "p1", Checkpoint: cp, Known: cp != nil})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func of(uid uint32, body *message.Body) *message.Message {
	return &message.Message{
		Summary: message.Summary{
			ID:   message.ID{Source: "alice", Mailbox: "INBOX", UIDValidity: 1, UID: uid},
			Have: message.NeedFlags, Flags: []string{`\Seen`}, InternalDate: time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC),
		},
		Body: body,
	}
}

// tree returns the octets of all files but the sink's own books.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, ".mailhaul") {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(root, path)
		out[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWrite(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root, nil)
	m := of(7, message.BodyOf([]byte(mail)))
	r, err := s.Write(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, r.Path))
	if err != nil || int64(len(b)) != r.Octets {
		t.Fatalf("%s: %d octets, receipt says %d, %v", r.Path, len(b), r.Octets, err)
	}
	if !strings.HasPrefix(r.Path, "INBOX/2024-02-29") || !strings.HasSuffix(r.Path, "-7-Hello-"+m.ID.Hash()+".msg") {
		t.Errorf("name %s", r.Path)
	}
	o, err := msgtest.Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range o.Findings {
		t.Error(f)
	}
	if o.Text(0x37) != "Hello" || o.Text(0x1000) != "text\r\n" || o.Int(0xE07)&1 == 0 || !o.Time(0xE06).Equal(m.InternalDate) {
		t.Errorf("subject %q, text %q, flags %X, came %v", o.Text(0x37), o.Text(0x1000), o.Int(0xE07), o.Time(0xE06))
	}
	info, err := os.Stat(filepath.Join(root, r.Path))
	if err != nil || !info.ModTime().Equal(m.InternalDate) {
		t.Errorf("time of the file %v, %v", info.ModTime(), err)
	}
}

// TestResumedRunWritesTheSame: a run that was cut off and goes on from its
// checkpoint ends with the files of an undisturbed one (I2).
func TestResumedRunWritesTheSame(t *testing.T) {
	t.Parallel()
	put := func(s sink.Sink, uid uint32) {
		t.Helper()
		if _, err := s.Write(t.Context(), of(uid, message.BodyOf([]byte(strings.Replace(mail, "Hello", fmt.Sprint("Hello ", uid), 1))))); err != nil {
			t.Fatal(err)
		}
	}
	whole := t.TempDir()
	s := open(t, whole, nil)
	for uid := range uint32(20) {
		put(s, uid+1)
	}
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	broken := t.TempDir()
	first, err := msg.Open(t.Context(), config(broken), sink.State{Name: "outlook", Pipeline: "p1"})
	if err != nil {
		t.Fatal(err)
	}
	for uid := range uint32(5) {
		put(first, uid+1)
	}
	cp, err := first.Flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for uid := uint32(5); uid < 9; uid++ {
		put(first, uid+1) // never committed
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, broken, cp)
	for uid := uint32(5); uid < 20; uid++ {
		put(s, uid+1)
	}
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, want := tree(t, broken), tree(t, whole)
	if len(got) != 20 || len(got) != len(want) {
		t.Fatalf("%d files, want %d", len(got), len(want))
	}
	for name, octets := range want {
		if got[name] != octets {
			t.Errorf("%s differs", name)
		}
	}
}

// TestBrokenBodyLeavesNothing: a body that ends in an error was never written.
func TestBrokenBodyLeavesNothing(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root, nil)
	broken := fault.New(fault.Unavailable, "the connection broke")
	for _, size := range []int{10, 2 << 20} { // in memory, and in the spool
		r := io.MultiReader(strings.NewReader(mail+strings.Repeat("x", size)), iotest.ErrReader(broken))
		_, err := s.Write(t.Context(), of(1, message.NewBody(r, -1, nil)))
		if !errors.Is(err, broken) || !fault.Is(err, fault.Unavailable) {
			t.Errorf("error %v", err)
		}
	}
	if files := tree(t, root); len(files) != 0 {
		t.Errorf("%d files", len(files))
	}
}

// endless is a mail with an attachment of so many octets, as no memory holds it.
type endless struct{ size int64 }

const endlessHead = "From: a@b.c\r\nContent-Type: application/octet-stream; name=big\r\n\r\n"

func (e endless) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < e.size {
		if off < int64(len(endlessHead)) {
			k := copy(p[n:], endlessHead[off:])
			n, off = n+k, off+int64(k)
			continue
		}
		k := int(min(int64(len(p)-n), e.size-off))
		clear(p[n : n+k])
		n, off = n+k, off+int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// TestTooLarge: past the 2 GiB of a compound file there is a dead letter, and
// no file.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	if underRace {
		t.Log("the spool of 2 GiB passes in the plain run; the race detector would take minutes for it")
		return
	}
	root := t.TempDir()
	s := open(t, root, nil)
	e := endless{size: 2<<30 + 1000}
	_, err := s.Write(t.Context(), of(1, message.NewBody(io.NewSectionReader(e, 0, e.size), -1, &message.Spool{Dir: t.TempDir()})))
	if !fault.Is(err, fault.Message) || fault.As(err).Reason != "too_large" {
		t.Fatalf("error %v", err)
	}
	if files := tree(t, root); len(files) != 0 {
		t.Errorf("%d files", len(files))
	}
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	p, err := msg.Prepare(config("export"))
	if err != nil || !filepath.IsAbs(p.Target) || p.Lanes < 2 || !p.Needs.Has(message.NeedBody|message.NeedFlags|message.NeedInternalDate|message.NeedHeaders) || p.Record {
		t.Errorf("%+v, %v", p, err)
	}
	for key, c := range map[string]msg.Config{
		"path":     {Name: "{uid}"},
		"name":     {Path: "x", Name: "{nothing}"},
		"codepage": {Path: "x", Name: "{uid}", Codepage: "latin"},
	} {
		if _, err := msg.Prepare(c); !fault.Is(err, fault.Config) || fault.As(err).Key != key {
			t.Errorf("%s: error %v", key, err)
		}
	}
}

func TestParallelWrites(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root, nil)
	errs := make(chan error)
	for uid := range uint32(40) {
		go func() {
			_, err := s.Write(context.Background(), of(uid+1, message.BodyOf([]byte(mail))))
			errs <- err
		}()
	}
	for range 40 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if files := tree(t, root); len(files) != 40 {
		t.Errorf("%d files", len(files))
	}
}
