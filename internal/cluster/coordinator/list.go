package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/cluster"
	"github.com/mailhaul/pipeline/internal/cluster/task"
	"github.com/mailhaul/pipeline/internal/engine"
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
		ranges, err := r.ranges(ctx, a, &m)
		if err != nil {
			return err
		}
		b := &box{name: m.Name, server: m.State.Messages}
		for _, part := range ranges {
			id := task.ID(r.pipeline, a.plan.Name, m.Name, part)
			t := &task.Task{
				ID: id, Run: r.number, File: r.o.File, Source: a.plan.Name, Mailbox: m,
				Among: plan.Among(m, taken), Range: part, Lanes: max(1, lanes), Retry: r.o.Retry != nil && r.o.Retry(id), Now: r.o.Now,
			}
			b.tasks = append(b.tasks, &progress{task: t, account: a})
		}
		a.boxes = append(a.boxes, b)
		expected += max(0, m.State.Messages)
	}
	a.listed = true
	r.o.Stats.Account(a.plan.Name).Expected.Store(expected)
	return nil
}

// ranges divides a mailbox. How one is divided stays: a message belongs to the
// same task in every run, or it would be written twice (I2).
func (r *run) ranges(ctx context.Context, a *account, m *message.Mailbox) ([]task.Range, error) {
	whole := []task.Range{{}}
	id := task.ID(r.pipeline, a.plan.Name, m.Name, task.Range{})
	if r.known[id] || r.o.Range <= 0 || m.State.UIDValidity == 0 {
		return whole, nil
	}
	key, books := "range."+id, r.o.Cluster.Books
	e, err := books.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		if m.State.Messages <= int64(r.o.Range) {
			return whole, nil
		}
		if _, err = books.Create(ctx, key, []byte(strconv.Itoa(r.o.Range))); err == nil {
			e, err = books.Get(ctx, key)
		}
	}
	if err != nil {
		return nil, cluster.Wrap(err, "read how mailbox %s is divided", m.Name)
	}
	size, err := strconv.ParseUint(string(e.Value()), 10, 31)
	if err != nil || size == 0 {
		return nil, fault.New(fault.Bug, "read how mailbox %s is divided: %q", m.Name, e.Value())
	}
	last, err := r.lastUID(ctx, a, m)
	if err != nil {
		return nil, err
	}
	var out []task.Range
	for first := uint64(1); first <= max(uint64(last), 1); first += size {
		out = append(out, task.Range{First: uint32(first), Last: uint32(min(first+size-1, 1<<32-2))})
	}
	return out, nil
}

// lastUID asks the source for the newest message of a mailbox.
func (r *run) lastUID(ctx context.Context, a *account, m *message.Mailbox) (last uint32, err error) {
	opened, err := r.o.Plugins.OpenSource(ctx, a.plan, false)
	if err != nil {
		return 0, err
	}
	defer opened.Source.Close()
	for s, err := range opened.Source.List(ctx, source.ListRequest{Mailbox: m.Name, Limit: 1, Newest: true}) {
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
					p := b.tasks[n]
					r.tasks[p.task.ID] = p
					all = append(all, p.task)
					more = true
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
