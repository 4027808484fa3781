package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/mailhaul/pipeline/internal/faultpoint"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// maxDeaths is how often a sink's process may die in a row, with nothing
// committed in between, before the sink is given up.
const maxDeaths = 5

// outlet is a sink of the run: opened when there is something to write,
// opened again at its committed checkpoint when its process died.
type outlet struct {
	e      *Engine
	plan   *plan.Sink
	index  int
	target ledger.Target
	files  readBack // nil: nobody wants its files read back

	mu          sync.Mutex
	changed     sync.Cond
	committing  bool     // sealed or flushed, and the ledger hasn't its checkpoint yet
	open        *session // nil: not open
	gen         int      // of the newest session; 1 is the first
	checkpoint  sink.Checkpoint
	alone       bool  // the next session gets a process of its own
	deaths      int   // since something was committed
	failed      error // given up for this run
	used        bool  // opened in this run: to be marked clean at its end
	uncommitted bool  // something was written that no commit covers
	behind      bool  // the ledger has a checkpoint that no session was told of
}

// session is one opening of an outlet.
type session struct {
	SinkSession
	sealer sealer // nil: it seals no epochs
	gen    int
	lanes  []*lane

	// Guarded by outlet.mu.
	wrote bool // a Put was accepted since the last Seal or Flush
	spent bool // one of these failed: the session promises nothing any more
}

// lane lets workers share a Lane.
type lane struct {
	mu sync.Mutex
	Lane
	waiting atomic.Int32 // messages that the sink hasn't answered
}

// crowded is how many messages may wait on a worker's own lane before others
// are used as well: a lane's messages are written one after the other, and a
// sink that takes long over each, as to convert it, must get to use all cores
// also where a single connection brings the mail. A sink that keeps up gets
// few lanes and full frames.
const crowded = 64

// get returns the outlet's session, opening it if need be. The session belongs
// to the run: it outlives the account that happened to need it first.
func (o *outlet) get() (*session, error) {
	ctx := o.e.ctx
	o.mu.Lock()
	defer o.mu.Unlock()
	// A session that is opened now must get the checkpoint that is on its way
	// into the ledger: with the one before, the sink would undo what the
	// ledger is about to call written.
	for o.committing && o.open == nil && ctx.Err() == nil {
		o.changed.Wait()
	}
	if o.failed != nil {
		return nil, o.failed
	}
	if o.open != nil {
		return o.open, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	// Dirty before the first Write: a crash from here on makes the next run
	// open the sink, even when that has nothing to write (DESIGN §6, Commit).
	if !o.used {
		if err := o.e.ledger.MarkDirty(ctx, o.target.ID); err != nil {
			return nil, err
		}
		o.used = true
		faultpoint.Hit("engine.sink.dirty")
	}
	s, err := o.e.plugins.OpenSink(ctx, o.plan, sink.State{
		Name:       o.plan.Name,
		Pipeline:   o.e.ledger.Pipeline(),
		Checkpoint: o.checkpoint,
		Known:      o.target.Known,
		Adopt:      o.e.opts.adopts(o.plan.Name),
		Rewrite:    o.e.opts.rewrites(o.plan.Name),
		Spool:      o.e.opts.Spool,
		Fence:      o.e.opts.Fence,
	}, o.alone)
	if err != nil {
		if fault.Is(err, fault.Crashed) {
			o.countDeath(err)
		}
		return nil, ofNoMessage(err)
	}
	o.gen++
	opened := &session{SinkSession: s, gen: o.gen}
	if k, ok := s.(sealer); ok && k.Seals() && !o.plan.Prepared.Record {
		opened.sealer = k
	}
	for range max(1, min(o.plan.Prepared.Lanes, o.e.opts.lanes())) {
		l, err := s.Lane(ctx)
		if err != nil {
			if fault.Is(err, fault.Crashed) {
				o.countDeath(err)
			}
			return nil, errors.Join(err, s.Close())
		}
		opened.lanes = append(opened.lanes, &lane{Lane: l})
	}
	o.open, o.behind = opened, false
	faultpoint.Hit("engine.sink.opened")
	return opened, nil
}

// ofNoMessage makes sure that a sink that can't be opened makes no dead letter
// of whatever message happened to be the first: all of them would follow.
func ofNoMessage(err error) error {
	f := fault.As(err)
	if f == nil || f.Class != fault.Message {
		return err
	}
	w := *f
	w.Class, w.Text, w.Err = fault.Bug, err.Error(), err
	return &w
}

// put hands a message to the outlet over the worker's lane. It returns the
// session's generation. done is called once when the error is nil.
func (o *outlet) put(ctx context.Context, worker int, m *message.Message, done func(int, sink.Receipt, error)) error {
	s, err := o.get()
	if err != nil {
		return err
	}
	o.mu.Lock()
	s.wrote, o.uncommitted = true, true
	o.mu.Unlock()
	l := s.lane(worker)
	defer l.mu.Unlock()
	l.waiting.Add(1)
	err = l.Put(ctx, m, func(r sink.Receipt, err error) {
		l.waiting.Add(-1)
		if fault.Is(err, fault.Crashed) {
			o.died(s, err)
		}
		done(s.gen, r, err)
	})
	if err != nil {
		l.waiting.Add(-1)
	}
	if fault.Is(err, fault.Crashed) {
		o.died(s, err)
	}
	return err
}

// lane locks a lane: the worker's own, or a free one when a long body holds
// that; where many messages wait on its own, the one with the fewest.
func (s *session) lane(worker int) *lane {
	if s.lanes[worker%len(s.lanes)].waiting.Load() >= crowded {
		least := slices.MinFunc(s.lanes, func(a, b *lane) int { return cmp.Compare(a.waiting.Load(), b.waiting.Load()) })
		if least.mu.TryLock() {
			return least
		}
	}
	for i := range s.lanes {
		if l := s.lanes[(worker+i)%len(s.lanes)]; l.mu.TryLock() {
			return l
		}
	}
	l := s.lanes[worker%len(s.lanes)]
	l.mu.Lock()
	return l
}

// died takes a dead session out of use. What no Flush of it covers is lost to the epoch: its generation is no longer the outlet's.
func (o *outlet) died(s *session, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open != s {
		return
	}
	o.open = nil
	o.countDeath(err)
	// Closing a dead session waits for its streams; nobody needs that now.
	o.e.background.Go(func() { _ = s.Close() })
}

// countDeath gives the sink up when it only ever dies.
func (o *outlet) countDeath(err error) {
	o.deaths++
	o.e.note(Event{Kind: SinkDied, Sink: o.plan.Name, Err: err})
	if o.deaths >= maxDeaths && o.failed == nil {
		o.failed = fault.New(fault.Crashed, "sink %s: its process died %d times in a row, the last time: %w", o.plan.Name, o.deaths, err)
		o.e.background.Go(func() { o.e.sinkFailed(o, o.failed) })
	}
}

// flush makes what was written durable. It returns the generation that the
// checkpoint covers, 0 when there was nothing to flush; and what the target
// has refused, which it doesn't cover. sealed is called as soon as the next
// epoch may be written to this outlet, where that is before the end.
//
// What is written after the seal counts for the next epoch: a session that dies
// in between takes both with it, since neither has a checkpoint then, and one
// whose Flush fails isn't flushed again, whatever it wrote meanwhile (I3).
func (o *outlet) flush(ctx context.Context, sealed func()) (int, sink.Checkpoint, map[message.ID]error, error) {
	o.mu.Lock()
	s := o.open
	if s == nil || !s.wrote || s.spent {
		o.mu.Unlock()
		return 0, nil, nil, nil
	}
	s.wrote, o.committing = false, true
	o.mu.Unlock()
	cp, err := s.end(ctx, sealed)
	var list message.Refusals
	var refused map[message.ID]error
	if errors.As(err, &list) {
		err, refused = nil, make(map[message.ID]error, len(list))
		for _, x := range list {
			refused[x.ID] = x.Err
		}
	}
	if err != nil {
		o.mu.Lock()
		s.spent = true
		o.mu.Unlock()
		o.endCommit()
	}
	if fault.Is(err, fault.Crashed) {
		o.died(s, err)
	}
	if err != nil {
		return 0, nil, nil, fmt.Errorf("sink %s: flush: %w", o.plan.Name, err)
	}
	return s.gen, cp, refused, nil
}

// end seals the epoch, where the session can, and flushes it.
func (s *session) end(ctx context.Context, sealed func()) (sink.Checkpoint, error) {
	if s.sealer != nil {
		if err := s.sealer.Seal(ctx); err != nil {
			return nil, fmt.Errorf("seal: %w", err)
		}
		sealed()
	}
	return s.Flush(ctx)
}

// endCommit lets sessions be opened again.
func (o *outlet) endCommit() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.committing = false
	o.changed.Broadcast()
}

// committed tells the sink that the ledger has its checkpoint.
func (o *outlet) committed(ctx context.Context, gen int, cp sink.Checkpoint) {
	o.mu.Lock()
	o.checkpoint, o.deaths, o.committing, o.behind = cp, 0, false, true
	o.changed.Broadcast()
	o.target.Known = true
	s := o.open
	if s != nil && s.gen == gen {
		o.uncommitted = s.wrote
	}
	o.mu.Unlock()
	if s == nil || s.gen != gen {
		return
	}
	if err := s.Committed(ctx, cp); err != nil {
		if fault.Is(err, fault.Crashed) {
			o.died(s, err)
			return
		}
		o.fail(fmt.Errorf("sink %s: after the commit: %w", o.plan.Name, err))
		return
	}
	o.mu.Lock()
	o.behind = false
	o.mu.Unlock()
}

// roll opens the sink at its committed checkpoint, in a new process when one
// dies, until it has died too often.
func (o *outlet) roll() error {
	_, err := o.get()
	for fault.Is(err, fault.Crashed) && o.broken() == nil {
		_, err = o.get()
	}
	return err
}

// isBehind reports whether a sink may have staged something for a commit of
// which it hasn't heard: its session died in between.
func (o *outlet) isBehind() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.behind
}

// fail gives the outlet up for this run.
func (o *outlet) fail(err error) {
	o.mu.Lock()
	first := o.failed == nil
	if first {
		o.failed = err
	}
	o.mu.Unlock()
	if first {
		o.e.sinkFailed(o, err)
	}
}

// current returns the generation of the open session; 0 when there is none.
func (o *outlet) current() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open == nil {
		return 0
	}
	return o.gen
}

// settled reports whether nothing was written that isn't committed.
func (o *outlet) settled() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.uncommitted
}

func (o *outlet) isAlone() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.alone
}

// isolate ends the session, so that the next one gets a process of its own.
func (o *outlet) isolate(ctx context.Context) error {
	err := o.close(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.alone = true
	if fault.Is(err, fault.Crashed) {
		return nil
	}
	return err
}

// broken returns why the outlet was given up, or nil.
func (o *outlet) broken() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

// close ends the session in good order.
func (o *outlet) close(ctx context.Context) error {
	o.mu.Lock()
	s := o.open
	o.open = nil
	o.mu.Unlock()
	if s == nil {
		return nil
	}
	var errs []error
	for _, l := range s.lanes {
		errs = append(errs, l.Close())
	}
	faultpoint.Hit("engine.sink.close")
	err := errors.Join(append(errs, s.Close())...)
	faultpoint.Hit("engine.sink.closed")
	return err
}
