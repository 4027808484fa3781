package imapsource

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/imapscript"
)

// TestUIDValidityChangesInMidRun: a server that numbers a mailbox anew ends the
// sessions that have it open (RFC 9051 §2.3.1.1).
func TestUIDValidityChangesInMidRun(t *testing.T) {
	t.Parallel()
	server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(5)}})
	s := openSource(t, plainConfig(server.Addr))
	ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
	server.Change(func(s *imapscript.Script) {
		s.Mailboxes = []imapscript.Mailbox{inbox(5)}
		s.Mailboxes[0].UIDValidity = 8
		var cut atomic.Bool
		s.Command = func(c *imapscript.Conn, tag, verb, args string) bool {
			if verb == "UID FETCH" && cut.CompareAndSwap(false, true) {
				c.Close()
				return true
			}
			return false
		}
	})
	a := fetch(t.Context(), t, s, "INBOX", 0, ids, 10)
	if len(a.octets) != 0 || len(a.errs) != 5 {
		t.Fatalf("%d bodies and %d errors, want 0 and 5", len(a.octets), len(a.errs))
	}
	for uid, err := range a.errs {
		if !fault.Is(err, fault.Gone) || !strings.Contains(err.Error(), "UIDVALIDITY") {
			t.Errorf("UID %d: %v", uid, err)
		}
	}
}

// TestUIDValidityChangesInMidListing: the numbers of two mailboxes are never
// mixed: the listing ends, and the host lists anew.
func TestUIDValidityChangesInMidListing(t *testing.T) {
	t.Parallel()
	server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(2000)}})
	s := openSource(t, plainConfig(server.Addr))
	count := 0
	var failed error
	for _, err := range s.List(t.Context(), source.ListRequest{Mailbox: "INBOX", Needs: message.NeedSize}) {
		if failed = err; err != nil {
			break
		}
		if count++; count == 1 {
			server.Change(func(script *imapscript.Script) {
				script.Mailboxes = []imapscript.Mailbox{inbox(2000)}
				script.Mailboxes[0].UIDValidity = 8
				var cut atomic.Bool
				script.Command = func(c *imapscript.Conn, tag, verb, args string) bool {
					if verb == "UID FETCH" && cut.CompareAndSwap(false, true) {
						c.Close()
						return true
					}
					return false
				}
			})
		}
	}
	if !fault.Is(failed, fault.Unavailable) || !strings.Contains(failed.Error(), "UIDVALIDITY") || count >= 2000 {
		t.Errorf("%d messages, then %v; want an error of class Unavailable that names UIDVALIDITY", count, failed)
	}
	var state message.MailboxState
	again := list(t, s, source.ListRequest{Mailbox: "INBOX", State: func(st message.MailboxState) { state = st }})
	if len(again) != 2000 || state.UIDValidity != 8 || again[0].ID.UIDValidity != 8 {
		t.Errorf("then %d messages of %d", len(again), state.UIDValidity)
	}
}
