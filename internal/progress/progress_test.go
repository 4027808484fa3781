package progress

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// sink is what a display writes to.
type sink struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *sink) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.b.Reset()
	return s.b.String()
}

// clock is a time that the test sets.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// fixture is a display whose ticks are the test's.
func fixture(t *testing.T, kind Kind, accounts int) (*Display, *sink, *clock, *engine.Stats) {
	t.Helper()
	out, c, stats := &sink{}, &clock{time.Date(2026, 11, 21, 15, 0, 0, 0, time.UTC)}, &engine.Stats{}
	d := New(out, Options{Kind: kind, Stats: stats, Accounts: accounts, Log: slog.New(slog.DiscardHandler), Now: c.now, Every: time.Hour})
	return d, out, c, stats
}

func set(c *engine.Counters, expected, listed, todo, settled, octets int64) {
	c.Expected.Store(expected)
	c.Listed.Store(listed)
	c.Todo.Store(todo)
	c.Settled.Store(settled)
	c.Octets.Store(octets)
}

func TestLines(t *testing.T) {
	t.Parallel()
	d, out, c, stats := fixture(t, Lines, 2)
	d.Event(engine.Event{Kind: engine.AccountOpened, Source: "bob"})
	d.Event(engine.Event{Kind: engine.AccountOpened, Source: "ann"})
	d.tick()
	c.at = c.at.Add(10 * time.Second)
	set(stats.Account("ann"), 1000, 600, 500, 100, 5_000_000)
	set(stats.Account("bob"), 3, 3, 3, 3, 1200)
	d.tick()
	want := `ann: 0 of 0 messages, 0 B
bob: 0 of 0 messages, 0 B
ann: 100 of 500 messages (600 of 1000 listed), 5.0 MB, 500.0 kB/s, 40s to 80s
bob: 3 of 3 messages, 1.2 kB, 120 B/s
`
	if diff := cmp.Diff(want, out.take()); diff != "" {
		t.Error(diff)
	}
	d.Event(engine.Event{Kind: engine.AccountRetried, Source: "ann", Wait: 1500 * time.Millisecond, Err: errors.New("reset")})
	d.Event(engine.Event{Kind: engine.AccountDone, Source: "bob"})
	d.Event(engine.Event{Kind: engine.AccountNote, Source: "ann", Text: "the server caps it"})
	d.Event(engine.Event{Kind: engine.DeadLetter, Source: "ann", Message: "ann:/INBOX/1", Text: "too big"})
	d.tick()
	d.Close()
	want = `again in 1.5s: ann: reset
note: ann: the server caps it
dead letter: ann:/INBOX/1: too big
ann: 100 of 500 messages (600 of 1000 listed), 5.0 MB, 500.0 kB/s, 40s to 80s
`
	if diff := cmp.Diff(want, out.take()); diff != "" {
		t.Error(diff)
	}
}

// With thousands of accounts one line says where they are, and a retry isn't
// one.
func TestManyAccounts(t *testing.T) {
	t.Parallel()
	d, out, c, stats := fixture(t, Lines, 3000)
	for _, name := range []string{"a", "b", "c"} {
		d.Event(engine.Event{Kind: engine.AccountOpened, Source: name})
	}
	d.Event(engine.Event{Kind: engine.AccountRetried, Source: "x", Wait: time.Second, Err: errors.New("refused")})
	d.Event(engine.Event{Kind: engine.AccountFailed, Source: "y"})
	d.Event(engine.Event{Kind: engine.AccountDone, Source: "c"})
	d.tick()
	c.at = c.at.Add(20 * time.Second)
	set(stats.Account("a"), 10, 10, 10, 8, 4000)
	set(stats.Account("c"), 20, 20, 20, 20, 8000)
	d.tick()
	d.Close()
	want := `2 of 3000 accounts ended, 2 at work, 1 wait to be tried again; 0 of 0 messages, 0 B
2 of 3000 accounts ended, 2 at work, 1 wait to be tried again; 28 of 30 messages, 12.0 kB, 600 B/s, about 1s
`
	if diff := cmp.Diff(want, out.take()); diff != "" {
		t.Error(diff)
	}
}

func TestQuiet(t *testing.T) {
	t.Parallel()
	d, out, _, _ := fixture(t, Quiet, 1)
	for _, kind := range []engine.EventKind{engine.AccountOpened, engine.AccountRetried, engine.AccountNote, engine.AccountParked, engine.Committed} {
		d.Event(engine.Event{Kind: kind, Source: "a", Err: errors.New("x")})
	}
	d.tick()
	d.Event(engine.Event{Kind: engine.SourceDied, Source: "a", Count: 2})
	d.Close()
	if got := out.take(); got != "warning: the process of source a died with 2 messages in hand; they are tried one by one at the end\n" {
		t.Errorf("got %q", got)
	}
}

// TestETA: what isn't listed may be done already, so an estimate is a range; a
// rate is that of the last half minute.
func TestETA(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		took time.Duration
		from count
		to   count
		want string
	}{
		{"all is listed", 10 * time.Second, count{}, count{expected: 100, listed: 100, todo: 100, settled: 10}, "about 90s"},
		{"half is listed", 10 * time.Second, count{}, count{expected: 2000, listed: 1000, todo: 1000, settled: 100}, "90s to 3m"},
		{"nothing listed is left", 10 * time.Second, count{}, count{expected: 2000, listed: 1000, todo: 100, settled: 100}, "at most 2m"},
		{"nothing is left", 10 * time.Second, count{}, count{expected: 100, listed: 100, todo: 100, settled: 100}, ""},
		{"nothing moves", 10 * time.Second, count{settled: 5}, count{expected: 100, listed: 100, todo: 100, settled: 5}, ""},
		{"too early to tell", time.Second / 2, count{}, count{todo: 100, settled: 5}, ""},
		{"hours", 10 * time.Second, count{}, count{expected: 8000, listed: 8000, todo: 8000, settled: 10}, "about 2h13m"},
		{"days", 30 * time.Second, count{}, count{expected: 200_001, listed: 200_001, todo: 200_001, settled: 15}, "about 4d15h"},
		{"almost for ever", 30 * time.Second, count{}, count{expected: 1 << 60, listed: 1 << 60, todo: 1 << 60, settled: 1}, "about 99d00h"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var m meter
			at := time.Now()
			m.take(at, tt.from)
			m.take(at.Add(tt.took), tt.to)
			if got := m.eta(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRateForgets(t *testing.T) {
	t.Parallel()
	var m meter
	at := time.Now()
	for i := range 600 { // a minute at a great speed, then a minute at none
		m.take(at.Add(time.Duration(i)*200*time.Millisecond), count{octets: int64(min(i, 300)) * 1_000_000})
	}
	if octets, _, ok := m.rates(); !ok || octets != 0 {
		t.Errorf("%v octets/s", octets)
	}
	if len(m.samples) > 160 {
		t.Errorf("%d samples are kept", len(m.samples))
	}
}

// TestJSON: each line is what docs/reference/events.schema.json says.
func TestJSON(t *testing.T) {
	t.Parallel()
	d, out, c, stats := fixture(t, JSON, 2)
	d.tick()
	for _, e := range []engine.Event{
		{Kind: engine.AccountOpened, Source: "ann", Text: "imap://ann@host/"},
		{Kind: engine.MailboxSkipped, Source: "ann", Mailbox: "Old", Count: 5},
		{Kind: engine.MailboxListed, Source: "ann", Mailbox: "INBOX", Count: 10},
		{Kind: engine.AccountNote, Source: "ann", Text: "capped"},
		{Kind: engine.AccountRetried, Source: "bob", Wait: 1500 * time.Millisecond, Err: errors.New("reset")},
		{Kind: engine.AccountParked, Source: "bob", Wait: time.Hour, Err: errors.New("quota")},
		{Kind: engine.SourceDied, Source: "ann", Count: 3},
		{Kind: engine.SinkDied, Sink: "eml", Err: errors.New("killed")},
		{Kind: engine.StageDied, Stage: "redact", Err: errors.New("killed")},
		{Kind: engine.SinkFailed, Sink: "eml", Err: fault.New(fault.Full, "no space").WithHint("make room")},
		{Kind: engine.DeadLetter, Source: "ann", Message: "ann:/INBOX/1", Text: "too big"},
		{Kind: engine.Committed, Count: 7},
		{Kind: engine.Stopping},
		{Kind: engine.AccountDone, Source: "ann"},
		{Kind: engine.AccountFailed, Source: "bob", Err: fault.New(fault.Auth, "no <b>").WithHint("look")},
	} {
		d.Event(e)
	}
	c.at = c.at.Add(10 * time.Second)
	set(stats.Account("ann"), 10, 10, 8, 4, 4000)
	d.tick()
	d.Close()
	d.Finished(4, []error{fault.New(fault.Auth, "source bob: no").WithHint("look")})

	s := eventSchema(t)
	seen := map[string]string{}
	for line := range strings.Lines(out.take()) {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if err := s.Validate(v); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		var e struct{ Event string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		seen[e.Event] = strings.TrimSpace(line)
	}
	for event, want := range map[string]string{
		"account_failed": `{"time":"2026-11-21T15:00:00Z","event":"account_failed","source":"bob","error":"no \u003cb\u003e","hint":"look"}`,
		"account_parked": `{"time":"2026-11-21T15:00:00Z","event":"account_parked","source":"bob","error":"quota","wait_seconds":3600}`,
		"finished": `{"time":"2026-11-21T15:00:10Z","event":"finished","accounts":2,"accounts_ended":2,"accounts_at_work":0,"accounts_waiting":0,` +
			`"expected":10,"listed":10,"todo":8,"settled":4,"octets":4000,"octets_per_second":400,"eta":"about 10s","exit":4}`,
	} {
		if diff := cmp.Diff(want, seen[event]); diff != "" {
			t.Error(diff)
		}
	}
	// The page tells of each event, and of no other.
	page, err := os.ReadFile("../../docs/reference/events.md")
	if err != nil {
		t.Fatal(err)
	}
	for event := range seen {
		if !bytes.Contains(page, []byte("| `"+event+"` |")) {
			t.Errorf("docs/reference/events.md doesn't tell of %s", event)
		}
	}
	if n := bytes.Count(page, []byte("\n| `")); n < len(seen) {
		t.Errorf("docs/reference/events.md has %d rows", n)
	}
}

func eventSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile("../../docs/reference/events.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestBars: lines of others pass above the bars, and the end comes.
func TestBars(t *testing.T) {
	t.Parallel()
	for name, accounts := range map[string]int{"few": 2, "many": 3000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, out, _, stats := fixture(t, Bars, accounts)
			for i := range 30 {
				source := string(rune('a' + i))
				d.Event(engine.Event{Kind: engine.AccountOpened, Source: source})
				set(stats.Account(source), 10, 10, 10, 5, 1000)
			}
			d.tick()
			if _, err := io.WriteString(d, "warning: a line of another\n"); err != nil {
				t.Error(err)
			}
			d.Event(engine.Event{Kind: engine.AccountDone, Source: "a"})
			d.Event(engine.Event{Kind: engine.DeadLetter, Message: "m", Text: "no"})
			d.tick()
			d.Close()
			text := out.take()
			for _, want := range []string{"warning: a line of another\n", "\r\x1b[Kdead letter: m: no\n", "5 of 10"} {
				if !strings.Contains(text, want) {
					t.Errorf("%q is missing in %q", want, text)
				}
			}
			if all := strings.Contains(text, "of 3000 accounts"); all != (accounts == 3000) {
				t.Errorf("a bar for all accounts: %v", all)
			}
		})
	}
}
