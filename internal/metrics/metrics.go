// Package metrics tells Prometheus how a run goes, and anybody who asks
// whether it is well.
package metrics

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/pkg/fault"
)

const (
	// MostAccounts is up to how many accounts each has series of its own: who
	// stores metrics keeps every name that was ever told.
	MostAccounts = 50
	// mostReasons bounds the reasons of dead letters in the same way, since
	// plugins make them up. The others count as "other".
	mostReasons = 30
	// Stall is how long nothing may move in a run before it counts as unwell.
	// Every wait of ours with a server or a plugin is shorter.
	Stall = 15 * time.Minute
)

// Run is what a run says of itself.
type Run struct {
	Pipeline string
	Shard    string // as in "0/3"; empty: all accounts
	Version  string // of the command
	Began    time.Time
	Accounts []string // names of the sources
	Stats    *engine.Stats
	// Restarts calls each for every plugin with how many processes of it were
	// started again.
	Restarts func(each func(kind, plugin string, n int64))
}

// Metrics are those of one run. Its methods may be called by many goroutines.
type Metrics struct {
	registry *prometheus.Registry
	now      func() time.Time

	epochs  prometheus.Histogram
	faults  *prometheus.CounterVec
	letters *prometheus.CounterVec

	mu        sync.Mutex
	run       *Run // nil: it hasn't begun
	accounts  map[string]state
	reasons   []string
	committed time.Time     // last
	totals    engine.Totals // when it was last looked at
	moved     time.Time     // the last time that something had
}

// state is where an account is.
type state int

const (
	waiting state = iota // for its turn
	working
	retrying // waits to be tried again
	parked
	done
	failed
	states
)

var stateNames = [states]string{"waiting", "working", "retrying", "parked", "done", "failed"}

// New returns the metrics of a run that is about to begin.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(), now: time.Now, accounts: map[string]state{},
		epochs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "mailhaul_epoch_duration_seconds",
			Help:    "Time from the first message of an epoch until all of it is durable and in the ledger.",
			Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}),
		faults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mailhaul_errors_total", Help: "Errors that accounts and sinks met, by class. Most are retried.",
		}, []string{"class"}),
		letters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mailhaul_dead_letters_total", Help: "Messages that were refused for good in this run, by reason.",
		}, []string{"reason"}),
	}
	for c := fault.Unknown; c <= fault.Crashed; c++ {
		m.faults.WithLabelValues(c.String()) // a series that begins with its first step hides that
	}
	m.registry.MustRegister(m.epochs, m.faults, m.letters, collector{m},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Begin says which run it is. It is called once, before the first Event.
func (m *Metrics) Begin(r Run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.run, m.moved = &r, m.now()
	for _, name := range r.Accounts {
		m.accounts[name] = waiting
	}
}

// Event counts what happens. It fits engine.Options.Events.
func (m *Metrics) Event(e engine.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moved = m.now()
	switch e.Kind {
	case engine.AccountOpened:
		m.accounts[e.Source] = working
	case engine.AccountRetried:
		m.accounts[e.Source] = retrying
		m.fault(e.Err)
	case engine.AccountParked:
		m.accounts[e.Source] = parked
		m.fault(e.Err)
	case engine.AccountFailed:
		m.accounts[e.Source] = failed
		m.fault(e.Err)
	case engine.AccountDone:
		m.accounts[e.Source] = done
	case engine.SinkFailed, engine.SinkDied, engine.StageDied:
		m.fault(e.Err)
	case engine.DeadLetter:
		m.letters.WithLabelValues(m.reason(e.Reason)).Inc()
	case engine.Committed:
		m.committed = m.moved
		m.epochs.Observe(e.Took.Seconds())
	}
}

func (m *Metrics) fault(err error) {
	if err != nil {
		m.faults.WithLabelValues(fault.Of(err).String()).Inc()
	}
}

// reason bounds the reasons that are told. m.mu is held.
func (m *Metrics) reason(r string) string {
	if slices.Contains(m.reasons, r) {
		return r
	}
	if len(m.reasons) >= mostReasons {
		return "other"
	}
	m.reasons = append(m.reasons, r)
	return r
}

// Unwell returns why a run that goes on should be ended and begun again: nil
// while something moves, while accounts only wait for their servers' leave, and
// before and after the work. A server that is down, a wrong password and a dead
// letter are the accounts' trouble, which a new start wouldn't mend.
func (m *Metrics) Unwell() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run == nil {
		return nil
	}
	now := m.now()
	if t := m.run.Stats.Totals(); t != m.totals {
		m.totals, m.moved = t, now
	}
	n := m.count()[working]
	if idle := now.Sub(m.moved); n > 0 && idle >= Stall {
		return fmt.Errorf("nothing has moved for %s, with accounts at work: %d", idle.Round(time.Second), n)
	}
	return nil
}

// count counts the accounts in each state. m.mu is held.
func (m *Metrics) count() (n [states]int) {
	for _, s := range m.accounts {
		n[s]++
	}
	return n
}
