package imapsource

import (
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/imapscript"
)

// TestGoesOn: a listing in pages opens the mailbox once. For one of 20,000
// messages Dovecot read its folder anew at each EXAMINE, which took ten times
// as long as the headers of an index.
func TestGoesOn(t *testing.T) {
	t.Parallel()
	stated := func(message.MailboxState) {}
	for _, tt := range []struct {
		name  string
		then  func(after *message.ID) source.ListRequest
		news  string // what the server says of its own accord before
		opens int
	}{
		{"the next page", func(after *message.ID) source.ListRequest { return source.ListRequest{After: after, GoesOn: true} }, "", 1},
		{"more of some messages", func(after *message.ID) source.ListRequest {
			return source.ListRequest{IDs: []message.ID{*after}, GoesOn: true, Needs: message.NeedHeaders}
		}, "", 1},
		{"a page that stands for itself", func(after *message.ID) source.ListRequest {
			return source.ListRequest{After: after}
		}, "", 2},
		{"a listing of its own", func(*message.ID) source.ListRequest { return source.ListRequest{State: stated} }, "", 2},
		{"mail arrived", func(after *message.ID) source.ListRequest { return source.ListRequest{After: after, GoesOn: true} }, "* 6 EXISTS", 2},
		{"a message went", func(after *message.ID) source.ListRequest { return source.ListRequest{After: after, GoesOn: true} }, "* 5 EXPUNGE", 2},
		{"another went, as QRESYNC says it", func(after *message.ID) source.ListRequest { return source.ListRequest{After: after, GoesOn: true} }, "* VANISHED 5", 2},
		{"a flag was set", func(after *message.ID) source.ListRequest { return source.ListRequest{After: after, GoesOn: true} }, `* 5 FETCH (FLAGS (\Seen))`, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(5)}, Command: func(c *imapscript.Conn, _, verb, _ string) bool {
				if verb == "UID FETCH" && tt.news != "" {
					c.Write("%s\r\n", tt.news)
				}
				return false
			}})
			config := plainConfig(server.Addr)
			config.Connections = 1
			s := openSource(t, config)
			first := list(t, s, source.ListRequest{Mailbox: "INBOX", Limit: 3, Needs: message.NeedSize, State: stated})
			if len(first) != 3 {
				t.Fatalf("the first page has %d messages, want 3", len(first))
			}
			req := tt.then(&first[2].ID)
			req.Mailbox = "INBOX"
			if sums := list(t, s, req); len(sums) == 0 {
				t.Error("the second listing is empty")
			}
			opens := 0
			for _, c := range server.Commands() {
				if strings.HasPrefix(c, "EXAMINE ") {
					opens++
				}
			}
			if opens != tt.opens {
				t.Errorf("the mailbox was opened %d times, want %d: %q", opens, tt.opens, server.Commands())
			}
		})
	}
}

// TestLateAnswers: the answer to a command of the login that comes when the first
// mailbox is being opened isn't that mailbox's. It was taken for it, and the
// messages were listed under UIDVALIDITY 0 and called vanished.
func TestLateAnswers(t *testing.T) {
	t.Parallel()
	for _, late := range []string{"T9 OK done", "m0 OK done", "T9 NO [UNAVAILABLE] later", "* OK still here"} {
		t.Run(late, func(t *testing.T) {
			t.Parallel()
			server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(5)}, Command: func(c *imapscript.Conn, _, verb, _ string) bool {
				if verb == "EXAMINE" {
					c.Write("%s\r\n", late)
				}
				return false
			}})
			s := openSource(t, plainConfig(server.Addr))
			var state message.MailboxState
			sums := list(t, s, source.ListRequest{Mailbox: "INBOX", State: func(st message.MailboxState) { state = st }})
			if len(sums) != 5 || state.Messages != 5 || state.UIDValidity == 0 {
				t.Fatalf("%d messages are listed in the state %+v, want 5 in one with UIDVALIDITY", len(sums), state)
			}
			for _, sum := range sums {
				if sum.ID.UIDValidity != state.UIDValidity {
					t.Errorf("%s is listed, and the mailbox has UIDVALIDITY %d", sum.ID, state.UIDValidity)
				}
			}
		})
	}
}
