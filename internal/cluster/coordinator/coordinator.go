// Package coordinator divides a run into tasks, follows what workers do of
// them, and makes one result of it.
package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/cluster"
	"github.com/mailhaul/pipeline/internal/cluster/lease"
	"github.com/mailhaul/pipeline/internal/cluster/queue"
	"github.com/mailhaul/pipeline/internal/cluster/task"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/ledger/segments"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/status"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// Options are what a run with workers is made of.
type Options struct {
	Cluster *cluster.Cluster
	Plan    *plan.Plan
	File    string // hash of the pipeline file
	Plugins engine.Plugins
	Range   int // UIDs of a task of a large mailbox; 0: mailboxes aren't divided
	// Merge makes one of what tasks left in a sink's target (sink.Merger).
	Merge func(ctx context.Context, s *plan.Sink, state sink.State, tasks []sink.TaskCheckpoint, keep func(context.Context, sink.Checkpoint) error) error
	// Objects is where the ledgers of tasks are, under Prefix: what workers left
	// there that counts for nothing is deleted at the end. nil: it stays.
	Objects *objects.Bucket
	Prefix  string
	Log     *slog.Logger
	Name    string // of this process, as others see it
	// Retry says which dead letters of a task are tried again; nil: none.
	Retry  func(task string) *status.Choice
	Stats  *engine.Stats
	Events func(engine.Event)
	Stop   <-chan struct{}
	Now    time.Time
}

// Result is what a run did.
type Result struct {
	engine.Result
	Run       int64
	Tasks     int
	Accounts  []ledger.Account // where each stands, for who asks later
	Mailboxes []ledger.Mailbox
}

// run is a run under way.
type run struct {
	o        Options
	queue    *queue.Queue
	pipeline string
	number   int64
	known    map[string]*past // tasks of earlier runs
	divided  map[string]division
	same     func(*plan.Source, *ledger.Head, message.Mailbox) (*engine.Sum, error)
	own      atomic.Pointer[lease.Lease]
	accounts []*account
	tasks    map[string]*progress
	open     int // of tasks
	stopped  bool
	err      error // why the run ends before its end
}

// account is what becomes of one source.
type account struct {
	plan     *plan.Source
	began    time.Time
	err      error
	until    time.Time
	listed   bool
	url      string
	excluded []string
	boxes    []*box
}

// box is a mailbox, whose tasks are one, or many.
type box struct {
	name    string
	server  int64
	problem error // why there are no tasks
	tasks   []*progress
}

// past is what earlier runs left of a task: what says whether there is anything
// to do for it.
type past struct {
	head     ledger.Head // without checkpoints
	complete bool
}

// progress is a task, as far as the coordinator knows.
type progress struct {
	task      *task.Task
	account   *account
	unchanged *task.Outcome // nothing is to be done for it, and this is how it stands
	shown     engine.Totals
	outcome   *task.Outcome
	stands    []ledger.Mailbox
}

// Run runs the plan with workers. When Stop is closed it takes back the tasks
// that nobody has begun, and ends: workers finish what they have. The result is
// there even with an error. A *ledger.LockedError says that another run is
// under way.
func Run(ctx context.Context, o Options) (*Result, error) {
	r := &run{o: o, tasks: map[string]*progress{}, known: map[string]*past{}, same: engine.Unchanged(o.Plan)}
	keeper := lease.NewKeeper(o.Cluster.Leases, o.Cluster.Lease, o.Name)
	own, err := keeper.TakeInsisting(ctx, cluster.CoordinatorKey)
	if errors.Is(err, lease.ErrHeld) {
		err = locked(ctx, o.Cluster)
	}
	if err != nil {
		return &Result{Result: engine.Result{Err: err}}, err
	}
	r.own.Store(own)
	working, end := context.WithCancelCause(ctx)
	var keeping sync.WaitGroup
	keeping.Go(func() {
		if err := r.keepOn(working, keeper); err != nil {
			end(err)
		}
	})
	err = r.run(working)
	end(nil)
	keeping.Wait()
	return r.result(err), err
}

// keepOn keeps being the only coordinator. A lease that is lost, as when the
// cluster has no leader for a while, is taken again: nothing that a run does
// hangs on it, but for merging. The error says that another run began meanwhile.
func (r *run) keepOn(ctx context.Context, k *lease.Keeper) error {
	o := r.o
	for {
		own := r.own.Load()
		select {
		case <-ctx.Done():
		case <-own.Context().Done():
		}
		if ctx.Err() != nil { // it is that which ended the lease
			release, cancel := context.WithTimeout(context.WithoutCancel(ctx), releasePatience)
			defer cancel()
			_ = own.Release(release) // else it ends by itself
			return nil
		}
		for held := 0; ; {
			next, err := k.Take(ctx, cluster.CoordinatorKey)
			if err == nil {
				r.own.Store(next)
				break
			}
			if by := holder(ctx, o.Cluster); errors.Is(err, lease.ErrHeld) && by != "" && by != o.Name {
				held++
			}
			if held > mostHeld {
				return fault.New(fault.Unavailable, "another `pipeline run` began while this one had lost touch with NATS").
					WithHint("see \"pipeline status\": workers go on with what they have, and what is done stays done")
			}
			select {
			case <-time.After(heldPause):
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// alone calls f while no other coordinator can be at work, and again where that
// wasn't sure to the end: what f does must be harmless to do again.
func (r *run) alone(ctx context.Context, f func(context.Context) error) error {
	for {
		own := r.own.Load()
		sure, cancel := context.WithCancelCause(ctx)
		stop := context.AfterFunc(own.Context(), func() { cancel(context.Cause(own.Context())) })
		err := lease.ErrLost
		if !own.Lost() {
			err = f(sure)
		}
		stop()
		cancel(nil)
		if err == nil || ctx.Err() != nil || !own.Lost() {
			return err
		}
		select {
		case <-time.After(heldPause): // keepOn takes it again, or ends the run
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

const (
	releasePatience = 5 * time.Second
	heldPause       = time.Second
	mostHeld        = 3 // a replica that lags may show an older holder
)

// locked says that another run is under way.
func locked(ctx context.Context, c *cluster.Cluster) error {
	return &ledger.LockedError{Path: "stream " + c.Name(), Holder: holder(ctx, c)}
}

// holder says who has the coordinator's lease.
func holder(ctx context.Context, c *cluster.Cluster) string {
	e, err := c.Leases.Get(ctx, cluster.CoordinatorKey)
	if err != nil {
		return ""
	}
	v, err := lease.Read(e.Value())
	if err != nil {
		return ""
	}
	return v.Owner
}

func (r *run) run(ctx context.Context) (err error) {
	c := r.o.Cluster
	if r.queue, err = queue.Open(ctx, c); err != nil {
		return err
	}
	if r.pipeline, err = c.Pipeline(ctx); err != nil {
		return err
	}
	last, err := c.LastRun(ctx)
	if err != nil {
		return err
	}
	r.number = last.Number + 1
	state := cluster.Run{Number: r.number, Stage: cluster.Listing, File: r.o.File, Began: r.o.Now}
	if err := c.SetRun(ctx, state); err != nil {
		return err
	}
	// What an earlier run left in the queue is listed anew.
	if err := r.queue.Clear(ctx); err != nil {
		return err
	}
	all, err := manifests(ctx, c)
	if err != nil {
		return err
	}
	for _, m := range all {
		r.known[m.Task] = remember(m)
	}
	if r.divided, err = divisions(ctx, c); err != nil {
		return err
	}
	var news *news
	err = cluster.Insist(ctx, func(context.Context) (err error) { // what it watches with outlives the try
		news, err = r.watch(ctx)
		return err
	})
	if err != nil {
		return err
	}
	defer news.stop()
	if err := r.list(ctx); err != nil {
		return err
	}
	state.Stage, state.Tasks = cluster.Working, len(r.tasks)
	if err := c.SetRun(ctx, state); err != nil {
		return err
	}
	if err = r.follow(ctx, news); err == nil {
		err = r.err
	}
	if err == nil && !r.stopped {
		if err = r.alone(ctx, r.merge); err == nil {
			r.sweep(ctx)
		}
	} else {
		err = errors.Join(err, atLast(ctx, r.queue.Clear))
	}
	state.Stage, state.Exit = cluster.Ended, r.result(err).Exit()
	return errors.Join(err, atLast(ctx, func(ctx context.Context) error { return c.SetRun(ctx, state) }))
}

// atLast calls f also when the run was broken off, but not for long.
func atLast(ctx context.Context, f func(context.Context) error) error {
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
	defer cancel()
	return f(ending)
}

// endPatience is how long NATS may take to hear that a run is over: a cluster
// that lost a node has a leader again by then.
const endPatience = 30 * time.Second

// manifests returns those of all tasks that ever began.
func manifests(ctx context.Context, c *cluster.Cluster) (all []*segments.Manifest, err error) {
	err = cluster.Insist(ctx, func(ctx context.Context) error {
		all = nil
		for m, err := range segments.All(ctx, c.Books) {
			if err != nil {
				return err
			}
			all = append(all, m)
		}
		return nil
	})
	return all, err
}

// remember keeps of a manifest what says whether there is anything to do.
func remember(m *segments.Manifest) *past {
	p := &past{head: ledger.Head{Boxes: m.Head.Boxes, Mailboxes: m.Head.Mailboxes}}
	for _, t := range m.Head.Targets {
		t.Checkpoint = nil
		p.head.Targets = append(p.head.Targets, t)
	}
	if m.State == segments.Done {
		o, err := task.Decode(m.Outcome)
		p.complete = err == nil && o.Complete()
	}
	return p
}

// unchanged returns the outcome of a task of whose mailbox nothing is new since
// its last run came to its end; else nil.
func (r *run) unchanged(a *account, t *task.Task) (*task.Outcome, []ledger.Mailbox, error) {
	p := r.known[t.ID]
	if p == nil || !p.complete || t.Retry != nil {
		return nil, nil, nil
	}
	sum, err := r.same(a.plan, &p.head, t.Mailbox)
	if sum == nil || err != nil {
		return nil, nil, err
	}
	_, stands, err := p.head.Standing()
	return &task.Outcome{Source: t.Source, Range: t.Range, Sum: *sum, Began: true, Letters: sum.Standing}, stands, err
}

// sweep deletes what workers left of ledgers that no manifest names. What stays
// is swept by the next run.
func (r *run) sweep(ctx context.Context) {
	if r.o.Objects == nil {
		return
	}
	if n, err := segments.Sweep(ctx, r.o.Cluster.Books, r.o.Objects, r.o.Prefix); err != nil {
		r.o.Log.Warn("can't clear away what killed workers left of ledgers: the next run tries again", "error", err)
	} else if n > 0 {
		r.o.Log.Info("cleared away what killed workers left of ledgers", "objects", n)
	}
}

// news are the changes of manifests and leases.
type news struct {
	manifests <-chan *segments.Manifest
	leases    <-chan told
	failed    <-chan error
	stop      func()
}

type told struct{ p workerProgress }

// workerProgress is worker.Progress, as far as it is read here.
type workerProgress struct {
	Run    int64         `json:"run"`
	Task   string        `json:"task"`
	Totals engine.Totals `json:"totals"`
}

// watch begins to look at what workers write.
func (r *run) watch(ctx context.Context) (*news, error) {
	ctx, cancel := context.WithCancel(ctx)
	manifests, leases, failed := make(chan *segments.Manifest, 256), make(chan told, 256), make(chan error, 2)
	// A key that was deleted is a task that is to begin anew: nothing of this run.
	books, err := r.o.Cluster.Books.Watch(ctx, segments.Key("*"), jetstream.IgnoreDeletes())
	if err != nil {
		cancel()
		return nil, cluster.Wrap(err, "watch the manifests of the tasks")
	}
	held, err := r.o.Cluster.Leases.Watch(ctx, "lease.*")
	if err != nil {
		cancel()
		return nil, cluster.Wrap(err, "watch the leases of the tasks")
	}
	go func() {
		for e := range books.Updates() {
			if e == nil {
				continue
			}
			m, err := segments.Decode(e.Value())
			if err != nil {
				failed <- err
				return
			}
			if m.Run != r.number {
				continue
			}
			select {
			case manifests <- m:
			case <-ctx.Done():
				return
			}
		}
		if ctx.Err() == nil {
			failed <- fault.New(fault.Unavailable, "watch the manifests of the tasks: the connection to NATS was closed")
		}
	}()
	go func() {
		for e := range held.Updates() {
			if e == nil || len(e.Value()) == 0 {
				continue
			}
			v, err := lease.Read(e.Value())
			var p workerProgress
			if err != nil || json.Unmarshal(v.Told, &p) != nil || p.Run != r.number {
				continue
			}
			select {
			case leases <- told{p}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return &news{manifests, leases, failed, func() {
		cancel()
		_, _ = books.Stop(), held.Stop() // nothing more is wanted of them
	}}, nil
}

// follow waits until all tasks are done.
func (r *run) follow(ctx context.Context, n *news) error {
	select {
	case <-r.o.Stop: // before all was listed, even
		r.stop()
	default:
	}
	for r.open > 0 && r.err == nil && !r.stopped {
		select {
		case m := <-n.manifests:
			if err := r.learn(m); err != nil {
				return err
			}
		case t := <-n.leases:
			if p := r.tasks[t.p.Task]; p != nil && p.outcome == nil {
				r.show(p, t.p.Totals)
			}
		case err := <-n.failed:
			return err
		case <-r.o.Stop:
			r.stop()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (r *run) stop() {
	r.stopped = true
	r.o.Events(engine.Event{Kind: engine.Stopping})
}

// learn takes note of a manifest.
func (r *run) learn(m *segments.Manifest) error {
	p := r.tasks[m.Task]
	if p == nil || p.outcome != nil || m.State == segments.Taken {
		return nil
	}
	o, err := task.Decode(m.Outcome)
	if err != nil {
		return fmt.Errorf("task %s: %w", m.Task, err)
	}
	_, stands, err := m.Head.Standing()
	if err != nil {
		return fmt.Errorf("task %s: %w", m.Task, err)
	}
	r.open--
	r.ended(p, o, stands, m.State)
	return nil
}

// ended takes note of how a task ended.
func (r *run) ended(p *progress, o *task.Outcome, stands []ledger.Mailbox, state segments.State) {
	p.outcome, p.stands = o, stands
	s := &o.Sum
	t := engine.Totals{
		Expected: s.Listed, Listed: s.Listed, Todo: s.Listed - s.DoneBefore, Settled: s.Listed - s.DoneBefore - s.Pending,
		Fetched: s.Written, Octets: s.Octets, Passed: p.shown.Passed,
	}
	t.Became[ledger.Written], t.Became[ledger.Duplicate], t.Became[ledger.Dead] = s.Written, s.Duplicates, s.DeadLetters
	t.Became[ledger.Dropped], t.Became[ledger.Unrouted], t.Became[ledger.Vanished] = s.AllDropped(), s.Unrouted, s.Vanished
	r.show(p, t)
	ev := engine.Event{Source: o.Source, Mailbox: s.Mailbox, Count: s.Listed}
	switch {
	case o.Err != nil && !o.Until.IsZero():
		ev.Kind, ev.Err, ev.Wait = engine.AccountParked, o.Err.Fault(), time.Until(o.Until)
	case o.Err != nil && state == segments.Failed:
		// What ends a local run ends this one: a sink that fails for one worker
		// does for all.
		r.err = o.Err.Fault()
		ev.Kind, ev.Err = engine.Stopping, r.err
	case o.Err != nil:
		ev.Kind, ev.Err = engine.AccountFailed, o.Err.Fault()
	case o.Problem != nil:
		ev.Kind, ev.Err, ev.Text = engine.AccountNote, o.Problem.Fault(), "mailbox "+s.Mailbox+": "+o.Problem.Text
	case s.Skipped:
		ev.Kind = engine.MailboxSkipped
	default:
		ev.Kind = engine.MailboxListed
	}
	r.o.Events(ev)
	if n := s.Written; n > 0 {
		r.o.Events(engine.Event{Kind: engine.Committed, Source: o.Source, Count: n, Octets: s.Octets, Took: o.Took})
	}
}

// show adds to the counters what a task is further than before.
func (r *run) show(p *progress, t engine.Totals) {
	c := r.o.Stats.Account(p.account.plan.Name)
	old := &p.shown
	c.Listed.Add(t.Listed - old.Listed)
	c.Todo.Add(t.Todo - old.Todo)
	c.Fetched.Add(t.Fetched - old.Fetched)
	c.Octets.Add(t.Octets - old.Octets)
	c.Passed.Add(t.Passed - old.Passed)
	c.Settled.Add(t.Settled - old.Settled)
	for i := range t.Became {
		c.Became[i].Add(t.Became[i] - old.Became[i])
	}
	p.shown = t
}
