package imapsource

import (
	"context"
	"slices"
	"strings"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// Gmail's mailboxes are labels: a message is in as many as it has, and all of
// it but Spam and Trash is in All Mail. `gmail: once` takes each message once:
// from All Mail, filed under the label that the config's order of places
// chooses; or, where the run doesn't take All Mail, from the one of its
// mailboxes that the same order chooses. Which one that is follows from the
// message's labels alone, so that no run has to remember what another listed.

// once reports whether each message is to be taken once.
func (s *Source) once() bool { return s.gmail && s.config.Gmail != "folders" }

// apart reports whether the messages of a mailbox with this use are in no
// other one, or it has them all.
func apart(use string) bool { return use == "all" || use == "junk" || use == "trash" }

// allMail returns the name of All Mail; empty when it is hidden.
func allMail(found []listed) string {
	for _, l := range found {
		if l.Selectable && slices.Contains(l.SpecialUse, "all") {
			return l.Name
		}
	}
	return ""
}

// placing reports whether messages of the mailbox are filed under another.
func (s *Source) placing(mailbox string) bool {
	return s.once() && mailbox != "" && mailbox == s.special("all")
}

// place says where a message of All Mail is filed. In any other mailbox it
// adds the label that Gmail leaves out: that of the mailbox itself.
func (s *Source) place(sum *message.Summary, it *imapdata.Items) {
	if !it.HaveLabels {
		return
	}
	if !s.placing(sum.ID.Mailbox) {
		own := s.label(sum.ID.Mailbox)
		if own != "" && sum.Have.Has(message.NeedFlags) && !slices.Contains(sum.Labels, own) {
			sum.Labels = append(slices.Clone(sum.Labels), own)
			slices.Sort(sum.Labels)
		}
		if g := sum.Gmail; own != "" && g != nil && !slices.Contains(g.Labels, own) {
			g.Labels = append(slices.Clone(g.Labels), own)
			slices.Sort(g.Labels)
		}
		return
	}
	if at := s.first(s.mailboxesOf(it.Gmail.Labels)); at != sum.ID.Mailbox {
		sum.Place = at
	}
}

// label returns the label that a mailbox stands for; empty for All Mail, Spam
// and Trash, which are none.
func (s *Source) label(mailbox string) string {
	if mailbox == "INBOX" {
		return `\Inbox`
	}
	for use, label := range map[string]string{"sent": `\Sent`, "drafts": `\Draft`, "flagged": `\Starred`, "important": `\Important`, "all": "", "junk": "", "trash": ""} {
		if s.special(use) == mailbox {
			return label
		}
	}
	return mailbox
}

// labelled is a mailbox that a message is in because of a label.
type labelled struct {
	place   string // a word of the config's place; empty for the others
	mailbox string
}

// mailboxesOf returns the mailboxes that labels stand for, in their order.
func (s *Source) mailboxesOf(labels []string) (out []labelled) {
	add := func(place, use string) {
		if name := s.special(use); name != "" {
			out = append(out, labelled{place, name})
		}
	}
	for _, l := range labels {
		switch strings.ToLower(l) {
		case `\inbox`:
			out = append(out, labelled{"inbox", "INBOX"})
		case `\sent`:
			add("sent", "sent")
		case `\draft`, `\drafts`:
			add("drafts", "drafts")
		case `\starred`:
			add("", "flagged")
		case `\important`:
			add("", "important")
		default:
			if !strings.HasPrefix(l, `\`) {
				out = append(out, labelled{"user", l})
			}
		}
	}
	return out
}

// first returns the mailbox that comes first in the order of places; empty
// when none does.
func (s *Source) first(in []labelled) string {
	for _, place := range s.config.Place {
		if place == "archive" {
			return ""
		}
		for _, l := range in {
			if l.place == place {
				return l.mailbox
			}
		}
	}
	return ""
}

// owning reports whether the listing is of the messages alone that this
// mailbox has before the others that the run takes.
func (l *lister) owning() bool {
	return len(l.req.Among) > 1 && l.Source.once() && l.req.IDs == nil
}

// owned returns the messages that the run takes from this mailbox.
func (l *lister) owned(ctx context.Context, st *imapconn.Opened) (imapdata.Set, error) {
	key := "\x00own " + strings.Join(l.req.Among, "\x00")
	set, _, err := l.known(ctx, st, key, false, func() (set imapdata.Set, capped bool, err error) {
		_, err = l.conn.Do(ctx, "UID FETCH 1:* (UID X-GM-LABELS)", func(r *imapconn.Response) error {
			if r.Name != "FETCH" {
				return nil
			}
			var it imapdata.Items
			it.Read(r.Data)
			if it.UID != 0 && (!it.HaveLabels || l.owns(it.Gmail.Labels)) {
				set.Add(it.UID, it.UID)
			}
			return nil
		})
		return set, false, err
	})
	return set, err
}

// owns reports whether a message of this mailbox with these labels is taken
// from here. X-GM-LABELS leaves out the label of the mailbox itself.
func (l *lister) owns(labels []string) bool {
	var in []labelled
	for _, o := range append(l.mailboxesOf(labels), l.itself()) {
		if o.mailbox == l.req.Mailbox || slices.Contains(l.req.Among, o.mailbox) && !l.limited(o.mailbox) {
			in = append(in, o)
		}
	}
	slices.SortStableFunc(in, func(a, b labelled) int { return strings.Compare(a.mailbox, b.mailbox) })
	if at := l.first(in); at != "" {
		return at == l.req.Mailbox
	}
	return in[0].mailbox == l.req.Mailbox
}

// itself returns the mailbox being listed as one that a message is in.
func (l *lister) itself() labelled {
	l.mu.Lock()
	defer l.mu.Unlock()
	here := labelled{"user", l.req.Mailbox}
	for use, place := range map[string]string{"sent": "sent", "drafts": "drafts", "flagged": "", "important": ""} {
		if l.uses[use] == l.req.Mailbox {
			here.place = place
		}
	}
	if l.req.Mailbox == "INBOX" {
		here.place = "inbox"
	}
	return here
}

// limited reports whether Gmail may show a part of a mailbox only: its label
// doesn't tell then whether the message can be had there.
func (s *Source) limited(mailbox string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(gmailCaps, s.counts[mailbox])
}
