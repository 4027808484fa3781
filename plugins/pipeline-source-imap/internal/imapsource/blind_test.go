package imapsource

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/imapscript"
)

// TestBlindSpots: what a server hides is told in words, and a round number by
// itself is nothing to tell of.
func TestBlindSpots(t *testing.T) {
	t.Parallel()
	counts := func(exists string, search string) func(c *imapscript.Conn, tag, verb, args string) bool {
		return func(c *imapscript.Conn, tag, verb, args string) bool {
			switch verb {
			case "EXAMINE":
				c.Write("* %s EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 200001] x\r\n%s OK done\r\n", exists, tag)
			case "UID SEARCH":
				c.Write("%s", strings.ReplaceAll(search, "TAG", tag))
			default:
				return false
			}
			return true
		}
	}
	var seen atomic.Int64
	for _, tt := range []struct {
		name     string
		caps     string
		provider string
		attr     string
		command  func(c *imapscript.Conn, tag, verb, args string) bool
		want     string // in the one spot; empty: none
	}{
		{name: "a round number", command: counts("10000", "* ESEARCH (TAG \"TAG\") UID ALL 1:10000\r\nTAG OK done\r\n")},
		{name: "Yahoo's cap", provider: "yahoo", command: counts("100000", "* ESEARCH (TAG \"TAG\") UID ALL 1:100000\r\nTAG OK done\r\n"), want: "Yahoo shows the newest 10,000"},
		{name: "Gmail's setting", caps: " X-GM-EXT-1", attr: `\All`, command: counts("2000", "* ESEARCH (TAG \"TAG\") UID ALL 1:2000\r\nTAG OK done\r\n"), want: "Limit IMAP folders"},
		{name: "Gmail, another number", caps: " X-GM-EXT-1", attr: `\All`, command: counts("2001", "* ESEARCH (TAG \"TAG\") UID ALL 1:2001\r\nTAG OK done\r\n")},
		{name: "Gmail without All Mail", caps: " X-GM-EXT-1", command: counts("7", "* ESEARCH (TAG \"TAG\") UID ALL 1:7\r\nTAG OK done\r\n"), want: "All Mail is hidden"},
		{name: "fewer than it counts", command: counts("12345", "* ESEARCH (TAG \"TAG\") UID ALL 1:10000\r\nTAG OK done\r\n"), want: "counts 12345 messages and lists 10000"},
		{name: "more than it counts", command: counts("5", "* ESEARCH (TAG \"TAG\") UID ALL 1:7\r\nTAG OK done\r\n"), want: "counts 5 messages and lists 7"},
		{name: "mail that came in between", command: func(c *imapscript.Conn, tag, verb, args string) bool {
			n := "6"
			if verb == "EXAMINE" && seen.Add(1) == 1 {
				n = "5"
			}
			return counts(n, "* ESEARCH (TAG \"TAG\") UID ALL 1:6\r\nTAG OK done\r\n")(c, tag, verb, args)
		}},
		{name: "a limit that can't be passed", command: counts("2000", "* ESEARCH (TAG \"TAG\") UID ALL 1001:2000\r\nTAG OK [MESSAGELIMIT 1000] partial\r\n"), want: "MESSAGELIMIT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1 ESEARCH" + tt.caps, Mailboxes: []imapscript.Mailbox{{Name: "INBOX", Attributes: tt.attr}}, Command: tt.command})
			c := plainConfig(server.Addr)
			s := openSource(t, c)
			s.config.Provider = tt.provider
			mailboxNames(t, s)
			var state message.MailboxState
			for _, err := range s.List(t.Context(), source.ListRequest{Mailbox: "INBOX", Limit: 3, State: func(st message.MailboxState) { state = st }}) {
				if err != nil {
					t.Fatal(err)
				}
			}
			got := strings.Join(state.BlindSpots, "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("the blind spots are %q, want one with %q", got, tt.want)
			}
		})
	}
}
