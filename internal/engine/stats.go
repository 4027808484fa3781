package engine

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/mailhaul/pipeline/internal/ledger"
)

// Stats are what others see of a run while it goes on. They belong to one run,
// and any goroutine may ask them.
type Stats struct {
	mu       sync.Mutex
	accounts map[string]*Counters
	followed map[string]*account
}

// Counters are one account's.
type Counters struct {
	Expected atomic.Int64 // that the server counts in the mailboxes to be listed
	Listed   atomic.Int64
	Todo     atomic.Int64 // taken up, of Listed
	Fetched  atomic.Int64
	Octets   atomic.Int64
	Passed   atomic.Int64 // octets of large bodies, also of those on their way
	Settled  atomic.Int64
	Became   [Classes]atomic.Int64 // of Settled, what became of them
}

// Classes is how many classes of ledger.Class there are.
const Classes = ledger.Stale + 1

// Account returns the counters of a source, made when first asked for.
func (s *Stats) Account(source string) *Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.accounts == nil {
		s.accounts = map[string]*Counters{}
	}
	c := s.accounts[source]
	if c == nil {
		c = &Counters{}
		s.accounts[source] = c
	}
	return c
}

// Totals are the counters of all accounts together, as they now stand.
type Totals struct {
	Expected, Listed, Todo, Fetched, Octets, Passed, Settled int64
	Became                                                   [Classes]int64
}

// Totals adds the counters of all accounts up.
func (s *Stats) Totals() (t Totals) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.accounts {
		t.Expected += c.Expected.Load()
		t.Listed += c.Listed.Load()
		t.Todo += c.Todo.Load()
		t.Fetched += c.Fetched.Load()
		t.Octets += c.Octets.Load()
		t.Passed += c.Passed.Load()
		t.Settled += c.Settled.Load()
		for i := range c.Became {
			t.Became[i] += c.Became[i].Load()
		}
	}
	return t
}

// All returns the counters of all sources that have any yet.
func (s *Stats) All() []*Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.accounts))
}

// follow lets others look at the accounts of a run.
func (s *Stats) follow(accounts []*account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.followed = make(map[string]*account, len(accounts))
	for _, a := range accounts {
		s.followed[a.plan.Name] = a
	}
}

// Mailboxes returns the sums of a source's mailboxes as they now stand, in the
// order of the source, and the mailboxes that the file leaves out. Each sum is
// true in itself (I1), though not all are of one moment. It locks what the run
// locks for each message: ask seldom, and never from Options.Events.
func (s *Stats) Mailboxes(source string) (boxes []Sum, excluded []string) {
	s.mu.Lock()
	a := s.followed[source]
	s.mu.Unlock()
	if a == nil {
		return nil, nil
	}
	a.mu.Lock()
	taken, excluded := a.boxes, a.excluded // replaced as a whole, never changed
	a.mu.Unlock()
	boxes = make([]Sum, len(taken))
	for i, b := range taken {
		boxes[i] = b.sum()
	}
	return boxes, excluded
}

func (c *Counters) fetched(octets int64) {
	c.Fetched.Add(1)
	c.Octets.Add(max(octets, 0))
}

func (c *Counters) settled(class ledger.Class) {
	c.Settled.Add(1)
	c.Became[class].Add(1)
}
