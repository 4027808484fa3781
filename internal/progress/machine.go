package progress

import (
	"encoding/json"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// Event is a line of `pipeline run --json`. docs/reference/events.md says what
// each has.
type Event struct {
	Time    time.Time `json:"time"`
	Event   string    `json:"event"`
	Source  string    `json:"source,omitempty"`
	Mailbox string    `json:"mailbox,omitempty"`
	Sink    string    `json:"sink,omitempty"`
	Stage   string    `json:"stage,omitempty"`
	Message string    `json:"message,omitempty"` // id as text
	Text    string    `json:"text,omitempty"`
	Error   string    `json:"error,omitempty"`
	Hint    string    `json:"hint,omitempty"`
	Count   int64     `json:"count,omitempty"`
	Wait    float64   `json:"wait_seconds,omitempty"`

	*Progress      // of "progress" and "finished"
	Exit      *int `json:"exit,omitempty"` // of "finished"
}

// Progress is where a run is.
type Progress struct {
	Accounts int     `json:"accounts"` // of the run
	Ended    int     `json:"accounts_ended"`
	AtWork   int     `json:"accounts_at_work"`
	Waiting  int     `json:"accounts_waiting"`
	Expected int64   `json:"expected"` // messages that the servers count where something is to be listed
	Listed   int64   `json:"listed"`
	Todo     int64   `json:"todo"`    // of those listed, that are to be exported
	Settled  int64   `json:"settled"` // of those, that are final and in the ledger
	Octets   int64   `json:"octets"`  // fetched
	Rate     float64 `json:"octets_per_second"`
	ETA      string  `json:"eta,omitempty"` // in words; absent when it can't be told
}

// name is the event's name in JSON.
func name(k engine.EventKind) string {
	switch k {
	case engine.AccountOpened:
		return "account_opened"
	case engine.AccountDone:
		return "account_done"
	case engine.AccountFailed:
		return "account_failed"
	case engine.AccountRetried:
		return "account_retried"
	case engine.AccountParked:
		return "account_parked"
	case engine.AccountNote, engine.StageNote:
		return "note"
	case engine.MailboxListed:
		return "mailbox_listed"
	case engine.MailboxSkipped:
		return "mailbox_unchanged"
	case engine.SourceDied:
		return "source_died"
	case engine.SinkDied:
		return "sink_died"
	case engine.StageDied:
		return "stage_died"
	case engine.SinkFailed:
		return "sink_failed"
	case engine.DeadLetter:
		return "dead_letter"
	case engine.Committed:
		return "committed"
	case engine.Stopping:
		return "stopping"
	}
	return ""
}

// machine writes an object a line.
type machine struct{ d *Display }

func (m *machine) write(e Event) {
	e.Time = m.d.o.Now().UTC()
	line, err := json.Marshal(e)
	if err != nil {
		m.d.o.Log.Debug("an event isn't JSON", "err", err)
		return
	}
	// A reader that has gone ends nothing: the export is what counts.
	_, _ = m.d.out.Write(append(line, '\n'))
}

func (m *machine) tick() { m.write(Event{Event: "progress", Progress: m.d.where()}) }

func (m *machine) close() {}

func (m *machine) event(e engine.Event) {
	kind := name(e.Kind)
	if kind == "" {
		return
	}
	out := Event{Event: kind, Source: e.Source, Mailbox: e.Mailbox, Sink: e.Sink, Stage: e.Stage, Message: e.Message, Text: e.Text, Count: e.Count, Wait: e.Wait.Seconds()}
	out.fault(e.Err)
	m.write(out)
}

func (e *Event) fault(err error) {
	if err == nil {
		return
	}
	e.Error = err.Error()
	if f := fault.As(err); f != nil {
		e.Hint = f.Hint
	}
}

// where says where the run is. d.mu is held.
func (d *Display) where() *Progress {
	c := d.run.last()
	octets, _, _ := d.run.rates()
	return &Progress{
		Accounts: d.o.Accounts, Ended: d.ended, AtWork: len(d.open), Waiting: len(d.wait),
		Expected: c.expected, Listed: c.listed, Todo: c.todo, Settled: c.settled, Octets: c.octets, Rate: octets, ETA: d.run.eta(),
	}
}

// Finished writes the last event of a run as JSON: how it ended, after a
// "problem" for each error. It comes after Close; other displays leave the end
// to a report.
func (d *Display) Finished(exit int, problems []error) {
	m, ok := d.view.(*machine)
	if !ok {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.run.take(d.o.Now(), total(d.o.Stats))
	for _, err := range problems {
		e := Event{Event: "problem"}
		e.fault(err)
		m.write(e)
	}
	m.write(Event{Event: "finished", Progress: d.where(), Exit: &exit})
}
