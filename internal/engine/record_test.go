package engine_test

import (
	"testing"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/pkg/message"
)

// TestABodyThatIsOnlyMeasuredBreaksOff adds an index to what is exported: the
// bodies pass again, for their structure alone. One that breaks off has no
// record until it came whole, and then has one.
func TestABodyThatIsOnlyMeasuredBreaksOff(t *testing.T) {
	t.Parallel()
	s := newServer(100, "INBOX")
	r := newRig(t, s)
	r.wantExit(r.run(), engine.ExitDone)
	ix := r.index(message.NeedHeaders | message.NeedStructure)
	s.cut[7], s.cut[70] = 1, 2
	r.wantExit(r.run(), engine.ExitDone)
	if n := len(ix.contents()); n != 100 || ix.writes != 100 {
		t.Errorf("%d records were written, %d are there, want each of 100 once", ix.writes, n)
	}
}
