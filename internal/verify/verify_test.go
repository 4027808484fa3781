package verify

import (
	"cmp"
	"os"
	"path/filepath"
	"testing"
)

// TestSample reads a share of the files, and looks for all of them.
func TestSample(t *testing.T) {
	t.Parallel()
	const n = 1000
	o := exported(t, n, 200)
	for _, share := range []float64{0.1, 0.5, 1} {
		o.Sample = share
		r, err := Run(t.Context(), o)
		if err != nil || len(r.Findings) > 0 {
			t.Fatalf("%v, %+v", err, r)
		}
		if s := r.Sinks[0]; s.Files != n || float64(s.Hashed) < share*n*0.6 || float64(s.Hashed) > share*n*1.4 {
			t.Errorf("of %v: %d files, %d of them read", share, s.Files, s.Hashed)
		}
	}
	// A file that is gone or cut short is found whatever the sample.
	files, err := filepath.Glob(filepath.Join(o.Plan.Sinks[0].Prepared.Target, "alice", "INBOX", "*.eml"))
	if err != nil || len(files) != n {
		t.Fatal(len(files), err)
	}
	if err := os.Remove(files[10]); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(files[20], 50); err != nil {
		t.Fatal(err)
	}
	o.Sample = 0.01
	r, err := Run(t.Context(), o)
	if err != nil || len(r.Findings) != 2 || r.Findings[0].Kind != Changed || r.Findings[1].Kind != Missing {
		t.Errorf("%v, %+v", err, r.Findings)
	}
}

func TestNatural(t *testing.T) {
	t.Parallel()
	inOrder := []string{
		"", "a", "a/9.eml", "a/10.eml", "a/10.eml2", "b", "imap://x/INBOX;UIDVALIDITY=1/;UID=9", "imap://x/INBOX;UIDVALIDITY=1/;UID=0010",
		"imap://x/INBOX;UIDVALIDITY=1/;UID=10", "imap://x/INBOX;UIDVALIDITY=10/;UID=1", "imap://x/INBOX;UIDVALIDITY=18446744073709551616/;UID=1", "z",
	}
	for i, a := range inOrder {
		for j, b := range inOrder {
			if got, want := natural(a, b), cmp.Compare(i, j); got != want {
				t.Errorf("natural(%q, %q) = %d, want %d", a, b, got, want)
			}
		}
	}
}
