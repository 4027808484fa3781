package browse

import (
	"context"
	"fmt"
	"io"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// mostSpots is how many blind spots of a source a survey tells.
const mostSpots = 10

// Survey asks an open source what a run would find: how many mailboxes,
// messages and octets, and what the server grants and hides. No message is
// asked for.
func Survey(ctx context.Context, w io.Writer, name string, o source.Opened, exported func(message.Mailbox) bool) error {
	fmt.Fprintf(w, "\nsource %s at %s\n", name, Safe(o.URL))
	for _, note := range o.Notes {
		fmt.Fprintf(w, "  note   %s\n", Safe(note))
	}
	s := Source{Name: name, Source: o.Source, Provides: o.Provides}
	all, err := s.all(ctx)
	if err != nil {
		return err
	}
	var boxes, messages, octets, unsized, spots int64
	for i := range all {
		m := &all[i]
		if !m.Selectable || !exported(*m) {
			continue
		}
		boxes++
		messages += max(0, m.State.Messages)
		octets += max(0, m.State.Bytes)
		if m.State.Bytes < 0 {
			unsized++
		}
		for _, text := range m.State.BlindSpots {
			if spots++; spots <= mostSpots {
				fmt.Fprintf(w, "  blind  %s: %s\n", Safe(m.Name), Safe(text))
			}
		}
	}
	if spots > mostSpots {
		fmt.Fprintf(w, "  blind  and %s more\n", Count(spots-mostSpots))
	}
	size := ", " + Size(octets)
	switch {
	case unsized == boxes:
		size = ", of unknown size"
	case unsized > 0:
		size = ", more than " + Size(octets)
	}
	fmt.Fprintf(w, "  has    %s%s in %s", counted(messages, "message", "messages"), size, counted(boxes, "mailbox", "mailboxes"))
	if others := int64(len(all)) - boxes; others > 0 {
		fmt.Fprintf(w, "; %s the file doesn't export, or that hold no messages", counted(others, "mailbox", "mailboxes"))
	}
	fmt.Fprintln(w)
	return nil
}
