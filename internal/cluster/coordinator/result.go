package coordinator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/cluster"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/ledger/segments"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// result makes one of what the tasks told.
func (r *run) result(err error) *Result {
	out := &Result{Result: engine.Result{Err: err, Stopped: r.stopped}, Run: r.number, Tasks: len(r.tasks)}
	for _, a := range r.accounts {
		acc := engine.Account{Source: a.plan.Name, Excluded: a.excluded, Err: a.err, Until: a.until, Began: a.listed, URL: a.url}
		row := ledger.Account{Source: a.plan.Name, Run: r.number, Began: a.began, Ended: time.Now(), State: ledger.Complete}
		if !a.listed {
			row.State = ledger.Incomplete
		}
		for _, b := range a.boxes {
			sum, stands := b.sum(a, r.number)
			acc.Mailboxes = append(acc.Mailboxes, sum)
			out.Mailboxes = append(out.Mailboxes, stands)
			if sum.State != ledger.Complete {
				row.State = ledger.Incomplete
			}
			for _, p := range b.tasks {
				if p.outcome == nil || p.outcome.Err == nil {
					continue
				}
				told := p.outcome.Account()
				if acc.Err == nil {
					acc.Err = told.Err
				}
				if told.Until.After(acc.Until) {
					acc.Until = told.Until
				}
			}
		}
		for _, name := range a.excluded {
			out.Mailboxes = append(out.Mailboxes, ledger.Mailbox{Source: a.plan.Name, Name: name, Run: r.number, State: ledger.Excluded, Server: -1})
		}
		if acc.Err != nil {
			row.State, row.Err = ledger.Incomplete, acc.Err.Error()
			if f := fault.As(acc.Err); f != nil {
				row.Hint = f.Hint
			}
		}
		if !acc.Until.IsZero() {
			row.State, row.Until = ledger.Parked, acc.Until
		}
		out.Result.Accounts = append(out.Result.Accounts, acc)
		out.Accounts = append(out.Accounts, row)
	}
	return out
}

// sum adds up what the tasks of a mailbox told.
func (b *box) sum(a *account, number int64) (engine.Sum, ledger.Mailbox) {
	s := engine.Sum{Mailbox: b.name, Server: b.server, Dropped: map[string]int64{}, Undecided: map[string]int64{}, State: ledger.Complete, Complete: true, Skipped: true}
	m := ledger.Mailbox{
		Source: a.plan.Name, Name: b.name, Run: number, Server: b.server, Fates: ledger.Tally{}, Dropped: map[string]int64{}, Undecided: map[string]int64{}, State: ledger.Complete,
	}
	if b.problem != nil {
		s.State, s.Complete, s.Skipped, s.Problem = ledger.Incomplete, false, false, b.problem
	}
	none := b.problem == nil // no task was begun
	for _, p := range b.tasks {
		if p.outcome == nil {
			s.State, s.Complete, s.Skipped = ledger.Incomplete, false, false
			continue
		}
		none = false
		o := &p.outcome.Sum
		s.UIDValidity, s.Former = max(s.UIDValidity, o.UIDValidity), max(s.Former, o.Former)
		s.Listed += o.Listed
		s.DoneBefore += o.DoneBefore
		s.Written += o.Written
		s.Duplicates += o.Duplicates
		s.Unrouted += o.Unrouted
		s.DeadLetters += o.DeadLetters
		s.Vanished += o.Vanished
		s.Pending += o.Pending
		s.Octets += o.Octets
		s.Standing += o.Standing
		s.Recognised += o.Recognised
		s.WithBodies += o.WithBodies
		for stage, n := range o.Dropped {
			s.Dropped[stage] += n
		}
		for stage, n := range o.Undecided {
			s.Undecided[stage] += n
		}
		s.Limited = s.Limited || o.Limited
		s.Skipped = s.Skipped && o.Skipped
		for _, spot := range o.BlindSpots {
			if !slices.Contains(s.BlindSpots, spot) {
				s.BlindSpots = append(s.BlindSpots, spot)
			}
		}
		if !o.Complete {
			s.State, s.Complete = o.State, false
		}
		if s.Problem == nil {
			s.Problem = p.outcome.Problem.Fault()
		}
		if len(b.tasks) == 1 {
			s.Server, s.WithBodiesFrom = o.Server, o.WithBodiesFrom
		}
		for i := range p.stands {
			for class, n := range p.stands[i].Fates {
				m.Fates[class] += n
			}
			m.Listed += p.stands[i].Listed
		}
	}
	if none {
		s.State = ledger.NeverListed
	}
	m.UIDValidity, m.State, m.Server, m.Limited, m.BlindSpots = s.UIDValidity, s.State, s.Server, s.Limited, s.BlindSpots
	maps.Copy(m.Dropped, s.Dropped)
	maps.Copy(m.Undecided, s.Undecided)
	if s.Problem != nil {
		m.Problem = s.Problem.Error()
	}
	return s, m
}

// merged is what the books keep of the last merge of a sink.
type merged struct {
	Checkpoint []byte `json:"checkpoint,omitempty"`
	Of         []byte `json:"of"` // hash of what was merged
}

// merge makes one of what tasks left in the targets. Where nothing changed
// since the last time there is nothing to do.
func (r *run) merge(ctx context.Context) error {
	var errs []error
	for i := range r.o.Plan.Sinks {
		if err := r.mergeSink(ctx, &r.o.Plan.Sinks[i]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (r *run) mergeSink(ctx context.Context, s *plan.Sink) error {
	var tasks []sink.TaskCheckpoint
	wrote := false
	all, err := manifests(ctx, r.o.Cluster)
	if err != nil {
		return err
	}
	for _, m := range all {
		cp := m.Checkpoint(s.Name, s.Prepared.Target)
		if cp == nil && m.Snapshot == nil && len(m.Segments) == 0 && m.Tail == nil {
			continue // it never wrote anything
		}
		wrote = wrote || cp != nil
		tasks = append(tasks, sink.TaskCheckpoint{Task: m.Task, Fence: m.Fence, Checkpoint: cp, Done: m.State != segments.Taken})
	}
	slices.SortFunc(tasks, func(a, b sink.TaskCheckpoint) int { return bytes.Compare([]byte(a.Task), []byte(b.Task)) })
	h := sha256.New()
	for _, t := range tasks {
		fmt.Fprintf(h, "%s %t ", t.Task, t.Done)
		_ = binary.Write(h, binary.BigEndian, int64(len(t.Checkpoint))) // a hash takes everything
		h.Write(t.Checkpoint)
	}
	of := h.Sum(nil)
	key, books := "merge."+s.Name, r.o.Cluster.Books
	var last merged
	var e jetstream.KeyValueEntry
	err = cluster.Insist(ctx, func(ctx context.Context) (err error) {
		e, err = books.Get(ctx, key)
		return err
	})
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
	case err != nil:
		return cluster.Wrap(err, "read what was merged of sink %s", s.Name)
	default:
		if err := json.Unmarshal(e.Value(), &last); err != nil {
			return fault.New(fault.Bug, "read what was merged of sink %s: %w", s.Name, err)
		}
	}
	// A sink that nobody has written to isn't even opened: its target may not
	// be there.
	if !wrote && last.Checkpoint == nil || bytes.Equal(last.Of, of) {
		return nil
	}
	state := sink.State{Name: s.Name, Pipeline: r.pipeline, Checkpoint: last.Checkpoint, Known: true}
	return r.o.Merge(ctx, s, state, tasks, func(ctx context.Context, cp sink.Checkpoint) error {
		b, err := json.Marshal(merged{cp, of})
		if err != nil {
			return fault.Wrap(fault.Bug, err, "write what was merged of sink %s", s.Name)
		}
		// On the condition that nobody else merged meanwhile: two coordinators
		// that both believed to be alone would else undo each other's work.
		err = cluster.Insist(ctx, func(ctx context.Context) (err error) {
			if e == nil {
				_, err = books.Create(ctx, key, b)
			} else {
				_, err = books.Update(ctx, key, b, e.Revision())
			}
			if err == nil {
				return nil
			}
			if there, lost := books.Get(ctx, key); lost == nil && bytes.Equal(there.Value(), b) {
				return nil // it was this call whose answer was lost
			}
			return err
		})
		if err != nil {
			return cluster.Wrap(err, "write what was merged of sink %s", s.Name)
		}
		return nil
	})
}
