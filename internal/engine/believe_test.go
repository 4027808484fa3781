package engine

import (
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
)

// A listing that comes back to where it was is noticed, wherever its circle
// begins and however long it is; one that goes on isn't.
func TestListingsThatGoInCircles(t *testing.T) {
	t.Parallel()
	const page = 100
	for _, tt := range []struct {
		name         string
		before, each uint32 // messages before the circle, and in it; 0: there is none
	}{
		{"no circle", 0, 0}, {"one message", 0, 1}, {"one message behind others", 250, 1}, {"a page", 0, page},
		{"a page behind others", 1000, page}, {"less than a page", 7, 13}, {"many pages", 1234, 5678},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var c circle
			const most = 100_000
			for n := uint32(0); n < most; {
				var p []listed
				for range page {
					uid := n
					if tt.each > 0 && n >= tt.before {
						uid = tt.before + (n-tt.before)%tt.each
					}
					p = append(p, listed{sum: message.Summary{ID: message.ID{UID: uid + 1}}})
					n++
				}
				if c.closed(p) == nil {
					continue
				}
				if tt.each == 0 {
					t.Fatalf("a circle is seen after %d messages, and there is none", n)
				}
				if late := 4*(tt.before+tt.each) + page; n > late {
					t.Errorf("the circle is seen after %d messages only", n)
				}
				return
			}
			if tt.each > 0 {
				t.Error("the circle isn't seen")
			}
		})
	}
}
