package report

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/shard"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// schemaVersion is the version of docs/reference/report.schema.json. Fields
// may be added without a new one.
const schemaVersion = 1

// Report is what a run did, as it stands in the JSON file.
type Report struct {
	SchemaVersion int       `json:"schema_version"`
	Pipeline      string    `json:"pipeline"`
	Shard         string    `json:"shard,omitempty"` // the part of the accounts that it had, as in "0/3"; absent: all
	Joined        []Part    `json:"parts,omitempty"` // the reports that it joins; absent: of one run
	Run           int64     `json:"run"`             // number of the run in its ledger; the highest of the parts
	File          string    `json:"file"`            // the pipeline file
	Version       string    `json:"version"`
	Began         time.Time `json:"began"`
	Ended         time.Time `json:"ended"`
	Exit          int       `json:"exit"`
	Outcome       string    `json:"outcome"` // what the exit code says, in words
	Error         string    `json:"error,omitempty"`
	Hint          string    `json:"hint,omitempty"`
	Total         Sum       `json:"total"`
	Accounts      []Account `json:"accounts"`
	Failures      []Failure `json:"failures"`
	Timeline      Timeline  `json:"timeline"`
	Stages        []string  `json:"stages,omitempty"`
	Sinks         []Sink    `json:"sinks"`
}

// Sum is I1: listed = done before + written + dropped + duplicates + unrouted +
// dead letters + vanished + pending.
type Sum struct {
	Listed      int64            `json:"listed"`
	DoneBefore  int64            `json:"done_before"`
	Written     int64            `json:"written"`
	Dropped     map[string]int64 `json:"dropped,omitempty"` // by stage
	Duplicates  int64            `json:"duplicates"`
	Unrouted    int64            `json:"unrouted"`
	DeadLetters int64            `json:"dead_letters"`
	Vanished    int64            `json:"vanished"`
	Pending     int64            `json:"pending"`

	Server    *int64           `json:"server,omitempty"`    // the server's own count; absent: unknown
	Standing  int64            `json:"standing"`            // dead letters of this and earlier runs
	Undecided map[string]int64 `json:"undecided,omitempty"` // by stage; counted above as well
	Octets    int64            `json:"octets"`              // of bodies that came in this run
}

// Account is one source.
type Account struct {
	Source    string    `json:"source"`
	Plugin    string    `json:"plugin,omitempty"`
	State     string    `json:"state"` // complete, incomplete, parked or "never listed"
	Until     string    `json:"until,omitempty"`
	Error     string    `json:"error,omitempty"`
	Hint      string    `json:"hint,omitempty"`
	Sum       Sum       `json:"sum"`
	Mailboxes []Mailbox `json:"mailboxes"`
}

// Mailbox is one mailbox of an account.
type Mailbox struct {
	Name        string   `json:"name"`
	UIDValidity uint32   `json:"uid_validity,omitempty"`
	State       string   `json:"state"` // complete, incomplete, excluded or "never listed"
	Sum         Sum      `json:"sum"`
	Unchanged   bool     `json:"unchanged,omitempty"` // since the last run: not listed again
	Limited     bool     `json:"limited,omitempty"`   // a limit ended the listing
	BlindSpots  []string `json:"blind_spots,omitempty"`
	Problem     string   `json:"problem,omitempty"`
}

// Failure is what failed for one reason.
type Failure struct {
	Kind     string    `json:"kind"`            // "dead letters", "accounts", "mailboxes" or "messages"
	Reason   string    `json:"reason"`          // a short stable word
	Where    string    `json:"where,omitempty"` // the stage or sink that refused; empty: the source
	Count    int64     `json:"count"`
	Text     string    `json:"text"` // of the first
	Hint     string    `json:"hint,omitempty"`
	Command  string    `json:"command"`  // tries them again
	Examples []Example `json:"examples"` // the first few
}

// Partly reports whether there are more than the examples.
func (f Failure) Partly() bool { return int64(len(f.Examples)) < f.Count }

// Example is one of what failed.
type Example struct {
	Source  string `json:"source"`
	Mailbox string `json:"mailbox,omitempty"`
	ID      string `json:"id,omitempty"`
	Subject string `json:"subject,omitempty"`
	From    string `json:"from,omitempty"`
	Date    string `json:"date,omitempty"`
	Text    string `json:"text"`
}

// mostExamples bounds those of one reason; accounts.csv and `pipeline failed`
// have all.
const mostExamples = 20

// Sink is where messages went.
type Sink struct {
	Name   string `json:"name"`
	Plugin string `json:"plugin"`
	Target string `json:"target"`
	When   string `json:"when,omitempty"`
}

// Letters has the dead letters that stand: a ledger, or what workers keep.
type Letters interface {
	Letters(ctx context.Context, f func(id message.ID, sink string, l ledger.Letter) error) error
}

// Input is what a report is made of.
type Input struct {
	File    string // the pipeline file, as the user named it
	Version string // of the command
	Plan    *plan.Plan
	Result  *engine.Result
	Ledger  Letters
	Shard   shard.Shard
	Run     int64
	Began   time.Time
	Ended   time.Time
	Exit    int
	Series  Timeline
}

// outcomes are the exit codes in words.
var outcomes = map[int]string{
	engine.ExitDone: "complete", engine.ExitStopped: "stopped", engine.ExitLetters: "done, with dead letters",
	engine.ExitIncomplete: "incomplete", engine.ExitParked: "parked by a provider's limit",
}

// Outcome says in words how a run with such an exit code ended.
func Outcome(exit int) string { return outcomes[exit] }

// Build makes the report of a run. The dead letters come from the ledger: they
// are those of all runs that still stand.
func Build(ctx context.Context, in Input) (*Report, error) {
	r := &Report{
		SchemaVersion: schemaVersion, Pipeline: in.Plan.Name, Shard: in.Shard.String(), Run: in.Run, File: in.File, Version: in.Version,
		Began: in.Began.UTC().Truncate(time.Millisecond), Ended: in.Ended.UTC().Truncate(time.Millisecond),
		Exit: in.Exit, Outcome: Outcome(in.Exit), Total: NewSum(), Accounts: []Account{}, Failures: []Failure{}, Timeline: in.Series, Sinks: []Sink{},
	}
	if err := in.Result.Err; err != nil {
		r.Error, r.Hint = err.Error(), hint(err)
	}
	if in.Plan.Chain != nil {
		for _, s := range in.Plan.Chain.Stages() {
			r.Stages = append(r.Stages, s.Name)
		}
	}
	for i := range in.Plan.Sinks {
		s := &in.Plan.Sinks[i]
		out := Sink{Name: s.Name, Plugin: s.Plugin, Target: s.Prepared.Target}
		if s.When != nil {
			out.When = s.When.Text()
		}
		r.Sinks = append(r.Sinks, out)
	}
	plugins := map[string]string{}
	for i := range in.Plan.Sources {
		plugins[in.Plan.Sources[i].Name] = in.Plan.Sources[i].Plugin
	}
	for i := range in.Result.Accounts {
		a := OfAccount(&in.Result.Accounts[i])
		a.Plugin = plugins[a.Source]
		r.Total.Add(&a.Sum)
		r.Accounts = append(r.Accounts, a)
	}
	err := r.fail(ctx, in)
	return r, err
}

// NewSum returns the sum of nothing.
func NewSum() Sum { return Sum{Dropped: map[string]int64{}, Undecided: map[string]int64{}} }

func hint(err error) string {
	if f := fault.As(err); f != nil {
		return f.Hint
	}
	return ""
}

// OfAccount returns what became of an account, or of one at work what has so
// far.
func OfAccount(in *engine.Account) Account {
	a := Account{Source: in.Source, State: ledger.Complete.String(), Sum: NewSum(), Mailboxes: []Mailbox{}}
	for i := range in.Mailboxes {
		m := mailbox(&in.Mailboxes[i])
		a.Sum.Add(&m.Sum)
		if m.State != ledger.Complete.String() {
			a.State = ledger.Incomplete.String()
		}
		a.Mailboxes = append(a.Mailboxes, m)
	}
	for _, name := range in.Excluded {
		a.Mailboxes = append(a.Mailboxes, Mailbox{Name: name, State: ledger.Excluded.String(), Sum: NewSum()})
	}
	slices.SortStableFunc(a.Mailboxes, func(a, b Mailbox) int { return cmp.Compare(a.Name, b.Name) })
	switch {
	case !in.Until.IsZero():
		a.State, a.Until = ledger.Parked.String(), in.Until.UTC().Format(time.RFC3339)
	case !in.Began:
		a.State = ledger.NeverListed.String()
	case in.Err != nil:
		a.State = ledger.Incomplete.String()
	}
	if in.Err != nil {
		a.Error, a.Hint = in.Err.Error(), hint(in.Err)
	}
	return a
}

func mailbox(in *engine.Sum) Mailbox {
	m := Mailbox{Name: in.Mailbox, UIDValidity: in.UIDValidity, State: in.State.String(), Unchanged: in.Skipped, Limited: in.Limited, BlindSpots: in.BlindSpots}
	m.Sum = Sum{
		Listed: in.Listed, DoneBefore: in.DoneBefore, Written: in.Written, Dropped: in.Dropped, Duplicates: in.Duplicates,
		Unrouted: in.Unrouted, DeadLetters: in.DeadLetters, Vanished: in.Vanished, Pending: in.Pending,
		Standing: in.Standing, Undecided: in.Undecided, Octets: in.Octets,
	}
	if in.Server >= 0 {
		m.Sum.Server = &in.Server
	}
	if in.Problem != nil {
		m.Problem = in.Problem.Error()
	}
	return m
}

// Add adds up; a total of the servers' counts is known as far as they are.
func (s *Sum) Add(o *Sum) {
	s.Listed += o.Listed
	s.DoneBefore += o.DoneBefore
	s.Written += o.Written
	s.Duplicates += o.Duplicates
	s.Unrouted += o.Unrouted
	s.DeadLetters += o.DeadLetters
	s.Vanished += o.Vanished
	s.Pending += o.Pending
	s.Standing += o.Standing
	s.Octets += o.Octets
	for stage, n := range o.Dropped {
		s.Dropped[stage] += n
	}
	for stage, n := range o.Undecided {
		s.Undecided[stage] += n
	}
	if o.Server != nil {
		if s.Server == nil {
			s.Server = new(int64)
		}
		*s.Server += *o.Server
	}
}

// AllDropped returns the drops of all stages.
func (s *Sum) AllDropped() (n int64) {
	for _, d := range s.Dropped {
		n += d
	}
	return n
}

// fail groups what failed by its reason.
func (r *Report) fail(ctx context.Context, in Input) error {
	groups := map[string]*Failure{}
	add := func(kind, where, reason, text, hint, command string, e Example) {
		key := kind + "\x00" + where + "\x00" + reason
		f := groups[key]
		if f == nil {
			f = &Failure{Kind: kind, Where: where, Reason: reason, Text: text, Hint: hint, Command: command, Examples: []Example{}}
			groups[key] = f
		}
		f.Count++
		if len(f.Examples) < mostExamples {
			f.Examples = append(f.Examples, e)
		}
	}
	config := ""
	if in.File != "" && in.File != "pipeline.yaml" {
		config = " --config " + shellWord(in.File)
	}
	if in.Shard.Divides() {
		config += " --shard " + in.Shard.String()
	}
	base := "pipeline run" + config
	for i := range in.Result.Accounts {
		a := &in.Result.Accounts[i]
		if a.Err != nil {
			reason := fault.Of(a.Err).String()
			if !a.Until.IsZero() {
				reason = "parked"
			}
			add("accounts", "", reason, a.Err.Error(), hint(a.Err), base, Example{Source: a.Source, Text: a.Err.Error()})
		}
		for j := range a.Mailboxes {
			if m := &a.Mailboxes[j]; m.Problem != nil {
				add("mailboxes", "", fault.Of(m.Problem).String(), m.Problem.Error(), hint(m.Problem), base,
					Example{Source: a.Source, Mailbox: m.Mailbox, Text: m.Problem.Error()})
			}
		}
	}
	err := in.Ledger.Letters(ctx, func(id message.ID, _ string, l ledger.Letter) error {
		add("dead letters", l.Stage, l.Reason, l.Text, "", "pipeline failed retry --reason "+shellWord(l.Reason)+config,
			Example{Source: id.Source, Mailbox: id.Mailbox, ID: id.String(), Subject: l.Subject, From: l.From, Date: l.Date, Text: l.Text})
		return nil
	})
	if err != nil {
		return errors.Join(errors.New("group the failures"), err)
	}
	for _, f := range groups {
		r.Failures = append(r.Failures, *f)
	}
	sortFailures(r.Failures)
	return nil
}

func sortFailures(all []Failure) {
	slices.SortFunc(all, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Where, b.Where), cmp.Compare(a.Reason, b.Reason))
	})
}

// shellWord quotes a word for a shell, where that is needed.
func shellWord(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+,", r))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// BlindSpots returns what servers hide, with the mailboxes that each holds for.
func (r *Report) BlindSpots() []BlindSpot {
	var out []BlindSpot
	at := map[string]int{}
	for i := range r.Accounts {
		for _, m := range r.Accounts[i].Mailboxes {
			for _, text := range m.BlindSpots {
				n, ok := at[text]
				if !ok {
					n = len(out)
					at[text] = n
					out = append(out, BlindSpot{Text: text})
				}
				out[n].Count++
				if len(out[n].Mailboxes) < mostExamples {
					out[n].Mailboxes = append(out[n].Mailboxes, fmt.Sprintf("%s/%s", r.Accounts[i].Source, m.Name))
				}
			}
		}
	}
	return out
}

// BlindSpot is what servers hide.
type BlindSpot struct {
	Text      string
	Count     int      // of mailboxes
	Mailboxes []string // the first of them
}
