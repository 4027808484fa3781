package files

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/pkg/target"
)

func open(t testing.TB, root, more string, cp sink.Checkpoint) sink.Sink {
	t.Helper()
	var c Config
	if err := spec.Decode(fmt.Appendf(nil, `{"path":%q%s}`, root, more), &c, nil); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), c, sink.State{Name: "files", Pipeline: "acme", Checkpoint: cp, Known: cp != nil})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mailOf(uid uint32, octets string) *message.Message {
	head, _, _ := strings.Cut(octets, "\r\n\r\n")
	return &message.Message{
		Summary: message.Summary{
			ID:     message.ID{Source: "alice", Mailbox: "INBOX", UIDValidity: 1, UID: uid},
			Header: message.NewHeader([]byte(head + "\r\n\r\n")), InternalDate: time.Date(2025, 2, 3, 4, 5, 6, 0, time.UTC),
		},
		Body: message.BodyOf([]byte(octets)),
	}
}

func mixed(parts ...string) string {
	out := "Subject: files\r\nDate: Mon, 03 Feb 2025 10:00:00 +0000\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext"
	for _, p := range parts {
		out += "\r\n--b\r\n" + p
	}
	return out + "\r\n--b--\r\n"
}

func part(mediaType, name, octets string) string {
	disposition := "attachment"
	if name != "" {
		disposition += "; filename=\"" + name + "\""
	}
	return "Content-Type: " + mediaType + "\r\nContent-Disposition: " + disposition + "\r\n\r\n" + octets
}

// stored returns the files of a target, by name.
func stored(t testing.TB, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() && d.Name() == target.Books {
			return filepath.SkipDir
		}
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(root, path)
		out[filepath.ToSlash(name)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWrite(t *testing.T) {
	t.Parallel()
	const folder = "alice/INBOX/2025-02-03-7-files-"
	tests := []struct {
		name   string
		config string
		mail   string
		want   map[string]string // by name in the folder
	}{
		{"none", "", mixed(), nil},
		{"decoded, with its name", "", mixed("Content-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nSGVsbG8="), map[string]string{"a.pdf": "Hello"}},
		{"names that are the same", "", mixed(part("a/b", "x.txt", "1"), part("a/b", "X.TXT", "2"), part("a/b", "x-2.txt", "3"), part("a/b", "x.txt", "4")),
			map[string]string{"x.txt": "1", "X-2.TXT": "2", "x-2-2.txt": "3", "x-3.txt": "4"}},
		{"without a name", "", mixed(part("application/pdf", "", "1"), part("a/b", "", "2"), part("a/b", "..", "3")), map[string]string{"attachment.pdf": "1", "attachment.bin": "2", "attachment-2.bin": "3"}},
		{"a name that leaves the folder", "", mixed(part("a/b", "../../etc/passwd", "1"), part("a/b", `c:\\con.txt`, "2"), part("a/b", "nul", "3")), map[string]string{".._._etc_passwd": "1", "c__con.txt": "2", "_nul": "3"}},
		{"what is chosen keeps the name that it has among all", `,"only":{"names":["x*"],"min_size":2}`, mixed(part("a/b", "x.txt", "1"), part("a/b", "x.txt", "22"), part("a/b", "y.txt", "333")), map[string]string{"x-2.txt": "22"}},
		{"by media type", `,"only":{"media_types":["image/*"]}`, mixed(part("image/png", "a.png", "1"), part("a/b", "b", "2")), map[string]string{"a.png": "1"}},
		{"an attached message", "", mixed("Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nx"), map[string]string{"attachment.eml": "Subject: in\r\n\r\nx"}},
		{"the whole message is one", "", "Subject: files\r\nDate: Mon, 03 Feb 2025 10:00:00 +0000\r\n" + part("a/b", "a", "1"), map[string]string{"a": "1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			s := open(t, root, tt.config, nil)
			m := mailOf(7, tt.mail)
			r, err := s.Write(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			want, octets := map[string]string{}, 0
			for name, text := range tt.want {
				want[r.Path+"/"+name] = text
				octets += len(text)
			}
			if tt.want == nil && r.Path != "" || tt.want != nil && r.Path != folder+m.ID.Hash() || r.Octets != int64(octets) {
				t.Errorf("receipt %+v", r)
			}
			if diff := cmp.Diff(want, stored(t, root)); diff != "" {
				t.Error(diff)
			}
			if _, err := s.Flush(t.Context()); err != nil {
				t.Error(err)
			}
			rows := map[string]bool{}
			for row, err := range target.Manifest(root) {
				if err != nil || row.ID != m.ID || row.Part == "" || want[row.Path] == "" || int64(len(want[row.Path])) != row.Size {
					t.Errorf("row %+v, %v", row, err)
				}
				rows[row.Path] = true
			}
			if len(rows) != len(want) {
				t.Errorf("%d rows of the manifest, want %d", len(rows), len(want))
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCrash: what was written since the last commit is written again, to the
// same names, and nothing of it is left beside them.
func TestCrash(t *testing.T) {
	t.Parallel()
	write := func(s sink.Sink, from, to uint32) {
		t.Helper()
		for uid := from; uid < to; uid++ {
			if _, err := s.Write(t.Context(), mailOf(uid, mixed(part("a/b", "x.txt", fmt.Sprint(uid)), part("a/b", "x.txt", "same")))); err != nil {
				t.Fatal(err)
			}
		}
	}
	whole := t.TempDir()
	s := open(t, whole, "", nil)
	write(s, 1, 40)
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	root := t.TempDir()
	s = open(t, root, "", nil)
	write(s, 1, 20)
	cp, err := s.Flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := target.CommittedManifest(cp); ok {
		t.Errorf("the checkpoint %s would be taken for that of a sink with one file a message", cp)
	}
	write(s, 20, 30) // never committed
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, root, "", cp)
	write(s, 20, 40)
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(stored(t, whole), stored(t, root)); diff != "" {
		t.Error(diff)
	}
	rows := func(root string) []string {
		b, err := os.ReadFile(target.ManifestPath(root))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(string(b), "\n")
	}
	if diff := cmp.Diff(rows(whole), rows(root)); diff != "" {
		t.Error(diff)
	}
}

// TestBrokenBodyLeavesNothing: a body that breaks off never makes a file.
func TestBrokenBodyLeavesNothing(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root, "", nil)
	m := mailOf(1, mixed(part("a/b", "x", "1")))
	m.Body = message.NewBody(io.MultiReader(strings.NewReader(mixed(part("a/b", "x", "1"))), iotest.ErrReader(io.ErrUnexpectedEOF)), -1, nil)
	if _, err := s.Write(t.Context(), m); err == nil {
		t.Error("it was written")
	}
	if got := stored(t, root); len(got) != 0 {
		t.Errorf("%v", slices.Collect(maps.Keys(got)))
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for raw, key := range map[string]string{
		`{"path":""}`: "path", `{"path":"x","name":"{nam}"}`: "name", `{"path":"x","only":{"media_types":["pdf"]}}`: "only", `{"path":"x","max_path":80}`: "max_path",
	} {
		var c Config
		err := spec.Decode([]byte(raw), &c, nil)
		if err == nil {
			_, err = Prepare(c)
		}
		if f := fault.As(err); f == nil || f.Class != fault.Config || !strings.HasPrefix(f.Key, key) {
			t.Errorf("%s: %v", raw, err)
		}
	}
}
