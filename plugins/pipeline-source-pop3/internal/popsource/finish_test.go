package popsource

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/popscript"
)

// finish calls Finish, and checks that each id is answered once.
func finish(t *testing.T, s *Source, action source.Action, ids []message.ID) (errs map[message.ID]error, err error) {
	t.Helper()
	errs = map[message.ID]error{}
	for got, err := range s.Finish(t.Context(), source.FinishRequest{Mailbox: inbox, IDs: ids, Action: action}) {
		if err != nil {
			return errs, err
		}
		if _, twice := errs[got.ID]; twice || !slices.Contains(ids, got.ID) {
			t.Errorf("%s is answered twice, or wasn't asked for", got.ID)
		}
		errs[got.ID] = got.Err
	}
	if len(errs) != len(ids) {
		t.Errorf("%d of %d ids are answered", len(errs), len(ids))
	}
	return errs, nil
}

func sent(server *popscript.Server, verb string) (n int) {
	for _, c := range server.Commands() {
		if v, _, _ := strings.Cut(c, " "); v == verb {
			n++
		}
	}
	return n
}

// TestAdvance: a session ends with QUIT when all that was retrieved in it is
// exported, and in no other case (I3, I7). What is exported and was retrieved
// on a session that ended otherwise is retrieved once more at the end.
func TestAdvance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		off      bool // no advance
		finish   int  // so many of the three are exported
		leave    bool // the consumer breaks off after the first
		cut      bool // the connection is cut after the second
		fetch    bool
		headers  bool // no TOP: they come by RETR
		retrs    int
		quits    int
		provider string
		recent   bool
	}{
		{name: "read only", off: true, finish: 3, fetch: true, retrs: 3},
		{name: "all exported", finish: 3, fetch: true, retrs: 3, quits: 1},
		{name: "none exported", fetch: true, retrs: 3},
		// The session is hung up; the two are told by another.
		{name: "one isn't exported", finish: 2, fetch: true, retrs: 5, quits: 1},
		{name: "broken off", finish: 1, leave: true, fetch: true, retrs: 4, quits: 1},
		{name: "cut in the middle", finish: 3, cut: true, fetch: true, retrs: 6, quits: 2},
		{name: "exported by a run that crashed", finish: 3, quits: 1},
		{name: "exported by a run that crashed, Gmail", provider: "gmail", finish: 3, retrs: 3, quits: 2},
		{name: "exported by another run, Gmail's last 30 days", provider: "gmail", recent: true, finish: 3, quits: 1},
		{name: "nothing to do", quits: 1},
		{name: "headers by RETR", finish: 3, fetch: true, headers: true, retrs: 9, quits: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var cuts atomic.Int64
			script := popscript.Script{Messages: samples(3), Command: func(c *popscript.Conn, verb, args string) bool {
				if verb == "TOP" && tt.headers {
					c.Write("-ERR unknown command\r\n")
					return true
				}
				if tt.cut && verb == "RETR" && args == "3" && cuts.Add(1) == 1 {
					c.Close()
					return true
				}
				return false
			}}
			if tt.headers {
				script.CAPA = []string{"UIDL"}
			}
			server := popscript.Start(t, script)
			c := plainConfig(server.Addr)
			c.Advance, c.Provider, c.Recent = !tt.off, tt.provider, tt.recent
			o, err := openWith(t, c)
			if err != nil || o.Finishes == tt.off {
				t.Fatalf("it wants to be told: %v, %v", o.Finishes, err)
			}
			s := o.Source.(*Source)
			needs := message.Needs(0)
			if tt.headers {
				needs = message.NeedHeaders
			}
			ids := idsOf(list(t, s, source.ListRequest{Needs: needs}))
			if tt.fetch {
				for got, err := range s.Fetch(t.Context(), source.FetchRequest{Mailbox: inbox, Needs: message.NeedBody, IDs: slices.Values([][]message.ID{ids})}) {
					if err != nil || got.Err != nil {
						t.Fatal(err, got.Err)
					}
					if tt.leave {
						break
					}
				}
			}
			if tt.finish > 0 {
				if errs, err := finish(t, s, source.Action{}, ids[:tt.finish]); err != nil || errs[ids[0]] != nil {
					t.Fatal(errs, err)
				}
			}
			s.Close()
			if retrs := sent(server, "RETR"); retrs != tt.retrs && !tt.leave {
				t.Errorf("%d times RETR, want %d: %q", retrs, tt.retrs, server.Commands())
			}
			if quits := sent(server, "QUIT"); quits != tt.quits {
				t.Errorf("%d times QUIT, want %d: %q", quits, tt.quits, server.Commands())
			}
		})
	}
}

// TestDeleteDovecot: what is exported is gone, and nothing else; to be asked
// again is harmless.
func TestDeleteDovecot(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	for i := range 10 {
		d.Deliver("alice", "INBOX", []byte(sample(i)), sampleDate)
	}
	s := openSource(t, plainConfig(d.POP3))
	ids := idsOf(list(t, s, source.ListRequest{}))
	if a := fetch(t.Context(), t, s, 0, ids, 10); a.err != nil {
		t.Fatal(a.err)
	}
	done := []message.ID{ids[1], ids[4], ids[9]}
	errs, err := finish(t, s, source.Action{Delete: true}, done)
	for _, id := range done {
		if err != nil || errs[id] != nil {
			t.Fatal(err, errs)
		}
	}
	left := idsOf(list(t, s, source.ListRequest{}))
	if want := slices.DeleteFunc(slices.Clone(ids), func(id message.ID) bool { return slices.Contains(done, id) }); !slices.Equal(left, want) {
		t.Errorf("%v are left, want %v", left, want)
	}
	if a := fetch(t.Context(), t, s, 0, left, 10); a.err != nil || len(a.octets) != 7 {
		t.Errorf("%d of the others come, %v", len(a.octets), a.err)
	}
	errs, err = finish(t, s, source.Action{Delete: true}, []message.ID{done[0], left[0]})
	if err != nil || !fault.Is(errs[done[0]], fault.Gone) || errs[left[0]] != nil {
		t.Errorf("once more: %v, %v", errs, err)
	}
}

// dropping is a server that keeps POP3's promise: DELE takes effect at QUIT.
func dropping(t *testing.T, messages []popscript.Message, hook func(c *popscript.Conn, verb, args string) bool) *popscript.Server {
	var server *popscript.Server
	marked := map[int]map[int]bool{} // by connection; a session at a time
	server = popscript.Start(t, popscript.Script{Messages: messages, Lock: true, Command: func(c *popscript.Conn, verb, args string) bool {
		if hook != nil && hook(c, verb, args) {
			return true
		}
		switch verb {
		case "DELE":
			n := 0
			fmt.Sscan(args, &n)
			if marked[c.Number] == nil {
				marked[c.Number] = map[int]bool{}
			}
			marked[c.Number][n] = true
			c.Write("+OK marked\r\n")
			return true
		case "QUIT":
			server.Change(func(s *popscript.Script) {
				var left []popscript.Message
				for i, m := range s.Messages {
					if !marked[c.Number][i+1] {
						left = append(left, m)
					}
				}
				s.Messages = left
			})
		}
		return false
	}})
	return server
}

// TestDelete: on a server that gives the mailbox to one session only; by header
// where unique ids are none; and when it doesn't go well.
func TestDelete(t *testing.T) {
	t.Parallel()
	cut := errorOnce(t)
	for _, tt := range []struct {
		name          string
		uidls         []string
		hook          func(c *popscript.Conn, verb, args string) bool
		err           fault.Class // of the whole
		refused, left int
	}{
		{"unique ids", []string{"a", "b", "c", "d"}, nil, 0, 0, 2},
		{"none", []string{"", "", "", ""}, nil, 0, 0, 2},
		{"one twice", []string{"a", "x", "x", "d"}, nil, 0, 0, 2},
		{"a DELE is refused", []string{"a", "b", "c", "d"}, func(c *popscript.Conn, verb, args string) bool {
			if verb == "DELE" && args == "2" {
				c.Write("-ERR it is locked\r\n")
				return true
			}
			return false
		}, 0, 1, 3},
		{"cut at QUIT", []string{"a", "b", "c", "d"}, func(c *popscript.Conn, verb, args string) bool {
			if verb == "QUIT" && cut() {
				c.Close()
				return true
			}
			return false
		}, fault.Unavailable, 0, 4},
		{"QUIT is refused", []string{"a", "b", "c", "d"}, func(c *popscript.Conn, verb, args string) bool {
			if verb == "QUIT" {
				c.Write("-ERR some deleted messages not removed\r\n")
				return true
			}
			return false
		}, fault.Unavailable, 0, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := dropping(t, withUIDLs(tt.uidls...), tt.hook)
			s := openSource(t, plainConfig(server.Addr))
			ids := idsOf(list(t, s, source.ListRequest{}))
			if a := fetch(t.Context(), t, s, 0, ids, 4); a.err != nil || len(a.octets) != 4 {
				t.Fatal(a.err, a.errs)
			}
			errs, err := finish(t, s, source.Action{Delete: true}, ids[1:3])
			if fault.Of(err) != tt.err {
				t.Fatalf("%v, want class %s", err, tt.err)
			}
			refused := 0
			for _, err := range errs {
				if err != nil {
					refused++
				}
			}
			left := idsOf(list(t, s, source.ListRequest{}))
			if refused != tt.refused || len(left) != tt.left || left[0] != ids[0] || left[len(left)-1] != ids[3] {
				t.Errorf("%d refused, %d left, want %d and %d: %v", refused, len(left), tt.refused, tt.left, errs)
			}
			if tt.name != "cut at QUIT" {
				return
			}
			// The next run asks again: now it is done, each message once.
			if errs, err := finish(t, s, source.Action{Delete: true}, ids[1:3]); err != nil || errs[ids[1]] != nil {
				t.Error(errs, err)
			}
			if left := list(t, s, source.ListRequest{}); len(left) != 2 {
				t.Errorf("%d are left, want 2", len(left))
			}
		})
	}
}

// errorOnce returns a function that is true the first time.
func errorOnce(*testing.T) func() bool {
	var n atomic.Int64
	return func() bool { return n.Add(1) == 1 }
}

// TestWhatPOP3CantDo: flags and moves.
func TestWhatPOP3CantDo(t *testing.T) {
	t.Parallel()
	server := popscript.Start(t, popscript.Script{Messages: samples(1)})
	s := openSource(t, plainConfig(server.Addr))
	ids := idsOf(list(t, s, source.ListRequest{}))
	for _, a := range []source.Action{{Flag: `\Seen`}, {Move: "Done"}} {
		if _, err := finish(t, s, a, ids); !fault.Is(err, fault.Config) || fault.As(err).Hint == "" {
			t.Errorf("%+v: %v", a, err)
		}
	}
}
