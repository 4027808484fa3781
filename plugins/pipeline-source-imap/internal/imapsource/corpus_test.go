package imapsource

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/dovecot"
)

// TestCorpus fetches real mail, spread over nested mailboxes, and compares
// each body with what an independent client reads.
func TestCorpus(t *testing.T) {
	t.Parallel()
	corpus := os.Getenv("MAILHAUL_CORPUS")
	if corpus == "" {
		t.Skip("MAILHAUL_CORPUS doesn't name a corpus")
	}
	files, err := filepath.Glob(filepath.Join(corpus, "eml", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no mail in %s/eml: %v", corpus, err)
	}
	boxes := []struct{ name, wire string }{
		{"INBOX", "INBOX"}, {"Projects/2024/Übersicht", "Projects^2024^&ANw-bersicht"}, {"日本語", "&ZeVnLIqe-"}, {"Lists/golang-nuts", "Lists^golang-nuts"},
	}
	d := dovecot.Start(t, dovecot.Options{Separator: "^"})
	for i, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		d.Deliver("alice", boxes[i%len(boxes)].name, raw, sampleDate)
	}
	s := openSource(t, plainConfig(d.IMAP))
	total := 0
	for _, box := range boxes {
		want := d.Octets("alice", box.wire)
		sums := list(t, s, source.ListRequest{Mailbox: box.name, Needs: message.AllSummary &^ message.NeedGmail})
		if len(sums) != len(want) {
			t.Errorf("%s: %d messages are listed, want %d", box.name, len(sums), len(want))
		}
		for _, sum := range sums {
			if sum.Structure == nil || sum.Header == nil || sum.Size != int64(len(want[sum.ID.UID])) {
				t.Errorf("%s: have %s, size %d of %d", sum.ID, sum.Have, sum.Size, len(want[sum.ID.UID]))
			}
		}
		a := fetch(t.Context(), t, s, box.name, message.NeedHeaders, idsOf(sums), 64)
		if a.err != nil || len(a.errs) > 0 {
			t.Errorf("%s: %v %v", box.name, a.err, a.errs)
		}
		for uid, octets := range want {
			if sha256.Sum256(a.octets[uid]) != sha256.Sum256(octets) {
				t.Errorf("%s, UID %d: the octets differ", box.name, uid)
			}
		}
		total += len(want)
	}
	if total != len(files) {
		t.Errorf("%d messages, want %d", total, len(files))
	}
	if names := mailboxNames(t, s); !slices.Contains(names, "Projects/2024/Übersicht") {
		t.Errorf("mailboxes are %q", names)
	}
}
