package livepage

import (
	"reflect"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/report"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// phase is where an account is.
type phase int

const (
	waiting phase = iota // its turn hasn't come
	working
	retrying // after until
	parked   // until then
	done
	failed
)

// account is a row of the board.
type account struct {
	index   int
	name    string
	phase   phase
	until   time.Time
	err     string
	hint    string
	reason  string // class of the error
	url     string
	died    bool // its process did: messages are tried alone when the others have ended
	sum     report.Sum
	stands  string // the report's word for it, of what was seen last
	boxes   int    // mailboxes, without those that the file leaves out
	first   problem
	version int64 // of the board, at the last change
	due     bool  // it is to be looked at
	left    bool  // a row of a table that makes no account
	final   bool  // the report's word is known

	problems    int // of mailboxes
	hadProblems bool
}

// problem is why a mailbox is incomplete.
type problem struct{ mailbox, text string }

// atWork reports whether its sum may change at any moment.
func (a *account) atWork() bool { return a.phase == working || a.died }

// failing reports whether it stands among what failed.
func (a *account) failing() bool { return a.phase == failed || a.phase == parked }

// event changes the account, and reports whether it did.
func (a *account) event(e engine.Event, now time.Time) bool {
	switch e.Kind {
	case engine.AccountOpened:
		a.phase, a.err, a.hint, a.reason, a.until, a.url = working, "", "", "", time.Time{}, e.Text
	case engine.AccountRetried:
		a.phase, a.until = retrying, now.Add(e.Wait)
		a.trouble(e.Err)
	case engine.AccountParked:
		a.phase, a.until = parked, now.Add(e.Wait)
		a.trouble(e.Err)
		a.reason = "parked"
	case engine.AccountFailed:
		a.phase, a.until = failed, time.Time{}
		a.trouble(e.Err)
	case engine.AccountDone:
		a.phase = done
	case engine.SourceDied:
		a.died = true
	case engine.MailboxListed, engine.MailboxSkipped:
	default:
		return false
	}
	return true
}

func (a *account) trouble(err error) {
	if err != nil {
		a.err, a.hint, a.reason = err.Error(), hint(err), fault.Of(err).String()
	}
}

// see takes what was read of the account's mailboxes, and reports whether it
// is new.
func (a *account) see(seen *report.Account) bool {
	boxes, problems, first := 0, 0, problem{}
	for i := range seen.Mailboxes {
		m := &seen.Mailboxes[i]
		if m.State == "excluded" {
			continue
		}
		boxes++
		if m.Problem != "" {
			if problems++; problems == 1 {
				first = problem{m.Name, m.Problem}
			}
		}
	}
	if a.boxes == boxes && a.problems == problems && a.stands == seen.State && reflect.DeepEqual(a.sum, seen.Sum) {
		return false
	}
	a.sum, a.stands, a.boxes, a.problems, a.first = seen.Sum, seen.State, boxes, problems, first
	return true
}

// result takes the report's account, which is the last word.
func (a *account) result(r report.Account, reason string) {
	a.see(&r)
	a.phase, a.died, a.until, a.err, a.hint, a.reason = done, false, time.Time{}, r.Error, r.Hint, ""
	switch {
	case r.State == "parked":
		a.phase, a.reason = parked, "parked"
		a.until, _ = time.Parse(time.RFC3339, r.Until)
	case r.Error != "":
		a.phase, a.reason = failed, reason
	}
	a.stands, a.final = r.State, true
}

// state is the word for where it is.
func (a *account) state() string {
	if a.final {
		return a.stands
	}
	switch a.phase {
	case waiting:
		return "waiting"
	case working:
		return "at work"
	case retrying:
		return "trying again"
	case parked:
		return "parked"
	case failed:
		return "failed"
	}
	if a.stands == "" || a.died {
		return "at work" // it was never looked at since, or isn't through
	}
	return a.stands
}
