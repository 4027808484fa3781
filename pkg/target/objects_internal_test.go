package target

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/mailhaul/pipeline/pkg/objects"
)

// Rows that couldn't be uploaded must not be added a second time.
func TestAFlushThatFailedStaysFailed(t *testing.T) {
	t.Parallel()
	l, err := objects.Parse("s3://mail/acme")
	if err != nil {
		t.Fatal(err)
	}
	b, err := objects.Dial(filepath.Join(t.TempDir(), "nobody"), l)
	if err != nil {
		t.Fatal(err)
	}
	b.Patience = 0
	p := &Place{bucket: b, name: l.Target, books: Books + "/"}
	o := &Objects{at: p, manifest: &Parts{place: p, stem: manifestStem, next: 1}, changed: true, rows: bytes.Repeat([]byte("x"), partOctets)}
	for range 2 {
		if cp, err := o.Flush(t.Context()); err == nil {
			t.Fatalf("got the checkpoint %s, and nothing could be uploaded", cp)
		}
	}
	if n := len(o.manifest.buf); n != partOctets {
		t.Errorf("%d octets of rows wait, want the %d that there are", n, partOctets)
	}
}
