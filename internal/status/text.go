package status

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/rivo/uniseg"
)

// mostLetters is how many dead letters of a reason the list shows.
const mostLetters = 20

// Text writes the status for a person: a line a source; below it the mailboxes
// that aren't complete, or all of them.
func (s *Status) Text(w io.Writer, all bool, now time.Time) {
	fmt.Fprintf(w, "pipeline %s: %s\n", s.Pipeline, s.LastRun.words(now))
	if len(s.Sources) == 0 {
		return
	}
	t := table{{"", "state", "listed", "done", "dropped", "failed", "pending"}}
	var notes []string
	for i := range s.Sources {
		src := &s.Sources[i]
		state := src.State
		if src.Gone {
			state += ", not in the file"
		}
		t = append(t, row(src.Name, state, src.Counts))
		if src.Problem != "" {
			notes = append(notes, src.Name+": "+src.Problem)
		}
		if src.Until != nil {
			notes = append(notes, fmt.Sprintf("%s: parked until %s", src.Name, src.Until.Local().Format(stamp)))
		}
		for j := range src.Mailboxes {
			m := &src.Mailboxes[j]
			if m.Problem != "" {
				notes = append(notes, src.Name+"/"+m.Name+": "+m.Problem)
			}
			for _, blind := range m.BlindSpots {
				notes = append(notes, src.Name+"/"+m.Name+": "+blind)
			}
			if all || m.State == "incomplete" || m.State == "never listed" || m.Failed > 0 || m.Problem != "" {
				t = append(t, row("  "+m.Name, m.State, m.Counts))
			}
		}
	}
	if len(s.Sources) > 1 {
		t = append(t, row("total", "", s.Total))
	}
	t.write(w, 2)
	if len(notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, n := range notes {
		fmt.Fprintln(w, Harmless(n))
	}
	if s.Total.Failed > 0 {
		fmt.Fprintf(w, "\n%d dead letters: see them with \"pipeline failed list\"\n", s.Total.Failed)
	}
}

const stamp = "2006-01-02 15:04 MST"

func (r *Run) words(now time.Time) string {
	if r == nil {
		return "it has never run"
	}
	began := fmt.Sprintf("run %d began %s", r.Number, r.Began.Local().Format(stamp))
	if r.Ended == nil {
		return began + " and goes on, or was cut off"
	}
	took := r.Ended.Sub(r.Began).Round(time.Second)
	return fmt.Sprintf("%s, took %s, exit code %d (%s)", began, took, *r.Exit, exitWords(*r.Exit))
}

func exitWords(code int) string {
	switch code {
	case 0:
		return "all done"
	case 1:
		return "stopped"
	case 3:
		return "done, with dead letters"
	case 4:
		return "incomplete"
	case 75:
		return "parked"
	}
	return "failed"
}

func row(name, state string, c Counts) []string {
	return []string{Harmless(name), state, number(c.Listed), number(c.Done), number(c.Dropped), number(c.Failed), number(c.Pending)}
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// table is rows of cells, the first its heading.
type table [][]string

// write writes the table, the first columns of it to the left, the others, which
// are numbers, to the right.
func (t table) write(w io.Writer, left int) {
	widths := make([]int, len(t[0]))
	for _, r := range t {
		for i, cell := range r {
			widths[i] = max(widths[i], uniseg.StringWidth(cell))
		}
	}
	for _, r := range t {
		var b strings.Builder
		for i, cell := range r {
			if i > 0 {
				b.WriteString("  ")
			}
			fill := strings.Repeat(" ", widths[i]-uniseg.StringWidth(cell))
			if i < left {
				b.WriteString(cell + fill)
			} else {
				b.WriteString(fill + cell)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// Harmless takes out what would move a terminal's cursor or colour it: names
// and subjects are anybody's text.
func Harmless(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, s)
}

// NewText returns a writer of dead letters for a person, grouped by reason.
func NewText(w io.Writer) Writer { return &letterText{w: w, by: map[string]*reason{}} }

type letterText struct {
	w     io.Writer
	by    map[string]*reason
	order []*reason
	total int
}

type reason struct {
	word  string
	count int
	shown []Letter
}

func (t *letterText) Write(l Letter) error {
	r := t.by[l.Reason]
	if r == nil {
		r = &reason{word: l.Reason}
		t.by[l.Reason] = r
		t.order = append(t.order, r)
	}
	t.total++
	r.count++
	if r.count <= mostLetters {
		r.shown = append(r.shown, l)
	}
	return nil
}

func (t *letterText) Close() error {
	if t.total == 0 {
		_, err := fmt.Fprintln(t.w, "no dead letters")
		return err
	}
	for i, r := range t.order {
		if i > 0 {
			fmt.Fprintln(t.w)
		}
		fmt.Fprintf(t.w, "%s: %d\n", r.word, r.count)
		rows := table{{"  key", "mailbox", "subject", "said"}}
		for _, l := range r.shown {
			box := l.Source
			if l.Mailbox != "" {
				box += "/" + l.Mailbox
			}
			rows = append(rows, []string{"  " + l.Key, Harmless(box), clip(Harmless(l.Subject), 40), clip(Harmless(l.by()+": "+l.Text), 80)})
		}
		rows.write(t.w, 4)
		if more := r.count - len(r.shown); more > 0 {
			fmt.Fprintf(t.w, "  … and %d more: --reason %s --json lists them all\n", more, r.word)
		}
	}
	_, err := fmt.Fprintf(t.w, "\n%d dead letters; see one with \"pipeline failed show KEY\", try them again with \"pipeline failed retry\"\n", t.total)
	return err
}

// clip cuts a text to so many places.
func clip(s string, places int) string {
	if uniseg.StringWidth(s) <= places {
		return s
	}
	var b strings.Builder
	used := 0
	for g := uniseg.NewGraphemes(s); g.Next(); {
		if used += g.Width(); used > places-1 {
			break
		}
		b.WriteString(g.Str())
	}
	return b.String() + "…"
}
