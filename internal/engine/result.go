package engine

import (
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// Result is what a run did.
type Result struct {
	Accounts []Account
	Err      error // why the run stopped before its end; nil when it didn't
	Stopped  bool  // the user asked it to
}

// Account is one source's part of the result.
type Account struct {
	Source    string
	Mailboxes []Sum
	Excluded  []string  // mailboxes that the file leaves out
	Err       error     // why the account is incomplete
	Until     time.Time // parked: when to go on
	Began     bool
	URL       string            // address of the server, as in "imap://user@host"; empty: never opened
	Facts     map[string]string // see source.Opened
}

// Sum is I1 for one mailbox: Listed = DoneBefore + Written + Dropped +
// Duplicates + Unrouted + DeadLetters + Vanished + Pending.
type Sum struct {
	Mailbox     string
	UIDValidity uint32
	Server      int64    // the server's own count; -1 unknown
	BlindSpots  []string // what the server hides or caps, a sentence each
	Listed      int64
	DoneBefore  int64
	Written     int64
	Dropped     map[string]int64 // by stage
	Duplicates  int64
	Unrouted    int64
	DeadLetters int64
	Vanished    int64
	Pending     int64

	Octets         int64            // of the bodies that came in this run
	Undecided      map[string]int64 // by stage; these are counted above as well
	Standing       int64            // dead letters of this and earlier runs
	Finished       int64            // flagged, moved or deleted on the server, as `after` wants
	Former         uint32           // the UIDVALIDITY that it had before this run; 0: no other one
	Recognised     int64            // known again under new ids: they count as done before
	WithBodies     int64            // their headers came with the bodies and not before, since most pass
	WithBodiesFrom int64            // the first of those in the listing, from 1
	Skipped        bool             // unchanged since the last run
	Limited        bool             // a limit ended the listing
	State          ledger.State     // Complete, Incomplete or NeverListed
	Complete       bool             // State is Complete
	Problem        error
}

// AllDropped returns the drops of all stages.
func (s *Sum) AllDropped() int64 {
	var n int64
	for _, d := range s.Dropped {
		n += d
	}
	return n
}

// Check returns an error when the sum of I1 doesn't hold.
func (s *Sum) Check() error {
	sum := s.DoneBefore + s.Written + s.AllDropped() + s.Duplicates + s.Unrouted + s.DeadLetters + s.Vanished + s.Pending
	if sum != s.Listed {
		return fault.New(fault.Bug, "mailbox %s: %d messages were listed, %d are accounted for", s.Mailbox, s.Listed, sum)
	}
	return nil
}

// Exit codes (DESIGN §7).
const (
	ExitDone       = 0
	ExitStopped    = 1
	ExitUsage      = 2
	ExitLetters    = 3
	ExitIncomplete = 4
	ExitLocked     = 5
	ExitParked     = 75
)

// Exit returns the exit code of the run: the gravest that applies.
func (r *Result) Exit() int {
	if fault.Is(r.Err, fault.Throttled) && !r.Stopped {
		return ExitParked // a sink's server asked to slow down, for longer than anybody waits
	}
	if r.Err != nil || r.Stopped {
		return ExitStopped
	}
	incomplete, parked, letters := false, false, false
	for _, a := range r.Accounts {
		parked = parked || !a.Until.IsZero()
		incomplete = incomplete || a.Err != nil && a.Until.IsZero()
		for i := range a.Mailboxes {
			incomplete = incomplete || !a.Mailboxes[i].Complete && a.Until.IsZero()
			letters = letters || a.Mailboxes[i].Standing > 0
		}
	}
	switch {
	case incomplete:
		return ExitIncomplete
	case parked:
		return ExitParked
	case letters:
		return ExitLetters
	}
	return ExitDone
}

// EventKind says what an Event is about.
type EventKind int

// The kinds of event.
const (
	AccountOpened EventKind = iota + 1
	AccountDone
	AccountFailed
	AccountRetried // Err says why, Wait how long
	AccountParked  // Err says why, Wait how long; it may be taken up again
	AccountNote    // Text
	MailboxListed
	MailboxSkipped
	SourceDied
	SinkDied
	StageDied
	StageNote // Text
	SinkFailed
	DeadLetter
	Committed // Count messages became durable, Took after the first of them
	Stopping
)

// Event is something that a person watching a run wants to know. Fields that
// don't apply are empty.
type Event struct {
	Kind    EventKind
	Source  string
	Mailbox string
	Sink    string
	Stage   string
	Message string // id as text
	Text    string
	Reason  string // of a DeadLetter, a short stable word
	Count   int64
	Octets  int64
	Wait    time.Duration
	Took    time.Duration
	Err     error
}

// Events returns what passes an event on to all of to, in their order. Each is
// called by many goroutines, which may hold locks of the engine: it must not
// wait, and not ask the engine anything.
func Events(to ...func(Event)) func(Event) {
	return func(e Event) {
		for _, f := range to {
			f(e)
		}
	}
}
