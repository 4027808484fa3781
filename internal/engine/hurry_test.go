package engine_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// silence is a body whose server says nothing any more, until its Fetch is
// broken off.
type silence struct {
	ctx    context.Context
	begins func() // its silence
}

func (s silence) Read([]byte) (int, error) {
	s.begins()
	<-s.ctx.Done()
	return 0, context.Cause(s.ctx)
}

// TestHurryWaitsForNoServer has a server that falls silent in the middle of a
// message, whatever its size: what came before is committed all the same.
func TestHurryWaitsForNoServer(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]int{"a small body": 0, "a large body": 2 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(40, "INBOX")
			s.lanes = 1
			octets := s.octets
			s.octets = func(m string, uid uint32) []byte {
				if uid == 30 {
					return append(octets(m, uid), strings.Repeat("x", more)...)
				}
				return octets(m, uid)
			}
			stop, hurry := make(chan struct{}), make(chan struct{})
			var once sync.Once
			s.silent = map[uint32]func(context.Context) io.Reader{30: func(ctx context.Context) io.Reader {
				return silence{ctx, func() {
					once.Do(func() {
						close(stop)
						close(hurry)
					})
				}}
			}}
			r := newRig(t, s)
			r.index(0)
			r.opts.Hurry = hurry
			res := r.runUntil(stop)
			r.wantExit(res, engine.ExitStopped)
			if res.Err != nil || res.Accounts[0].Err != nil {
				t.Errorf("it was asked for, and yet it is an error: %v, %v", res.Err, res.Accounts[0].Err)
			}
			sum := total(res)
			if sum.Written != 29 || sum.Pending == 0 || sum.DeadLetters != 0 || len(r.stores["files"].contents()) != 29 {
				t.Errorf("of 29 before the silence: %+v", sum)
			}
			s.silent, r.opts.Hurry = nil, nil
			res = r.run()
			r.wantExit(res, engine.ExitDone)
			if sum := total(res); sum.DoneBefore != 29 || sum.Written != 11 {
				t.Errorf("the next run: %+v", sum)
			}
			r.wantAll("files", nil)
		})
	}
}

// TestHurryLeavesASuspect has the server fall silent over a message that is
// tried alone, since the plugin's process died with it in hand.
func TestHurryLeavesASuspect(t *testing.T) {
	t.Parallel()
	s := newServer(40, "INBOX")
	s.lanes, s.dieAfter = 1, 29
	hurry := make(chan struct{})
	var once sync.Once
	s.silent = map[uint32]func(context.Context) io.Reader{30: func(ctx context.Context) io.Reader {
		return silence{ctx, func() { once.Do(func() { close(hurry) }) }}
	}}
	r := newRig(t, s)
	r.opts.Hurry = hurry
	res := r.run()
	r.wantExit(res, engine.ExitStopped)
	if res.Err != nil || res.Accounts[0].Err != nil {
		t.Errorf("it was asked for, and yet it is an error: %v, %v", res.Err, res.Accounts[0].Err)
	}
	if sum := total(res); sum.Pending == 0 || sum.DeadLetters != 0 {
		t.Errorf("with a suspect that nobody gave: %+v", sum)
	}
	s.silent, r.opts.Hurry = nil, nil
	res = r.run()
	r.wantExit(res, engine.ExitDone)
	if sum := total(res); sum.DoneBefore+sum.Written != 40 || sum.DeadLetters != 0 {
		t.Errorf("the next run: %+v", sum)
	}
	r.wantAll("files", nil)
}

// TestHurryCallsNothingComplete has a run end before the server has said which
// mailboxes there are: of no mailboxes none is incomplete.
func TestHurryCallsNothingComplete(t *testing.T) {
	t.Parallel()
	s := newServer(3, "INBOX")
	r := newRig(t, s)
	hurry, stopping := make(chan struct{}), make(chan struct{})
	r.opts.Hurry = hurry
	r.opts.Events = func(e engine.Event) {
		if e.Kind == engine.Stopping {
			close(stopping)
		}
	}
	s.opening = func(int64) error {
		close(hurry)
		<-stopping
		return fault.New(fault.Unavailable, "the server said nothing until nobody waited any more")
	}
	res := r.run()
	r.wantExit(res, engine.ExitStopped)
	accounts, _ := r.standing()
	if a := accounts["src"]; a.State != ledger.Incomplete || a.Ended.IsZero() {
		t.Errorf("account %+v", a)
	}
}
