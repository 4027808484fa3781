// Package task says what a worker is given to do, and what it tells of it.
package task

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/status"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Task is one mailbox of a source, or a range of the UIDs of a large one, in
// one run. As JSON it is a message of the queue.
type Task struct {
	ID      string          `json:"id"`
	Run     int64           `json:"run"`
	File    string          `json:"file"` // hash of the pipeline file; who has another refuses the task
	Source  string          `json:"source"`
	Mailbox message.Mailbox `json:"mailbox"` // as the coordinator listed it
	Among   []string        `json:"among,omitempty"`
	Range   Range           `json:"range,omitzero"`
	Lanes   int             `json:"lanes"`           // connections that the account grants, over the whole cluster
	Retry   *status.Choice  `json:"retry,omitempty"` // the dead letters that are tried again; nil: none
	Now     time.Time       `json:"now"`             // what now() is in expressions: the same in all tasks of a run
}

// Range is a part of a mailbox: the UIDs from First to Last. The zero Range is
// the whole.
type Range struct {
	First uint32 `json:"first,omitempty"`
	Last  uint32 `json:"last,omitempty"`
}

// String returns the range as in "1-20000"; "" for the whole.
func (r Range) String() string {
	if r == (Range{}) {
		return ""
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Has reports whether a UID is in the range.
func (r Range) Has(uid uint32) bool {
	return r == (Range{}) || uid >= r.First && uid <= r.Last
}

// Renumbered says that a divided mailbox has a new UIDVALIDITY: its messages may
// fall into other tasks, whose ledgers don't know them, and would be written
// once more (I2).
func Renumbered(source, mailbox string) error {
	return fault.New(fault.Gone, "%s/%s: its server gave its messages new UIDs (another UIDVALIDITY), and it was divided into tasks by the old ones: nothing of it is exported, or what is exported would be once more", source, mailbox).
		WithHint("what was exported of it stays; export the mailbox by a pipeline of its own, with mailboxes.include, to another place")
}

// ID names a task: the same in every run, so that it finds what an earlier one
// did.
func ID(pipeline, source, mailbox string, r Range) string {
	sum := sha256.Sum256([]byte(pipeline + "\x00" + source + "\x00" + mailbox + "\x00" + r.String()))
	return hex.EncodeToString(sum[:10])
}

// Outcome is what became of a task, as its manifest keeps it.
type Outcome struct {
	Source  string            `json:"source"`
	Range   Range             `json:"range,omitzero"`
	Sum     engine.Sum        `json:"sum"` // Problem is beside it
	Problem *Trouble          `json:"problem,omitempty"`
	Err     *Trouble          `json:"error,omitempty"` // of the account
	Until   time.Time         `json:"until,omitzero"`  // parked: until then
	Began   bool              `json:"began"`
	URL     string            `json:"url,omitempty"`
	Facts   map[string]string `json:"facts,omitempty"`
	Letters int64             `json:"letters,omitempty"` // dead letters that stand; -1: they weren't counted
	Worker  string            `json:"worker"`
	Took    time.Duration     `json:"took"`
}

// Of makes the outcome of the account of a run that had the task alone.
func Of(t *Task, r *engine.Result, worker string, took time.Duration) *Outcome {
	o := &Outcome{Source: t.Source, Range: t.Range, Worker: worker, Took: took, Sum: engine.Sum{Mailbox: t.Mailbox.Name, Server: -1, State: ledger.NeverListed}}
	for i := range r.Accounts {
		a := &r.Accounts[i]
		o.Err, o.Until, o.Began, o.URL, o.Facts = Told(a.Err), a.Until, a.Began, a.URL, a.Facts
		if len(a.Mailboxes) > 0 {
			o.Sum = a.Mailboxes[0]
			o.Problem, o.Sum.Problem = Told(o.Sum.Problem), nil
		}
	}
	if o.Err == nil {
		o.Err = Told(r.Err)
	}
	return o
}

// GivenUp makes the outcome of a task of which nothing was done: its mailbox is
// incomplete, and why is its own trouble.
func GivenUp(t *Task, why error, worker string) *Outcome {
	return &Outcome{
		Source: t.Source, Range: t.Range, Worker: worker, Began: true, Letters: -1, Problem: Told(why),
		Sum: engine.Sum{Mailbox: t.Mailbox.Name, UIDValidity: t.Mailbox.State.UIDValidity, Server: t.Mailbox.State.Messages, State: ledger.Incomplete},
	}
}

// Account returns the outcome as a run has it of an account.
func (o *Outcome) Account() engine.Account {
	s := o.Sum
	s.Problem = o.Problem.Fault()
	return engine.Account{
		Source: o.Source, Mailboxes: []engine.Sum{s}, Err: o.Err.Fault(), Until: o.Until, Began: o.Began, URL: o.URL, Facts: o.Facts,
	}
}

// Complete reports whether there is nothing left to do.
func (o *Outcome) Complete() bool { return o.Err == nil && o.Problem == nil && o.Sum.Complete }

// Encode returns the outcome as the manifest keeps it.
func (o *Outcome) Encode() (json.RawMessage, error) {
	b, err := json.Marshal(o)
	return b, fault.Wrap(fault.Bug, err, "write what became of a task")
}

// Decode reads what Encode made.
func Decode(raw json.RawMessage) (*Outcome, error) {
	o := &Outcome{}
	if err := json.Unmarshal(raw, o); err != nil {
		return nil, fault.New(fault.Bug, "read what became of a task: %w", err)
	}
	return o, nil
}

// Trouble is an error that goes over to another process.
type Trouble struct {
	Class  fault.Class   `json:"class"`
	Text   string        `json:"text"`
	Hint   string        `json:"hint,omitempty"`
	Reason string        `json:"reason,omitempty"`
	After  time.Duration `json:"after,omitempty"`
}

// Told makes an error ready to go; nil of nil.
func Told(err error) *Trouble {
	if err == nil {
		return nil
	}
	t := &Trouble{Class: fault.Of(err), Text: err.Error()}
	if f := fault.As(err); f != nil {
		t.Hint, t.Reason, t.After = f.Hint, f.Reason, f.RetryAfter
	}
	return t
}

// Fault returns it as the error that it was; nil of nil.
func (t *Trouble) Fault() error {
	if t == nil {
		return nil
	}
	return &fault.Error{Class: t.Class, Text: t.Text, Hint: t.Hint, Reason: t.Reason, RetryAfter: t.After}
}
