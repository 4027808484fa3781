package metrics

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
)

var update = flag.Bool("update", false, "rewrite testdata")

// clock is a time that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// midway returns the metrics of a run in its middle.
func midway(t *testing.T, accounts ...string) (*Metrics, *engine.Stats, *clock) {
	t.Helper()
	m, stats, c := New(), &engine.Stats{}, &clock{at: time.Date(2026, 11, 21, 1, 0, 0, 0, time.UTC)}
	m.now = c.now
	m.Begin(Run{
		Pipeline: "acme", Shard: "0/3", Version: "v1", Began: c.at, Accounts: accounts, Stats: stats,
		Restarts: func(each func(kind, plugin string, n int64)) {
			each("source", "imap", 1)
			each("sink", "eml", 0)
		},
	})
	return m, stats, c
}

// TestNames holds everything that is told against a golden file: a name that
// changes breaks somebody's dashboard.
func TestNames(t *testing.T) {
	t.Parallel()
	m, stats, c := midway(t, "ann", "bob", "cyd", "dan", "eve")
	ann := stats.Account("ann")
	ann.Expected.Store(10)
	ann.Listed.Store(9)
	ann.Todo.Store(8)
	ann.Fetched.Store(7)
	ann.Octets.Store(7000)
	ann.Settled.Store(6)
	ann.Became[ledger.Written].Store(5)
	ann.Became[ledger.Dead].Store(1)
	c.pass(90 * time.Second)
	for _, e := range []engine.Event{
		{Kind: engine.AccountOpened, Source: "ann"},
		{Kind: engine.AccountOpened, Source: "bob"},
		{Kind: engine.AccountRetried, Source: "bob", Err: fault.New(fault.Unavailable, "x")},
		{Kind: engine.AccountParked, Source: "cyd", Err: fault.New(fault.Throttled, "x")},
		{Kind: engine.AccountFailed, Source: "dan", Err: fault.New(fault.Auth, "x")},
		{Kind: engine.SinkFailed, Sink: "archive", Err: errors.New("x")},
		{Kind: engine.DeadLetter, Source: "ann", Reason: "incomplete_body"},
		{Kind: engine.Committed, Count: 6, Took: 1200 * time.Millisecond},
	} {
		m.Event(e)
	}
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var ours []string
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "mailhaul_") {
			ours = append(ours, f.GetName())
		}
	}
	got, err := testutil.CollectAndFormat(m.registry, expfmt.TypeTextPlain, ours...)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/metrics.txt", got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("names or values changed; run this test with -update if they should:\n%s", diff)
	}
	problems, err := testutil.GatherAndLint(m.registry, ours...)
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	// The reference has each, and no other.
	page, err := os.ReadFile("../../docs/reference/watching.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, name := range regexp.MustCompile("`(mailhaul_[a-z_]+)").FindAllStringSubmatch(string(page), -1) {
		told[name[1]] = true
	}
	for _, name := range ours {
		if !told[name] {
			t.Errorf("docs/reference/watching.md doesn't tell of %s", name)
		}
		delete(told, name)
	}
	for name := range told {
		t.Errorf("docs/reference/watching.md tells of %s, which isn't there", name)
	}
}

// TestSeriesAreBounded has more accounts and reasons than may have series of
// their own.
func TestSeriesAreBounded(t *testing.T) {
	t.Parallel()
	series := func(accounts int) int {
		var names []string
		for i := range accounts {
			names = append(names, fmt.Sprintf("user%d", i))
		}
		m, stats, _ := midway(t, names...)
		for _, name := range names {
			stats.Account(name).Settled.Add(1)
			m.Event(engine.Event{Kind: engine.AccountOpened, Source: name})
			m.Event(engine.Event{Kind: engine.DeadLetter, Source: name, Reason: "reason of " + name})
		}
		if other := testutil.ToFloat64(m.letters.WithLabelValues("other")); int(other) != max(0, accounts-mostReasons) {
			t.Errorf("%d accounts: %v letters for other reasons", accounts, other)
		}
		n := 0
		families, err := m.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if strings.HasPrefix(f.GetName(), "mailhaul_") {
				n += len(f.GetMetric())
			}
		}
		return n
	}
	few, most, many, more := series(1), series(MostAccounts), series(MostAccounts+1), series(3000)
	if most <= few || many >= most || more != many {
		t.Errorf("series: %d with one account, %d with %d, %d with one more, %d with 3,000", few, most, MostAccounts, many, more)
	}
}

func TestUnwell(t *testing.T) {
	t.Parallel()
	opened := engine.Event{Kind: engine.AccountOpened, Source: "ann"}
	for _, c := range []struct {
		name   string
		happen func(m *Metrics, s *engine.Stats, c *clock)
		unwell bool
	}{
		{"at work, and something moved", func(m *Metrics, s *engine.Stats, c *clock) {
			m.Event(opened)
			c.pass(Stall - time.Second)
		}, false},
		{"at work, and nothing moved", func(m *Metrics, s *engine.Stats, c *clock) {
			m.Event(opened)
			c.pass(Stall)
		}, true},
		{"an event came", func(m *Metrics, s *engine.Stats, c *clock) {
			m.Event(opened)
			c.pass(Stall)
			m.Event(engine.Event{Kind: engine.MailboxListed, Source: "ann"})
		}, false},
		{"octets of a large message came", func(m *Metrics, s *engine.Stats, c *clock) {
			m.Event(opened)
			c.pass(Stall)
			s.Account("ann").Passed.Add(1)
		}, false},
		{"nobody is at work yet", func(m *Metrics, s *engine.Stats, c *clock) {
			c.pass(time.Hour)
		}, false},
		{"all wait for their servers", func(m *Metrics, s *engine.Stats, c *clock) {
			m.Event(opened)
			m.Event(engine.Event{Kind: engine.AccountParked, Source: "ann", Err: fault.New(fault.Throttled, "x")})
			c.pass(time.Hour)
		}, false},
		{"a wrong password", func(m *Metrics, s *engine.Stats, c *clock) {
			m.Event(engine.Event{Kind: engine.AccountFailed, Source: "ann", Err: fault.New(fault.Auth, "x")})
			c.pass(time.Hour)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, stats, clock := midway(t, "ann")
			c.happen(m, stats, clock)
			if err := m.Unwell(); (err != nil) != c.unwell {
				t.Errorf("unwell: %v", err)
			}
		})
	}
	if err := New().Unwell(); err != nil {
		t.Errorf("before the run: %v", err)
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	m, _, clock := midway(t, "ann")
	s, err := Serve(t.Context(), "127.0.0.1:0", m)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	get := func(path string) (int, string) {
		t.Helper()
		r, err := http.Get("http://" + s.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b)
	}
	if code, text := get("/metrics"); code != 200 || !strings.Contains(text, `mailhaul_run_info{pipeline="acme",shard="0/3",version="v1"} 1`) || !strings.Contains(text, "go_goroutines") {
		t.Errorf("%d %s", code, text)
	}
	if code, text := get("/healthz"); code != 200 || text != "ok\n" {
		t.Errorf("%d %s", code, text)
	}
	m.Event(engine.Event{Kind: engine.AccountOpened, Source: "ann"})
	clock.pass(Stall)
	if code, text := get("/healthz"); code != 503 || text != "nothing has moved for 15m0s, with accounts at work: 1\n" {
		t.Errorf("%d %s", code, text)
	}
	if code, _ := get("/"); code != 404 {
		t.Errorf("/: %d", code)
	}
	for address, hint := range map[string]string{
		s.Addr().String(): "something listens there",
		"127.0.0.1":       "expected an address of this machine",
		"192.0.2.1:9090":  "expected an address of this machine",
	} {
		other, err := Serve(t.Context(), address, m)
		if err == nil {
			other.Close()
		}
		if f := fault.As(err); f == nil || f.Class != fault.Config || !strings.Contains(f.Hint, hint) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := http.Get("http://" + s.Addr().String() + "/healthz"); err == nil {
		t.Error("it answers after Close")
	}
}

// TestAskedByMany asks while events come.
func TestAskedByMany(t *testing.T) {
	t.Parallel()
	m, stats, _ := midway(t, "ann")
	m.now = time.Now
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				m.Event(engine.Event{Kind: engine.DeadLetter, Source: "ann", Reason: "x"})
				stats.Account("ann").Settled.Add(1)
			}
		})
		wg.Go(func() {
			for range 10 {
				if _, err := m.registry.Gather(); err != nil {
					t.Error(err)
				}
				if err := m.Unwell(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := testutil.ToFloat64(m.letters.WithLabelValues("x")); n != 200 {
		t.Errorf("%v letters", n)
	}
}
