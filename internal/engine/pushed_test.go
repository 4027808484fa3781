package engine_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/engine"
)

// A server that can search refuses what the filters would, for the same stage
// and with the same sum; a server that can't gives the same output.
func TestConditionsAreAskedOfTheServer(t *testing.T) {
	t.Parallel()
	const filter = `size > 100 && date > date("2001-01-01") && internal_date < now()`
	s := newServer(1000, "INBOX")
	large := func(mailbox string, uid uint32) bool { return len(s.octets(mailbox, uid)) > 100 }
	want := 0
	for _, uid := range s.uids("INBOX") {
		if large("INBOX", uid) {
			want++
		}
	}
	if want == 0 || want == 1000 {
		t.Fatal("the test's sizes are all alike")
	}
	for name, searches := range map[string]bool{"it searches": true, "it doesn't": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(1000, "INBOX")
			s.searches = searches
			r := newRig(t, s)
			r.filter("large", filter)
			// No message has a Date: what a server can't read it must not refuse.
			res := r.run()
			r.wantExit(res, engine.ExitDone)
			sum := total(res)
			if diff := cmp.Diff(map[string]int64{"large": int64(1000 - want)}, sum.Dropped); diff != "" || sum.Written != int64(want) {
				t.Errorf("written %d, dropped %s", sum.Written, diff)
			}
			r.wantAll("files", large)
			if searches {
				if n := s.listed.Load(); n > int64(2*want) {
					t.Errorf("%d summaries were asked for, of %d messages that pass", n, want)
				}
			}

			// The next run, which reads another now(), finds nothing to do and
			// takes nothing up.
			s.count["INBOX"]++ // else the mailbox is passed over
			s.expunged["INBOX"] = map[uint32]bool{1001: true}
			r.opts.Now = func() time.Time { return time.Unix(2e9, 0) }
			res = r.run()
			if again := total(res); again.DoneBefore != 1000 || again.Written != 0 || again.AllDropped() != 0 {
				t.Errorf("again: %+v", again)
			}

			// Another filter gets what the first one refused (I8).
			r.stages = nil
			r.filter("large", `size > 1`)
			r.wantExit(r.run(), engine.ExitDone)
			r.wantAll("files", nil)
		})
	}
}

// A plugin that names a condition which it wasn't asked for is wrong.
func TestAConditionThatWasNotAsked(t *testing.T) {
	t.Parallel()
	s := newServer(10, "INBOX")
	s.misleads = true
	r := newRig(t, s)
	res := r.run()
	r.wantExit(res, engine.ExitIncomplete)
	if len(r.stores["files"].contents()) != 0 {
		t.Error("something was exported")
	}
}
