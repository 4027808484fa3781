// Package worker takes tasks from the queue and runs each through the engine:
// the same as in a local run, with a plan that has one mailbox of one source.
// Plugin processes live as long as the worker, sessions of sources from one
// task of theirs to the next.
package worker

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
	"github.com/mailhaul/pipeline/internal/ledger/segments"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// Options are what a worker is made of.
type Options struct {
	Cluster *cluster.Cluster
	Plan    *plan.Plan
	File    string // hash of the pipeline file
	Plugins engine.Plugins
	// Open opens a source with one connection, for one of share workers.
	Open    func(ctx context.Context, s *plan.Source, share int, isolated bool) (source.Opened, error)
	Objects *objects.Bucket // where the ledgers of tasks are
	Prefix  string          // of their keys
	Dir     string          // for scratch files
	Log     *slog.Logger
	Spool   *message.Spool
	Name    string // of this worker, as others see it
	Tasks   int    // at once
	Once    bool   // end when nothing is left to do
	Events  func(Event)
	Stop    <-chan struct{} // closed: finish what is under way, take nothing more
	Hurry   <-chan struct{} // closed: commit what came, wait for no server
}

// Event is something that happened to a task.
type Event struct {
	Task    *task.Task
	Outcome *task.Outcome // nil: it begins
	Err     error         // why it isn't done; another worker may do it
}

// Worker is a worker at work.
type Worker struct {
	o        Options
	queue    *queue.Queue
	keeper   *lease.Keeper
	seats    *seats
	pipeline string
	sources  map[string]*plan.Source
	done     atomic.Int64
	busy     atomic.Int64
}

// Run takes tasks until it is stopped, or, with Once, until none is left. It
// returns how many tasks it did.
func Run(ctx context.Context, o Options) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q, err := queue.Open(ctx, o.Cluster)
	if err != nil {
		return 0, err
	}
	w := &Worker{o: o, queue: q, keeper: lease.NewKeeper(o.Cluster.Leases, o.Cluster.Lease, o.Name), sources: map[string]*plan.Source{}}
	if w.pipeline, err = o.Cluster.Pipeline(ctx); err != nil {
		return 0, err
	}
	for i := range o.Plan.Sources {
		w.sources[o.Plan.Sources[i].Name] = &o.Plan.Sources[i]
	}
	w.seats = &seats{keeper: w.keeper, open: o.Open, free: map[string][]*seat{}}
	defer w.seats.endAll(ctx)
	taking, stopTaking := context.WithCancel(ctx)
	defer stopTaking()
	go func() {
		select {
		case <-o.Stop:
			stopTaking()
		case <-taking.Done():
		}
	}()
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	for range max(1, o.Tasks) {
		wg.Go(func() {
			if err := w.loop(ctx, taking); err != nil {
				once.Do(func() { failed = err })
				stopTaking()
			}
		})
	}
	wg.Wait()
	return w.done.Load(), failed
}

// The pauses of a worker: how long one waits for a task before it looks around,
// and before it asks again where NATS doesn't answer.
const (
	takePatience = 2 * time.Second
	silentPause  = time.Second
)

// loop does one task after another.
func (w *Worker) loop(ctx, taking context.Context) error {
	alone := 0 // so often there was nothing to do, and nobody to give more
	for taking.Err() == nil {
		item, err := w.queue.Take(taking, takePatience)
		switch {
		case errors.Is(err, queue.ErrEmpty):
			if !w.o.Once || taking.Err() != nil {
				continue
			}
			empty, abandoned := w.nothingLeft(taking)
			if abandoned {
				alone++
			} else {
				alone = 0
			}
			if empty || alone == mostAlone {
				return nil
			}
			continue
		case err != nil:
			if closed := w.o.Cluster.Closed(); closed != nil {
				return closed
			}
			if taking.Err() == nil {
				w.o.Log.Warn("can't take a task; trying again", "error", err)
				pause(taking, silentPause)
			}
			continue
		}
		w.busy.Add(1)
		err = w.do(ctx, item)
		w.busy.Add(-1)
		if fault.Is(err, fault.Config) {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// mostAlone is how often a worker that is to end looks whether a run that had
// begun to list is still there: it may have lost touch with NATS for a moment.
const mostAlone = 3

// nothingLeft reports whether the run's last task is done; or else whether the
// queue is empty and the run that would fill it was killed.
func (w *Worker) nothingLeft(ctx context.Context) (done, abandoned bool) {
	run, err := w.o.Cluster.LastRun(ctx)
	if err != nil {
		return false, false
	}
	if left, err := w.queue.Left(ctx); err != nil || left > 0 {
		return false, false
	}
	if run.Stage != cluster.Listing {
		return true, false
	}
	_, err = w.o.Cluster.Leases.Get(ctx, cluster.CoordinatorKey)
	return false, errors.Is(err, jetstream.ErrKeyNotFound)
}

// waitAtMost bounds how long a task waits before it is brought again.
func (w *Worker) waitAtMost(d time.Duration) time.Duration { return min(d, w.o.Cluster.Lease/3) }

// do does one task. An error of class Config ends the worker; else it was told.
func (w *Worker) do(ctx context.Context, item *queue.Item) error {
	t := &item.Task
	if t.File != w.o.File {
		_ = item.Again(silentPause) // a worker with that file takes it
		return fault.New(fault.Config, "run %d is of another pipeline file than this worker's", t.Run).
			WithHint("give the worker the file, and the tables, that `pipeline run` has")
	}
	s := w.sources[t.Source]
	if s == nil {
		_ = item.Again(w.waitAtMost(10 * time.Second))
		err := fault.New(fault.Unavailable, "source %s can't be opened here: its row has a mistake on this machine", t.Source)
		w.tell(Event{Task: t, Err: err})
		return nil
	}
	st, err := w.seats.take(ctx, s, t, w.o.Plan.PerHost)
	if err != nil {
		// All its connections are taken. The more often it came, the longer it
		// waits: others go first.
		_ = item.Again(w.waitAtMost(time.Duration(min(item.Brought(), 20)) * 100 * time.Millisecond))
		if !errors.Is(err, lease.ErrHeld) {
			w.tell(Event{Task: t, Err: err})
		}
		return nil
	}
	defer w.seats.give(ctx, st)
	own, err := w.keeper.Take(ctx, "lease."+t.ID)
	if err != nil {
		_ = item.Again(w.waitAtMost(time.Second))
		if !errors.Is(err, lease.ErrHeld) {
			w.tell(Event{Task: t, Err: err})
		}
		return nil
	}
	done, tries, err := w.run(own, item, s, st)
	if !done && fault.Is(err, fault.Config) {
		// The task's own, as a ledger that is damaged: neither this worker nor
		// another one can do it, and others aren't to end of it (I6).
		done, err = w.giveUp(own, t, err)
	}
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), slotPatience)
	defer cancel()
	_ = own.Release(release) // else it ends by itself
	if !done {
		w.tell(Event{Task: t, Err: err})
		_ = item.Again(w.waitAtMost(again << min(2*max(tries-1, 0), 20)))
		return err
	}
	_ = item.Ack() // one that is lost has the task brought again, and found done
	return nil
}

func (w *Worker) tell(e Event) {
	if w.o.Events != nil {
		w.o.Events(e)
	}
}

// again is how long a task that was given back waits; four times as long after
// each owner that did nothing of it.
const again = 100 * time.Millisecond

// mostTries is how many owners in a row may lose a task without having
// committed anything of it: more than a cluster without a leader costs.
const mostTries = 10

// giveUp ends a task that can't be done, so that it doesn't come back for ever.
// The next run tries it again.
func (w *Worker) giveUp(own *lease.Lease, t *task.Task, why error) (done bool, err error) {
	outcome := task.GivenUp(t, why, w.o.Name)
	raw, err := outcome.Encode()
	if err == nil {
		err = segments.GiveUp(own.Context(), w.segments(own, t), raw)
	}
	if err != nil {
		return false, errors.Join(why, err)
	}
	w.done.Add(1)
	w.tell(Event{Task: t, Outcome: outcome})
	return true, nil
}

// harmful says that a task is given up for what it did to its owners.
func harmful(t *task.Task) error {
	what := t.Source + "/" + t.Mailbox.Name
	if r := t.Range.String(); r != "" {
		what += " " + r
	}
	return fault.New(fault.Crashed, "%s was given up: %d workers in a row died or lost touch while they had it, and none got further than the one before (task %s)", what, mostTries, t.ID).
		WithHint("look into the workers' and the machines' logs of that time, as for a process that was killed for want of memory; the next run tries it again")
}

func (w *Worker) segments(own *lease.Lease, t *task.Task) segments.Options {
	return segments.Options{
		Task: t.ID, Fence: own.Fence(), Run: t.Run, Pipeline: w.pipeline,
		Manifests: w.o.Cluster.Books, Objects: w.o.Objects, Prefix: w.o.Prefix, Dir: w.o.Dir,
	}
}

// run runs a task under its lease. It says whether the task is done for this
// run, however it went, and how many owners had it in vain.
func (w *Worker) run(own *lease.Lease, item *queue.Item, s *plan.Source, st *seat) (done bool, tries int, err error) {
	t, ctx := &item.Task, own.Context()
	before, err := segments.Load(ctx, w.o.Cluster.Books, t.ID)
	if err != nil {
		return false, 0, err
	}
	if before != nil && before.Run >= t.Run && before.State != segments.Taken {
		return true, 0, nil // its Ack was lost
	}
	if before != nil && before.Run == t.Run && before.Tries >= mostTries {
		done, err = w.giveUp(own, t, harmful(t))
		return done, before.Tries, err
	}
	began := time.Now()
	l, err := segments.Open(ctx, w.segments(own, t))
	if err != nil {
		return false, 0, err
	}
	defer func() { tries, err = l.Manifest().Tries, errors.Join(err, l.Close()) }()
	w.tell(Event{Task: t})
	if err := release(ctx, l, t); err != nil {
		return false, 0, err
	}
	stats := &engine.Stats{}
	own.Beside(func() {
		_ = item.Alive() // the lease says whose it is
		own.Tell(progress(t, stats))
	})
	own.Tell(progress(t, stats))
	result, err := w.engine(own, l, t, s, st, stats)
	switch {
	case own.Lost():
		return false, 0, lease.ErrLost
	case errors.Is(err, segments.ErrFenced):
		return false, 0, err
	case st.lost():
		return false, 0, errors.Join(err, errSeat(s.Name))
	case result.Stopped || ctx.Err() != nil:
		return false, 0, errors.Join(err, context.Cause(ctx), l.Yield())
	}
	outcome := task.Of(t, result, w.o.Name, time.Since(began))
	if outcome.Letters, err = w.letters(ctx, l, t, before); err != nil {
		return false, 0, err
	}
	raw, err := outcome.Encode()
	if err != nil {
		return false, 0, err
	}
	end := l.Done
	if result.Err != nil {
		end = l.Fail
	}
	if err := end(ctx, raw); err != nil {
		return false, 0, err
	}
	w.done.Add(1)
	w.tell(Event{Task: t, Outcome: outcome})
	return true, 0, nil
}

// engine runs the engine for the task.
func (w *Worker) engine(own *lease.Lease, l *segments.Ledger, t *task.Task, s *plan.Source, st *seat, stats *engine.Stats) (*engine.Result, error) {
	ctx, cancel := context.WithCancelCause(own.Context())
	defer cancel(nil)
	for _, slot := range st.slots {
		defer context.AfterFunc(slot.Context(), func() { cancel(errSeat(s.Name)) })()
	}
	narrow := *s
	narrow.Selects = func(message.Mailbox) bool { return true }
	p := *w.o.Plan
	p.Sources, p.PerHost = []plan.Source{narrow}, 0
	return engine.Run(ctx, w.o.Stop, engine.Options{
		Plan: &p, Ledger: &shared{l, w.o.Cluster.Books}, Plugins: &plugins{w.o.Plugins, w, st, s, t},
		Log: w.o.Log, Spool: w.o.Spool, Stats: stats, Run: t.Run, Fence: sink.Fence{Task: t.ID, Number: own.Fence()},
		RetryFailed: t.Retry != nil && t.Retry.All(), Now: func() time.Time { return t.Now }, Hurry: w.o.Hurry, Spends: true,
	})
}

// plugins are the engine's, with the task's seat in the place of its source.
type plugins struct {
	engine.Plugins
	w      *Worker
	seat   *seat
	source *plan.Source
	task   *task.Task
}

// OpenSource opens the task's part of the source.
func (p *plugins) OpenSource(ctx context.Context, _ *plan.Source, isolated bool) (source.Opened, error) {
	if !isolated {
		return p.w.seats.session(ctx, p.seat, p.source, p.task)
	}
	o, err := p.w.o.Open(ctx, p.source, p.seat.share, true)
	if err != nil {
		return o, err
	}
	return narrowed(o, p.task, &atomic.Bool{}, o.Source.Close), nil
}

// OpenStage opens a stage.
func (p *plugins) OpenStage(ctx context.Context, s *stages.Stage, isolated bool) (stage.Stage, error) {
	return p.Plugins.OpenStage(ctx, s, isolated)
}

// Progress is what the lease of a task tells of it.
type Progress struct {
	Run     int64         `json:"run"`
	Task    string        `json:"task"`
	Source  string        `json:"source"`
	Mailbox string        `json:"mailbox"`
	Range   task.Range    `json:"range,omitzero"`
	Totals  engine.Totals `json:"totals"`
}

func progress(t *task.Task, stats *engine.Stats) json.RawMessage {
	b, err := json.Marshal(Progress{t.Run, t.ID, t.Source, t.Mailbox.Name, t.Range, stats.Totals()})
	if err != nil {
		return nil // nothing is told then
	}
	return b
}

// String says what an event is, in a line.
func (e Event) String() string {
	what := e.Task.Source + "/" + e.Task.Mailbox.Name
	if r := e.Task.Range.String(); r != "" {
		what += " " + r
	}
	switch {
	case e.Err != nil:
		return fmt.Sprintf("%s: given back: %v", what, e.Err)
	case e.Outcome == nil:
		return what + ": begun"
	}
	s := &e.Outcome.Sum
	text := fmt.Sprintf("%s: %d listed, %d written", what, s.Listed, s.Written)
	if s.Standing > 0 {
		text += fmt.Sprintf(", %d dead letters", s.Standing)
	}
	for _, trouble := range []*task.Trouble{e.Outcome.Problem, e.Outcome.Err} {
		if trouble != nil {
			text += ": " + trouble.Text
		}
	}
	return text
}
