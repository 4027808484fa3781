package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/source"
)

// budget counts what an account fetched in the period that its provider looks
// at, over runs as well.
type budget struct {
	mu      sync.Mutex
	granted source.Budget       // zero: no bound
	spent   []ledger.Spent      // in the ledger, oldest first
	since   map[time.Time]int64 // by slot: not yet in the ledger
	now     func() time.Time
}

// slotsOfPeriod is how finely the sliding period is cut: what was spent in a
// slot counts until the whole slot is out of the period.
const slotsOfPeriod = 96

func (b *budget) slot() time.Duration { return max(b.granted.Per/slotsOfPeriod, time.Second) }

// openBudget reads what was spent so far.
func (a *account) openBudget(ctx context.Context, granted source.Budget) error {
	if granted.Bytes <= 0 {
		return nil
	}
	if granted.Per <= 0 {
		granted.Per = 24 * time.Hour
	}
	b := &a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.granted = granted
	if b.since != nil {
		return nil // an earlier pass of this run read it
	}
	b.since = map[time.Time]int64{}
	var err error
	b.spent, err = a.e.ledger.Spent(ctx, a.plan.Name, b.now().Add(-granted.Per-b.slot()))
	return err
}

// spend notes octets that came.
func (b *budget) spend(octets int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.granted.Bytes <= 0 || octets <= 0 {
		return
	}
	b.since[b.now().Truncate(b.slot())] += octets
}

// take returns what the ledger is to add, and counts it as stored.
func (b *budget) take() (add []ledger.Spent, before time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for at, n := range b.since {
		add = append(add, ledger.Spent{At: at, Octets: n})
		delete(b.since, at)
	}
	b.spent = append(b.spent, add...)
	return add, b.now().Add(-b.granted.Per - b.slot())
}

// learnSpent reads anew what was spent of budgets that others spend too.
func (e *Engine) learnSpent(ctx context.Context, spent []ledger.Spending) error {
	if !e.opts.Spends {
		return nil
	}
	for _, s := range spent {
		all, err := e.ledger.Spent(ctx, s.Source, s.Before)
		if err != nil {
			return err
		}
		for _, a := range e.accounts {
			if a.plan.Name == s.Source {
				a.budget.learn(all)
			}
		}
	}
	return nil
}

// learn replaces what is known of the ledger.
func (b *budget) learn(spent []ledger.Spent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = spent
}

// over reports whether the budget is used up.
func (b *budget) over() bool { return b.exhausted() != nil }

// exhausted returns an error that says when to go on once the budget is used
// up, else nil.
func (b *budget) exhausted() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.granted.Bytes <= 0 {
		return nil
	}
	now := b.now()
	used, at := b.used(now)
	if used < b.granted.Bytes {
		return nil
	}
	return fault.New(fault.Throttled, "the budget of %s in %s is used up: %s were fetched", gigabytes(b.granted.Bytes), period(b.granted.Per), gigabytes(used)).
		WithHint("run again when it says; a budget that is too careful can be raised in the source's config").
		After(b.freeAgain(at, used).Sub(now))
}

// batch returns how many of n messages to ask for at once: what is asked for
// comes, and several lanes ask ahead, so that each takes a small part of what
// is left.
func (b *budget) batch(n int, mean int64) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.granted.Bytes <= 0 {
		return n
	}
	if mean == 0 {
		return 1
	}
	used, _ := b.used(b.now())
	return int(max(1, min(int64(n), (b.granted.Bytes-used)/8/mean)))
}

// used returns what was spent within the period, in all and by slot. b.mu is
// held.
func (b *budget) used(now time.Time) (all int64, at map[time.Time]int64) {
	at = map[time.Time]int64{}
	count := func(slot time.Time, octets int64) {
		if now.Before(slot.Add(b.slot() + b.granted.Per)) {
			at[slot] += octets
			all += octets
		}
	}
	for _, s := range b.spent {
		count(s.At, s.Octets)
	}
	for slot, n := range b.since {
		count(slot, n)
	}
	return all, at
}

// freeAgain returns when a tenth of the budget is free: going on for the few
// octets of the first slot would only log in again and again.
func (b *budget) freeAgain(at map[time.Time]int64, used int64) time.Time {
	var last time.Time
	for used > b.granted.Bytes-b.granted.Bytes/10 {
		var oldest time.Time
		for slot := range at {
			if oldest.IsZero() || slot.Before(oldest) {
				oldest = slot
			}
		}
		if oldest.IsZero() {
			break
		}
		used -= at[oldest]
		delete(at, oldest)
		last = oldest.Add(b.slot() + b.granted.Per)
	}
	return last
}

func gigabytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%d octets", n)
}

func period(d time.Duration) string {
	switch d {
	case 24 * time.Hour:
		return "a day"
	case time.Hour:
		return "an hour"
	}
	return d.String()
}
