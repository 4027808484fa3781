// Package status tells where a pipeline stands: its last run, each source and
// mailbox, and its dead letters, as the ledger has them. It asks no server, and
// may be asked while a run goes on.
package status

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
)

// Status is where a pipeline stands. As JSON it is what `pipeline status --json`
// prints (docs/reference/status.md).
type Status struct {
	Pipeline string   `json:"pipeline"`
	LastRun  *Run     `json:"last_run,omitempty"` // absent before the first
	Total    Counts   `json:"total"`
	Sources  []Source `json:"sources"` // in the order of the file; then those that it no longer has
}

// Run is one run.
type Run struct {
	Number int64      `json:"number"`
	Began  time.Time  `json:"began"`
	Ended  *time.Time `json:"ended,omitempty"` // absent: it goes on, or was cut off
	Exit   *int       `json:"exit,omitempty"`  // its exit code
}

// Counts add up messages by what became of them: Listed = Done + Dropped +
// Failed + Vanished + Pending.
type Counts struct {
	Listed   int64 `json:"listed"`
	Done     int64 `json:"done"` // written, duplicates of those, and those that no sink wanted
	Dropped  int64 `json:"dropped"`
	Failed   int64 `json:"failed"` // dead letters
	Vanished int64 `json:"vanished"`
	Pending  int64 `json:"pending"`
}

func (c *Counts) add(o Counts) {
	c.Listed += o.Listed
	c.Done += o.Done
	c.Dropped += o.Dropped
	c.Failed += o.Failed
	c.Vanished += o.Vanished
	c.Pending += o.Pending
}

// Source is one source.
type Source struct {
	Name      string     `json:"name"`
	State     string     `json:"state"` // never run, complete, incomplete, parked
	Gone      bool       `json:"not_in_file,omitempty"`
	Counts               // of its mailboxes
	Run       int64      `json:"run,omitempty"` // number of the last run that had it
	Began     *time.Time `json:"began,omitempty"`
	Until     *time.Time `json:"until,omitempty"` // parked: when to go on
	Problem   string     `json:"problem,omitempty"`
	Hint      string     `json:"hint,omitempty"`
	Mailboxes []Mailbox  `json:"mailboxes"` // by name
}

// Mailbox is one mailbox of a source.
type Mailbox struct {
	Name       string           `json:"name"`
	State      string           `json:"state"` // never listed, complete, incomplete, excluded, gone
	Counts                      // by its last listing
	Server     *int64           `json:"server,omitempty"`     // the server's own count
	DroppedBy  map[string]int64 `json:"dropped_by,omitempty"` // by stage
	BlindSpots []string         `json:"blind_spots,omitempty"`
	Problem    string           `json:"problem,omitempty"`
	Run        int64            `json:"run"` // number of the last run that saw it
}

// Read reads where the pipeline of that name in the state directory stands.
// sources are those of its file: one that no run has had is told too. Without
// a ledger nothing has run. only leaves out all sources but those; nil: none.
func Read(ctx context.Context, state, name string, sources []string, only func(source string) bool) (s *Status, err error) {
	s = &Status{Pipeline: name, Sources: []Source{}}
	at := map[string]int{}
	find := func(source string) *Source {
		i, ok := at[source]
		if !ok {
			i = len(s.Sources)
			at[source] = i
			s.Sources = append(s.Sources, Source{Name: source, State: "never run", Mailboxes: []Mailbox{}})
		}
		return &s.Sources[i]
	}
	wanted := func(source string) bool { return only == nil || only(source) }
	for _, source := range sources {
		if wanted(source) {
			find(source)
		}
	}
	inFile := len(s.Sources)
	l, err := ledger.View(ctx, state, name)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	runs, err := l.Runs(ctx, 1)
	if err != nil {
		return nil, err
	}
	if len(runs) > 0 {
		r := runs[0]
		s.LastRun = &Run{Number: r.Number, Began: r.Began}
		if !r.Ended.IsZero() {
			s.LastRun.Ended, s.LastRun.Exit = &r.Ended, &r.Exit
		}
	}
	accounts, err := l.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	for i := range accounts {
		a := &accounts[i]
		if !wanted(a.Source) {
			continue
		}
		src := find(a.Source)
		src.State, src.Run, src.Problem, src.Hint = a.State.String(), a.Run, a.Err, a.Hint
		src.Began = &a.Began
		if !a.Until.IsZero() {
			src.Until = &a.Until
		}
	}
	err = l.Mailboxes(ctx, "", func(m ledger.Mailbox) error {
		if !wanted(m.Source) {
			return nil
		}
		src := find(m.Source)
		box := mailbox(&m)
		src.Mailboxes = append(src.Mailboxes, box)
		if m.State != ledger.Gone {
			src.add(box.Counts)
			s.Total.add(box.Counts)
		}
		return nil
	})
	for i := inFile; i < len(s.Sources); i++ {
		s.Sources[i].Gone = true
	}
	return s, err
}

func mailbox(m *ledger.Mailbox) Mailbox {
	box := Mailbox{
		Name: m.Name, State: m.State.String(), DroppedBy: m.Dropped, BlindSpots: m.BlindSpots, Problem: m.Problem, Run: m.Run,
		Counts: Counts{
			Listed: m.Listed, Dropped: m.Fates[ledger.Dropped], Failed: m.Fates[ledger.Dead],
			Vanished: m.Fates[ledger.Vanished], Pending: m.Fates[ledger.Pending],
		},
	}
	for class, n := range m.Fates {
		switch class {
		case ledger.Dropped, ledger.Dead, ledger.Vanished, ledger.Pending:
		default:
			box.Done += n
		}
	}
	if m.Server >= 0 {
		box.Server = &m.Server
	}
	return box
}
