package imapsource

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/imapscript"
)

// gmailMails are the mails of an account: subject -> labels. Spam and Trash
// keep the labels of what is moved there.
var gmailMails = []struct{ subject, labels string }{
	{"archived", ``},
	{"inbox", `\Inbox`},
	{"inbox and two labels", `\Inbox "Work" "Übung/Tief"`},
	{"work", `"Work" \Important`},
	{"sent to myself", `\Sent \Inbox`},
	{"sent and filed", `\Sent "Work"`},
	{"draft", `\Draft`},
	{"starred", `\Starred`},
	{"starred in the inbox", `\Inbox \Starred \Important`},
	{"hidden label", `"Secret"`},
	{"spam", `\Spam "Work"`},
	{"trash", `\Trash "Work" \Inbox`},
}

// gmailServer answers as Gmail does: a mailbox for each label that is shown, a
// message with a UID of its own in each, its items in Gmail's order, and
// X-GM-LABELS without the label of the mailbox that is open.
func gmailServer(t *testing.T, allMail bool) *imapscript.Server {
	t.Helper()
	script := imapscript.Script{Capabilities: "IMAP4rev1 UNSELECT X-GM-EXT-1 UIDPLUS MOVE CONDSTORE ESEARCH"}
	boxes := []struct{ name, attr, label string }{
		{"INBOX", ``, `\Inbox`}, {"Work", ``, "Work"}, {"&ANw-bung", `\Noselect`, ""}, {"&ANw-bung/Tief", ``, "Übung/Tief"},
		{"[Gmail]", `\Noselect`, ""}, {"[Gmail]/Alle Nachrichten", `\All`, ""}, {"[Gmail]/Gesendet", `\Sent`, `\Sent`},
		{"[Gmail]/Entw&APw-rfe", `\Drafts`, `\Draft`}, {"[Gmail]/Markiert", `\Flagged`, `\Starred`}, {"[Gmail]/Wichtig", `\Important`, `\Important`},
		{"[Gmail]/Spam", `\Junk`, `\Spam`}, {"[Gmail]/Papierkorb", `\Trash`, `\Trash`},
	}
	for number, b := range boxes {
		if b.attr == `\All` && !allMail {
			continue
		}
		box := imapscript.Mailbox{Name: b.name, Attributes: b.attr, UIDValidity: uint32(number + 1)}
		for i, m := range gmailMails {
			labels := strings.Fields(m.labels)
			lost := slices.Contains(labels, `\Spam`) || slices.Contains(labels, `\Trash`)
			own := strings.HasPrefix(b.label, `\`)
			quoted := b.label
			if !own {
				quoted = `"` + b.label + `"`
			}
			in := b.label != "" && slices.Contains(labels, quoted)
			if b.attr == `\All` {
				in = true
			}
			if !in || lost != (b.label == `\Spam` || b.label == `\Trash`) {
				continue
			}
			labels = slices.DeleteFunc(labels, func(l string) bool { return l == quoted || l == `\Spam` || l == `\Trash` })
			box.Messages = append(box.Messages, imapscript.Message{
				UID: uint32(number*1000 + i*3 + 1), Raw: "Subject: " + m.subject + "\r\n\r\nHello\r\n",
				Extra: map[string]string{"X-GM-MSGID": fmt.Sprint(1000 + i), "X-GM-THRID": fmt.Sprint(1000 + i),
					"X-GM-LABELS": "(" + strings.ReplaceAll(strings.Join(labels, " "), "Übung", "&ANw-bung") + ")"},
			})
		}
		script.Mailboxes = append(script.Mailboxes, box)
	}
	script.Fetch = func(c *imapscript.Conn, m *imapscript.Message, seq int, items string) bool {
		var own []string
		rest := items
		for _, name := range []string{"X-GM-THRID", "X-GM-MSGID", "X-GM-LABELS"} {
			if v, ok := m.Item(name); ok && strings.Contains(items, name) {
				own = append(own, v)
				rest = strings.Replace(rest, name, "", 1)
			}
		}
		c.Write("* %d FETCH (%s)\r\n", seq, strings.Join(append(own, m.Items(rest)), " "))
		return true
	}
	script.Command = func(c *imapscript.Conn, tag, verb, args string) bool {
		if verb == "UID SEARCH" && strings.HasPrefix(args, "RETURN") {
			var uids []string
			for _, m := range c.Selected.Messages {
				uids = append(uids, fmt.Sprint(m.UID))
			}
			c.Write("* ESEARCH (TAG %q) UID ALL %s\r\n%s OK SEARCH completed (Success)\r\n", tag, strings.Join(uids, ","), tag)
			return true
		}
		return false
	}
	return imapscript.Start(t, script)
}

func gmailConfig(s *imapscript.Server) Config {
	c := plainConfig(s.Addr)
	c.Place = []string{"user", "sent", "drafts", "inbox", "archive"}
	return c
}

// take does what a run does with the mailboxes: those within another that is
// taken are left out, and each is told of the others.
func take(t *testing.T, s *Source, include func(m message.Mailbox) bool) (requests []source.ListRequest) {
	t.Helper()
	wanted := map[string]message.Mailbox{}
	for m, err := range s.Mailboxes(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Selectable && include(m) {
			wanted[m.Name] = m
		}
	}
	var among []string
	for name, m := range wanted {
		if _, all := wanted[m.Within]; all {
			delete(wanted, name)
		} else if m.Overlaps {
			among = append(among, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		r := source.ListRequest{Mailbox: name}
		if wanted[name].Overlaps {
			r.Among = among
		}
		requests = append(requests, r)
	}
	return requests
}

// TestGmail: each message comes once, whatever is included, filed where the
// order of places says, and none is lost that can be seen.
func TestGmail(t *testing.T) {
	t.Parallel()
	all := func(message.Mailbox) bool { return true }
	only := func(names ...string) func(message.Mailbox) bool {
		return func(m message.Mailbox) bool { return slices.Contains(names, m.Name) }
	}
	for _, tt := range []struct {
		name    string
		hidden  bool
		folders bool
		include func(message.Mailbox) bool
		place   []string
		want    string // mailbox where it is filed: subjects
	}{
		{name: "everything", include: all, want: `INBOX: inbox, starred in the inbox
Work: inbox and two labels, sent and filed, work
[Gmail]/Alle Nachrichten: archived, starred
[Gmail]/Entwürfe: draft
[Gmail]/Gesendet: sent to myself
[Gmail]/Papierkorb: trash
[Gmail]/Spam: spam
Secret: hidden label`},
		{name: "the inbox first", include: all, place: []string{"inbox", "user", "archive"}, want: `INBOX: inbox, inbox and two labels, sent to myself, starred in the inbox
Work: sent and filed, work
[Gmail]/Alle Nachrichten: archived, draft, starred
[Gmail]/Papierkorb: trash
[Gmail]/Spam: spam
Secret: hidden label`},
		{name: "where it lies", include: all, place: []string{"archive"}, want: `[Gmail]/Alle Nachrichten: archived, draft, hidden label, inbox, inbox and two labels, sent and filed, sent to myself, starred, starred in the inbox, work
[Gmail]/Papierkorb: trash
[Gmail]/Spam: spam`},
		{name: "All Mail is hidden", hidden: true, include: all, want: `INBOX: inbox, starred in the inbox
Work: inbox and two labels, sent and filed, work
[Gmail]/Entwürfe: draft
[Gmail]/Gesendet: sent to myself
[Gmail]/Markiert: starred
[Gmail]/Papierkorb: trash
[Gmail]/Spam: spam`},
		{name: "INBOX alone", include: only("INBOX"), want: `INBOX: inbox, inbox and two labels, sent to myself, starred in the inbox`},
		{name: "INBOX, work and sent", include: only("INBOX", "Work", "[Gmail]/Gesendet"), want: `INBOX: inbox, starred in the inbox
Work: inbox and two labels, sent and filed, work
[Gmail]/Gesendet: sent to myself`},
		{name: "starred and important", include: only("[Gmail]/Markiert", "[Gmail]/Wichtig"), want: `[Gmail]/Markiert: starred, starred in the inbox
[Gmail]/Wichtig: work`},
		{name: "folders", folders: true, include: only("INBOX", "Work", "Übung/Tief"), want: `INBOX: inbox, inbox and two labels, sent to myself, starred in the inbox
Work: inbox and two labels, sent and filed, work
Übung/Tief: inbox and two labels`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := gmailConfig(gmailServer(t, !tt.hidden))
			if tt.place != nil {
				c.Place = tt.place
			}
			if tt.folders {
				c.Gmail = "folders"
			}
			s := openSource(t, c)
			filed := map[string][]string{}
			spots := 0
			for _, r := range take(t, s, tt.include) {
				r.Needs = message.NeedHeaders | message.NeedGmail
				r.State = func(st message.MailboxState) { spots += len(st.BlindSpots) }
				var pages []message.Summary
				for {
					page := r
					page.Limit = 2 // the engine lists in pages, and takes a short one for the end
					if len(pages) > 0 {
						page.After = &pages[len(pages)-1].ID
					}
					sums := list(t, s, page)
					pages = append(pages, sums...)
					if len(sums) < 2 {
						break
					}
				}
				for _, sum := range pages {
					filed[sum.Folder()] = append(filed[sum.Folder()], sum.Header.Subject())
					if sum.Gmail == nil || sum.Gmail.MessageID < 1000 {
						t.Errorf("%q has no ids of Gmail", sum.Header.Subject())
					}
				}
				// The same place comes with the body.
				for got, err := range s.Fetch(t.Context(), source.FetchRequest{Mailbox: r.Mailbox, Needs: message.NeedBody, IDs: batches(idsOf(pages), 10)}) {
					if err != nil || got.Err != nil {
						t.Fatal(err, got.Err)
					}
					at := slices.IndexFunc(pages, func(p message.Summary) bool { return p.ID == got.ID })
					if got.Message.Folder() != pages[at].Folder() {
						t.Errorf("%s is listed in %q and fetched in %q", got.ID, pages[at].Folder(), got.Message.Folder())
					}
				}
			}
			var lines []string
			for folder, subjects := range filed {
				slices.Sort(subjects)
				lines = append(lines, folder+": "+strings.Join(subjects, ", "))
			}
			slices.Sort(lines)
			want := strings.Split(tt.want, "\n")
			slices.Sort(want)
			if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
				t.Errorf("filed are\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}
			if (spots > 0) != tt.hidden {
				t.Errorf("%d blind spots", spots)
			}
		})
	}
}

// TestGmailAsItStands: who looks into a mailbox, without a run, sees all of it.
func TestGmailAsItStands(t *testing.T) {
	t.Parallel()
	s := openSource(t, gmailConfig(gmailServer(t, true)))
	if got := mailboxNames(t, s); !slices.Contains(got, "Work") || !slices.Contains(got, "[Gmail]/Alle Nachrichten") {
		t.Errorf("the mailboxes are %q", got)
	}
	if got := list(t, s, source.ListRequest{Mailbox: "INBOX"}); len(got) != 4 {
		t.Errorf("INBOX has %d messages, want 4", len(got))
	}
	// The label of the mailbox itself, which Gmail leaves out, is added.
	for mailbox, want := range map[string]string{"INBOX": `[Work \Inbox Übung/Tief]`, "Work": `[Work \Inbox Übung/Tief]`, "[Gmail]/Spam": "[Work]"} {
		sums := list(t, s, source.ListRequest{Mailbox: mailbox, Needs: message.NeedFlags | message.NeedGmail | message.NeedHeaders})
		at := max(0, slices.IndexFunc(sums, func(m message.Summary) bool { return m.Header.Subject() == "inbox and two labels" }))
		slices.Sort(sums[at].Labels)
		if got := fmt.Sprint(sums[at].Labels); got != want || fmt.Sprint(sums[at].Gmail.Labels) != want {
			t.Errorf("in %s the labels are %s and %s, want %s", mailbox, got, sums[at].Gmail.Labels, want)
		}
	}
}

// TestGmailLimitsMailboxes: where Gmail shows the newest 1,000 of a mailbox, a
// label doesn't say that a message can be had there: better twice than never.
func TestGmailLimitsMailboxes(t *testing.T) {
	t.Parallel()
	s := openSource(t, gmailConfig(gmailServer(t, false)))
	requests := take(t, s, func(m message.Mailbox) bool { return m.Name == "INBOX" || m.Name == "Work" })
	s.mu.Lock()
	s.counts["Work"] = 1000
	s.mu.Unlock()
	for _, r := range requests {
		if got := list(t, s, r); r.Mailbox == "INBOX" && len(got) != 4 {
			t.Errorf("INBOX has %d messages, want all 4", len(got))
		}
	}
}
