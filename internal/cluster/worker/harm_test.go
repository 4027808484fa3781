package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/internal/cluster"
	"github.com/mailhaul/pipeline/internal/cluster/coordinator"
	"github.com/mailhaul/pipeline/internal/cluster/lease"
	"github.com/mailhaul/pipeline/internal/cluster/task"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/ledger/segments"
	"github.com/mailhaul/pipeline/internal/status"
	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/natsserver"
)

// newCalmSetup is newSetup with leases that outlast what else a busy machine
// does: none is to be lost.
func newCalmSetup(t *testing.T, m mail) *setup {
	t.Helper()
	s := newSetup(t, natsserver.Start(t), m)
	s.Lease = 30 * time.Second
	return s
}

// shared returns a connection of the test's own.
func (s *setup) shared(t *testing.T) *cluster.Cluster {
	t.Helper()
	c, err := s.cluster(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// staff starts workers in this process, which end with the test.
func (s *setup) staff(t *testing.T, n int) {
	t.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if _, err := s.work(context.WithoutCancel(t.Context()), fmt.Sprint("w", i), false, stop); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { close(stop); wg.Wait() })
}

// task returns the options of a task's ledger.
func (s *setup) task(t *testing.T, c *cluster.Cluster, source, mailbox string, r task.Range) segments.Options {
	t.Helper()
	pipeline, err := c.Pipeline(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return segments.Options{
		Task: task.ID(pipeline, source, mailbox, r), Run: 1, Pipeline: pipeline, Manifests: c.Books, Objects: s.bucket(t), Prefix: "acme/", Dir: t.TempDir(),
	}
}

func (s *setup) bucket(t *testing.T) *objects.Bucket {
	t.Helper()
	at, err := objects.Parse(s.Address)
	if err != nil {
		t.Fatal(err)
	}
	b, err := objects.Dial(s.Socket, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// die takes a task as workers do that die of it before they commit anything.
func die(t *testing.T, c *cluster.Cluster, o segments.Options, times int) {
	t.Helper()
	for range times {
		own := take(t, c, o)
		o.Fence = own.Fence()
		if _, err := segments.Open(t.Context(), o); err != nil { // and it is never closed
			t.Fatal(err)
		}
		if err := own.Release(t.Context()); err != nil { // the lease would end by itself
			t.Fatal(err)
		}
	}
}

func take(t *testing.T, c *cluster.Cluster, o segments.Options) *lease.Lease {
	t.Helper()
	own, err := lease.NewKeeper(c.Leases, c.Lease, "test").Take(t.Context(), "lease."+o.Task)
	if err != nil {
		t.Fatal(err)
	}
	return own
}

// mailbox returns a mailbox's line of the report.
func mailbox(t *testing.T, r *coordinator.Result, source, name string) *engine.Sum {
	t.Helper()
	for i := range r.Result.Accounts {
		a := &r.Result.Accounts[i]
		for j := range a.Mailboxes {
			if a.Source == source && a.Mailboxes[j].Mailbox == name {
				return &a.Mailboxes[j]
			}
		}
	}
	t.Fatalf("there is no mailbox %s/%s in the result", source, name)
	return nil
}

// A task that its owners die of is given up with a word that names it, and
// harms nothing else (I6). The next run tries it again.
func TestATaskThatHarmsItsOwners(t *testing.T) {
	t.Parallel()
	s := newCalmSetup(t, mail{Sources: 1, Mailboxes: 2, Messages: 3, Lanes: 2})
	c := s.shared(t)
	o := s.task(t, c, "s0", "m0", task.Range{})
	die(t, c, o, 10)
	s.staff(t, 1)
	s.Partial = true
	first := s.coordinate(t.Context(), t, nil)
	got := mailbox(t, first, "s0", "m0")
	if got.State != ledger.Incomplete || got.Problem == nil || first.Exit() != engine.ExitIncomplete {
		t.Fatalf("the mailbox is %s: %v; exit code %d", got.State, got.Problem, first.Exit())
	}
	for _, want := range []string{"s0/m0 was given up", "10 workers in a row", o.Task} {
		if !strings.Contains(got.Problem.Error(), want) {
			t.Errorf("the problem is %q, which lacks %q", got.Problem, want)
		}
	}
	if !mailbox(t, first, "s0", "m1").Complete {
		t.Error("the other mailbox isn't complete")
	}
	at, err := coordinator.Look(t.Context(), c)
	if err != nil || at.Failed != 1 || len(at.GivenUp) != 1 || at.GivenUp[0].Mailbox != "m0" {
		t.Errorf("status says %+v, %v", at, err)
	}
	s.Partial = false
	s.complete(t, s.coordinate(t.Context(), t, nil))
}

// Owners that got further, or that gave the task back, are none that it harmed.
func TestTriesAreCounted(t *testing.T) {
	t.Parallel()
	s := newCalmSetup(t, mail{Sources: 1, Mailboxes: 1, Lanes: 1})
	c := s.shared(t)
	o := s.task(t, c, "s0", "m0", task.Range{})
	die(t, c, o, 3)
	tries := func() int {
		m, err := segments.Load(t.Context(), c.Books, o.Task)
		if err != nil {
			t.Fatal(err)
		}
		return m.Tries
	}
	if n := tries(); n != 3 {
		t.Fatalf("%d tries after 3 deaths", n)
	}
	own := take(t, c, o)
	o.Fence = own.Fence()
	l, err := segments.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Yield(); err != nil {
		t.Fatal(err)
	}
	if n := tries(); n != 3 {
		t.Errorf("%d tries after one more that gave it back", n)
	}
	box, err := l.Box(t.Context(), "s0", "m0", 7)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.NewClaims(t.Context()); err != nil { // something is committed
		t.Fatal(err)
	}
	if n := tries(); n != 1 || box == 0 {
		t.Errorf("%d tries after one that got further", n)
	}
	if err := own.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.Run = 2
	die(t, c, o, 1)
	if n := tries(); n != 1 {
		t.Errorf("%d tries in the next run", n)
	}
}

// A ledger that is damaged is the trouble of its mailbox, not of the workers
// that take it; what its hint says helps.
func TestADamagedLedgerIsItsOwnTrouble(t *testing.T) {
	t.Parallel()
	s := newCalmSetup(t, mail{Sources: 1, Mailboxes: 2, Messages: 3, Lanes: 2})
	c := s.shared(t)
	s.staff(t, 1)
	s.complete(t, s.coordinate(t.Context(), t, nil))
	o := s.task(t, c, "s0", "m0", task.Range{})
	m, err := segments.Load(t.Context(), c.Books, o.Task)
	if err != nil {
		t.Fatal(err)
	}
	m.Tail.CRC++
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Books.Put(t.Context(), segments.Key(o.Task), text); err != nil {
		t.Fatal(err)
	}
	s.Mail.Messages++ // there is something to do
	s.Partial = true
	second := s.coordinate(t.Context(), t, nil)
	got := mailbox(t, second, "s0", "m0")
	if got.Problem == nil || !strings.Contains(got.Problem.Error(), "is damaged") {
		t.Errorf("the mailbox is %s: %v", got.State, got.Problem)
	}
	if !mailbox(t, second, "s0", "m1").Complete {
		t.Error("the other mailbox isn't complete")
	}
	if err := c.Books.Delete(t.Context(), segments.Key(o.Task)); err != nil { // as the hint says
		t.Fatal(err)
	}
	s.Partial = false
	s.complete(t, s.coordinate(t.Context(), t, nil))
}

// A mailbox of which nothing is new is no task, and counts as it stood.
func TestUnchangedMailboxesAreNoTasks(t *testing.T) {
	t.Parallel()
	s := newCalmSetup(t, mail{Sources: 2, Mailboxes: 3, Messages: 25, Lanes: 2})
	s.Range = 10
	s.staff(t, 2)
	first := s.coordinate(t.Context(), t, nil)
	s.complete(t, first)
	second := s.coordinate(t.Context(), t, nil)
	s.complete(t, second)
	if first.Tasks != 18 || second.Tasks != 0 {
		t.Errorf("%d tasks, and %d where nothing is new; want 18 and 0", first.Tasks, second.Tasks)
	}
	for _, a := range second.Result.Accounts {
		for _, m := range a.Mailboxes {
			if !m.Skipped || m.Listed != 25 || m.DoneBefore != 25 {
				t.Errorf("%s/%s: skipped %t, %d listed, %d done before", a.Source, m.Mailbox, m.Skipped, m.Listed, m.DoneBefore)
			}
		}
	}
	s.Retry = func(string) *status.Choice { return &status.Choice{} }
	if again := s.coordinate(t.Context(), t, nil); again.Tasks != 18 {
		t.Errorf("%d tasks where dead letters are tried again, want 18", again.Tasks)
	}
	s.Retry = nil
	s.Mail.Messages = 26
	third := s.coordinate(t.Context(), t, nil)
	s.complete(t, third)
	if third.Tasks != 18 {
		t.Errorf("%d tasks where each mailbox has a new message, want 18", third.Tasks)
	}
}

// A divided mailbox that gets a new UIDVALIDITY isn't written once more: not
// where the coordinator sees it, nor where a worker does (I2).
func TestUIDValidityOfADividedMailbox(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*mail){
		"before the listing": func(m *mail) { m.Validity = 8 },
		"after the listing":  func(m *mail) { m.Renumbers, m.Messages = true, m.Messages+1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newCalmSetup(t, mail{Sources: 1, Mailboxes: 1, Messages: 25, Lanes: 2})
			s.Range = 10
			s.staff(t, 2)
			s.complete(t, s.coordinate(t.Context(), t, nil))
			before, messages := s.written(t), s.Mail.Messages
			s.Mail.counts.sent.Store(0)
			change(&s.Mail)
			s.Partial = true
			r := s.coordinate(t.Context(), t, nil)
			got := mailbox(t, r, "s0", "m0")
			if got.Problem == nil || !strings.Contains(got.Problem.Error(), "another UIDVALIDITY") || got.Complete || r.Exit() != engine.ExitIncomplete {
				t.Errorf("the mailbox is %s: %v; exit code %d", got.State, got.Problem, r.Exit())
			}
			if n := s.Mail.counts.sent.Load(); n != 0 || s.written(t) != before {
				t.Errorf("%d octets were fetched once more, and %d files are there after %d", n, s.written(t), before)
			}
			s.Mail.Validity, s.Mail.Renumbers, s.Mail.Messages, s.Partial = 0, false, messages, false
			s.complete(t, s.coordinate(t.Context(), t, nil)) // it was a passing trouble
		})
	}
}

// written counts the sink's files.
func (s *setup) written(t *testing.T) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.Mail.Folder, "*~*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// What dead owners left of ledgers goes at the end of a run, and nothing else.
func TestLeftoversOfLedgersGo(t *testing.T) {
	t.Parallel()
	s := newCalmSetup(t, mail{Sources: 1, Mailboxes: 1, Messages: 400, Lanes: 1})
	c := s.shared(t)
	o := s.task(t, c, "s0", "m0", task.Range{})
	b := s.bucket(t)
	put := func(key string) {
		if err := b.Put(t.Context(), "acme/"+key, strings.NewReader("x"), 1, objects.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	own := take(t, c, o) // of the owner who died
	if err := own.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	dead := fmt.Sprintf("%s/%d-7", o.Task, own.Fence())
	stays := []string{o.Task + "/99999999-1", strings.Repeat("f", 20) + "/1-1", "readme.txt"} // of a later owner, of no known task, not ours
	put(dead)
	for _, key := range stays {
		put(key)
	}
	s.staff(t, 1)
	s.complete(t, s.coordinate(t.Context(), t, nil))
	there := map[string]bool{}
	for x, err := range b.List(t.Context(), "acme/", false) {
		if err != nil {
			t.Fatal(err)
		}
		there[strings.TrimPrefix(x.Key, "acme/")] = true
	}
	if there[dead] {
		t.Errorf("%s is still there", dead)
	}
	m, err := segments.Load(t.Context(), c.Books, o.Task)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range m.Segments {
		stays = append(stays, x.Key)
	}
	if len(m.Segments) == 0 {
		t.Error("the ledger has no object: the test tests little")
	}
	for _, key := range stays {
		if !there[key] {
			t.Errorf("%s is gone", key)
		}
	}
}

// What one worker fetches of an account's budget another one doesn't fetch,
// also where both are at it at the same time.
func TestBudgetIsShared(t *testing.T) {
	t.Parallel()
	s := newCalmSetup(t, mail{Sources: 1, Mailboxes: 2, Messages: 8000, Lanes: 2, Hold: "m0", Delay: 5 * time.Millisecond})
	all := int64(0)
	for _, text := range s.Mail.want() {
		all += int64(len(text))
	}
	s.Mail.Budget = source.Budget{Bytes: all / 8, Per: 24 * time.Hour}
	hold := filepath.Join(s.Mail.Folder, s.Mail.Hold)
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Tasks, s.Partial = 1, true
	s.staff(t, 2)
	go func() { // m1 uses up the budget while m0 waits behind its first message
		for s.Mail.counts.sent.Load() < s.Mail.Budget.Bytes && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		if err := os.Remove(hold); err != nil {
			t.Error(err)
		}
	}()
	r := s.coordinate(t.Context(), t, nil)
	if r.Exit() != engine.ExitParked {
		t.Errorf("exit code %d, want %d", r.Exit(), engine.ExitParked)
	}
	// m0 hears of it with its first commit, a second later: at 5 ms a message it
	// has fetched 200 by then, and would fetch 2,000 were it alone.
	sent := s.Mail.counts.sent.Load()
	t.Logf("%d octets fetched, with a budget of %d", sent, s.Mail.Budget.Bytes)
	if sent > s.Mail.Budget.Bytes*17/10 {
		t.Errorf("%d octets were fetched, with a budget of %d for both", sent, s.Mail.Budget.Bytes)
	}
	fetched := s.Mail.counts.sent.Load()
	if again := s.coordinate(t.Context(), t, nil); again.Exit() != engine.ExitParked || s.Mail.counts.sent.Load() != fetched {
		t.Errorf("the next run ends with %d, and fetches %d octets", again.Exit(), s.Mail.counts.sent.Load()-fetched)
	}
}

// However many workers there are, an account has as many sessions as it
// grants, and a host as many as the file grants it.
func TestSlotsHold(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		mail mail
		most int64
	}{
		"of an account": {mail{Sources: 1, Mailboxes: 12, Messages: 4, Lanes: 2, Delay: time.Millisecond}, 2},
		"of a host":     {mail{Sources: 4, Mailboxes: 4, Messages: 4, Lanes: 3, PerHost: 3, Delay: time.Millisecond}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newCalmSetup(t, test.mail)
			s.staff(t, 3)
			s.complete(t, s.coordinate(t.Context(), t, nil))
			if most := s.Mail.counts.most.Load(); most > test.most || most == 0 {
				t.Errorf("there were %d sessions at once, want %d at most", most, test.most)
			}
		})
	}
}

// Several workers that are to end when nothing is left all do, whichever of
// them did the tasks.
func TestWorkersEndOnce(t *testing.T) {
	t.Parallel()
	s := newCalmSetup(t, mail{Sources: 2, Mailboxes: 10, Messages: 2, Lanes: 4, Delay: time.Millisecond})
	c := s.shared(t)
	began := make(chan struct{})
	go func() {
		defer close(began)
		for t.Context().Err() == nil { // until the run has begun
			if r, err := c.LastRun(t.Context()); err == nil && r.Number > 0 {
				return
			}
		}
	}()
	counts := make(chan int64, 3)
	for i := range 3 {
		go func() {
			<-began
			n, err := s.work(t.Context(), fmt.Sprint("once", i), true, nil)
			if err != nil {
				t.Error(err)
			}
			counts <- n
		}()
	}
	s.complete(t, s.coordinate(t.Context(), t, nil))
	sum := int64(0)
	for range 3 {
		sum += <-counts
	}
	if sum != 20 {
		t.Errorf("they did %d tasks, want 20", sum)
	}
}

// A run that was killed while it listed gives no more tasks: a worker that is
// to end when nothing is left doesn't wait for it for ever.
func TestWorkerEndsOnceThoughTheRunWasKilled(t *testing.T) {
	t.Parallel()
	s := newCalmSetup(t, mail{Sources: 1, Mailboxes: 1, Lanes: 1})
	if err := s.shared(t).SetRun(t.Context(), cluster.Run{Number: 1, Stage: cluster.Listing}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.work(t.Context(), "once", true, nil); err != nil || n != 0 {
		t.Errorf("it did %d tasks: %v", n, err)
	}
}
