package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/cluster"
	"github.com/mailhaul/pipeline/internal/cluster/task"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger/segments"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// The tries of a source that can't be listed, and the pause after the first.
const (
	tries     = 3
	firstWait = time.Second
)

// together is how many sources' tasks are put into the queue at once, a task of
// each in turn: the accounts' connections, not the queue's order, bound what is
// done at once.
const together = 64

// list lists the mailboxes of all sources, and puts their tasks into the queue.
func (r *run) list(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	listed := make(chan *account)
	limit := make(chan struct{}, max(1, r.o.Plan.Concurrency))
	var wg sync.WaitGroup
	for i := range r.o.Plan.Sources {
		a := &account{plan: &r.o.Plan.Sources[i], began: time.Now()}
		r.accounts = append(r.accounts, a)
	}
	wg.Go(func() {
		for _, a := range r.accounts {
			select {
			case limit <- struct{}{}:
			case <-ctx.Done():
				return
			case <-r.o.Stop:
				return
			}
			wg.Go(func() {
				defer func() { <-limit }()
				r.listAccount(ctx, a)
				select {
				case listed <- a:
				case <-ctx.Done():
				}
			})
		}
	})
	go func() {
		wg.Wait()
		close(listed)
	}()
	var waiting []*account
	for a := range listed {
		waiting = append(waiting, a)
		if len(waiting) < together {
			continue
		}
		if err := r.put(ctx, waiting); err != nil {
			cancel(err)
			wg.Wait()
			return err
		}
		waiting = nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return r.put(ctx, waiting)
}

// listAccount asks a source for its mailboxes. Its trouble is its own (I6).
func (r *run) listAccount(ctx context.Context, a *account) {
	for try := 1; ; try++ {
		err := r.mailboxes(ctx, a)
		if err == nil {
			return
		}
		f := fault.As(err)
		again := f != nil && (f.Class == fault.Unavailable || f.Class == fault.Crashed || f.Class == fault.Throttled)
		wait := firstWait << (try - 1)
		if f != nil {
			wait = max(wait, f.RetryAfter)
		}
		park := r.o.Plan.ParkAfter
		if park <= 0 {
			park = time.Minute
		}
		switch {
		case ctx.Err() != nil:
			a.err = context.Cause(ctx)
			return
		case again && wait > park:
			a.err, a.until = err, time.Now().Add(wait)
			r.o.Events(engine.Event{Kind: engine.AccountParked, Source: a.plan.Name, Err: err, Wait: wait})
			return
		case !again || try >= tries:
			a.err = err
			r.o.Events(engine.Event{Kind: engine.AccountFailed, Source: a.plan.Name, Err: err})
			return
		}
		r.o.Events(engine.Event{Kind: engine.AccountRetried, Source: a.plan.Name, Err: err, Wait: wait})
		select {
		case <-time.After(wait):
		case <-r.o.Stop:
			a.err = err
			return
		case <-ctx.Done():
		}
	}
}

func (r *run) mailboxes(ctx context.Context, a *account) error {
	opened, err := r.o.Plugins.OpenSource(ctx, a.plan, false)
	if err != nil {
		return err
	}
	defer opened.Source.Close()
	a.url = opened.URL
	r.o.Events(engine.Event{Kind: engine.AccountOpened, Source: a.plan.Name, Text: opened.URL})
	for _, n := range opened.Notes {
		r.o.Events(engine.Event{Kind: engine.AccountNote, Source: a.plan.Name, Text: n})
	}
	var all []message.Mailbox
	for m, err := range opened.Source.Mailboxes(ctx) {
		if err != nil {
			return fmt.Errorf("list the mailboxes: %w", err)
		}
		if len(all) == engine.MostMailboxes {
			return fault.New(fault.Bug, "source %s: plugin %s lists more than %d mailboxes", a.plan.Name, a.plan.Plugin, engine.MostMailboxes)
		}
		m.State = engine.Believable(m.State)
		all = append(all, m)
	}
	lanes := opened.Lanes
	if l, ok := opened.Source.(source.Laner); ok {
		lanes = min(lanes, l.Lanes())
	}
	a.boxes, a.excluded = nil, nil
	taken, left := a.plan.Take(all)
	for _, m := range left {
		a.excluded = append(a.excluded, m.Name)
	}
	var expected int64
	for _, m := range taken {
		b := &box{name: m.Name, server: m.State.Messages}
		a.boxes = append(a.boxes, b)
		ranges, err := r.ranges(ctx, opened.Source, a, &m)
		if fault.Is(err, fault.Gone) || fault.Is(err, fault.Message) {
			b.problem = err // a failing mailbox never stops another (I6)
			r.o.Events(engine.Event{Kind: engine.AccountNote, Source: a.plan.Name, Mailbox: m.Name, Err: err, Text: "mailbox " + m.Name + ": " + err.Error()})
			continue
		}
		if err != nil {
			return err
		}
		todo := false
		for _, part := range ranges {
			id := task.ID(r.pipeline, a.plan.Name, m.Name, part)
			t := &task.Task{
				ID: id, Run: r.number, File: r.o.File, Source: a.plan.Name, Mailbox: m,
				Among: plan.Among(m, taken), Range: part, Lanes: max(1, lanes), Now: r.o.Now,
			}
			if r.o.Retry != nil {
				t.Retry = r.o.Retry(id)
			}
			p := &progress{task: t, account: a}
			if p.unchanged, p.stands, err = r.unchanged(a, t); err != nil {
				return fmt.Errorf("mailbox %s: %w", m.Name, err)
			}
			todo = todo || p.unchanged == nil
			b.tasks = append(b.tasks, p)
		}
		if todo {
			expected += max(0, m.State.Messages)
		}
	}
	a.listed = true
	r.o.Stats.Account(a.plan.Name).Expected.Store(expected)
	return nil
}

// division is how a mailbox is divided: what the books keep of it.
type division struct {
	Size        uint32 `json:"size"` // UIDs of a task
	UIDValidity uint32 `json:"uid_validity"`
}

// Tasks of a mailbox: where UIDs are far apart a task has more of them, for no
// mailbox is worth more tasks than mostRanges at first, and mostEver when it has
// grown.
const (
	mostRanges = 1 << 10
	mostEver   = 1 << 16
)

// rangePrefix begins the keys of divisions.
const rangePrefix = "range."

// divisions returns how mailboxes are divided, by the id of the task that each
// would be undivided.
func divisions(ctx context.Context, c *cluster.Cluster) (all map[string]division, err error) {
	err = cluster.Insist(ctx, func(ctx context.Context) error {
		all = map[string]division{}
		w, err := c.Books.Watch(ctx, rangePrefix+"*", jetstream.IgnoreDeletes())
		if err != nil {
			return err
		}
		defer func() { _ = w.Stop() }() // nothing more is wanted of it
		for {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case e, open := <-w.Updates():
				switch {
				case !open:
					return nats.ErrDisconnected
				case e == nil: // those that there were are through
					return nil
				}
				var d division
				if err := json.Unmarshal(e.Value(), &d); err != nil || d.Size == 0 {
					return fault.New(fault.Bug, "read how a mailbox is divided: %q", e.Value())
				}
				all[strings.TrimPrefix(e.Key(), rangePrefix)] = d
			}
		}
	})
	if err != nil {
		return nil, cluster.Wrap(err, "read how mailboxes are divided")
	}
	return all, nil
}

// ranges divides a mailbox. How one is divided stays: a message belongs to the
// same task in every run, or it would be written twice (I2).
func (r *run) ranges(ctx context.Context, opened source.Source, a *account, m *message.Mailbox) ([]task.Range, error) {
	whole := []task.Range{{}}
	id := task.ID(r.pipeline, a.plan.Name, m.Name, task.Range{})
	if r.known[id] != nil {
		return whole, nil
	}
	d, divided := r.divided[id]
	switch {
	case !divided && (r.o.Range <= 0 || m.State.UIDValidity == 0 || m.State.Messages <= int64(r.o.Range)):
		return whole, nil
	case divided && m.State.UIDValidity == 0: // the server doesn't tell it now: workers look
		m.State.UIDValidity = d.UIDValidity
	case divided && m.State.UIDValidity != d.UIDValidity:
		return nil, task.Renumbered(a.plan.Name, m.Name)
	case divided && r.o.Range <= 0:
		return nil, fault.New(fault.Gone, "%s/%s was divided into tasks, and a limit can't count over all of it any more: nothing of it is exported", a.plan.Name, m.Name).
			WithHint("take the limit out, or export the mailbox by a pipeline of its own, with mailboxes.include, to another place")
	}
	last, err := lastUID(ctx, opened, m)
	if err != nil {
		return nil, err
	}
	if !divided {
		if d, err = r.divide(ctx, id, division{uint32(max(r.o.Range, int(last/mostRanges)+1)), m.State.UIDValidity}); err != nil {
			return nil, cluster.Wrap(err, "write down how mailbox %s is divided", m.Name)
		}
	}
	size := uint64(d.Size)
	if uint64(last)/size > mostEver {
		return nil, fault.New(fault.Gone, "%s/%s has UIDs up to %d: that is more than %d tasks of %d", a.plan.Name, m.Name, last, mostEver, size).
			WithHint("export the mailbox by a pipeline of its own, with mailboxes.include, to another place")
	}
	var out []task.Range
	for first := uint64(1); first <= max(uint64(last), 1); first += size {
		out = append(out, task.Range{First: uint32(first), Last: uint32(min(first+size-1, 1<<32-2))})
	}
	return out, nil
}

// divide writes down how a mailbox is divided from now on, and returns what
// stands there.
func (r *run) divide(ctx context.Context, id string, d division) (division, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return d, err
	}
	err = cluster.Insist(ctx, func(ctx context.Context) error {
		_, err := r.o.Cluster.Books.Create(ctx, rangePrefix+id, b)
		if !errors.Is(err, jetstream.ErrKeyExists) {
			return err
		}
		e, err := r.o.Cluster.Books.Get(ctx, rangePrefix+id) // an answer was lost
		if err == nil {
			err = json.Unmarshal(e.Value(), &d)
		}
		return err
	})
	return d, err
}

// lastUID asks the source for the newest message of a mailbox, over the session
// that listed it: an account may grant one connection only.
func lastUID(ctx context.Context, opened source.Source, m *message.Mailbox) (last uint32, err error) {
	for s, err := range opened.List(ctx, source.ListRequest{Mailbox: m.Name, Limit: 1, Newest: true}) {
		if err != nil {
			return 0, fmt.Errorf("mailbox %s: %w", m.Name, err)
		}
		last = s.ID.UID
	}
	return last, nil
}

// put puts the tasks of some accounts into the queue, one of each in turn.
func (r *run) put(ctx context.Context, accounts []*account) error {
	var all []*task.Task
	for at := 0; ; at++ {
		more := false
		for _, a := range accounts {
			n := at
			for _, b := range a.boxes {
				if n < len(b.tasks) {
					more = true
					if p := b.tasks[n]; p.unchanged != nil {
						r.ended(p, p.unchanged, p.stands, segments.Done)
					} else {
						r.tasks[p.task.ID] = p
						all = append(all, p.task)
					}
					break
				}
				n -= len(b.tasks)
			}
		}
		if !more {
			break
		}
	}
	r.open += len(all)
	return r.queue.Put(ctx, all)
}
