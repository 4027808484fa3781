package imapsource

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/imapscript"
)

func madeUp(n uint32) string {
	return fmt.Sprintf("Subject: Retrieval using the IMAP4 protocol failed for the following message: %d\r\nFrom: Microsoft Exchange Server\r\n\r\nThe server couldn't retrieve the following message:\r\n\r\nSubject: x\r\n", n)
}

// TestPlaceholders: Exchange's made-up mails never pass for the message.
func TestPlaceholders(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		fetch  func(c *imapscript.Conn, m *imapscript.Message, seq int, items string) bool
		reason string // "" means that the message comes
	}{
		{"in a batch only", func(c *imapscript.Conn, m *imapscript.Message, seq int, items string) bool {
			if m.UID != 12 || !isBody(items) || strings.Contains(items, "RFC822.SIZE") { // alone the size is asked for too
				return false
			}
			c.Write("* %d FETCH (UID %d %s)\r\n", seq, m.UID, bodyItem(madeUp(12)))
			return true
		}, ""},
		{"always as a whole", func(c *imapscript.Conn, m *imapscript.Message, seq int, items string) bool {
			if m.UID != 12 || !isBody(items) {
				return false
			}
			c.Write("* %d FETCH (UID %d %s)\r\n", seq, m.UID, bodyItem(madeUp(12)))
			return true
		}, ""},
		{"in all ways", func(c *imapscript.Conn, m *imapscript.Message, seq int, items string) bool {
			if m.UID == 12 {
				made := imapscript.Message{UID: 12, Raw: madeUp(12)}
				c.Write("* %d FETCH (%s)\r\n", seq, made.Items(items))
			}
			return m.UID == 12
		}, "server_placeholder"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(5)}, Fetch: tt.fetch})
			s := openSource(t, plainConfig(server.Addr))
			a := fetch(t.Context(), t, s, "INBOX", 0, idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"})), 10)
			if a.err != nil || len(a.octets)+len(a.errs) != 5 {
				t.Fatalf("%v, %d bodies, errors %v", a.err, len(a.octets), a.errs)
			}
			if tt.reason == "" {
				if string(a.octets[12]) != string(sampleMail(3)) {
					t.Errorf("UID 12 is %q, %v", a.octets[12], a.errs[12])
				}
				return
			}
			if f := fault.As(a.errs[12]); f == nil || f.Class != fault.Message || f.Reason != tt.reason {
				t.Errorf("UID 12: %+v, %q; want the reason %s", f, a.octets[12], tt.reason)
			}
			if string(a.instead[12]) != madeUp(12) {
				t.Errorf("kept of UID 12 is %q", a.instead[12])
			}
		})
	}
	for _, tt := range []struct {
		name, raw string
		want      bool
	}{
		{"made up", madeUp(1), true},
		{"a mail about one", "Subject: Fwd: Retrieval using the IMAP4 protocol failed for the following message: 1\r\n\r\nThe server couldn't retrieve the following message\r\n", false},
		{"a mail that quotes one", "Subject: help\r\n\r\n" + madeUp(1), false},
		{"the subject alone", "Subject: Retrieval using the IMAP4 protocol failed for the following message: 1\r\n\r\nHa.\r\n", false},
	} {
		if got := placeholder([]byte(tt.raw)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestAssembledIsMarked: what was put together is never called exact.
func TestAssembledIsMarked(t *testing.T) {
	t.Parallel()
	server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(2)},
		Fetch: func(c *imapscript.Conn, m *imapscript.Message, seq int, items string) bool {
			if m.UID == 10 && isBody(items) {
				c.Write("* %d FETCH (UID 10 BODY[] NIL)\r\n", seq)
				return true
			}
			return false
		}})
	s := openSource(t, plainConfig(server.Addr))
	ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
	marked := map[uint32]bool{}
	for got, err := range s.Fetch(t.Context(), source.FetchRequest{Mailbox: "INBOX", Needs: message.NeedBody | message.NeedHeaders, IDs: batches(ids, 5)}) {
		if err != nil || got.Err != nil {
			t.Fatal(err, got.Err)
		}
		marked[got.ID.UID] = got.Message.Assembled
		if want := int64(len(sampleMail(int(got.ID.UID - 9)))); got.Message.Body.Size() != want {
			t.Errorf("UID %d: size %d, want %d", got.ID.UID, got.Message.Body.Size(), want)
		}
	}
	if !marked[10] || marked[11] {
		t.Errorf("assembled: %v, want UID 10 alone", marked)
	}
}

// TestNamespaces: what the server lists only under its namespace is found.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	server := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1 NAMESPACE", Mailboxes: []imapscript.Mailbox{inbox(1), {Name: "user/bob"}, {Name: "#shared/team"}},
		Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			switch {
			case verb == "NAMESPACE":
				c.Write("* NAMESPACE ((\"\" \"/\")) ((\"user/\" \"/\")) ((\"#shared/\" \"/\")(\"~\" \"/\"))\r\n%s OK done\r\n", tag)
			case verb == "LIST" && args == `"" "*"`:
				c.Write("* LIST () \"/\" INBOX\r\n* LIST () \"/\" user/bob\r\n%s OK done\r\n", tag)
			case verb == "LIST" && args == `"" "#shared/*"`:
				c.Write("* LIST () \"/\" #shared/team\r\n%s OK done\r\n", tag)
			case verb == "LIST":
				t.Errorf("the source lists %s", args)
				return false
			default:
				return false
			}
			return true
		}})
	if got, want := mailboxNames(t, openSource(t, plainConfig(server.Addr))), []string{"INBOX", "#shared/team", "user/bob"}; !slices.Equal(got, want) {
		t.Errorf("mailboxes are %q, want %q", got, want)
	}
}

// TestAMillionMessages: memory doesn't grow with the mailbox (I5).
func TestAMillionMessages(t *testing.T) {
	t.Parallel()
	const n = 1_000_000
	server := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1 ESEARCH", Mailboxes: []imapscript.Mailbox{{Name: "INBOX"}},
		Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			switch verb {
			case "EXAMINE":
				c.Write("* %d EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n* OK [UIDNEXT %d] x\r\n%s OK done\r\n", n, n+1, tag)
			case "UID SEARCH":
				set := strings.TrimPrefix(args, "RETURN (ALL) ")
				if set == "ALL" {
					set = fmt.Sprintf("1:%d", n)
				}
				c.Write("* ESEARCH (TAG %q) UID ALL %s\r\n%s OK done\r\n", tag, set, tag)
			case "UID FETCH":
				var lo, hi uint32
				if k, _ := fmt.Sscanf(args, "%d:%d", &lo, &hi); k == 1 {
					hi = lo
				}
				var b strings.Builder
				for u := lo; u <= hi; u++ {
					fmt.Fprintf(&b, "* %d FETCH (UID %d RFC822.SIZE 1000)\r\n", u, u)
				}
				c.Write("%s%s OK done\r\n", b.String(), tag)
			default:
				return false
			}
			return true
		}})
	s := openSource(t, plainConfig(server.Addr))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var count, last uint32
	for sum, err := range s.List(t.Context(), source.ListRequest{Mailbox: "INBOX", Needs: message.NeedSize}) {
		if err != nil {
			t.Fatal(err)
		}
		if sum.ID.UID != last+1 {
			t.Fatalf("UID %d behind %d", sum.ID.UID, last)
		}
		last = sum.ID.UID
		if count++; count == n/2 {
			runtime.GC()
			runtime.ReadMemStats(&after)
		}
	}
	if count != n {
		t.Errorf("%d messages, want %d", count, n)
	}
	// Other tests run beside this one; a million summaries would be 200 MB.
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("the heap grew by %d octets in the middle of the listing", grown)
	}
	if got := list(t, s, source.ListRequest{Mailbox: "INBOX", Newest: true, Limit: 50}); len(got) != 50 || got[0].ID.UID != n {
		t.Errorf("the newest page has %d messages", len(got))
	}
	if got := list(t, s, source.ListRequest{Mailbox: "INBOX", Skip: 499_950, Limit: 50, Needs: message.NeedSize}); len(got) != 50 || got[0].ID.UID != 499_951 || got[49].SequenceNumber != 500_000 {
		t.Errorf("a page in the middle has %d messages", len(got))
	}
}

func TestSearchInPieces(t *testing.T) {
	t.Parallel()
	server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(5)},
		Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			if verb != "UID SEARCH" {
				return false
			}
			switch args {
			case "ALL":
				c.Write("* SEARCH 13 14\r\n%s OK [MESSAGELIMIT 2 13] partial\r\n", tag)
			case "UID 1:12 ALL":
				c.Write("* SEARCH 11 12\r\n%s OK [MESSAGELIMIT 2 11] partial\r\n", tag)
			case "UID 1:10 ALL":
				c.Write("* SEARCH 10\r\n%s OK done\r\n", tag)
			default:
				return false
			}
			return true
		}})
	s := openSource(t, plainConfig(server.Addr))
	if got := list(t, s, source.ListRequest{Mailbox: "INBOX"}); len(got) != 5 || got[0].ID.UID != 10 {
		t.Errorf("listed %v, want 5 messages from UID 10", idsOf(got))
	}
}
