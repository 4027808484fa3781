package readback

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/target"
)

// dir is a directory target that a sink writes to.
type dir struct {
	*target.Dir
	t    *testing.T
	root string
}

func open(t *testing.T, root string, checkpoint []byte) *dir {
	t.Helper()
	d, err := target.OpenDir(t.Context(), root, target.Owner{Sink: "s", Pipeline: "p"}, checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	return &dir{d, t, root}
}

// put writes a file of message n; part is empty where it is its only one.
func (d *dir) put(n uint32, part, name, octets string) {
	d.t.Helper()
	f, err := d.Create()
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := f.Write([]byte(octets)); err != nil {
		d.t.Fatal(err)
	}
	id := message.ID{Source: "a", Mailbox: "INBOX", UIDValidity: 1, UID: n}
	if err := f.PlacePart(id, part, name, time.Time{}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *dir) flush() []byte {
	d.t.Helper()
	cp, err := d.Flush(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return cp
}

// want checks what is said of each receipt: "" is nothing.
func want(t *testing.T, files *Target, said map[string]string) {
	t.Helper()
	for receipt, text := range said {
		errs, err := files.Check(t.Context(), []string{receipt})
		switch {
		case err != nil:
			t.Errorf("%s: %v", receipt, err)
		case text == "" && errs[0] != nil || text != "" && (errs[0] == nil || !strings.Contains(errs[0].Error(), text)):
			t.Errorf("%s: %v, want %q", receipt, errs[0], text)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), nil)
	defer d.Close()
	large := strings.Repeat("x", 3<<20)
	d.put(1, "", "a/1.eml", "one")
	d.put(2, "", "2.eml", large)
	d.put(3, "", "3.eml", "")
	d.put(4, "1", "four/a.pdf", "a")
	d.put(4, "2", "four/b.pdf", "b")
	d.put(5, "", "5.eml", "five")
	d.put(6, "", "6.eml", "an older one")
	d.put(6, "", "6.eml", "six")
	d.flush()
	files := New(d.root)
	want(t, files, map[string]string{"a/1.eml": "", "2.eml": "", "3.eml": "", "four": "", "5.eml": "", "6.eml": "", "7.eml": "has no row of 7.eml", "fou": "has no row of"})

	write := func(name, octets string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(d.root, name), []byte(octets), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a/1.eml", "own")
	write("2.eml", large[1:]+"y")
	write("3.eml", "x")
	if err := os.Remove(filepath.Join(d.root, "four/b.pdf")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(d.root, "5.eml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(d.root, "5.eml")); err != nil {
		t.Fatal(err)
	}
	want(t, files, map[string]string{
		"a/1.eml": "a/1.eml has other octets than were written", "2.eml": "has other octets", "3.eml": "3.eml has 1 octets, 0 were written",
		"four": "four/b.pdf isn't there", "5.eml": "it is no regular file", "6.eml": "",
	})
}

// A sink goes on writing, dies, is rolled back and writes other rows in the
// place of those that weren't committed: the rows that count are found.
func TestRowsThatComeAndGo(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	d := open(t, root, nil)
	for n := range uint32(100) {
		d.put(n, "", fmt.Sprint(n, ".eml"), "committed")
	}
	cp := d.flush()
	files := New(root)
	want(t, files, map[string]string{"0.eml": "", "99.eml": ""})
	for n := range uint32(50) {
		d.put(1000+n, "", fmt.Sprint("gone-", n, ".eml"), "never committed")
	}
	d.flush()
	want(t, files, map[string]string{"gone-49.eml": ""})
	d.Close()

	d = open(t, root, cp)
	defer d.Close()
	for n := range uint32(200) {
		d.put(2000+n, "", fmt.Sprint("new-", n, ".eml"), "after the crash")
	}
	d.flush()
	said := map[string]string{"0.eml": "", "99.eml": "", "gone-49.eml": "has no row"}
	for n := range 200 {
		said[fmt.Sprint("new-", n, ".eml")] = ""
	}
	want(t, files, said)
}

// What stands in the manifest and isn't a row costs only the messages whose
// rows stood there; a manifest that is gone is an error of all.
func TestABrokenManifest(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), nil)
	defer d.Close()
	for n := range uint32(10) {
		d.put(n, "", fmt.Sprint(n, ".eml"), "x")
	}
	d.flush()
	manifest := target.ManifestPath(d.root)
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	lines[3] = []byte("{{{ not a row\n")
	lines[4] = []byte(`{"id":{"source":"a"},"path":"../../etc/passwd","size":1,"sha256":""}` + "\n")
	if err := os.WriteFile(manifest, bytes.Join(lines, nil), 0o644); err != nil {
		t.Fatal(err)
	}
	files := New(d.root)
	want(t, files, map[string]string{"2.eml": "", "3.eml": "has no row", "4.eml": "has no row", "5.eml": "", "../../etc/passwd": "isn't within"})
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	if _, err := files.Check(t.Context(), []string{"2.eml"}); err == nil {
		t.Error("a manifest that isn't there is no error")
	}
}
