package imapsource

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/imapscript"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

// boxes makes mailboxes that no answer fits but their own: each has another
// UIDVALIDITY, another number of messages, and UIDs of its own.
func boxes(n int) (out []imapscript.Mailbox) {
	for i := range n {
		m := imapscript.Mailbox{Name: fmt.Sprintf("Box %03d", i), UIDValidity: uint32(1000 + i)}
		for k := range i % 4 {
			m.Messages = append(m.Messages, imapscript.Message{UID: uint32(10*i + k + 1), Raw: string(sampleMail(i + k)), Flags: `\Seen`})
		}
		out = append(out, m)
	}
	return out
}

// box is what a listing says of a mailbox.
type box struct {
	state message.MailboxState
	sums  []message.Summary
	err   error
}

// text is what must be the same however it was asked for.
func (b *box) text() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%+v %v", b.state, fault.Of(b.err))
	for i := range b.sums {
		sum := &b.sums[i]
		fmt.Fprintf(&out, " %s #%d %v %d %v", sum.ID, sum.SequenceNumber, sum.Have, sum.Size, sum.Flags)
		if sum.Header != nil {
			fmt.Fprintf(&out, " %q", sum.Header.Raw())
		}
	}
	return out.String()
}

// listBoxes lists mailboxes as a run does, naming the next ones or not.
func listBoxes(t *testing.T, s *Source, names []string, ahead bool, req source.ListRequest) map[string]*box {
	t.Helper()
	out := map[string]*box{}
	for i, name := range names {
		b := &box{}
		req.Mailbox, req.Limit = name, 512
		req.State = func(st message.MailboxState) { b.state = st }
		if ahead {
			req.Next = names[i+1 : min(i+1+widest, len(names))]
		}
		for sum, err := range s.List(t.Context(), req) {
			if err != nil {
				b.err = err
				break
			}
			b.sums = append(b.sums, sum)
		}
		out[name] = b
	}
	return out
}

// namesOf asks for the mailboxes first, as a run does.
func namesOf(t *testing.T, s *Source) (out []string) {
	t.Helper()
	for m, err := range s.Mailboxes(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m.Name)
	}
	return out
}

// requests are the ways in which a run lists mailboxes.
var requests = map[string]source.ListRequest{
	"ids":               {},
	"sizes":             {Needs: message.NeedSize},
	"headers":           {Needs: message.NeedHeaders | message.NeedFlags | message.NeedSize},
	"conditions":        {Where: []source.Condition{{Field: "size", Op: ">", Size: 400}}},
	"newest":            {Newest: true, Needs: message.NeedSize},
	"sizes, conditions": {Needs: message.NeedSize, Where: []source.Condition{{Field: "flags", Op: "has", Flag: `\Flagged`}}},
}

// TestMailboxesAreListedTogether: what is said of mailboxes that were asked
// for ahead of their turn is what a listing of each alone says, in few round
// trips: 200 mailboxes took 200, one after the other.
func TestMailboxesAreListedTogether(t *testing.T) {
	t.Parallel()
	const n = 200
	d := dovecot.Start(t, dovecot.Options{})
	for i := range n {
		for k := range i % 3 {
			d.Deliver("alice", fmt.Sprintf("Box %03d", i), sampleMail(i+k), sampleDate)
		}
	}
	for name, req := range requests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var texts [2]map[string]string
			var trips [2]int
			for i, ahead := range []bool{false, true} {
				wire := wireproxy.Start(t, d.IMAP)
				wire.Over(wireproxy.Line{RoundTrip: 2 * time.Millisecond})
				c := plainConfig(wire.Addr)
				c.Connections = 1
				s := openSource(t, c)
				names := namesOf(t, s)
				before := wire.Trips()
				texts[i] = map[string]string{}
				for name, b := range listBoxes(t, s, names, ahead, req) {
					texts[i][name] = b.text()
				}
				trips[i] = wire.Trips() - before
			}
			for name, want := range texts[0] {
				if got := texts[1][name]; got != want {
					t.Errorf("%s is listed as\n%s\nand alone as\n%s", name, got, want)
				}
			}
			t.Logf("%d mailboxes: %d round trips one after the other, %d together", len(texts[0]), trips[0], trips[1])
			if most := len(texts[0])/(widest+1) + 3; req.Where == nil && trips[1] > most {
				t.Errorf("%d round trips for %d mailboxes, want at most %d", trips[1], len(texts[0]), most)
			}
		})
	}
}

// TestAnswersOfAnotherMailbox: however a server gets the answers to several
// mailboxes wrong, none of one is taken for another's, and a mailbox that
// can't be listed costs itself alone (I1, I6).
func TestAnswersOfAnotherMailbox(t *testing.T) {
	t.Parallel()
	const bad = "Box 017"
	isBad := func(args string) bool { return strings.Contains(args, bad) }
	// held is what was asked, of a server that answers later.
	type held struct {
		mu    sync.Mutex
		lines map[int][]string
	}
	tests := []struct {
		name   string
		caps   string
		script func() func(c *imapscript.Conn, tag, verb, args string) bool
		fails  bool // the bad mailbox can't be listed
	}{
		{name: "a good server", script: func() func(*imapscript.Conn, string, string, string) bool { return nil }},
		{name: "one is refused", fails: true, script: func() func(*imapscript.Conn, string, string, string) bool {
			return func(c *imapscript.Conn, tag, verb, args string) bool {
				if verb != "EXAMINE" || !isBad(args) {
					return false
				}
				c.Selected = nil
				c.Write("%s NO [NOPERM] not yours\r\n", tag)
				return true
			}
		}},
		{name: "one is refused, and the one before stays open", fails: true, script: func() func(*imapscript.Conn, string, string, string) bool {
			return func(c *imapscript.Conn, tag, verb, args string) bool {
				if verb != "EXAMINE" || !isBad(args) {
					return false
				}
				c.Write("%s NO [NOPERM] not yours\r\n", tag)
				return true
			}
		}},
		{name: "one ends the connection", fails: true, script: func() func(*imapscript.Conn, string, string, string) bool {
			return func(c *imapscript.Conn, tag, verb, args string) bool {
				if verb == "EXAMINE" && isBad(args) {
					c.Close()
					return true
				}
				return false
			}
		}},
		{name: "news of the one before", script: func() func(*imapscript.Conn, string, string, string) bool {
			return func(c *imapscript.Conn, tag, verb, args string) bool {
				if verb == "EXAMINE" && isBad(args) && c.Selected != nil {
					c.Write("* 99 EXISTS\r\n* OK [UIDNEXT 12345] of the one before\r\n* OK [HIGHESTMODSEQ 777] so, too\r\n* OK [CLOSED] now\r\n")
				}
				return false
			}
		}},
		{name: "a late answer to a command of the login", script: func() func(*imapscript.Conn, string, string, string) bool {
			return func(c *imapscript.Conn, tag, verb, args string) bool {
				if verb == "EXAMINE" {
					c.Write("T9 OK done\r\nm0 NO [UNAVAILABLE] later\r\n* OK still here\r\n")
				}
				return false
			}
		}},
		{name: "answers out of order", script: func() func(*imapscript.Conn, string, string, string) bool {
			h := &held{lines: map[int][]string{}}
			return func(c *imapscript.Conn, tag, verb, args string) bool {
				h.mu.Lock()
				defer h.mu.Unlock()
				late := h.lines[c.Number]
				switch {
				case c.Number == 1 && verb == "EXAMINE" && isBad(args) && c.Selected != nil && c.Selected.Name != bad && late == nil:
					// It opens it at once, and says so after the next command.
					h.lines[c.Number] = []string{tag + " OK [READ-ONLY] done\r\n"}
					return true
				case len(late) > 0:
					h.lines[c.Number] = []string{}
					c.Write("%s OK done\r\n%s", tag, late[0])
					return true
				}
				return false
			}
		}},
		{name: "a search of another command", caps: " ESEARCH", script: func() func(*imapscript.Conn, string, string, string) bool {
			last := map[int]string{}
			var mu sync.Mutex
			return func(c *imapscript.Conn, tag, verb, args string) bool {
				if verb != "UID SEARCH" || c.Selected == nil {
					return false
				}
				mu.Lock()
				defer mu.Unlock()
				of := tag
				if c.Selected.Name == bad && last[c.Number] != "" && c.Number == 1 {
					of = last[c.Number] // the answer to the search before, once more
				}
				last[c.Number] = tag
				var uids []string
				for _, m := range c.Selected.Messages {
					uids = append(uids, fmt.Sprint(m.UID))
				}
				all := ""
				if len(uids) > 0 {
					all = " ALL " + strings.Join(uids, ",")
				}
				c.Write("* ESEARCH (TAG %q) UID%s\r\n%s OK done\r\n", of, all, tag)
				return true
			}
		}},
		{name: "searches are refused", script: func() func(*imapscript.Conn, string, string, string) bool {
			refused := map[string]bool{}
			var mu sync.Mutex
			return func(c *imapscript.Conn, tag, verb, args string) bool {
				mu.Lock()
				defer mu.Unlock()
				if verb != "UID SEARCH" || c.Selected == nil || refused[c.Selected.Name] {
					return false
				}
				refused[c.Selected.Name] = true
				c.Write("%s NO not now\r\n", tag)
				return true
			}
		}},
		{name: "summaries are left out", script: func() func(*imapscript.Conn, string, string, string) bool {
			left := map[string]bool{}
			var mu sync.Mutex
			return func(c *imapscript.Conn, tag, verb, args string) bool {
				mu.Lock()
				defer mu.Unlock()
				if verb != "UID FETCH" || c.Selected == nil || left[c.Selected.Name] {
					return false
				}
				left[c.Selected.Name] = true
				c.Write("%s OK done\r\n", tag)
				return true
			}
		}},
	}
	for _, tt := range tests {
		for _, needs := range []message.Needs{0, message.NeedSize} {
			t.Run(fmt.Sprintf("%s/%v", tt.name, needs), func(t *testing.T) {
				t.Parallel()
				all := boxes(40)
				server := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1" + tt.caps, Mailboxes: all, Command: tt.script()})
				c := plainConfig(server.Addr)
				c.Connections = 1
				s := openSource(t, c)
				got := listBoxes(t, s, namesOf(t, s), true, source.ListRequest{Needs: needs})
				for i := range all {
					m := &all[i]
					b := got[m.Name]
					if tt.fails && m.Name == bad {
						if b.err == nil {
							t.Errorf("%s: %s is listed, and can't be", m.Name, b.text())
						}
						continue
					}
					if b.err != nil {
						t.Errorf("%s: %v", m.Name, b.err)
						continue
					}
					if b.state.UIDValidity != m.UIDValidity || b.state.Messages != int64(len(m.Messages)) || len(b.sums) != len(m.Messages) {
						t.Errorf("%s: %s, want %d messages under %d", m.Name, b.text(), len(m.Messages), m.UIDValidity)
						continue
					}
					for k, sum := range b.sums {
						if want := m.Messages[k]; sum.ID.UID != want.UID || sum.ID.UIDValidity != m.UIDValidity || needs != 0 && sum.Size != int64(len(want.Raw)) {
							t.Errorf("%s: %s of %d octets, want UID %d of %d", m.Name, sum.ID, sum.Size, want.UID, len(want.Raw))
						}
					}
				}
			})
		}
	}
}
