package worker

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/cluster"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/ledger/segments"
)

// shared is a task's ledger with the budgets of the whole cluster: what other
// workers fetched of an account counts as well.
type shared struct {
	*segments.Ledger
	books jetstream.KeyValue
}

func budgetKey(source string) string { return "budget." + digest(source) }

// Spent returns what all workers fetched of the source since then.
func (s *shared) Spent(ctx context.Context, source string, since time.Time) ([]ledger.Spent, error) {
	var all []ledger.Spent
	err := cluster.Insist(ctx, func(ctx context.Context) (err error) {
		all, _, err = s.read(ctx, source)
		return err
	})
	var out []ledger.Spent
	for _, one := range all {
		if !one.At.Before(since) {
			out = append(out, one)
		}
	}
	return out, err
}

func (s *shared) read(ctx context.Context, source string) (all []ledger.Spent, revision uint64, err error) {
	e, err := s.books.Get(ctx, budgetKey(source))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, cluster.Wrap(err, "read the budget of source %s", source)
	}
	return all, e.Revision(), json.Unmarshal(e.Value(), &all)
}

// Commit commits an epoch, and then counts what was spent. A worker that dies
// between the two has spent what nobody counts: one epoch at most.
func (s *shared) Commit(ctx context.Context, e ledger.Epoch) error {
	if err := s.Ledger.Commit(ctx, e); err != nil {
		return err
	}
	for _, one := range e.Spent {
		// One whose answer is lost may be counted twice: that errs on the side of care.
		if err := cluster.Insist(ctx, func(ctx context.Context) error { return s.spend(ctx, one) }); err != nil {
			return err
		}
	}
	return nil
}

func (s *shared) spend(ctx context.Context, add ledger.Spending) error {
	for {
		all, revision, err := s.read(ctx, add.Source)
		if err != nil {
			return err
		}
		sum := map[time.Time]int64{}
		for _, one := range append(all, add.Add...) {
			if !one.At.Before(add.Before) {
				sum[one.At.UTC()] += one.Octets
			}
		}
		all = all[:0]
		for at, n := range sum {
			all = append(all, ledger.Spent{At: at, Octets: n})
		}
		b, err := json.Marshal(all)
		if err != nil {
			return cluster.Wrap(err, "write the budget of source %s", add.Source)
		}
		if revision == 0 {
			_, err = s.books.Create(ctx, budgetKey(add.Source), b)
		} else {
			_, err = s.books.Update(ctx, budgetKey(add.Source), b, revision)
		}
		if err == nil {
			return nil
		}
		if !conflict(err) {
			return cluster.Wrap(err, "write the budget of source %s", add.Source)
		}
	}
}

// conflict reports whether another one was quicker.
func conflict(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) ||
		errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}
