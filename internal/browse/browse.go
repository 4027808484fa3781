// Package browse looks into a source: its mailboxes, their messages a page at
// a time, and one message whole. It keeps nothing and changes nothing (I7), and
// holds as little of a mailbox as a screen shows (I5).
package browse

import (
	"context"
	"fmt"
	"strings"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// Source is an open source that is looked into.
type Source struct {
	Name   string // as in the file; the host, when a URL named it
	Source source.Source
	// Provides is what the server can tell: that of the session.
	Provides message.Needs
	// Narrowed says that the config picks messages: what the server counts in
	// a mailbox isn't what is listed of it.
	Narrowed bool
	Vars     map[string]string // of the file, for vars.NAME
}

// Mailboxes returns the mailboxes, those below a level only when under is set.
// under is a name, or a pattern as in mailboxes.include.
func (s *Source) Mailboxes(ctx context.Context, under string) ([]message.Mailbox, error) {
	all, err := s.all(ctx)
	if err != nil || under == "" {
		return all, err
	}
	return choose(all, under, true)
}

func (s *Source) all(ctx context.Context) ([]message.Mailbox, error) {
	var all []message.Mailbox
	for m, err := range s.Source.Mailboxes(ctx) {
		if err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "source %s: list the mailboxes", s.Name)
		}
		all = append(all, m)
	}
	return all, nil
}

// Find returns the mailboxes that a name or pattern means, with recursive all
// below them too. A plain name is taken as it is: the server says whether there
// is such a mailbox when its messages are asked for.
func (s *Source) Find(ctx context.Context, name string, recursive bool) ([]message.Mailbox, error) {
	if name != "" && !recursive && !isPattern(name) {
		return []message.Mailbox{{Name: name, Selectable: true, State: unknown}}, nil
	}
	all, err := s.all(ctx)
	if err != nil {
		return nil, err
	}
	found := all
	if name != "" {
		if found, err = choose(all, name, recursive); err != nil {
			return nil, err
		}
	}
	selectable := found[:0:0]
	for _, m := range found {
		if m.Selectable {
			selectable = append(selectable, m)
		}
	}
	return selectable, nil
}

var unknown = message.MailboxState{Messages: -1, Bytes: -1}

func isPattern(name string) bool {
	return strings.Contains(name, "*") || strings.HasPrefix(name, "special:")
}

// choose returns the mailboxes that name means: the one of that name, else
// those that match it as a pattern.
func choose(all []message.Mailbox, name string, below bool) ([]message.Mailbox, error) {
	var out []message.Mailbox
	names := make([]string, len(all))
	for i, m := range all {
		names[i] = m.Name
		if m.Name == name || strings.EqualFold(name, "INBOX") && strings.EqualFold(m.Name, name) ||
			below && strings.HasPrefix(m.Name, name+"/") {
			out = append(out, m)
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	if isPattern(name) {
		match, err := config.NewMatcher([]string{name}, nil)
		if err != nil {
			return nil, fault.New(fault.Config, "mailbox %s: %w", name, err)
		}
		for _, m := range all {
			if match.Match(m) {
				out = append(out, m)
			}
		}
	}
	if len(out) == 0 {
		return nil, noMailbox(name, names)
	}
	return out, nil
}

func noMailbox(name string, names []string) error {
	if name == "" {
		return fault.New(fault.Config, "which mailbox?").WithHint("name it after the source: pipeline ls SOURCE shows all there are")
	}
	f := fault.New(fault.Config, "there is no mailbox %s", Safe(name))
	if near := spec.Nearest(name, names); near != "" {
		return f.WithHint("did you mean %s?", Safe(near))
	}
	return f.WithHint("ls without a mailbox shows all there are")
}

// explain makes of a source's word that a mailbox isn't there a hint at the
// ones that are.
func (s *Source) explain(ctx context.Context, mailbox string, err error) error {
	if !fault.Is(err, fault.Gone) && !fault.Is(err, fault.Message) {
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	all, listErr := s.all(ctx)
	if listErr != nil {
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	names := make([]string, 0, len(all))
	for _, m := range all {
		if m.Name == mailbox {
			return fmt.Errorf("source %s: %w", s.Name, err) // it is there, and yet can't be opened
		}
		names = append(names, m.Name)
	}
	return noMailbox(mailbox, names)
}

// Totals are a count of messages and their octets; -1 is unknown.
type Totals struct {
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"`
}

// Count counts a mailbox, or all of them when it is empty. Where the config
// picks messages each is listed for it, by its size alone; else the server's
// own count is asked for: a single round trip where there is one mailbox only.
func (s *Source) Count(ctx context.Context, mailbox string, recursive bool) (Totals, error) {
	if !recursive && !isPattern(mailbox) && !s.Narrowed {
		t, err := s.state(ctx, mailbox)
		if err == nil || mailbox != "" || !fault.Is(err, fault.Gone) {
			if err != nil {
				err = s.explain(ctx, mailbox, err)
			}
			return t, err
		}
	}
	boxes, err := s.Find(ctx, mailbox, recursive)
	if err != nil {
		return Totals{}, err
	}
	sum := Totals{}
	for i := range boxes {
		t := Totals{boxes[i].State.Messages, boxes[i].State.Bytes}
		if s.Narrowed || t.Messages < 0 {
			if t, err = s.add(ctx, boxes[i].Name); err != nil {
				return Totals{}, s.explain(ctx, boxes[i].Name, err)
			}
		}
		sum.Messages += t.Messages
		if t.Bytes < 0 || sum.Bytes < 0 {
			sum.Bytes = -1
		} else {
			sum.Bytes += t.Bytes
		}
	}
	return sum, nil
}

// state asks for what the server says when a mailbox is opened, and for no
// message of it. The empty name is that of a source's only mailbox.
func (s *Source) state(ctx context.Context, mailbox string) (Totals, error) {
	st := unknown
	for _, err := range s.Source.List(ctx, source.ListRequest{Mailbox: mailbox, IDs: []message.ID{}, State: func(x message.MailboxState) { st = x }}) {
		if err != nil {
			return Totals{}, err
		}
	}
	return Totals{st.Messages, st.Bytes}, nil
}

// add lists a mailbox and adds up what there is.
func (s *Source) add(ctx context.Context, mailbox string) (Totals, error) {
	var t Totals
	for sum, err := range s.Source.List(ctx, source.ListRequest{Mailbox: mailbox, Needs: message.NeedSize}) {
		if err != nil {
			return t, err
		}
		t.Messages++
		t.Bytes += sum.Size
	}
	return t, nil
}
