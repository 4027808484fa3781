package imapsource

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/imapscript"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

// finish runs Finish and checks that each id is answered exactly once.
func finish(t *testing.T, s *Source, mailbox string, ids []message.ID, action source.Action) (map[uint32]error, error) {
	t.Helper()
	answered := map[uint32]error{}
	for done, err := range s.Finish(t.Context(), source.FinishRequest{Mailbox: mailbox, IDs: ids, Action: action}) {
		if err != nil {
			return answered, err
		}
		if _, twice := answered[done.ID.UID]; twice {
			t.Errorf("%s is answered twice", done.ID)
		}
		answered[done.ID.UID] = done.Err
	}
	if len(answered) != len(ids) {
		t.Errorf("%d of %d ids are answered", len(answered), len(ids))
	}
	return answered, nil
}

// without returns the capabilities of Dovecot without some.
func without(words ...string) string {
	all := strings.Fields("IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ NAMESPACE UIDPLUS UNSELECT CHILDREN LIST-EXTENDED LIST-STATUS SPECIAL-USE ESEARCH CONDSTORE MOVE")
	return "imap_capability = " + strings.Join(slices.DeleteFunc(all, func(w string) bool { return slices.Contains(words, w) }), " ") + "\n"
}

// TestFinish does to real mailboxes what after: says, twice, with a stranger's
// message and one that is gone beside them.
func TestFinish(t *testing.T) {
	t.Parallel()
	type outcome struct {
		inbox []uint32 // left in INBOX, by UID
		moved int      // in the target
	}
	for _, tt := range []struct {
		name   string
		extra  string
		sep    string
		action source.Action
		want   outcome
		check  func(t *testing.T, sums map[uint32]message.Summary)
	}{
		{name: "a flag", action: source.Action{Flag: `\Seen`}, want: outcome{inbox: []uint32{1, 2, 4, 5, 6}},
			check: func(t *testing.T, sums map[uint32]message.Summary) {
				for uid, s := range sums {
					if got := slices.Contains(s.Flags, `\Seen`); got != (uid <= 4) {
						t.Errorf("UID %d is seen: %v", uid, got)
					}
				}
			}},
		{name: "a keyword", action: source.Action{Flag: "$Exported"}, want: outcome{inbox: []uint32{1, 2, 4, 5, 6}},
			check: func(t *testing.T, sums map[uint32]message.Summary) {
				for uid, s := range sums {
					if got := slices.Contains(s.Keywords, "$Exported"); got != (uid <= 4) {
						t.Errorf("UID %d has the keyword: %v", uid, got)
					}
				}
			}},
		{name: "moved", action: source.Action{Move: "Done/Übung"}, want: outcome{[]uint32{5, 6}, 3}},
		{name: "moved, another separator", sep: ".", action: source.Action{Move: "Done/Übung"}, want: outcome{[]uint32{5, 6}, 3}},
		{name: "moved without MOVE", extra: without("MOVE"), action: source.Action{Move: "Done/Übung"}, want: outcome{[]uint32{5, 6}, 3}},
		{name: "moved without MOVE and UIDPLUS", extra: without("MOVE", "UIDPLUS"), action: source.Action{Move: "Done/Übung"}, want: outcome{[]uint32{1, 2, 4, 5, 6}, 3},
			check: flaggedDeleted},
		{name: "deleted", action: source.Action{Delete: true}, want: outcome{inbox: []uint32{5, 6}}},
		{name: "deleted without UIDPLUS", extra: without("UIDPLUS"), action: source.Action{Delete: true}, want: outcome{inbox: []uint32{1, 2, 4, 5, 6}},
			check: flaggedDeleted},
		{name: "only told", want: outcome{inbox: []uint32{1, 2, 4, 5, 6}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := dovecot.Start(t, dovecot.Options{Extra: tt.extra, Separator: tt.sep})
			for i := range 6 {
				var flags []string
				if i == 5 {
					flags = append(flags, `\Deleted`) // somebody else's business
				}
				d.Deliver("alice", "INBOX", sampleMail(i+1), sampleDate, flags...)
			}
			s := openSource(t, plainConfig(d.IMAP))
			ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))[:4]
			d.Doveadm("expunge", "-u", "alice", "mailbox", "INBOX", "uid", "3")
			for again := range 2 {
				got, err := finish(t, s, "INBOX", ids, tt.action)
				if err != nil {
					t.Fatal(err)
				}
				for uid, err := range got {
					gone := !tt.action.IsZero() && (uid == 3 || again == 1 && !slices.Contains(tt.want.inbox, uid))
					if gone != fault.Is(err, fault.Gone) || !gone && err != nil {
						t.Errorf("round %d: UID %d is answered with %v", again, uid, err)
					}
				}
			}
			sums := map[uint32]message.Summary{}
			for _, sum := range list(t, s, source.ListRequest{Mailbox: "INBOX", Needs: message.NeedFlags}) {
				sums[sum.ID.UID] = sum
			}
			if left := slices.Sorted(maps.Keys(sums)); !slices.Equal(left, tt.want.inbox) {
				t.Errorf("INBOX has %v, want %v", left, tt.want.inbox)
			}
			if tt.check != nil {
				tt.check(t, sums)
			}
			if slices.Contains(mailboxNames(t, s), "Done/Übung") != (tt.want.moved > 0) {
				t.Errorf("the mailboxes are %q", mailboxNames(t, s))
			}
			if tt.want.moved > 0 {
				if got := list(t, s, source.ListRequest{Mailbox: "Done/Übung"}); len(got) != tt.want.moved {
					t.Errorf("%d messages were moved, want %d", len(got), tt.want.moved)
				}
			}
		})
	}
}

func flaggedDeleted(t *testing.T, sums map[uint32]message.Summary) {
	t.Helper()
	for uid, s := range sums {
		if got := slices.Contains(s.Flags, `\Deleted`); got != (uid <= 4 || uid == 6) {
			t.Errorf("UID %d is flagged as deleted: %v", uid, got)
		}
	}
}

// TestFinishIsRefused: what can't be done is said of each message, and no
// other suffers.
func TestFinishIsRefused(t *testing.T) {
	t.Parallel()
	refuse := func(f func(verb, args string) string) imapscript.Script {
		return imapscript.Script{Capabilities: "IMAP4rev1 UIDPLUS MOVE", Mailboxes: []imapscript.Mailbox{inbox(6)}, Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			if verb == "SELECT" {
				c.Selected = &imapscript.Mailbox{Name: "INBOX", Messages: inbox(6).Messages}
				c.Write("* 6 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [PERMANENTFLAGS (\\Seen \\Deleted)] x\r\n")
				if f("READ-ONLY", "") != "" {
					c.Write("%s OK [READ-ONLY] done\r\n", tag)
				} else {
					c.Write("%s OK [READ-WRITE] done\r\n", tag)
				}
				return true
			}
			if answer := f(verb, args); answer != "" {
				c.Write("%s %s\r\n", tag, answer)
				return true
			}
			return false
		}}
	}
	for _, tt := range []struct {
		name   string
		script imapscript.Script
		action source.Action
		stale  bool
		class  map[uint32]fault.Class // by UID; 0: of all
		whole  fault.Class            // of the call
	}{
		{name: "one message", action: source.Action{Flag: `\Seen`}, class: map[uint32]fault.Class{12: fault.Message}, script: refuse(func(verb, args string) string {
			switch {
			case verb == "UID STORE" && contains(args, 12):
				return "NO not this one"
			case verb == "UID STORE":
				return "OK done"
			}
			return ""
		})},
		{name: "a flag that isn't kept", action: source.Action{Flag: "$Exported"}, class: map[uint32]fault.Class{0: fault.Message}, script: refuse(func(string, string) string { return "" })},
		{name: "a mailbox for reading only", action: source.Action{Delete: true}, whole: fault.Message, script: refuse(func(verb, _ string) string {
			if verb == "READ-ONLY" {
				return "yes"
			}
			return ""
		})},
		{name: "another UIDVALIDITY", stale: true, action: source.Action{Delete: true}, class: map[uint32]fault.Class{0: fault.Unavailable}, script: refuse(func(verb, _ string) string {
			if verb == "UID STORE" {
				return "BAD never"
			}
			return ""
		})},
		{name: "no flag", action: source.Action{Flag: `\Recent`}, whole: fault.Config, script: refuse(func(string, string) string { return "" })},
		{name: "two flags", action: source.Action{Flag: `a) (b`}, whole: fault.Config, script: refuse(func(string, string) string { return "" })},
		{name: "a target that can't be made", action: source.Action{Move: "x"}, class: map[uint32]fault.Class{0: fault.Message}, script: refuse(func(verb, _ string) string {
			if verb == "UID MOVE" || verb == "CREATE" {
				return "NO [NOPERM] no"
			}
			return ""
		})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := imapscript.Start(t, tt.script)
			s := openSource(t, plainConfig(server.Addr))
			ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
			if tt.stale {
				for i := range ids {
					ids[i].UIDValidity = 6
				}
			}
			got := map[uint32]error{}
			var failed error
			for done, err := range s.Finish(t.Context(), source.FinishRequest{Mailbox: "INBOX", IDs: ids, Action: tt.action}) {
				if failed = err; err == nil {
					got[done.ID.UID] = done.Err
				}
			}
			if fault.Of(failed) != tt.whole {
				t.Fatalf("%v, want class %s", failed, tt.whole)
			}
			if tt.whole == fault.Unknown && len(got) != 6 {
				t.Errorf("%d ids are answered, want 6", len(got))
			}
			for uid, err := range got {
				want, one := tt.class[uid]
				if !one {
					want = tt.class[0]
				}
				if fault.Of(err) != want {
					t.Errorf("UID %d: %v, want class %s", uid, err, want)
				}
			}
		})
	}
}

// TestFinishIsCut: the connection ends at any octet, and in the end each
// message is where it should be, once.
func TestFinishIsCut(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	const n = 40
	for i := range n {
		d.Deliver("alice", "INBOX", sampleMail(i+1), sampleDate)
	}
	p := wireproxy.Start(t, d.IMAP)
	s := openSource(t, plainConfig(p.Addr))
	s.rest = 10 * time.Millisecond
	ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
	p.CutAll()
	p.Cut(func(c int) int64 {
		if c > 5 {
			return -1
		}
		return int64(500 + 230*c) // somewhere from the login to the answer of MOVE
	})
	for range 3 {
		if _, err := finish(t, s, "INBOX", ids, source.Action{Move: "Done"}); err == nil {
			break
		}
	}
	if left, there := list(t, s, source.ListRequest{Mailbox: "INBOX"}), list(t, s, source.ListRequest{Mailbox: "Done"}); len(left) != 0 || len(there) != n {
		t.Errorf("%d are left and %d moved, want 0 and %d", len(left), len(there), n)
	}
	if p.Connections() < 5 {
		t.Errorf("%d connections: it wasn't cut", p.Connections())
	}
}

// TestMovedOnceWithoutMOVE: what was copied and not yet removed when the
// connection was cut isn't copied again.
func TestMovedOnceWithoutMOVE(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{Extra: without("MOVE")})
	for i := range 5 {
		d.Deliver("alice", "INBOX", sampleMail(i+1), sampleDate)
	}
	p := wireproxy.Start(t, d.IMAP)
	var cut atomic.Bool
	p.Tap(func(fromServer bool, octets []byte) {
		if !fromServer && strings.Contains(string(octets), "UID EXPUNGE") && cut.CompareAndSwap(false, true) {
			p.CutAll()
		}
	})
	s := openSource(t, plainConfig(p.Addr))
	ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
	if _, err := finish(t, s, "INBOX", ids, source.Action{Move: "Done"}); err != nil {
		t.Fatal(err)
	}
	if got := list(t, s, source.ListRequest{Mailbox: "Done"}); len(got) != 5 || !cut.Load() {
		t.Errorf("%d messages in the target, want 5; cut: %v", len(got), cut.Load())
	}
}

// TestGmailDeletesIntoItsTrash: EXPUNGE anywhere else takes a label off and no
// more.
func TestGmailDeletesIntoItsTrash(t *testing.T) {
	t.Parallel()
	server := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1 UIDPLUS MOVE X-GM-EXT-1",
		Mailboxes: []imapscript.Mailbox{inbox(3), {Name: "[Gmail]/Papierkorb", Attributes: `\Trash`}},
		Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			switch verb {
			case "SELECT":
				box := inbox(3)
				c.Selected = &box
				c.Write("* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n%s OK [READ-WRITE] done\r\n", tag)
			case "UID MOVE":
				c.Write("%s OK done\r\n", tag)
			default:
				return false
			}
			return true
		}})
	s := openSource(t, plainConfig(server.Addr))
	mailboxNames(t, s)
	ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
	got, err := finish(t, s, "INBOX", ids, source.Action{Delete: true})
	if err != nil || got[10] != nil {
		t.Fatal(err, got)
	}
	if want := `UID MOVE 10:12 "[Gmail]/Papierkorb"`; !slices.Contains(server.Commands(), want) {
		t.Errorf("the server got %s, want %s", fmt.Sprint(server.Commands()), want)
	}
}
