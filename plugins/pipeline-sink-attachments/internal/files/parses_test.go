package files

import (
	"testing"

	"github.com/mailhaul/pipeline/test/cost"
)

// TestMIMEIsReadOnce: for the names and the octets of all attachments together.
func TestMIMEIsReadOnce(t *testing.T) {
	s := open(t, t.TempDir(), "", nil)
	defer s.Close()
	mail := mixed(part("application/pdf", "a.pdf", "one"), part("image/png", "", "two"), part("message/rfc822", "", mixed(part("text/csv", "b.csv", "three"))))
	got := cost.Parses(func() {
		for uid := range uint32(3) {
			if _, err := s.Write(t.Context(), mailOf(uid+1, mail)); err != nil {
				t.Fatal(err)
			}
		}
	})
	if got != 3 {
		t.Errorf("the MIME of 3 mails was read %d times, want once each", got)
	}
}
