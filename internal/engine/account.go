package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// Patience of an account with its server.
const (
	maxTries  = 5           // in a row, without a message in between
	parkAfter = time.Minute // a longer wait parks the account, where the plan doesn't say
)

// account is one source in this run.
type account struct {
	e    *Engine
	plan *plan.Source

	// Changed by the account's own goroutine, with mu held: others look on.
	boxes    []*box
	excluded []string

	source source.Source // of the pass under way
	lanes  *lanes
	queue  *queue

	index    int                // among the accounts of the run
	claiming bool               // it lists only to claim
	claimed  bool               // it has claimed all that it has
	copies   int64              // that wait for another message, in this pass; guarded by mu
	adaptive bool               // headers may come with the bodies, see plan.Adapts
	survey   survey             // of all passes of this run
	chain    *stages.Run        // of the pass: limits count anew in each
	counted  int64              // by the source's own limit, in this pass
	later    iter.Seq[*box]     // the mailboxes to be listed after the one at work
	pushed   []stages.Pushed    // what the server is asked in the place of stages
	where    []source.Condition // the same, as the source is asked
	progress atomic.Int64
	began    bool
	started  time.Time
	err      error
	until    time.Time // parked: until then
	budget   budget
	finisher *finisher         // of the pass under way; nil: nothing to do
	url      string            // of the last session
	facts    map[string]string // so, too

	mu       sync.Mutex
	changed  sync.Cond
	open     int                // items that entered and aren't committed
	again    []*item            // to be fetched once more: a sink lost them
	alone    []*item            // suspects
	died     bool               // the source's process did, and the user isn't told
	accused  int64              // with so many messages in hand
	attempts map[message.ID]int // of messages in trouble
}

func newAccount(e *Engine, p *plan.Source) *account {
	pushed := e.plan.Conditions(p, e.now)
	where := make([]source.Condition, len(pushed))
	for i, c := range pushed {
		where[i] = source.Condition(c.Condition)
	}
	a := &account{e: e, plan: p, adaptive: e.plan.Adapts(p), pushed: pushed, where: where, attempts: map[message.ID]int{}, budget: budget{now: time.Now}}
	a.changed.L = &a.mu
	return a
}

// run works on the account until it is complete, hopeless or stopped.
func (a *account) run(ctx context.Context) {
	if a.e.claims != nil {
		defer a.e.claims.claimed(a.index) // whatever becomes of it, others need not wait any longer
	}
	for tries := 0; ; {
		before := a.progress.Load()
		err := a.pass(ctx)
		switch {
		case a.e.ctx.Err() != nil:
			a.err = context.Cause(a.e.ctx)
			return
		case fault.Is(err, fault.Full):
			// It is the machine's, the ledger's mostly, and no account's own: another
			// account's copies aren't to go on in the place of this one's (I2).
			a.e.stop(fmt.Errorf("source %s: %w", a.plan.Name, err))
			return
		case err == nil || a.e.stopped():
			a.e.note(Event{Kind: AccountDone, Source: a.plan.Name})
			return
		}
		if a.progress.Load() > before {
			tries = 0
		}
		tries++
		wait, again := a.patience(err, tries)
		if again && wait > a.e.parkAfter() {
			a.park(err, wait)
			return
		}
		if !again {
			a.err = err
			a.e.note(Event{Kind: AccountFailed, Source: a.plan.Name, Err: err})
			return
		}
		a.e.note(Event{Kind: AccountRetried, Source: a.plan.Name, Err: err, Wait: wait})
		select {
		case <-time.After(wait):
		case <-a.e.stopping:
			a.err = err
			return
		case <-ctx.Done():
		}
	}
}

// patience says whether and when to try again after err.
func (a *account) patience(err error, tries int) (time.Duration, bool) {
	f := fault.As(err)
	if f == nil {
		return 0, false
	}
	wait := max(backoff(tries), f.RetryAfter)
	switch f.Class {
	case fault.Throttled:
		if tries == 1 && f.RetryAfter > 0 {
			wait = f.RetryAfter // it knows best
		}
		// To be asked to slow down is no failure, however often.
		if tries > maxTries {
			wait = max(wait, a.e.parkAfter()+time.Minute)
		}
		return wait, true
	case fault.Unavailable, fault.Crashed:
		// Where nothing ever worked, trying for long only hides the reason.
		if !a.began {
			return wait, tries < 3
		}
		return wait, tries <= maxTries
	}
	return 0, false
}

func (e *Engine) parkAfter() time.Duration {
	if e.plan.ParkAfter > 0 {
		return e.plan.ParkAfter
	}
	return parkAfter
}

// pass opens a session and works on every mailbox that isn't complete. It
// returns when all that it began is committed.
func (a *account) pass(ctx context.Context) error {
	opened, err := a.e.plugins.OpenSource(ctx, a.plan, false)
	if err != nil {
		return err
	}
	a.source = opened.Source
	defer opened.Source.Close()
	a.notes(opened)
	if err := a.openBudget(ctx, opened.Budget); err != nil {
		return err
	}
	if err := a.budget.exhausted(); err != nil {
		return err
	}
	if a.survey.overhead = askOctets; opened.Budget.Bytes > 0 {
		a.survey.overhead = 0 // its octets are what is short
	}
	// The first lane was taken when the account was started.
	extra := a.e.hosts.take(a.plan.Host, opened.Lanes-1)
	defer a.e.hosts.give(a.plan.Host, extra)
	opened.Lanes = 1 + extra
	a.lanes = newLanes(func() int {
		if l, ok := opened.Source.(source.Laner); ok {
			return min(l.Lanes(), opened.Lanes)
		}
		return opened.Lanes
	})
	if err := a.findMailboxes(ctx); err != nil {
		return err
	}
	a.began = true
	if a.finisher, err = a.startFinishing(ctx, opened); err != nil {
		return err
	}
	if err := a.claim(ctx); err != nil {
		_ = a.finisher.end(true) // nothing waits in it, and there is a better error
		return err
	}
	err = a.work(ctx, opened.Lanes, func(ctx context.Context) error { return a.listAll(ctx) })
	for err == nil && !a.e.stopped() {
		a.drain(a.e.ctx)
		again := a.takeAgain()
		if len(again) == 0 {
			break
		}
		err = a.work(ctx, opened.Lanes, func(context.Context) error {
			for _, it := range again {
				a.enqueue(it)
			}
			return nil
		})
	}
	a.drain(a.e.ctx)
	if finishing := a.finisher.end(err != nil); err == nil {
		err = finishing
	}
	// Only now: to finish what is exported costs no budget.
	if err == nil && a.queue.isDropped() && !a.e.stopped() {
		err = a.budget.exhausted()
	}
	if err != nil {
		if !a.e.stopped() { // else there is no other pass, and the sum tells what is pending
			a.forget()
		}
		return err
	}
	return ctx.Err()
}

// notes passes on what the session says of itself.
func (a *account) notes(opened source.Opened) {
	a.url, a.facts = opened.URL, opened.Facts
	a.e.note(Event{Kind: AccountOpened, Source: a.plan.Name, Text: opened.URL})
	for _, n := range opened.Notes {
		a.e.note(Event{Kind: AccountNote, Source: a.plan.Name, Text: n})
	}
}

// findMailboxes asks for the mailboxes and selects among them.
func (a *account) findMailboxes(ctx context.Context) error {
	known := map[string]*box{}
	for _, b := range a.boxes {
		known[b.name] = b
	}
	var all []message.Mailbox
	for m, err := range a.source.Mailboxes(ctx) {
		if err != nil {
			return fmt.Errorf("list the mailboxes: %w", err)
		}
		if len(all) == MostMailboxes {
			return fault.New(fault.Bug, "source %s: plugin %s lists more than %d mailboxes", a.plan.Name, a.plan.Plugin, MostMailboxes)
		}
		m.State = Believable(m.State)
		all = append(all, m)
	}
	taken, left := a.plan.Take(all)
	var boxes []*box
	var excluded []string
	for _, m := range left {
		excluded = append(excluded, m.Name)
	}
	for _, m := range taken {
		b := known[m.Name]
		if b == nil {
			b = newBox(a, m)
		}
		b.index = len(boxes)
		b.among = plan.Among(m, taken)
		b.mu.Lock()
		b.server = m.State
		b.mu.Unlock()
		boxes = append(boxes, b)
	}
	// Only now: what an earlier pass did must stay in the sum when this
	// listing breaks off (I1).
	a.mu.Lock()
	a.boxes, a.excluded = boxes, excluded
	a.mu.Unlock()
	return nil
}

// work runs list and as many fetchers as the session has lanes, until what
// was listed is fetched.
func (a *account) work(ctx context.Context, n int, list func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.queue = newQueue()
	var first error
	var once sync.Once
	fail := func(err error) {
		if err != nil {
			once.Do(func() {
				first = err
				a.queue.drop()
				cancel(err)
			})
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer a.queue.end()
		fail(list(ctx))
	})
	for range max(1, n) {
		wg.Go(func() { fail((&worker{e: a.e, number: int(a.e.workers.Add(1))}).fetchLoop(ctx, a)) })
	}
	wg.Wait()
	a.tellDeath()
	return first
}

// enqueue sends an item where it can go on: to be fetched, or straight into
// the epoch when nothing that it lacks needs the body.
func (a *account) enqueue(it *item) {
	if a.e.undecided(it) || a.e.needsBody(it) {
		a.queue.push(it.box, []*item{it})
		return
	}
	(&worker{e: a.e}).settle(it)
}

// settled is called for each item after its epoch is committed.
func (a *account) settled(it *item) {
	more := false
	for i := range it.slots {
		sl := &it.slots[i]
		switch sl.state {
		case slotTodo, slotIdle:
			more = more || it.final == nil && a.e.possible(it, i)
		case slotWritten:
			sl.state, sl.kept = slotKept, ledger.Fate{Target: a.e.targets[i], Class: ledger.Written, Receipt: sl.receipt}
		case slotDead:
			a.e.note(Event{Kind: DeadLetter, Source: a.plan.Name, Mailbox: it.box.name, Message: it.sum.ID.String(), Sink: sl.letter.Stage, Reason: sl.letter.Reason, Text: sl.letter.Text})
			sl.state, sl.kept = slotKept, ledger.Fate{Target: a.e.targets[i], Class: ledger.Dead, Letter: sl.letter}
		}
	}
	if it.final != nil && it.final.Class == ledger.Dead {
		a.e.note(Event{Kind: DeadLetter, Source: a.plan.Name, Mailbox: it.box.name, Message: it.sum.ID.String(), Reason: it.final.Letter.Reason, Text: it.final.Letter.Text})
	}
	it.fresh = false
	if it.worst() != ledger.Pending {
		a.progress.Add(1)
		it.box.settle(it)
		a.finisher.exported(it)
		a.e.counters(a).settled(it.worst())
		if it.box.final() {
			a.e.finish(it.box)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !more || it.waits || a.e.stopped():
	case it.alone:
		a.alone = append(a.alone, it)
	default:
		it.aborted.Store(false)
		a.again = append(a.again, it)
	}
	a.open--
	a.changed.Broadcast()
}

// drain waits until everything that entered is committed. When no account has
// work under way the epoch is closed at once.
func (a *account) drain(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.changed.Broadcast()
	})
	defer stop()
	a.e.idle(1)
	defer a.e.idle(-1)
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.open > 0 && ctx.Err() == nil && !a.e.dead() {
		a.changed.Wait()
	}
}

func (a *account) takeAgain() []*item {
	a.mu.Lock()
	defer a.mu.Unlock()
	again := a.again
	a.again = nil
	return again
}

// forget drops what a failed pass kept in memory: the next one lists it anew,
// and the ledger has what is final.
func (a *account) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.again, a.alone = nil, nil
	for _, b := range a.boxes {
		if !b.final() || b.isUnfinished() {
			b.restart()
		}
	}
}

// broken deals with a message whose body broke off or which a stage couldn't
// judge: it is tried again, a few times, and then is a dead letter.
func (a *account) broken(it *item, err error) {
	if fault.Is(err, fault.Full) {
		a.e.stop(fmt.Errorf("source %s: %w", a.plan.Name, err))
		return
	}
	if fault.Is(err, fault.Crashed) {
		if it.alone {
			return // who tries it alone sees to that
		}
		// The process died in the middle of this very body.
		a.mu.Lock()
		defer a.mu.Unlock()
		if !it.accuse(ledger.Everywhere) {
			it.unnoted = append(it.unnoted, ledger.Everywhere)
		}
		return
	}
	if errors.Is(err, context.Canceled) {
		return
	}
	a.mu.Lock()
	a.attempts[it.sum.ID]++
	n := a.attempts[it.sum.ID]
	a.mu.Unlock()
	if n >= maxAttempts || fault.Is(err, fault.Message) && fault.As(err).Reason == "" {
		f := fault.As(err)
		if f == nil || f.Reason == "" {
			err = fault.New(fault.Message, "%w", err).WithReason("incomplete_body")
		}
		it.dead("", err)
	}
}
