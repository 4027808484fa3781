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
	"github.com/mailhaul/pipeline/internal/cluster/task"
	"github.com/mailhaul/pipeline/internal/ledger/segments"
	"github.com/mailhaul/pipeline/internal/status"
)

// Standing is how far a run with workers is. As JSON it stands in what
// `pipeline status --json` prints (docs/reference/status.md).
type Standing struct {
	Run     cluster.Run    `json:"run"`
	Done    int            `json:"done"`     // tasks of the run that are done
	Failed  int            `json:"given_up"` // of the run
	Workers map[string]int `json:"workers"`  // tasks under way, by worker
	GivenUp []GivenUp      `json:"tasks_given_up,omitempty"`
}

// GivenUp is a task that nobody could do. The next run tries it again.
type GivenUp struct {
	Task    string `json:"task"`
	Source  string `json:"source"`
	Mailbox string `json:"mailbox"`
	Range   string `json:"range,omitempty"` // of UIDs; absent: the whole mailbox
	Why     string `json:"why"`
	Hint    string `json:"hint,omitempty"`
}

func givenUp(m *segments.Manifest) (GivenUp, error) {
	o, err := task.Decode(m.Outcome)
	if err != nil {
		return GivenUp{}, fmt.Errorf("task %s: %w", m.Task, err)
	}
	g := GivenUp{Task: m.Task, Source: o.Source, Mailbox: o.Sum.Mailbox, Range: o.Range.String()}
	for _, why := range []*task.Trouble{o.Err, o.Problem} {
		if why != nil {
			g.Why, g.Hint = why.Text, why.Hint
		}
	}
	return g, nil
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
			g, err := givenUp(m)
			if err != nil {
				return nil, err
			}
			s.GivenUp = append(s.GivenUp, g)
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
	if s.Run.Stage != cluster.Ended {
		fmt.Fprintln(w, "  what they do is counted by source when the run ends")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Workers)) {
		fmt.Fprintf(w, "  %s: %d under way\n", name, s.Workers[name])
	}
	for i, g := range s.GivenUp {
		if i == mostShown {
			fmt.Fprintf(w, "  and %d more that were given up: --json shows all\n", len(s.GivenUp)-i)
			break
		}
		fmt.Fprintf(w, "  given up: %s\n", status.Harmless(g.Why))
	}
}

// mostShown is how many tasks that were given up a person is shown.
const mostShown = 20
