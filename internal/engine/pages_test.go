package engine_test

import (
	"testing"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// TestAnIndexListsEachMessageOnce: what a run commits while it lists is no
// reason to ask for ids first, and then for the rest.
func TestAnIndexListsEachMessageOnce(t *testing.T) {
	t.Parallel()
	const n = 10_000 // more than an epoch
	s := newServer(n, "INBOX")
	r := newRig(t, s)
	r.sinks = nil
	r.index(message.NeedHeaders | message.NeedSize)
	r.wantExit(r.run(), engine.ExitDone)
	r.wantRecords(n)
	if listed, headers, lists := s.listed.Load(), s.headers.Load(), s.lists.Load(); listed != n || headers != n || lists > 5 {
		t.Errorf("%d summaries and %d headers in %d listings of %d messages", listed, headers, lists, n)
	}

	// In the next run most is known: of the old ones it wants ids alone.
	s.count["INBOX"]++
	r.wantExit(r.run(), engine.ExitDone)
	r.wantRecords(n + 1)
	if headers := s.headers.Load(); headers != n+1 {
		t.Errorf("%d headers were asked for to learn of %d", headers, n+1)
	}
}

// TestWhatAServerLacksIsAskedForOnce: what the index wants and the server has
// of no message, as flags of Gmail's elsewhere, is no reason to list again.
func TestWhatAServerLacksIsAskedForOnce(t *testing.T) {
	t.Parallel()
	const n = 5000
	s := newServer(n, "INBOX")
	s.lacks = message.NeedFlags
	r := newRig(t, s)
	r.sinks = nil
	r.index(message.NeedHeaders | message.NeedFlags)
	r.wantExit(r.run(), engine.ExitDone)
	r.wantRecords(n)
	if listed, lists := s.listed.Load(), s.lists.Load(); listed != n || lists > 3 {
		t.Errorf("%d summaries in %d listings of %d messages", listed, lists, n)
	}
}

// TestAPageAheadBreaksOff: the page that is on its way while another is dealt
// with fails. Nothing is lost by it, and nothing is written twice (I1, I2).
func TestAPageAheadBreaksOff(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"the server is away":   fault.New(fault.Unavailable, "connection reset"),
		"the process died":     errDied,
		"the mailbox can't be": fault.New(fault.Message, "the server can't"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 5000
			s := newServer(n, "INBOX")
			s.onList = func(at int64) error {
				if at == 3 {
					return err
				}
				return nil
			}
			r := newRig(t, s)
			r.sinks = nil
			r.index(message.NeedHeaders)
			if res := r.run(); fault.Is(err, fault.Message) {
				r.wantExit(res, engine.ExitIncomplete)
				res = r.run()
				r.wantExit(res, engine.ExitDone)
			} else {
				r.wantExit(res, engine.ExitDone)
			}
			r.wantRecords(n)
		})
	}
}

// TestAStopWithAPageAhead: a run that is told to stop waits for no page.
func TestAStopWithAPageAhead(t *testing.T) {
	t.Parallel()
	const n = 5000
	s := newServer(n, "INBOX")
	r := newRig(t, s)
	r.sinks = nil
	r.index(message.NeedHeaders)
	stop := make(chan struct{})
	s.onList = func(at int64) error {
		if at == 3 {
			close(stop)
		}
		return nil
	}
	r.runUntil(stop)
	s.onList = nil
	r.wantExit(r.run(), engine.ExitDone)
	r.wantRecords(n)
}

// wantRecords checks that the index has a record of each of n messages, one.
func (r *rig) wantRecords(n int) {
	r.t.Helper()
	index := r.stores["index"]
	if got := len(index.contents()); got != n || index.doubled != 0 {
		r.t.Errorf("%d records of %d messages, %d of them doubled", got, n, index.doubled)
	}
}
