package engine_test

import (
	"bytes"
	"sync/atomic"
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

// TestASourceThatDiesInALongBody: the sinks that were reading it are alive.
func TestASourceThatDiesInALongBody(t *testing.T) {
	t.Parallel()
	s := newServer(20, "INBOX")
	s.midway[7] = true
	octets := s.octets
	s.octets = func(mailbox string, uid uint32) []byte {
		return append(octets(mailbox, uid), bytes.Repeat([]byte("long\r\n"), 1<<18)...)
	}
	r := newRig(t, s)
	var sinks atomic.Int64
	r.opts.Events = func(e engine.Event) {
		if e.Kind == engine.SinkDied {
			sinks.Add(1)
		}
	}
	r.wantExit(r.run(), engine.ExitLetters)
	r.wantAll("files", func(_ string, uid uint32) bool { return uid != 7 })
	if n := sinks.Load(); n != 0 {
		t.Errorf("the source died, and %d deaths were put down to the sinks", n)
	}
}
