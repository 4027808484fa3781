package popsource

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/popscript"
)

func withUIDLs(uidls ...string) []popscript.Message {
	out := samples(len(uidls))
	for i, u := range uidls {
		out[i].UIDL = u
	}
	return out
}

// TestIdentity: unique ids that are none. Every message has an id of its own,
// the same one in the next session, and comes under it.
func TestIdentity(t *testing.T) {
	t.Parallel()
	twins := append(withUIDLs("a", "a", "a"), withUIDLs("a")...) // the first and the last have the same header
	for _, tt := range []struct {
		name     string
		messages []popscript.Message
		noUIDL   bool
		weak     int
	}{
		{"good ones", withUIDLs("a", "b", "c"), false, 0},
		{"70 octets", withUIDLs(strings.Repeat("a", 70), "b"), false, 0},
		{"one twice", withUIDLs("a", "b", "a", "c"), false, 2},
		{"0 octets", withUIDLs("a", "", "c"), false, 1},
		{"300 octets", withUIDLs("a", strings.Repeat("x", 300), "c"), false, 1},
		{"300 octets, twice", withUIDLs(strings.Repeat("x", 300), strings.Repeat("x", 300)), false, 2},
		{"5,000 octets", withUIDLs("a", strings.Repeat("x", 5000), "c"), false, 1},
		{"spaces", withUIDLs("a b", "a  b", "a"), false, 2},
		{"8-bit and control characters", withUIDLs("\xff\xfe", "a\tb", "\x00", "c"), false, 3},
		{"the same header", twins, false, 4},
		{"no UIDL", withUIDLs("", "", "", ""), true, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := popscript.Start(t, popscript.Script{Messages: tt.messages, Command: func(c *popscript.Conn, verb, args string) bool {
				if verb == "UIDL" && tt.noUIDL {
					c.Write("-ERR unknown command\r\n")
					return true
				}
				return false
			}})
			o, err := openWith(t, plainConfig(server.Addr))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { o.Source.Close() })
			s := o.Source.(*Source)
			if blind := mailbox(t, s).State.BlindSpots; (len(blind) > 0) != (tt.weak > 0) {
				t.Errorf("what it says of the mailbox is %q", blind)
			}
			ids := idsOf(list(t, s, source.ListRequest{}))
			weak := 0
			seen := map[message.ID]bool{}
			for _, id := range ids {
				if seen[id] {
					t.Errorf("%+v is listed twice", id)
				}
				seen[id] = true
				if id.HeaderHash != "" {
					weak++
				}
			}
			if len(ids) != len(tt.messages) || weak != tt.weak {
				t.Errorf("%d ids, %d with a header's hash, want %d, %d", len(ids), weak, len(tt.messages), tt.weak)
			}
			if again := idsOf(list(t, openSource(t, plainConfig(server.Addr)), source.ListRequest{})); !slices.Equal(ids, again) {
				t.Errorf("the next session lists %v, not %v", again, ids)
			}
			if newest := idsOf(list(t, s, source.ListRequest{Newest: true})); !reversed(ids, newest) {
				t.Errorf("newest first it lists %v", newest)
			}
			a := fetch(t.Context(), t, openSource(t, plainConfig(server.Addr)), 0, ids, 2)
			for i, id := range ids {
				if a.octets[id] != tt.messages[i].Raw {
					t.Errorf("%+v came as %q", id, a.octets[id])
				}
			}
			if content := mailbox(t, s).State.Content; (content == "") != (tt.weak > 0) {
				t.Errorf("the state's token is %q", content)
			}
		})
	}
}

func reversed(a, b []message.ID) bool {
	b = slices.Clone(b)
	slices.Reverse(b)
	return slices.Equal(a, b)
}

// TestNumbersMove: the maildrop changes between the listing and the session
// that fetches. Ids are of messages, not of numbers.
func TestNumbersMove(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		uidls   bool
		sameLen bool // so that LIST shows no difference
	}{{"with unique ids", true, false}, {"without", false, false}, {"without, sizes all the same", false, true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			messages := samples(6)
			for i := range messages {
				if !tt.uidls {
					messages[i].UIDL = ""
				}
				if tt.sameLen {
					messages[i].Size = 500
				}
			}
			server := popscript.Start(t, popscript.Script{Messages: messages})
			s := openSource(t, plainConfig(server.Addr))
			ids := idsOf(list(t, s, source.ListRequest{}))
			// Another client deletes the second, and one arrives at the end:
			// the count stays the same.
			moved := append(append(slices.Clone(messages[:1]), messages[2:]...), popscript.Message{UIDL: "new", Raw: sample(99), Size: messages[0].Size})
			if !tt.uidls {
				moved[5].UIDL = ""
			}
			server.Change(func(sc *popscript.Script) { sc.Messages = moved })
			sess, err := s.pool.Get(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = sess.Close()
			s.pool.Put(sess)
			a := fetch(t.Context(), t, s, 0, ids, 3)
			if a.err != nil || len(a.octets) != 5 {
				t.Errorf("%d messages came, %v", len(a.octets), a.err)
			}
			for i, id := range ids {
				switch {
				case i == 1 && !fault.Is(a.errs[id], fault.Gone):
					t.Errorf("the message that is gone: %v", a.errs[id])
				case i != 1 && a.octets[id] != messages[i].Raw:
					t.Errorf("message %d came as %q, %v", i+1, a.octets[id], a.errs[id])
				}
			}
		})
	}
}

// TestIdentityByHeaders: a server that gives all its messages new unique ids
// (Exchange, when it moves a mailbox) is seen through.
func TestIdentityByHeaders(t *testing.T) {
	t.Parallel()
	server := popscript.Start(t, popscript.Script{Messages: samples(20)})
	c := plainConfig(server.Addr)
	c.Identity = "headers"
	before := idsOf(list(t, openSource(t, c), source.ListRequest{}))
	server.Change(func(s *popscript.Script) {
		s.Messages = slices.Clone(s.Messages)
		for i := range s.Messages {
			s.Messages[i].UIDL = fmt.Sprintf("moved-%d", i)
			s.Messages[i].Raw = "Status: RO\r\nX-UIDL: moved\r\n" + s.Messages[i].Raw
		}
	})
	s := openSource(t, c)
	if after := idsOf(list(t, s, source.ListRequest{})); !slices.Equal(before, after) {
		t.Errorf("the ids are %v, were %v", after, before)
	}
	if a := fetch(t.Context(), t, s, 0, before, 7); len(a.octets) != 20 {
		t.Errorf("%d messages came: %v, %v", len(a.octets), a.errs, a.err)
	}
}

// TestHeaderMismatch: a message whose header isn't the one that the same
// session listed is not passed off as it.
func TestHeaderMismatch(t *testing.T) {
	t.Parallel()
	server := popscript.Start(t, popscript.Script{Messages: withUIDLs("", "b", ""), Command: func(c *popscript.Conn, verb, args string) bool {
		if verb == "RETR" && args == "1" {
			c.Write("+OK\r\n%s", popscript.Stuff(sample(77)))
			return true
		}
		return false
	}})
	s := openSource(t, plainConfig(server.Addr))
	ids := idsOf(list(t, s, source.ListRequest{}))
	a := fetch(t.Context(), t, s, 0, ids, 3)
	if f := fault.As(a.errs[ids[0]]); len(a.octets) != 2 || f == nil || f.Reason != "header_mismatch" {
		t.Errorf("%d messages came, %v, %v", len(a.octets), a.errs, a.err)
	}
}
