package engine_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/source"
)

// events collects what a run tells.
type events struct {
	mu   sync.Mutex
	list []engine.Event
}

func (e *events) note(ev engine.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

func (e *events) of(kind engine.EventKind) (out []engine.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.list {
		if ev.Kind == kind {
			out = append(out, ev)
		}
	}
	return out
}

// A parked account frees its slot, even the only one, and is taken up again
// when its wait ends while another is at work.
func TestAParkedAccountComesBackWhileOthersWork(t *testing.T) {
	t.Parallel()
	slow := newServer(50, "INBOX")
	slow.opening = func(n int64) error {
		if n == 1 {
			return fault.New(fault.Throttled, "slow down").After(300 * time.Millisecond)
		}
		return nil
	}
	other := newServer(50, "INBOX")
	other.opening = func(int64) error {
		for slow.opened.Load() == 0 { // with one slot, that this is reached says that it was freed
			return fault.New(fault.Bug, "the other account was opened first")
		}
		time.Sleep(time.Second)
		return nil
	}
	r := newRig(t, slow)
	r.servers = map[string]*server{"a": slow, "b": other}
	r.tune = func(p *plan.Plan) { p.Concurrency, p.ParkAfter = 1, 100*time.Millisecond }
	var seen events
	r.opts.Events = seen.note
	res := r.run()
	r.wantExit(res, engine.ExitDone)
	r.wantAll("files", nil)
	if got := seen.of(engine.AccountParked); len(got) != 1 || got[0].Source != "a" || got[0].Wait < 300*time.Millisecond || got[0].Wait > time.Second {
		t.Errorf("parked: %+v", got)
	}
	if slow.opened.Load() != 2 {
		t.Errorf("the parked account was opened %d times, want 2", slow.opened.Load())
	}
}

// With nobody else at work the run ends, says when to go on, and the ledger
// keeps it.
func TestAnAccountThatStaysParked(t *testing.T) {
	t.Parallel()
	s := newServer(100, "INBOX")
	s.openErr = fault.New(fault.Throttled, "NO [OVERQUOTA]").After(time.Hour)
	r := newRig(t, newServer(100, "INBOX"))
	r.servers["busy"] = s
	before := time.Now()
	res := r.run()
	r.wantExit(res, engine.ExitParked)
	a := res.Accounts[0]
	if a.Source != "busy" || a.Until.Before(before.Add(time.Hour)) || a.Until.After(time.Now().Add(time.Hour)) || !fault.Is(a.Err, fault.Throttled) {
		t.Errorf("the result says %+v", a)
	}
	accounts, _ := r.standing()
	if got := accounts["busy"]; got.State != ledger.Parked || !got.Until.Equal(a.Until.Truncate(time.Millisecond)) || got.Err != "NO [OVERQUOTA]" {
		t.Errorf("the ledger says %+v", got)
	}
	s.openErr = nil
	r.wantExit(r.run(), engine.ExitDone)
	accounts, _ = r.standing()
	if got := accounts["busy"]; got.State != ledger.Complete || !got.Until.IsZero() {
		t.Errorf("the ledger says %+v", got)
	}
}

// A short throttle is waited out.
func TestAShortThrottleIsBackoff(t *testing.T) {
	t.Parallel()
	s := newServer(100, "INBOX")
	s.opening = func(n int64) error {
		if n == 1 {
			return fault.New(fault.Throttled, "slow down").After(10 * time.Millisecond)
		}
		return nil
	}
	r := newRig(t, s)
	var seen events
	r.opts.Events = seen.note
	r.wantExit(r.run(), engine.ExitDone)
	r.wantAll("files", nil)
	if len(seen.of(engine.AccountParked)) != 0 || len(seen.of(engine.AccountRetried)) != 1 {
		t.Errorf("events: %+v", seen.list)
	}
}

// A budget holds over runs, by a period that slides; what it allows is
// fetched, and no more.
func TestABudgetHoldsOverRuns(t *testing.T) {
	t.Parallel()
	s := newServer(3000, "INBOX")
	s.lanes = 1
	var all int64
	for uid := range uint32(3000) {
		all += int64(len(s.octets("INBOX", uid+1)))
	}
	// A batch that was pulled is finished: the budget may be passed by two.
	s.budget = source.Budget{Bytes: all / 2, Per: 4 * time.Second}
	r := newRig(t, s)
	r.tune = func(p *plan.Plan) { p.ParkAfter = 100 * time.Millisecond }
	res := r.run()
	r.wantExit(res, engine.ExitParked)
	first := s.fetched.Load()
	if first < 1400 || first > 1500+3*512 || first == 3000 {
		t.Errorf("%d of 3000 were fetched, want about half", first)
	}
	wait := time.Until(res.Accounts[0].Until)
	if wait <= 0 || wait > 6*time.Second {
		t.Errorf("go on in %s", wait)
	}
	r.wantExit(r.run(), engine.ExitParked)
	if again := s.fetched.Load() - first; again != 0 {
		t.Errorf("%d were fetched over the budget", again)
	}
	time.Sleep(time.Until(res.Accounts[0].Until))
	for range 4 { // what the batches passed it by the first time, it is short of the second
		if res = r.run(); res.Exit() == engine.ExitDone {
			break
		}
		time.Sleep(time.Until(res.Accounts[0].Until))
	}
	r.wantExit(res, engine.ExitDone)
	r.wantAll("files", nil)
	if n := s.fetched.Load(); n != 3000 {
		t.Errorf("%d bodies were fetched for 3000 messages", n)
	}
}

// All accounts together open no more lanes to one host than the plan allows;
// those of other hosts don't wait for them.
func TestLanesToOneHost(t *testing.T) {
	t.Parallel()
	r := newRig(t, newServer(1, "INBOX"))
	r.servers = map[string]*server{}
	var one, other gauge
	for i := range 8 {
		s := newServer(600, "INBOX", "Sent")
		s.lanes, s.calls = 4, &one
		if i >= 6 {
			s.calls = &other
		}
		r.servers[fmt.Sprint("s", i)] = s
	}
	r.stores["files"].slow = func() { time.Sleep(50 * time.Microsecond) }
	r.tune = func(p *plan.Plan) {
		p.Concurrency, p.PerHost = 8, 5
		for i := range p.Sources {
			p.Sources[i].Host = "one.example.com"
			if slices.Contains([]string{"s6", "s7"}, p.Sources[i].Name) {
				p.Sources[i].Host = "other.example.com"
			}
		}
	}
	r.wantExit(r.run(), engine.ExitDone)
	r.wantAll("files", nil)
	if peak := one.peak.Load(); peak > 5 || peak < 3 {
		t.Errorf("%d calls at once to one host, at most 5 are allowed and nearly as many wanted", peak)
	}
	if peak := other.peak.Load(); peak > 5 || peak < 2 {
		t.Errorf("%d calls at once to the other host", peak)
	}
}
