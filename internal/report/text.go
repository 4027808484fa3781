// Package report tells a person what a run did.
package report

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/width"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// mostLines is how many mailboxes the text shows; the rest is counted.
const mostLines = 40

// Text writes the summary of a run: a line a mailbox with its sum (I1), and
// the totals.
func Text(w io.Writer, r *engine.Result) {
	shown, hidden := 0, 0
	total := engine.Sum{Dropped: map[string]int64{}, Undecided: map[string]int64{}}
	many := len(r.Accounts) > 1
	excluded := 0
	for i := range r.Accounts {
		a := &r.Accounts[i]
		excluded += len(a.Excluded)
		for j := range a.Mailboxes {
			s := &a.Mailboxes[j]
			add(&total, s)
			if s.Skipped || s.Listed == 0 && s.Complete {
				continue
			}
			if shown >= mostLines {
				hidden++
				continue
			}
			shown++
			name := s.Mailbox
			if many {
				name = a.Source + "/" + name
			}
			fmt.Fprintf(w, "  %s %s\n", column(name, 28), line(s))
		}
	}
	if hidden > 0 {
		fmt.Fprintf(w, "  … and %d more mailboxes\n", hidden)
	}
	fmt.Fprintf(w, "total: %s\n", line(&total))
	if excluded > 0 {
		fmt.Fprintf(w, "excluded by the file: %s\n", count(excluded, "mailbox", "mailboxes"))
	}
	blindSpots(w, r)
	for _, name := range slices.Sorted(maps.Keys(total.Undecided)) {
		fmt.Fprintf(w, "stage %s couldn't judge %s, as a value is absent\n", name, count(total.Undecided[name], "message: it was kept", "messages: they were kept"))
	}
}

// count says how many there are of what.
func count[N int | int64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// blindSpots writes what servers hide, each sentence once, with the first
// mailbox that it holds for.
func blindSpots(w io.Writer, r *engine.Result) {
	type spot struct {
		at   string
		more int
	}
	var order []string
	seen := map[string]*spot{}
	for i := range r.Accounts {
		a := &r.Accounts[i]
		for j := range a.Mailboxes {
			for _, text := range a.Mailboxes[j].BlindSpots {
				if s := seen[text]; s != nil {
					s.more++
					continue
				}
				seen[text] = &spot{at: a.Source + "/" + a.Mailboxes[j].Mailbox}
				order = append(order, text)
			}
		}
	}
	for n, text := range order {
		if n == mostLines {
			fmt.Fprintf(w, "… and %d more blind spots\n", len(order)-n)
			return
		}
		more := ""
		if s := seen[text]; s.more > 0 {
			more = fmt.Sprintf(" and %d more mailboxes", s.more)
		}
		fmt.Fprintf(w, "blind spot: %s%s: %s\n", seen[text].at, more, text)
	}
}

func add(total, s *engine.Sum) {
	total.Listed += s.Listed
	total.DoneBefore += s.DoneBefore
	total.Written += s.Written
	total.Duplicates += s.Duplicates
	total.Unrouted += s.Unrouted
	total.DeadLetters += s.DeadLetters
	total.Vanished += s.Vanished
	total.Pending += s.Pending
	total.Standing += s.Standing
	total.Finished += s.Finished
	for stage, n := range s.Dropped {
		total.Dropped[stage] += n
	}
	for stage, n := range s.Undecided {
		total.Undecided[stage] += n
	}
}

// line writes the sum of I1 with what is zero left out.
func line(s *engine.Sum) string {
	parts := []string{fmt.Sprintf("%d listed = %d written", s.Listed, s.Written)}
	plus := func(n int64, what string) {
		if n != 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	plus(s.DoneBefore, "done before")
	for _, stage := range slices.Sorted(maps.Keys(s.Dropped)) {
		plus(s.Dropped[stage], "dropped by "+stage)
	}
	plus(s.Duplicates, "duplicates")
	plus(s.Unrouted, "unrouted")
	plus(s.DeadLetters, "dead letters")
	plus(s.Vanished, "vanished")
	plus(s.Pending, "pending")
	out := strings.Join(parts, " + ")
	if before := s.Standing - s.DeadLetters; before > 0 {
		out += fmt.Sprintf(" (%d dead letters of earlier runs among those done before)", before)
	}
	if s.Server >= 0 && s.Mailbox != "" && s.Server != s.Listed && !s.Limited {
		out += fmt.Sprintf("; the server counts %d", s.Server)
	}
	if s.Former != 0 {
		out += fmt.Sprintf("; UIDVALIDITY changed %d → %d, %d recognised", s.Former, s.UIDValidity, s.Recognised)
	} else if s.Recognised > 0 {
		out += fmt.Sprintf("; %d recognised under new ids", s.Recognised)
	}
	if s.WithBodies > 0 {
		out += fmt.Sprintf("; headers of %d came with the bodies, from message %d on", s.WithBodies, s.WithBodiesFrom)
	}
	if s.Finished > 0 {
		out += fmt.Sprintf("; %d finished on the server", s.Finished)
	}
	if s.Limited {
		out += "; the limit ended the listing"
	}
	return out
}

// Troubles returns what of a run is missing, and why, an error each: why it
// stopped, the accounts that are incomplete, and their mailboxes.
func Troubles(r *engine.Result) []error {
	var out []error
	if r.Err != nil {
		out = append(out, r.Err)
	}
	for i := range r.Accounts {
		a := &r.Accounts[i]
		switch {
		case !a.Until.IsZero():
			out = append(out, parked(a))
		case a.Err != nil && !errors.Is(r.Err, a.Err): // else it is what ended the run
			out = append(out, fmt.Errorf("source %s: %w", a.Source, a.Err))
		}
		for j := range a.Mailboxes {
			if s := &a.Mailboxes[j]; s.Problem != nil {
				out = append(out, fmt.Errorf("source %s: mailbox %s: %w", a.Source, s.Mailbox, s.Problem))
			}
		}
	}
	return out
}

// column fills a text up to a width, as a terminal shows it: East Asian
// characters take two places, combining marks none.
func column(s string, places int) string {
	for _, r := range s {
		places--
		switch k := width.LookupRune(r).Kind(); {
		case unicode.In(r, unicode.Mn, unicode.Me):
			places++
		case k == width.EastAsianWide || k == width.EastAsianFullwidth:
			places--
		}
	}
	return s + strings.Repeat(" ", max(0, places))
}

// parked says of an account when to go on, and why not now.
func parked(a *engine.Account) error {
	why := ""
	if a.Err != nil {
		why = ": " + a.Err.Error()
	}
	return fault.New(fault.Throttled, "source %s: parked until %s%s", a.Source, a.Until.Format("2006-01-02 15:04:05 MST"), why).
		WithHint("run again then; it goes on where it stopped")
}
