// Package engine runs a plan: it lists what the sources have, subtracts what
// the ledger knows to be done, lets the stages judge, fetches what is left,
// hands it to the sinks, and commits in epochs. It knows plugins only by the
// interfaces of pkg/source and pkg/sink, and is tested in one process.
//
// One account is one goroutine that lists and a few that fetch. A message is
// an item; it enters the gate, is written by the sinks, leaves the gate when
// the last has answered, and is settled when its epoch is in the ledger.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/relay"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// Options are what a run is made of.
type Options struct {
	Plan    *plan.Plan
	Ledger  Ledger
	Plugins Plugins
	Log     *slog.Logger
	Spool   *message.Spool

	Run   int64    // number of the run in the ledger
	Adopt []string // sinks whose targets are taken over, whatever is there
	// Spends says that others spend the same budgets meanwhile: what the ledger
	// has of them is read again after each commit.
	Spends      bool
	Rewrite     []string    // sinks whose messages are all written anew
	Fence       sink.Fence  // that sinks write under; zero: they have their targets for themselves
	RetryFailed bool        // dead letters are tried again
	Events      func(Event) // called from many goroutines
	Stats       *Stats
	Now         func() time.Time // what now() is; read once
	Patience    time.Duration    // how long a sink may stall a source; 0: relay.Patience
	// Store returns the socket of the store of objects. It is called only when
	// files of a sink in a bucket are to be read back.
	Store func() (string, error)
	// Hurry, when closed, ends the run as stop does, but waits for no server:
	// bodies on their way are broken off, and what came before is committed.
	Hurry <-chan struct{}
}

func (o *Options) adopts(sink string) bool { return slices.Contains(o.Adopt, sink) }

func (o *Options) rewrites(sink string) bool { return slices.Contains(o.Rewrite, sink) }

func (o *Options) patience() time.Duration {
	if o.Patience > 0 {
		return o.Patience
	}
	return relay.Patience
}

// lanes is how many writes to one sink can be of use at once.
func (o *Options) lanes() int { return 8 }

// Engine is one run.
type Engine struct {
	opts    Options
	ctx     context.Context // of the run: done when the user insists
	plan    *plan.Plan
	ledger  Ledger
	plugins Plugins
	now     time.Time

	gate     *gate
	claims   *claims               // nil without a dedupe
	stages   map[string]*stagePool // of those that are plugins
	outlets  []*outlet
	targets  []ledger.TargetID
	accounts []*account
	hosts    hosts
	workers  atomic.Int64 // numbers given out

	rules          map[string]string // stage -> fingerprint of the chain up to it
	limits         map[string]bool   // stages that are limits
	barriers       int
	barriersBefore map[string]int // stage -> limits before it
	across         bool           // a limit counts over all mailboxes of a source
	readsNow       bool
	readsFlags     bool
	readsVars      bool
	readsStructure bool
	whenRules      []string // of each sink: fingerprint of its `when` and of what that reads
	noting         bool     // stages note something
	altering       bool     // stages change octets, or are plugins

	chunks relay.Chunks // what large bodies pass through

	background sync.WaitGroup
	stopping   chan struct{}
	stopOnce   sync.Once

	mu       sync.Mutex
	stopErr  error
	broken   error // the committer failed: nothing can be committed any more
	active   int   // accounts with work under way
	standing standing
	finished map[ledger.Box]ledger.BoxState
}

// Run runs the plan. stop asks for a clean end: what is in flight is finished
// and committed. A cancelled ctx ends the run at once; the next one goes on
// where the last commit left it (I2). The result is there even with an error.
func Run(ctx context.Context, stop <-chan struct{}, opts Options) (*Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if opts.Stats == nil {
		opts.Stats = &Stats{}
	}
	if opts.Events == nil {
		opts.Events = func(Event) {}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	e := &Engine{
		opts: opts, ctx: ctx, plan: opts.Plan, ledger: opts.Ledger, plugins: opts.Plugins, now: opts.Now(),
		gate: newGate(), stages: map[string]*stagePool{}, stopping: make(chan struct{}), finished: map[ledger.Box]ledger.BoxState{},
		standing: newStanding(), hosts: hosts{most: opts.Plan.PerHost, used: map[string]int{}},
	}
	if err := e.prepare(ctx); err != nil {
		return &Result{Err: err}, err
	}
	e.background.Go(func() {
		select {
		case <-stop:
			e.stop(nil)
		case <-ctx.Done():
		}
	})
	err := e.run(ctx, cancel)
	cancel(nil)
	e.background.Wait()
	e.closeFiles()
	return e.result(err), err
}

// prepare finds the targets and opens the sinks that an earlier run left
// dirty.
func (e *Engine) prepare(ctx context.Context) error {
	for i := range e.plan.Sinks {
		p := &e.plan.Sinks[i]
		t, err := e.ledger.Target(ctx, p.Name, p.Prepared.Target)
		if err != nil {
			return err
		}
		if e.opts.rewrites(p.Name) {
			n, err := e.ledger.WrittenAndRemoved(ctx, t.ID)
			if err != nil {
				return err
			}
			if n > 0 { // it may have the only copy (I1)
				return fault.New(fault.Config, "--rewrite %s: %d of its messages were moved or deleted on the server, as `after` wants: they can't be written anew", p.Name, n).
					WithHint("give the sink another path: what is still on the server is written there, and what it has stays where it is")
			}
			if err := e.ledger.Forget(ctx, t.ID); err != nil {
				return err
			}
			t.Checkpoint, t.Known = nil, false
		}
		o := &outlet{e: e, plan: p, index: i, target: t, checkpoint: t.Checkpoint}
		o.files = e.openFiles(o)
		o.changed.L = &o.mu
		e.outlets = append(e.outlets, o)
		e.targets = append(e.targets, t.ID)
	}
	e.readRules()
	for _, s := range e.plan.Chain.Stages() {
		if s.Kind == stages.Plugin {
			e.stages[s.Name] = newStagePool(e, s)
		}
	}
	for _, o := range e.outlets {
		if !o.target.Dirty {
			continue
		}
		if err := o.roll(); err != nil {
			o.fail(fmt.Errorf("sink %s: %w", o.plan.Name, err))
		}
	}
	for i := range e.plan.Sources {
		a := newAccount(e, &e.plan.Sources[i])
		a.index = i
		e.accounts = append(e.accounts, a)
	}
	e.opts.Stats.follow(e.accounts)
	if s := e.plan.Chain.Dedupe(); s != nil {
		round, err := e.ledger.NewClaims(ctx)
		if err != nil {
			return err
		}
		e.claims = newClaims(s, round, len(e.accounts))
		e.background.Go(func() {
			select {
			case <-e.stopping:
			case <-ctx.Done():
			}
			e.claims.halt()
		})
	}
	return nil
}

func (e *Engine) run(ctx context.Context, cancel context.CancelCauseFunc) error {
	ended, committed := make(chan struct{}), make(chan error, 1)
	go func() {
		err := e.commitLoop(ctx, ended)
		if err != nil {
			e.mu.Lock()
			e.broken = err
			e.mu.Unlock()
			cancel(err)
			e.gate.abandon()
			for _, o := range e.outlets {
				o.endCommit()
			}
		}
		committed <- err
	}()
	working, hurry := context.WithCancel(ctx)
	defer hurry()
	e.background.Go(func() {
		select {
		case <-e.opts.Hurry:
			e.stop(nil)
			hurry()
		case <-ctx.Done():
		}
	})
	e.eachAccount(func(a *account) { a.resume(working) })
	if ctx.Err() == nil && !e.stopped() {
		for _, a := range e.accounts {
			if len(a.alone) > 0 {
				a.tryAlone(working)
				e.noteAccount(a, true)
			}
		}
	}
	e.lookAgainAtCopies(working)
	apart := e.tellApart(ctx)
	close(ended)
	err := errors.Join(<-committed, apart)
	for _, p := range e.stages {
		err = errors.Join(err, p.close())
	}
	return errors.Join(err, e.closeSinks(ctx, err == nil))
}

// idle counts the accounts that only wait for a commit; with none at work, the
// commit comes at once.
func (e *Engine) idle(n int) {
	e.mu.Lock()
	e.active -= n
	none := e.active <= 0
	e.mu.Unlock()
	if none {
		e.gate.kick()
	}
}

// closeSinks ends the sessions; those that hold just what is committed are
// marked clean.
func (e *Engine) closeSinks(ctx context.Context, committed bool) error {
	var errs []error
	for _, o := range e.outlets {
		var rolled error
		if committed && o.broken() == nil && o.isBehind() {
			rolled = o.roll() // else the target would lag behind the ledger until something is written again (I2)
		}
		err := errors.Join(rolled, o.close(ctx))
		clean := err == nil && committed && o.broken() == nil && o.used && o.settled() && !o.isBehind()
		if err != nil && !fault.Is(err, fault.Crashed) {
			errs = append(errs, err)
		}
		if clean {
			errs = append(errs, e.ledger.MarkClean(context.WithoutCancel(ctx), o.target.ID))
		}
	}
	return errors.Join(errs...)
}

// stop begins a clean end. err says why; nil when the user asked for it.
func (e *Engine) stop(err error) {
	e.stopOnce.Do(func() {
		e.mu.Lock()
		e.stopErr = err
		e.mu.Unlock()
		close(e.stopping)
		e.note(Event{Kind: Stopping, Err: err})
	})
}

func (e *Engine) stopped() bool {
	select {
	case <-e.stopping:
		return true
	default:
		return false
	}
}

// dead reports whether nothing can be committed any more.
func (e *Engine) dead() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.broken != nil
}

// sinkFailed applies the sink's on_failure.
func (e *Engine) sinkFailed(o *outlet, err error) {
	e.note(Event{Kind: SinkFailed, Sink: o.plan.Name, Err: err})
	if !o.plan.GoOn {
		e.stop(err)
	}
}

func (e *Engine) note(ev Event) { e.opts.Events(ev) }

func (e *Engine) counters(a *account) *Counters { return e.opts.Stats.Account(a.plan.Name) }

// enter lets an item into the epoch; its account sees to it that it is
// committed.
func (e *Engine) enter(it *item) {
	a := it.box.account
	a.mu.Lock()
	a.open++
	a.mu.Unlock()
	e.gate.enter(it)
}

// finish notes that all that a mailbox listed is final: its state goes into
// the ledger with the next commit. One whose source is to be told of what it
// lists is listed each time.
func (e *Engine) finish(b *box) {
	if f := b.account.finisher; f != nil && f.told {
		return
	}
	b.mu.Lock()
	number, state, tally, open := b.number, b.state, b.tally(), b.unfinished
	b.mu.Unlock()
	if state.Content == "" || number == 0 || open > 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.finished[number] = ledger.BoxState{
		Content: state.Content, Flags: state.Flags, Fingerprint: e.fingerprint(b.account), Tally: tally,
	}
}

func (e *Engine) takeFinished() map[ledger.Box]ledger.BoxState {
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.finished
	e.finished = map[ledger.Box]ledger.BoxState{}
	return f
}

func (e *Engine) result(err error) *Result {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := &Result{Err: err, Stopped: e.stopped() && e.stopErr == nil}
	if err == nil {
		r.Err = e.stopErr
	}
	for _, a := range e.accounts {
		acc := Account{Source: a.plan.Name, Excluded: a.excluded, Err: a.err, Until: a.until, Began: a.began, URL: a.url, Facts: a.facts}
		for _, b := range a.boxes {
			acc.Mailboxes = append(acc.Mailboxes, b.sum())
		}
		r.Accounts = append(r.Accounts, acc)
	}
	for _, o := range e.outlets {
		if o.failed != nil && r.Err == nil {
			r.Err = o.failed
		}
	}
	return r
}
