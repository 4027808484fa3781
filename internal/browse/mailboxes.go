package browse

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/rivo/uniseg"

	"github.com/mailhaul/pipeline/pkg/message"
)

// TableOfMailboxes writes the mailboxes in columns, for a person, and their
// sum. exported says of each whether the file exports it; nil: there is no
// file.
func TableOfMailboxes(w io.Writer, boxes []message.Mailbox, width int, exported func(message.Mailbox) bool) error {
	out := bufio.NewWriter(w)
	names, notes := make([]string, len(boxes)), make([]string, len(boxes))
	longest := len("MAILBOX")
	var messages, octets int64
	sized, excluded := true, 0
	for i := range boxes {
		m := &boxes[i]
		names[i] = Safe(m.Name)
		longest = max(longest, uniseg.StringWidth(names[i]))
		var words []string
		words = append(words, m.SpecialUse...)
		if !m.Selectable {
			words = append(words, "holds no messages")
		} else {
			messages += max(0, m.State.Messages)
			octets += max(0, m.State.Bytes)
			sized = sized && m.State.Bytes >= 0
			if exported != nil && !exported(*m) {
				words = append(words, "excluded by the file")
				excluded++
			}
		}
		notes[i] = Safe(strings.Join(words, ", "))
	}
	longest = min(longest, max(20, width-36))
	fmt.Fprintf(out, "%s  %10s  %9s\n", fit("MAILBOX", longest, false), "MESSAGES", "SIZE")
	for i := range boxes {
		m := &boxes[i]
		count, size := Count(m.State.Messages), Size(m.State.Bytes)
		if !m.Selectable {
			count, size = "", ""
		}
		line := fmt.Sprintf("%s  %10s  %9s  %s", fit(names[i], longest, false), count, size, notes[i])
		fmt.Fprintln(out, strings.TrimRight(line, " "))
		for _, blind := range m.State.BlindSpots {
			fmt.Fprintf(out, "    ! %s\n", Safe(blind))
		}
	}
	fmt.Fprintf(out, "\n%s", counted(messages, "message", "messages"))
	switch {
	case sized:
		fmt.Fprintf(out, ", %s", Size(octets))
	case octets > 0:
		fmt.Fprintf(out, ", more than %s (the server doesn't say all sizes)", Size(octets))
	}
	fmt.Fprintf(out, " in %s", counted(int64(len(boxes)), "mailbox", "mailboxes"))
	if excluded > 0 {
		fmt.Fprintf(out, ", %s of them excluded by the file", Count(int64(excluded)))
	}
	fmt.Fprintln(out)
	return out.Flush()
}

// LinesOfMailboxes writes a mailbox a line, with tabs between: name, messages,
// octets, special uses. What isn't known is empty.
func LinesOfMailboxes(w io.Writer, boxes []message.Mailbox) error {
	out := bufio.NewWriter(w)
	number := func(n int64) string {
		if n < 0 {
			return ""
		}
		return strconv.FormatInt(n, 10)
	}
	for i := range boxes {
		m := &boxes[i]
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", Safe(m.Name), number(m.State.Messages), number(m.State.Bytes), Safe(strings.Join(m.SpecialUse, ", ")))
	}
	return out.Flush()
}

// JSONOfMailboxes writes the mailboxes as one JSON document.
func JSONOfMailboxes(w io.Writer, name string, boxes []message.Mailbox, exported func(message.Mailbox) bool) error {
	type mailbox struct {
		Name        string   `json:"name"`
		Messages    *int64   `json:"messages,omitempty"`
		Bytes       *int64   `json:"bytes,omitempty"`
		UIDValidity uint32   `json:"uid_validity,omitempty"`
		SpecialUse  []string `json:"special_use,omitempty"`
		Selectable  bool     `json:"selectable"`
		Exported    *bool    `json:"exported,omitempty"`
		BlindSpots  []string `json:"blind_spots,omitempty"`
	}
	known := func(n int64) *int64 {
		if n < 0 {
			return nil
		}
		return &n
	}
	out := bufio.NewWriter(w)
	source, err := marshal(name)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "{\"source\":%s,\"mailboxes\":[", source)
	for i, m := range boxes {
		j := mailbox{m.Name, known(m.State.Messages), known(m.State.Bytes), m.State.UIDValidity, m.SpecialUse, m.Selectable, nil, m.State.BlindSpots}
		if exported != nil {
			e := m.Selectable && exported(m)
			j.Exported = &e
		}
		line, err := marshal(j)
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Fprint(out, ",")
		}
		fmt.Fprintf(out, "\n%s", line)
	}
	fmt.Fprint(out, "\n]}\n")
	return out.Flush()
}

// JSONOfTotals writes a count as JSON.
func JSONOfTotals(w io.Writer, name, mailbox string, t Totals) error {
	type totals struct {
		Source   string `json:"source"`
		Mailbox  string `json:"mailbox,omitempty"`
		Messages int64  `json:"messages"`
		Bytes    *int64 `json:"bytes,omitempty"`
	}
	j := totals{name, mailbox, t.Messages, nil}
	if t.Bytes >= 0 {
		j.Bytes = &t.Bytes
	}
	b, err := marshal(j)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
