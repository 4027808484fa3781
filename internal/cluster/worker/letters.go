package worker

import (
	"context"

	"github.com/mailhaul/pipeline/internal/cluster"
	"github.com/mailhaul/pipeline/internal/cluster/letters"
	"github.com/mailhaul/pipeline/internal/cluster/task"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/ledger/segments"
	"github.com/mailhaul/pipeline/internal/status"
	"github.com/mailhaul/pipeline/pkg/message"
)

// letters tells the stream of dead letters which of the task's stand, before
// its manifest says that it is done. The ledger has them: the stream is for who
// looks.
func (w *Worker) letters(ctx context.Context, l *segments.Ledger, t *task.Task, before *segments.Manifest) (n int64, err error) {
	box := letters.Open(w.o.Cluster)
	var all []letters.Letter
	err = l.Letters(ctx, func(id message.ID, sink string, letter ledger.Letter) error {
		all = append(all, letters.Letter{Task: t.ID, ID: id, Sink: sink, Letter: letter})
		return nil
	})
	if err != nil {
		return 0, err
	}
	if len(all) == 0 && noneBefore(before) {
		return 0, nil
	}
	return int64(len(all)), cluster.Insist(ctx, func(ctx context.Context) error { return box.Replace(ctx, t.ID, all) })
}

// release makes those dead letters of the task pending that were chosen to be
// tried again. Where all were, the engine sees to it.
func release(ctx context.Context, l *segments.Ledger, t *task.Task) error {
	if t.Retry == nil || t.Retry.All() {
		return nil
	}
	_, err := l.Release(ctx, func(id message.ID, sink string, letter ledger.Letter) bool {
		made := status.NewLetter(id, sink, letter)
		return t.Retry.Includes(&made)
	})
	return err
}

// noneBefore reports whether a task surely had no dead letters: it never began,
// or its last run ended without.
func noneBefore(m *segments.Manifest) bool {
	if m == nil {
		return true
	}
	if m.State == segments.Taken {
		return false
	}
	o, err := task.Decode(m.Outcome)
	return err == nil && o.Letters == 0
}
