package coordinator

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/cluster"
	"github.com/mailhaul/pipeline/internal/cluster/lease"
	"github.com/mailhaul/pipeline/internal/ledger/segments"
)

// Standing is how far a run with workers is.
type Standing struct {
	Run     cluster.Run
	Done    int            // tasks of the run that are done
	Failed  int            // of the run, given up
	Workers map[string]int // tasks under way, by worker
}

// Look asks how far the run under way is, or the last one.
func Look(ctx context.Context, c *cluster.Cluster) (*Standing, error) {
	s := &Standing{Workers: map[string]int{}}
	var err error
	if s.Run, err = c.LastRun(ctx); err != nil {
		return nil, err
	}
	for m, err := range segments.All(ctx, c.Books) {
		switch {
		case err != nil:
			return nil, err
		case m.Run != s.Run.Number:
		case m.State == segments.Done:
			s.Done++
		case m.State == segments.Failed:
			s.Failed++
		}
	}
	w, err := c.Leases.Watch(ctx, "lease.*", jetstream.IgnoreDeletes())
	if err != nil {
		return nil, cluster.Wrap(err, "see which workers are at work")
	}
	defer func() { _ = w.Stop() }() // nothing more is wanted of it
	for e := range w.Updates() {
		if e == nil {
			break
		}
		v, err := lease.Read(e.Value())
		var p workerProgress
		if err == nil && json.Unmarshal(v.Told, &p) == nil && p.Run == s.Run.Number {
			s.Workers[v.Owner]++
		}
	}
	return s, nil
}

// Text writes it for a person.
func (s *Standing) Text(w io.Writer) {
	if s.Run.Number == 0 {
		fmt.Fprintln(w, "workers: no run has begun yet")
		return
	}
	var parts []string
	switch s.Run.Stage {
	case cluster.Listing:
		parts = append(parts, "listing mailboxes", fmt.Sprintf("%d tasks done", s.Done))
	case cluster.Ended:
		parts = append(parts, fmt.Sprintf("ended with exit code %d", s.Run.Exit), fmt.Sprintf("%d of %d tasks done", s.Done, s.Run.Tasks))
	default:
		parts = append(parts, fmt.Sprintf("%d of %d tasks done", s.Done, s.Run.Tasks))
	}
	if s.Failed > 0 {
		parts = append(parts, fmt.Sprintf("%d given up", s.Failed))
	}
	fmt.Fprintf(w, "run %d of the workers: %s\n", s.Run.Number, strings.Join(parts, ", "))
	for _, name := range slices.Sorted(maps.Keys(s.Workers)) {
		fmt.Fprintf(w, "  %s: %d under way\n", name, s.Workers[name])
	}
}
