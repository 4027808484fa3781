package imapsource

import (
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/imapscript"
)

// TestLargeMessage: memory doesn't grow with a message (I5), and a slow reader
// doesn't run into the deadlines.
func TestLargeMessage(t *testing.T) {
	t.Parallel()
	const size = 128 << 20
	chunk := strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n", 16<<10)
	server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(2)},
		Fetch: func(c *imapscript.Conn, m *imapscript.Message, seq int, items string) bool {
			if m.UID != 10 || !isBody(items) {
				return false
			}
			head := "Subject: large\r\n\r\n"
			c.Write("* %d FETCH (UID 10 BODY[] {%d}\r\n%s", seq, size+len(head), head)
			for n := 0; n < size; n += len(chunk) {
				c.Write("%s", chunk)
			}
			c.Write(")\r\n")
			return true
		}})
	c := plainConfig(server.Addr)
	c.Timeouts.Read = time.Second
	s := openSource(t, c)
	ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	count := 0
	for got, err := range s.Fetch(t.Context(), source.FetchRequest{Mailbox: "INBOX", Needs: message.NeedBody | message.NeedHeaders, IDs: batches(ids, 2)}) {
		if err != nil || got.Err != nil {
			t.Fatal(err, got.Err)
		}
		if count++; got.ID.UID != 10 {
			continue
		}
		if got.Message.Header.Subject() != "large" {
			t.Errorf("the subject is %q", got.Message.Header.Subject())
		}
		half, err := io.CopyN(io.Discard, got.Message.Body, size/2)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond) // longer than the server may be silent
		runtime.GC()
		runtime.ReadMemStats(&after)
		rest, err := io.Copy(io.Discard, got.Message.Body)
		if err != nil || half+rest != got.Message.Body.Size() {
			t.Errorf("%d octets of %d came, %v", half+rest, got.Message.Body.Size(), err)
		}
	}
	if count != 2 {
		t.Errorf("%d messages, want 2", count)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 48<<20 { // other tests run beside this one
		t.Errorf("the heap grew by %d octets in the middle of the message", grown)
	}
}

// TestAuthenticatedButNotConnected is what Microsoft says for a moment, or for
// good when a permission is missing.
func TestAuthenticatedButNotConnected(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		times int64
		class fault.Class
	}{{"for a moment", 2, fault.Unknown}, {"for good", 1000, fault.Auth}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int64
			server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(2)},
				Command: func(c *imapscript.Conn, tag, verb, args string) bool {
					if verb == "EXAMINE" && n.Add(1) <= tt.times {
						c.Write("%s BAD User is authenticated but not connected.\r\n", tag)
						return true
					}
					return false
				}})
			s := openSource(t, plainConfig(server.Addr))
			s.rest = 10 * time.Millisecond
			var failed error
			for _, err := range s.List(t.Context(), source.ListRequest{Mailbox: "INBOX"}) {
				failed = err
			}
			if fault.Of(failed) != tt.class {
				t.Fatalf("%v, want class %s", failed, tt.class)
			}
			if failed != nil && !strings.Contains(fault.As(failed).Hint, "IMAP.AccessAsApp") {
				t.Errorf("the hint is %q", fault.As(failed).Hint)
			}
		})
	}
}

// TestNamesInUTF8: UTF8=ACCEPT (RFC 6855) is used where it is offered.
func TestNamesInUTF8(t *testing.T) {
	t.Parallel()
	box := inbox(1)
	box.Name = "Entwürfe & mehr"
	server := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1 ENABLE UTF8=ACCEPT", Mailboxes: []imapscript.Mailbox{box},
		Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			switch verb {
			case "ENABLE":
				c.Write("* ENABLED UTF8=ACCEPT\r\n%s OK done\r\n", tag)
				return true
			case "EXAMINE":
				if !strings.HasPrefix(args, `"Entwürfe & mehr"`) {
					t.Errorf("the source opens %s", args)
				}
			}
			return false
		}})
	s := openSource(t, plainConfig(server.Addr))
	if got := list(t, s, source.ListRequest{Mailbox: "Entwürfe & mehr"}); len(got) != 1 {
		t.Errorf("%d messages, want 1", len(got))
	}
}

// TestLargeBodyIsCut: a streamed body that breaks off before the first octet
// was handed out is fetched again unseen; later its reader gets the error, and
// the host asks again.
func TestLargeBodyIsCut(t *testing.T) {
	t.Parallel()
	big := "Subject: big\r\n\r\n" + strings.Repeat("0123456789012345678901234567890123456789\r\n", 50_000)
	for _, tt := range []struct {
		name  string
		needs message.Needs
		after int // octets of the body
		seen  bool
	}{
		{"at its first octet", 0, 0, false},
		{"within the header", message.NeedHeaders, 7, false},
		{"in its middle", 0, 1 << 20, true},
		{"at its last octet", message.NeedHeaders, len(big) - 1, true},
		{"behind its last octet", 0, len(big), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			box := inbox(5)
			box.Messages[2].Raw = big
			var cut atomic.Int64
			server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{box},
				Fetch: func(c *imapscript.Conn, m *imapscript.Message, seq int, items string) bool {
					if m.UID != 12 || !isBody(items) || cut.Add(1) > 1 {
						return false
					}
					c.Write("* %d FETCH (UID 12 BODY[] {%d}\r\n%s", seq, len(big), big[:tt.after])
					c.Close()
					return true
				}})
			s := openSource(t, plainConfig(server.Addr))
			ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
			start := time.Now()
			a := fetch(t.Context(), t, s, "INBOX", tt.needs, ids, 10)
			if took := time.Since(start); took > s.config.Timeouts.Read/2 {
				t.Errorf("it took %v: the connection that is gone was waited for", took)
			}
			if a.err != nil || len(a.octets)+len(a.errs) != 5 {
				t.Fatalf("%v, %d bodies, errors %v", a.err, len(a.octets), a.errs)
			}
			if err := a.errs[12]; tt.seen != (err != nil) || tt.seen && !fault.Is(err, fault.Unavailable) {
				t.Errorf("the reader gets %v, want an error: %v", err, tt.seen)
			}
			if tt.seen { // as the host does
				a = fetch(t.Context(), t, s, "INBOX", tt.needs, ids[2:3], 10)
			}
			if string(a.octets[12]) != big {
				t.Errorf("%d octets came, %v", len(a.octets[12]), a.errs)
			}
		})
	}
}
