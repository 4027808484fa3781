package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/test/s3server"
)

// newBucketExport is newExport into a bucket. The folder that the server keeps
// the bucket in is where an export in folders would be: what is done to the
// files there is done to the objects.
func newBucketExport(t *testing.T, s3 *s3server.Server) *export {
	t.Helper()
	return exportTo(t, func(address string) *job {
		j := newBucketJob(t, s3, file{address: address, only: true, sinks: fmt.Sprintf(`  - name: archive
    plugin: eml
    config: {path: %q}
  - name: outlook
    plugin: msg
    config: {path: %q}
  - name: index
    plugin: json
    config: {path: %q, detail: structure}
`, s3.Address("export/eml"), s3.Address("export/msg"), s3.Address("export/index.jsonl"))}.String()+
			"custody: {path: custody, manifest: [sha256, md5], sign: {ssh_key: key}}\n")
		if err := os.Symlink(filepath.Join(s3.Folder, "export"), j.path("export")); err != nil {
			t.Fatal(err)
		}
		return j
	}, func(j *job) map[string]string {
		return map[string]string{"bucket": filepath.Join(s3.Folder, "export"), "state": j.path("state"), "custody": j.path("custody")}
	})
}

// objects puts the objects' addresses into what a case expects of custody check.
func (e *export) objects(in []string) []string {
	var out []string
	for _, s := range in {
		s = strings.Replace(s, "INDEX", "s3://export/index.jsonl", 1)
		if word, rest, ok := strings.Cut(strings.TrimPrefix(s, "EML("), ")"); ok {
			s = "s3://export" + strings.TrimPrefix(e.file("eml", word), e.path("export")) + rest
		}
		out = append(out, s)
	}
	return out
}

// part returns the part of a list in the bucket that has a word.
func (e *export) part(glob, word string) string {
	e.t.Helper()
	all, err := filepath.Glob(e.path(glob))
	if err != nil {
		e.t.Fatal(err)
	}
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err != nil {
			e.t.Fatal(err)
		}
		if bytes.Contains(b, []byte(word)) {
			return path
		}
	}
	e.t.Fatalf("no part of %s has %s: %v", glob, word, all)
	return ""
}

// emlParts are the parts of the manifest of the sink archive.
const emlParts = "export/eml/.mailhaul/manifest-*.jsonl"

// TestDamageInABucket does to the objects of an export what TestDamage does to
// files: verify says the same of them.
func TestDamageInABucket(t *testing.T) {
	t.Parallel()
	s3 := s3server.Start(t, "export")
	e := newBucketExport(t, s3)
	drop := func(string) string { return "" }
	rows := func(word string) string { return e.part(emlParts, word) }
	for _, c := range []struct {
		name   string
		damage func()
		verify []string
		// custody is what custody check tells; it isn't asked of every case, as
		// each takes a process of the store's.
		custody []string
	}{
		{"nothing", func() {}, nil, []string{}},

		// The objects.
		{"an object gone", func() { e.remove(e.file("eml", "two")) }, []string{"missing output archive two"}, []string{"EML(two) isn't there"}},
		{"one octet changed", func() { e.change(e.file("eml", "two"), func(b []byte) []byte { b[len(b)/2] ^= 1; return b }) },
			[]string{"changed output archive two"}, []string{"EML(two) isn't what was exported"}},
		{"an object cut short", func() { e.change(e.file("eml", "seven"), func(b []byte) []byte { return b[:len(b)-1] }) },
			[]string{"changed output archive seven"}, nil},
		{"octets appended", func() { e.change(e.file("eml", "ten"), func(b []byte) []byte { return append(b, '\n') }) },
			[]string{"changed output archive ten"}, nil},
		{"an object added", func() { e.cp(e.file("eml", "one"), e.path("export/eml/alice/INBOX/planted.eml")) },
			[]string{"extra output archive"}, []string{}},
		{"two objects exchanged", func() {
			a, b := e.file("eml", "one"), e.file("eml", "six")
			e.cp(a, e.path("x"))
			e.cp(b, a)
			e.cp(e.path("x"), b)
		}, []string{"changed output archive one", "changed output archive six"}, nil},
		{"an octet of a .msg changed", func() { e.change(e.file("msg", "three"), func(b []byte) []byte { b[len(b)-600] ^= 1; return b }) },
			[]string{"changed output outlook three"}, nil},
		{"a target gone", func() { e.remove(e.path("export/msg")) }, []string{"missing target outlook"}, nil},

		// The manifests and markers.
		{"a manifest's row removed", func() { e.line(rows("-four-"), "-four-", drop) }, []string{"missing manifest archive four"}, nil},
		{"a manifest's row with another hash", func() {
			e.line(rows("-four-"), "-four-", func(l string) string { return flipHash(l, `"sha256":"`) })
		}, []string{"changed manifest archive four"}, nil},
		{"a manifest cut short", func() { e.change(rows("-ten-"), func(b []byte) []byte { return b[:len(b)-20] }) },
			[]string{"changed manifest archive ten"}, nil},
		{"a row added to a manifest", func() {
			e.change(rows("-ten-"), func(b []byte) []byte {
				first, _, _ := bytes.Cut(b, []byte("\n"))
				return append(append(b, bytes.Replace(first, []byte(`"uid":`), []byte(`"uid":9`), 1)...), '\n')
			})
		}, []string{"extra manifest archive"}, nil},
		{"a part of a manifest gone", func() { e.remove(rows("-ten-")) }, []string{"missing manifest archive"}, nil},
		{"a part that nobody committed", func() { e.cp(rows("-ten-"), e.path("export/eml/.mailhaul/manifest-000099-late.jsonl")) },
			[]string{"extra manifest archive"}, nil},
		{"the list of the parts gone", func() { e.remove(e.path("export/eml/.mailhaul/manifest.json")) }, []string{"missing manifest archive"}, nil},
		{"the list of the parts of earlier", func() {
			e.change(e.path("export/eml/.mailhaul/manifest.json"), func([]byte) []byte { return []byte(`{"version":1,"parts":[]}`) })
		}, []string{"changed manifest archive"}, nil},
		{"a manifest gone", func() {
			for _, word := range []string{"-four-", "-ten-"} {
				e.remove(rows(word))
			}
		}, []string{"missing manifest archive"}, nil},
		{"a marker gone", func() { e.remove(e.path("export/eml/.mailhaul/target.json")) }, []string{"missing target archive"}, nil},
		{"a marker of another pipeline", func() {
			e.change(e.path("export/eml/.mailhaul/target.json"), func(b []byte) []byte { return bytes.Replace(b, []byte(`"archive"`), []byte(`"others"`), 1) })
		}, []string{"changed target archive"}, nil},

		// The ledger.
		{"a ledger's row removed", func() { e.ledger("DELETE FROM message WHERE instr(fates, '-five-') > 0") }, []string{"missing ledger five"}, nil},
		{"a ledger's hash changed", func() {
			e.ledger("UPDATE message SET sha256 = zeroblob(32) WHERE instr(fates, '-five-') > 0")
		}, []string{"changed ledger five"}, nil},

		// The index.
		{"an index line removed", func() { e.line(e.path(indexFile), `"eight"`, drop) }, []string{"missing index index eight"}, []string{"INDEX isn't what was exported"}},
		{"an index line cut", func() { e.line(e.path(indexFile), `"eight"`, func(l string) string { return l[:200] + "\n" }) },
			[]string{"changed index index eight"}, nil},
		{"the index cut at its end", func() { e.change(e.path(indexFile), func(b []byte) []byte { return b[:len(b)-9] }) },
			[]string{"changed index index ten"}, nil},
		{"an index line with another subject", func() {
			e.line(e.path(indexFile), `"eight"`, func(l string) string { return strings.Replace(l, `"subject":"eight"`, `"subject":"later"`, 1) })
		}, []string{"changed index index eight"}, nil},
		{"an index line with another hash", func() {
			e.line(e.path(indexFile), `"eight"`, func(l string) string { return flipHash(l, `,"sha256":"`) })
		}, []string{"changed index index eight"}, nil},
		{"an index line twice", func() { e.line(e.path(indexFile), `"eight"`, func(l string) string { return l + l }) },
			[]string{"extra index index eight"}, nil},
		{"the index gone", func() { e.remove(e.path(indexFile)) }, []string{"missing target index"}, []string{"INDEX isn't there"}},
		{"the list of the index's parts gone", func() { e.remove(e.path("export/.mailhaul/index.jsonl/index.json")) }, []string{"missing index index"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.job.t = t
			custody := e.objects(c.custody)
			c.damage()
			defer func() {
				e.remove(e.path("x"))
				e.restore()
			}()
			if diff := cmp.Diff(slices.Clip(append([]string{}, c.verify...)), e.verify("--offline")); diff != "" {
				t.Errorf("%s", diff)
			}
			if c.custody == nil {
				return
			}
			if diff := cmp.Diff(append([]string{}, custody...), e.custody()); diff != "" {
				t.Errorf("custody check: %s", diff)
			}
		})
	}
	e.job.t = t
}
