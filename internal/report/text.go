// Package report tells a person what a run did.
package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/mailhaul/pipeline/internal/engine"
)

// mostLines is how many mailboxes the text shows; the rest is counted.
const mostLines = 40

// Text writes the summary of a run: a line a mailbox with its sum (I1), the
// totals, and what to do about what is missing.
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
			fmt.Fprintf(w, "  %-28s %s\n", name, line(s))
		}
	}
	if hidden > 0 {
		fmt.Fprintf(w, "  … and %d more mailboxes\n", hidden)
	}
	fmt.Fprintf(w, "total: %s\n", line(&total))
	if excluded > 0 {
		fmt.Fprintf(w, "excluded by the file: %d mailboxes\n", excluded)
	}
	for _, name := range slices.Sorted(maps.Keys(total.Undecided)) {
		fmt.Fprintf(w, "stage %s couldn't judge %d messages (a value is absent): they were kept\n", name, total.Undecided[name])
	}
	for i := range r.Accounts {
		trouble(w, &r.Accounts[i])
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
	if s.Limited {
		out += "; the limit ended the listing"
	}
	return out
}

// trouble says what of an account is missing, and why.
func trouble(w io.Writer, a *engine.Account) {
	switch {
	case !a.Until.IsZero():
		fmt.Fprintf(w, "parked: %s: its server asks to wait; go on after %s\n", a.Source, a.Until.Format("2006-01-02 15:04:05 MST"))
	case a.Err != nil:
		fmt.Fprintf(w, "incomplete: %s: %v\n", a.Source, a.Err)
	}
	for i := range a.Mailboxes {
		if s := &a.Mailboxes[i]; s.Problem != nil {
			fmt.Fprintf(w, "incomplete: %s/%s: %v\n", a.Source, s.Mailbox, s.Problem)
		}
	}
}
