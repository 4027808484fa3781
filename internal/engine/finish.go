package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/internal/faultpoint"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// finishMost is how many messages may wait to be finished before the listing
// waits for them (I5).
const finishMost = 8192

// finisher does on the server what the file wants done with messages once they
// are exported: only after a commit has all their fates (I3). A crash leaves a
// message undone, and the next run does it; or it is done and nobody knows,
// and doing it again is harmless.
type finisher struct {
	a      *account
	source source.Finisher
	after  plan.After
	told   bool // the source only wants to know
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	changed sync.Cond
	waiting []finishing
	size    int
	ending  bool
	closed  bool  // nobody takes what is added
	err     error // of the server: nothing more is tried in this pass
	done    chan struct{}
}

// finishing is what waits of one mailbox under one UIDVALIDITY.
type finishing struct {
	box    *box
	number ledger.Box
	ids    []message.ID
}

// startFinishing returns the finisher of a pass; nil when nothing is to be
// done or told.
func (a *account) startFinishing(ctx context.Context, opened source.Opened) (*finisher, error) {
	after := a.plan.After
	if after.Action.IsZero() && !opened.Finishes {
		return nil, nil
	}
	power, ok := opened.Source.(source.Finisher)
	if !ok {
		return nil, fault.New(fault.Config, "source %s: `after` wants something done on the server, which plugin %s can't do", a.plan.Name, a.plan.Plugin).
			WithKey("after").WithHint("take `after` out")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	f := &finisher{a: a, source: power, after: after, told: after.Action.IsZero(), cancel: cancel, done: make(chan struct{})}
	f.changed.L = &f.mu
	go f.loop(ctx)
	return f, nil
}

// add hands over messages whose fates are all in the ledger. It never waits:
// the committer calls it. The number is that of the mailbox when they were
// listed: a later page may tell another UIDVALIDITY.
func (f *finisher) add(b *box, number ledger.Box, ids ...message.ID) {
	if f == nil || len(ids) == 0 {
		return
	}
	b.mu.Lock()
	b.unfinished += int64(len(ids))
	b.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return // the next run does it
	}
	f.size += len(ids)
	f.changed.Broadcast()
	for i := range f.waiting {
		if w := &f.waiting[i]; w.box == b && w.number == number {
			w.ids = append(w.ids, ids...)
			return
		}
	}
	f.waiting = append(f.waiting, finishing{b, number, ids})
}

// room waits until not too many wait.
func (f *finisher) room() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.size > finishMost && !f.closed {
		f.changed.Wait()
	}
}

// end does what still waits, or gives it up when the pass failed, and returns
// the server's error.
func (f *finisher) end(failed bool) error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	f.ending = true
	f.changed.Broadcast()
	f.mu.Unlock()
	if failed {
		f.cancel(context.Canceled)
	}
	<-f.done
	f.cancel(nil)
	if failed {
		return nil // there is a better one
	}
	return f.err
}

func (f *finisher) loop(ctx context.Context) {
	defer close(f.done)
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.closed, f.waiting, f.size = true, nil, 0
		f.changed.Broadcast()
	}()
	stop := context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changed.Broadcast()
	})
	defer stop()
	for {
		batch := f.next(ctx)
		if len(batch.ids) == 0 {
			return
		}
		if err := f.finish(ctx, batch); err != nil {
			f.mu.Lock()
			f.err = err
			f.mu.Unlock()
			return
		}
	}
}

// next waits for a batch of one mailbox: a full one, or what there is at the
// end or when too many wait. None ends the loop.
func (f *finisher) next(ctx context.Context) finishing {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if ctx.Err() != nil || f.a.e.stopped() {
			return finishing{}
		}
		for i := range f.waiting {
			w := &f.waiting[i]
			// Where room is waited for, whatever there is must go: thousands
			// may wait in mailboxes none of which ever fills a batch.
			if len(w.ids) < f.batch() && !f.ending && f.size <= finishMost {
				continue
			}
			n := min(len(w.ids), f.batch())
			batch := finishing{w.box, w.number, w.ids[:n:n]}
			w.ids = w.ids[n:]
			if len(w.ids) == 0 {
				f.waiting = append(f.waiting[:i], f.waiting[i+1:]...)
			}
			f.size -= n
			f.changed.Broadcast()
			return batch
		}
		if f.ending {
			return finishing{}
		}
		f.changed.Wait()
	}
}

func (f *finisher) batch() int {
	if f.after.Batch > 0 {
		return f.after.Batch
	}
	return 200
}

// finish takes one batch through the server, and into the ledger where the
// server itself wouldn't show that it is done.
func (f *finisher) finish(ctx context.Context, batch finishing) error {
	b, ids := batch.box, batch.ids
	if f.after.Rehash && !f.told {
		var err error
		if ids, err = f.rehash(ctx, batch); err != nil || len(ids) == 0 {
			return err
		}
	}
	if err := f.a.lanes.acquire(ctx); err != nil {
		return err
	}
	defer f.a.lanes.release()
	faultpoint.Hit("engine.finish")
	open := make(map[message.ID]bool, len(ids))
	for _, id := range ids {
		open[id] = true
	}
	done, refused := make([]message.ID, 0, len(ids)), 0
	var why error
	for answer, err := range f.source.Finish(ctx, source.FinishRequest{Mailbox: b.name, IDs: ids, Action: f.after.Action}) {
		if err != nil {
			return fmt.Errorf("mailbox %s: %s exported messages: %w", b.name, doing(f.after.Action), err)
		}
		answer.ID.Source = f.a.plan.Name
		if !open[answer.ID] {
			return fault.New(fault.Bug, "source %s: plugin %s finished a message that it wasn't asked to: %s", f.a.plan.Name, f.a.plan.Plugin, answer.ID)
		}
		delete(open, answer.ID)
		if answer.Err == nil || fault.Is(answer.Err, fault.Gone) {
			done = append(done, answer.ID)
			continue
		}
		refused++
		why = answer.Err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	faultpoint.Hit("engine.finished")
	if len(open) > 0 {
		return fault.New(fault.Bug, "source %s: plugin %s didn't say what became of %d messages that it was to finish", f.a.plan.Name, f.a.plan.Plugin, len(open))
	}
	if why != nil {
		f.a.e.note(Event{Kind: AccountNote, Source: f.a.plan.Name, Mailbox: b.name, Count: int64(refused), Err: why,
			Text: fmt.Sprintf("mailbox %s: %d messages stay as they are on the server: %v", b.name, refused, why)})
	}
	note := f.after.Action.Flag
	if f.after.Action.Move != "" || f.after.Action.Delete {
		note = ledger.Removed
	}
	if note != "" {
		if err := f.a.e.ledger.Finish(ctx, batch.number, note, done); err != nil {
			return err
		}
	}
	b.mu.Lock()
	b.unfinished -= int64(len(done))
	if !f.told {
		b.finished += int64(len(done))
	}
	b.mu.Unlock()
	if b.final() {
		f.a.e.finish(b)
	}
	return nil
}

func doing(a source.Action) string {
	switch {
	case a.Flag != "":
		return "flag"
	case a.Move != "":
		return "move"
	case a.Delete:
		return "delete"
	}
	return "tell of"
}

// exported hands over an item whose epoch is committed, if it is one that the
// file wants something done with.
func (f *finisher) exported(it *item) {
	if f == nil || it.worst() != ledger.Written {
		return
	}
	if !f.told && !f.ripe(&it.sum, it.sent) {
		it.box.unripe(1)
		return
	}
	f.add(it.box, it.number, it.sum.ID)
}

// ripe reports whether a message is as old as the file wants. One whose age
// nobody knows is never touched.
func (f *finisher) ripe(s *message.Summary, sent time.Time) bool {
	if f.after.OlderThan <= 0 {
		return true
	}
	at := s.InternalDate
	if at.IsZero() {
		at = sent
	}
	return !at.IsZero() && f.a.e.now.Sub(at) >= f.after.OlderThan
}

// earlier hands over messages of a page that an earlier run exported, and that
// are still as they were on the server. A source that is only told hears of
// them in each run: a crash may have come between the commit and the telling.
func (f *finisher) earlier(ctx context.Context, b *box, ids []message.ID) error {
	if f == nil || len(ids) == 0 {
		return nil
	}
	if flag := f.after.Action.Flag; flag != "" {
		finished, err := f.a.e.ledger.Finished(ctx, b.number, flag, ids)
		if err != nil {
			return err
		}
		open := ids[:0]
		for i, id := range ids {
			if !finished[i] {
				open = append(open, id)
			}
		}
		ids = open
	}
	if f.after.OlderThan > 0 && len(ids) > 0 {
		needs := message.NeedInternalDate & f.a.plan.Provides
		if needs == 0 {
			needs = message.NeedHeaders & f.a.plan.Provides
		}
		if err := f.a.lanes.acquire(ctx); err != nil {
			return err
		}
		sums, _, err := f.a.summaries(ctx, b, source.ListRequest{Mailbox: b.name, Needs: needs, IDs: ids}, anew)
		f.a.lanes.release()
		if err != nil {
			return err
		}
		all := len(ids)
		ids = ids[:0]
		for i := range sums {
			if f.ripe(&sums[i], sentAt(sums[i].Header)) {
				ids = append(ids, sums[i].ID)
			}
		}
		b.unripe(int64(all - len(ids)))
	}
	f.add(b, b.number, ids...)
	f.room()
	return nil
}

// sentAt returns the date of a header; zero when it can't be read.
func sentAt(h *message.Header) time.Time {
	if h == nil {
		return time.Time{}
	}
	t, _ := h.Date()
	return t
}

// unripe counts messages that a later run is to finish: the mailbox must not
// be passed over until then.
func (b *box) unripe(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unfinished += n
}
