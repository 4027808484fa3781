package imapsource

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/imapscript"
)

// TestRefusedAhead: what is sent along with a command before its answer came
// may be refused, and is then done without or asked for again.
func TestRefusedAhead(t *testing.T) {
	t.Parallel()
	for verb, refuse := range map[string]func(n int64) bool{
		"ID":         func(int64) bool { return true },
		"NAMESPACE":  func(int64) bool { return true },
		"UID SEARCH": func(n int64) bool { return n == 1 },
	} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			var refused atomic.Int64
			server := imapscript.Start(t, imapscript.Script{
				Capabilities: "IMAP4rev1 ID NAMESPACE", Mailboxes: []imapscript.Mailbox{inbox(5)},
				Command: func(c *imapscript.Conn, tag, got, args string) bool {
					if got != verb || !refuse(refused.Add(1)) {
						return false
					}
					c.Write("%s BAD not like this\r\n", tag)
					return true
				},
			})
			s := openSource(t, plainConfig(server.Addr))
			names := 0
			for m, err := range s.Mailboxes(t.Context()) {
				if err != nil || m.Name != "INBOX" {
					t.Fatalf("mailbox %q, %v", m.Name, err)
				}
				names++
			}
			var state message.MailboxState
			sums := list(t, s, source.ListRequest{Mailbox: "INBOX", State: func(st message.MailboxState) { state = st }})
			if names != 1 || len(sums) != 5 || state.Messages != 5 || refused.Load() == 0 {
				t.Errorf("%d mailboxes, %d messages, state %+v, %d commands refused; want 1, 5, 5 and some\n%s",
					names, len(sums), state, refused.Load(), strings.Join(server.Commands(), "\n"))
			}
		})
	}
}
