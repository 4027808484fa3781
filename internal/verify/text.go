package verify

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/octets"
)

// mostShown bounds the findings that the text shows of one mailbox; --json has
// all.
const mostShown = 50

// Text writes what was looked at and what was found, for people: by mailbox,
// each message by its name.
func Text(w io.Writer, r *Result) {
	for i := range r.Sinks {
		s := &r.Sinks[i]
		fmt.Fprintf(w, "%s: %s\n", s.Sink, s.line(r.Sample))
		if s.Pending {
			fmt.Fprintf(w, "  the next run opens this sink first, to put in order what may have been left there\n")
		}
	}
	listed, mailboxes := int64(0), 0
	for i := range r.Sources {
		s := &r.Sources[i]
		listed += s.Listed
		mailboxes += s.Mailboxes
		if s.Error != "" {
			fmt.Fprintf(w, "%s: its server couldn't be asked: %s\n", s.Source, s.Error)
		}
	}
	if len(r.Sources) > 0 {
		fmt.Fprintf(w, "servers: %s listed in %s of %s\n", count(listed, "message"), count(int64(mailboxes), "mailbox"), count(int64(len(r.Sources)), "account"))
	}
	at, shown := "", 0
	for i := range r.Findings {
		f := &r.Findings[i]
		if place := f.box(); place != at || i == 0 {
			fmt.Fprintf(w, "\n%s: %s\n", place, tally(r.Findings, place))
			at, shown = place, 0
		}
		if shown++; shown > mostShown {
			continue
		}
		f.write(w)
		if shown == mostShown && i+1 < len(r.Findings) && r.Findings[i+1].box() == at {
			fmt.Fprintf(w, "  … and more; --json shows all\n")
		}
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(w)
	}
	switch {
	case len(r.Findings) > 0:
		fmt.Fprintf(w, "%s of %s\n", count(int64(len(r.Findings)), "finding"), count(r.Messages, "message"))
	case r.Unasked():
		fmt.Fprintf(w, "what was looked at holds; not every server could be asked\n")
	default:
		fmt.Fprintf(w, "all holds: %s\n", count(r.Messages, "message"))
	}
}

func (s *SinkResult) line(sample float64) string {
	if s.Note != "" {
		return s.Note
	}
	if s.Lines > 0 || s.Files == 0 && s.Messages == 0 {
		return fmt.Sprintf("%s in %s", count(s.Lines, "line"), s.Target)
	}
	text := fmt.Sprintf("%s in %s, %s", count(s.Files, "file"), s.Target, octets.Text(s.Octets))
	if sample < 1 {
		text += fmt.Sprintf(" of %s", count(s.Hashed, "file"))
	}
	text += " read and hashed again"
	if s.Opened > 0 {
		text += fmt.Sprintf(", %s opened", count(s.Opened, ".msg"))
	}
	return text
}

// box names the mailbox that a finding belongs to.
func (f *Finding) box() string {
	switch {
	case f.Source == "":
		return "outside of mailboxes"
	case f.Mailbox == "":
		return f.Source
	}
	return f.Source + "/" + f.Mailbox
}

func tally(all []Finding, box string) string {
	n := map[Kind]int64{}
	for i := range all {
		if all[i].box() == box {
			n[all[i].Kind] += max(1, all[i].Count)
		}
	}
	var parts []string
	for _, k := range []Kind{Missing, Changed, Extra} {
		if n[k] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[k], k))
		}
	}
	return strings.Join(parts, ", ")
}

func (f *Finding) write(w io.Writer) {
	place := string(f.Place)
	if f.Sink != "" {
		place = f.Sink
	}
	fmt.Fprintf(w, "  %-8s%s: %s\n", f.Kind, place, f.Text)
	if f.ID != "" {
		fmt.Fprintf(w, "          %s\n", f.name())
		fmt.Fprintf(w, "          %s\n", f.ID)
	}
	if f.Path != "" {
		fmt.Fprintf(w, "          %s\n", printable(f.Path))
	}
}

// name is how a person knows the message.
func (f *Finding) name() string {
	subject := "(no subject)"
	if f.Subject != "" {
		subject = "“" + printable(short(f.Subject)) + "”"
	}
	parts := []string{subject}
	if f.Date != "" {
		if at, err := time.Parse(time.RFC3339, f.Date); err == nil {
			parts = append(parts, at.Format("2006-01-02 15:04"))
		}
	}
	if f.From != "" {
		parts = append(parts, "from "+printable(f.From))
	}
	if f.Subject == "" && f.From == "" && f.Date == "" {
		return "(its name is nowhere to be found)"
	}
	return strings.Join(parts, ", ")
}

// short cuts a subject that would fill the screen.
func short(s string) string {
	const most = 100
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// printable keeps a terminal from what a stranger wrote.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

func count(n int64, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "x"):
		what += "es"
	case !strings.HasPrefix(what, "."):
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
