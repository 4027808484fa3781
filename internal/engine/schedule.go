package engine

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// schedule says which accounts are at work: at most as many at once as the
// plan allows, and no more lanes to one host. An account that must wait long
// is parked: it frees its slot, and comes back when its wait ends while others
// are still at work.
type schedule struct {
	e       *Engine
	waiting []*account // in the order of the plan, then as they came back
	parked  []*account
	running int
	done    chan *account
}

// eachAccount runs f for all accounts. An account that f leaves parked is
// taken up again when its wait ends in time.
func (e *Engine) eachAccount(f func(*account)) {
	s := &schedule{e: e, waiting: slices.Clone(e.accounts), done: make(chan *account)}
	for {
		s.start(f)
		if s.running == 0 {
			return // whoever is parked stays so until the next run
		}
		s.wait()
	}
}

// start starts what may be started now.
func (s *schedule) start(f func(*account)) {
	for s.running < max(1, s.e.plan.Concurrency) && !s.e.stopped() && s.e.ctx.Err() == nil {
		// One whose host is busy must not hold up those of other hosts.
		i := slices.IndexFunc(s.waiting, func(a *account) bool { return s.e.hosts.take(a.plan.Host, 1) == 1 })
		if i < 0 {
			return
		}
		a := s.waiting[i]
		s.waiting = slices.Delete(s.waiting, i, i+1)
		s.running++
		s.e.idle(-1)
		go func() {
			defer func() { s.done <- a }()
			defer s.e.idle(1)
			defer s.e.hosts.give(a.plan.Host, 1)
			f(a)
		}()
	}
}

// wait waits until an account ends, or a parked one may go on.
func (s *schedule) wait() {
	var due <-chan time.Time
	slices.SortStableFunc(s.parked, func(a, b *account) int { return cmp.Compare(a.until.UnixNano(), b.until.UnixNano()) })
	if len(s.parked) > 0 {
		timer := time.NewTimer(time.Until(s.parked[0].until))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case a := <-s.done:
		s.running--
		if !a.until.IsZero() {
			s.parked = append(s.parked, a)
		}
	case <-due:
	}
	for len(s.parked) > 0 && !time.Now().Before(s.parked[0].until) {
		s.waiting = append(s.waiting, s.parked[0])
		s.parked = s.parked[1:]
	}
}

// hosts counts the lanes to each host, over all accounts.
type hosts struct {
	most int // to one host; 0: no bound

	mu   sync.Mutex
	used map[string]int
}

// take takes up to n lanes to the host, and returns how many it got. An
// unknown host has no bound.
func (h *hosts) take(host string, n int) int {
	if h.most <= 0 || host == "" {
		return n
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	n = max(0, min(n, h.most-h.used[host]))
	h.used[host] += n
	return n
}

func (h *hosts) give(host string, n int) {
	if h.most <= 0 || host == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.used[host] -= n
}

// park ends the account's work until then: err says why. It stays parked
// unless the run comes back to it.
func (a *account) park(err error, wait time.Duration) {
	a.err, a.until = err, time.Now().Add(wait)
	a.e.note(Event{Kind: AccountParked, Source: a.plan.Name, Err: err, Wait: wait})
}

// resume takes an account up, for the first time or after it was parked.
func (a *account) resume(ctx context.Context) {
	if a.started.IsZero() {
		a.started = time.Now()
	}
	a.err, a.until = nil, time.Time{}
	a.e.noteAccount(a, false)
	a.run(ctx)
	a.e.noteAccount(a, true)
}
