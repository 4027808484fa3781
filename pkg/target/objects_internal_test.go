package target

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
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
	o := &Objects{at: p, manifest: &Parts{place: p, stem: manifestStem, next: 1}, epoch: &objectsEpoch{changed: true, rows: bytes.Repeat([]byte("x"), partOctets)}}
	for range 2 {
		if cp, err := o.Flush(t.Context()); err == nil {
			t.Fatalf("got the checkpoint %s, and nothing could be uploaded", cp)
		}
	}
	if n := len(o.manifest.buf); n != partOctets {
		t.Errorf("%d octets of rows wait, want the %d that there are", n, partOctets)
	}
}

// Uploads that fail at the same moment, as all do when the server goes away,
// are one failure: who reads it needs the server's answer once.
func TestUploadsThatFailTogetherAreOneFailure(t *testing.T) {
	t.Parallel()
	_, stop := context.WithCancel(t.Context())
	o := &Objects{stop: stop, epoch: &objectsEpoch{}}
	first := fault.New(fault.Unavailable, "write s3://mail/1.eml: the server said nothing for 3s")
	o.uploaded(&upload{epoch: o.epoch, name: "1.eml"}, first)
	o.uploaded(&upload{epoch: o.epoch, name: "2.eml"}, fault.New(fault.Unavailable, "write s3://mail/2.eml: the server said nothing for 3s"))
	if _, err := o.Flush(t.Context()); err == nil || err.Error() != first.Error() {
		t.Errorf("got %q, want %q", err, first)
	}
}
