package popsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/popscript"
)

// export lists and fetches all, and returns the octets in the order of the
// listing and what became of the others.
func export(t *testing.T, s *Source) (octets []string, failed map[string]error) {
	t.Helper()
	sums := list(t, s, source.ListRequest{Needs: message.NeedSize})
	a := fetch(t.Context(), t, s, 0, idsOf(sums), 8)
	if a.err != nil {
		t.Fatal(a.err)
	}
	failed = map[string]error{}
	for _, sum := range sums {
		if err := a.errs[sum.ID]; err != nil {
			failed[sum.ID.UIDL] = err
			continue
		}
		octets = append(octets, a.octets[sum.ID])
	}
	return octets, failed
}

func raws(messages []popscript.Message) (out []string) {
	for _, m := range messages {
		out = append(out, m.Raw)
	}
	return out
}

// TestServersAsTheyAre: servers that answer badly. Whatever they do, every
// message that they have comes, once, or is said to be missing with a reason.
func TestServersAsTheyAre(t *testing.T) {
	t.Parallel()
	five := samples(5)
	once := func() func() bool { var n atomic.Int64; return func() bool { return n.Add(1) == 1 } }
	type hook = func(c *popscript.Conn, verb, args string) bool
	reply := func(to, answer string) hook {
		return func(c *popscript.Conn, verb, args string) bool {
			if strings.TrimSpace(verb+" "+args) != to {
				return false
			}
			c.Write("%s", answer)
			return true
		}
	}
	for _, tt := range []struct {
		name    string
		capa    []string
		hook    func() hook
		missing map[string]string // UIDL -> reason
	}{
		{name: "no CAPA", capa: []string{}},
		{name: "no pipelining", capa: []string{"UIDL", "TOP"}},
		{name: "CAPA with a long line", capa: []string{"A", strings.Repeat("x", 4000), "PIPELINING"}},
		{name: "STAT is refused", hook: func() hook { return reply("STAT", "-ERR what\r\n") }},
		{name: "STAT is empty", hook: func() hook { return reply("STAT", "+OK\r\n") }},
		{name: "STAT is short", hook: func() hook { return reply("STAT", "+OK 5\r\n") }},
		{name: "STAT is words", hook: func() hook { return reply("STAT", "+OK five messages\r\n") }},
		{name: "STAT is huge", hook: func() hook { return reply("STAT", "+OK 99999999999999999999 99999999999999999999\r\n") }},
		{name: "STAT is negative", hook: func() hook { return reply("STAT", "+OK -1 -1\r\n") }},
		{name: "STAT says more", hook: func() hook { return reply("STAT", "+OK 7 100\r\n") }},
		{name: "STAT says less", hook: func() hook { return reply("STAT", "+OK 2 100\r\n") }},
		{name: "STAT says a million", hook: func() hook { return reply("STAT", "+OK 1000000 1\r\n") }},
		{name: "LIST is refused", hook: func() hook { return reply("LIST", "-ERR what\r\n") }},
		{name: "LIST is empty", hook: func() hook { return reply("LIST", "+OK\r\n.\r\n") }},
		{name: "LIST is malformed", hook: func() hook {
			return reply("LIST", "+OK\r\n1\r\n\r\n2 x\r\nx 3\r\n 4 4\r\n5 -3\r\n999999999999 4\r\n0 1\r\n-1 1\r\n.\r\n")
		}},
		{name: "LIST in disorder and twice", hook: func() hook { return reply("LIST", "+OK\r\n5 9\r\n1 9\r\n5 8\r\n3 9\r\n4 9\r\n2 9\r\n1 2\r\n.\r\n") }},
		{name: "LIST and UIDL each lack one", hook: func() hook {
			l, u := reply("LIST", "+OK\r\n1 9\r\n2 9\r\n3 9\r\n4 9\r\n.\r\n"), reply("UIDL", "+OK\r\n1 u00001\r\n2 u00002\r\n3 u00003\r\n4 u00004\r\n5 u00005\r\n.\r\n")
			return func(c *popscript.Conn, verb, args string) bool { return l(c, verb, args) || u(c, verb, args) }
		}},
		{name: "sizes lie", hook: func() hook { return reply("LIST", "+OK\r\n1 1\r\n2 999999\r\n3 0\r\n4 1\r\n5 1\r\n.\r\n") }},
		{name: "UIDL in disorder", hook: func() hook {
			return reply("UIDL", "+OK\r\n3 u00003\r\n1 u00001\r\n5 u00005\r\n2 u00002\r\n4 u00004\r\n.\r\n")
		}},
		{name: "UIDL with lines of no use", hook: func() hook {
			return reply("UIDL", "+OK\r\n\r\nx\r\n1 u00001\r\n2 u00002\r\n0 zero\r\n3 u00003\r\n4 u00004\r\n5 u00005\r\n.\r\n")
		}},
		{name: "a refusal for a moment", hook: func() hook {
			first := once()
			return func(c *popscript.Conn, verb, args string) bool {
				if verb != "RETR" || args != "3" || !first() {
					return false
				}
				c.Write("-ERR [SYS/TEMP] busy\r\n")
				return true
			}
		}},
		{name: "a refusal for good", hook: func() hook { return reply("RETR 3", "-ERR cannot\r\n") }, missing: map[string]string{"u00003": "server_refuses"}},
		{name: "no octets", hook: func() hook { return reply("RETR 3", "+OK\r\n.\r\n") }, missing: map[string]string{"u00003": "no_data"}},
		{name: "no octets for a moment", hook: func() hook {
			first := once()
			return func(c *popscript.Conn, verb, args string) bool {
				if verb != "RETR" || args != "3" || !first() {
					return false
				}
				c.Write("+OK\r\n.\r\n")
				return true
			}
		}},
		{name: "a message that ends the connection", hook: func() hook {
			return func(c *popscript.Conn, verb, args string) bool {
				if verb != "RETR" || args != "3" {
					return false
				}
				c.Write("+OK\r\nSubject: a\r\n")
				c.Close()
				return true
			}
		}, missing: map[string]string{"u00003": "ends_connection"}},
		{name: "malformed status for one message", hook: func() hook { return reply("RETR 3", "maybe\r\n") }, missing: map[string]string{"u00003": "ends_connection"}},
		{name: "an empty status for one message", hook: func() hook { return reply("RETR 3", "\r\n") }, missing: map[string]string{"u00003": "ends_connection"}},
		{name: "two messages that end the connection", hook: func() hook {
			return func(c *popscript.Conn, verb, args string) bool {
				if verb != "RETR" || args != "1" && args != "5" {
					return false
				}
				c.Close()
				return true
			}
		}, missing: map[string]string{"u00001": "ends_connection", "u00005": "ends_connection"}},
		{name: "a cut in the middle, once each", hook: func() hook {
			seen := map[string]*atomic.Int64{"1": {}, "2": {}, "3": {}, "4": {}, "5": {}}
			return func(c *popscript.Conn, verb, args string) bool {
				if verb != "RETR" || seen[args].Add(1) > 1 {
					return false
				}
				c.Write("+OK\r\nSubject: half")
				c.Close()
				return true
			}
		}},
		{name: "lower case, and text behind", hook: func() hook { return reply("STAT", "+ok 5 500 messages, welcome\r\n") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			script := popscript.Script{Messages: five, CAPA: tt.capa}
			if tt.hook != nil {
				script.Command = tt.hook()
			}
			server := popscript.Start(t, script)
			got, failed := export(t, openSource(t, plainConfig(server.Addr)))
			var want []string
			for _, m := range five {
				if tt.missing[m.UIDL] == "" {
					want = append(want, m.Raw)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d messages came, want %d: %q", len(got), len(want), got)
			}
			for uidl, reason := range tt.missing {
				if f := fault.As(failed[uidl]); f == nil || f.Class != fault.Message || f.Reason != reason {
					t.Errorf("%s: %+v, want reason %s", uidl, f, reason)
				}
			}
			if len(failed) != len(tt.missing) {
				t.Errorf("%v failed, want %v", failed, tt.missing)
			}
		})
	}
}

// TestEndlessAnswers: a server that never stops talking is stopped, whatever
// was asked.
func TestEndlessAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, verb, head, piece string }{
		{"CAPA", "CAPA", "+OK\r\n", "X-A b\r\n"},
		{"LIST", "LIST", "+OK\r\n", "1 1\r\n"},
		{"UIDL", "UIDL", "+OK\r\n", "1 a\r\n"},
		{"a line of UIDL", "UIDL", "+OK\r\n1 ", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
		{"a status line", "STAT", "+OK 1 1", "0000000000000000000000000000000000"},
		{"the greeting", "", "+OK ", "hello hello hello hello hello hello"},
		{"RETR", "RETR", "+OK\r\n", strings.Repeat("all work and no play\r\n", 1000)},
		{"a line of RETR", "RETR", "+OK\r\n", strings.Repeat("all work and no play", 1000)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			endless := func(c *popscript.Conn) {
				for c.Writable() {
					c.Write("%s", tt.head)
					for range 100 {
						c.Write("%s", tt.piece)
					}
					tt.head = ""
				}
			}
			var running atomic.Int64
			script := popscript.Script{Messages: samples(2), Command: func(c *popscript.Conn, verb, args string) bool {
				if verb != tt.verb || verb == "RETR" && args != "1" {
					return false
				}
				if running.Add(1) > 1 { // a hook has one head
					c.Close()
					return true
				}
				endless(c)
				return true
			}}
			if tt.verb == "" {
				script.Greeting = tt.head + strings.Repeat(tt.piece, 100_000)
			}
			server := popscript.Start(t, script)
			c := plainConfig(server.Addr)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			o, err := openWith(t, c)
			if tt.verb == "RETR" {
				if err != nil {
					t.Fatal(err)
				}
				defer o.Source.Close()
				s := o.Source.(*Source)
				var bad []error
				n := 0
				for got, err := range s.Fetch(ctx, source.FetchRequest{Mailbox: inbox, Needs: message.NeedBody, IDs: slices.Values([][]message.ID{idsOf(list(t, s, source.ListRequest{}))})}) {
					if err != nil {
						t.Fatal(err)
					}
					if n++; got.Err != nil {
						bad = append(bad, got.Err)
						continue
					}
					if _, err := io.Copy(io.Discard, got.Message.Body); err != nil {
						bad = append(bad, err)
					}
				}
				if n != 2 || len(bad) != 1 {
					t.Errorf("%d messages were answered, errors %v; want 2 with one error", n, bad)
				}
				return
			}
			if err := opened(t, o, err); !fault.Is(err, fault.Unavailable) {
				t.Errorf("%v, want a fault of class unavailable", err)
			}
			if ctx.Err() != nil {
				t.Error("it took too long")
			}
		})
	}
}

// TestSilence: a server that is silent for ever, wherever, is given up.
func TestSilence(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"CAPA", "USER", "PASS", "STAT", "LIST", "UIDL", "RETR"} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			server := popscript.Start(t, popscript.Script{CAPA: []string{"UIDL", "PIPELINING"}, Messages: samples(2),
				Command: func(c *popscript.Conn, v, args string) bool {
					if v == verb {
						c.Wait()
					}
					return v == verb
				}})
			c := plainConfig(server.Addr)
			c.Timeouts.Read = 150 * time.Millisecond
			o, err := openWith(t, c)
			if verb == "RETR" {
				if err != nil {
					t.Fatal(err)
				}
				defer o.Source.Close()
				s := o.Source.(*Source)
				a := fetch(t.Context(), t, s, 0, idsOf(list(t, s, source.ListRequest{})), 2)
				if len(a.octets) != 0 || a.err == nil && len(a.errs) != 2 {
					t.Errorf("%d messages came, errors %v, %v", len(a.octets), a.errs, a.err)
				}
				return
			}
			if err := opened(t, o, err); !fault.Is(err, fault.Unavailable) {
				t.Errorf("%v, want a fault of class unavailable", err)
			}
		})
	}
}

// opened returns what is wrong with a source: at its opening, or when it is
// asked what there is.
func opened(t *testing.T, o source.Opened, err error) error {
	t.Helper()
	if err != nil {
		return err
	}
	defer o.Source.Close()
	for _, err := range o.Source.Mailboxes(t.Context()) {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestCutAnywhere cuts the whole conversation of a session after each number
// of octets from the server, once; a second connection goes well. Nothing is
// lost and nothing comes twice.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	messages := samples(3)
	talk := 0
	for _, m := range messages {
		talk += len(popscript.Stuff(m.Raw)) + 20
	}
	for cut := 1; cut < talk; cut += 13 {
		var n atomic.Int64
		server := popscript.Start(t, popscript.Script{Messages: messages, Command: func(c *popscript.Conn, verb, args string) bool {
			if verb != "RETR" {
				return false
			}
			var i int
			fmt.Sscan(args, &i)
			answer := "+OK\r\n" + popscript.Stuff(messages[i-1].Raw)
			before := n.Add(int64(len(answer))) - int64(len(answer))
			if before < int64(cut) && before+int64(len(answer)) >= int64(cut) {
				c.Write("%s", answer[:int64(cut)-before])
				c.Close()
				return true
			}
			c.Write("%s", answer)
			return true
		}})
		got, failed := export(t, openSource(t, plainConfig(server.Addr)))
		if !slices.Equal(got, raws(messages)) || len(failed) > 0 {
			t.Fatalf("cut after %d octets: %d messages came, %v", cut, len(got), failed)
		}
	}
}

// TestCutAtEveryCommand: the first connection is cut at each command of the
// start. At the login the host tries again; behind it the source does.
func TestCutAtEveryCommand(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"CAPA", "USER", "PASS", "STAT", "LIST", "UIDL"} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			server := popscript.Start(t, popscript.Script{CAPA: []string{"UIDL"}, Messages: samples(3), Command: func(c *popscript.Conn, v, args string) bool {
				if v == verb && c.Number == 1 {
					c.Close()
					return true
				}
				return false
			}})
			if login := slices.Contains([]string{"CAPA", "USER", "PASS"}, verb); login {
				if _, err := openWith(t, plainConfig(server.Addr)); !fault.Is(err, fault.Unavailable) {
					t.Errorf("%v, want a fault of class unavailable", err)
				}
			}
			if got, _ := export(t, openSource(t, plainConfig(server.Addr))); len(got) != 3 {
				t.Errorf("%d messages, want 3", len(got))
			}
		})
	}
}

// TestHeadersFromBadServers: a header that can't be had is left out, and the
// message is not.
func TestHeadersFromBadServers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		capa    []string
		hook    func(c *popscript.Conn, verb, args string) bool
		without string // UIDL of the message without a header
	}{
		{name: "a refusal", hook: func(c *popscript.Conn, verb, args string) bool {
			if verb == "TOP" && args == "2 0" {
				c.Write("-ERR cannot\r\n")
				return true
			}
			return false
		}, without: "u00002"},
		{name: "no TOP", capa: []string{"UIDL", "PIPELINING"}, hook: func(c *popscript.Conn, verb, args string) bool {
			if verb == "TOP" {
				c.Write("-ERR unknown command\r\n")
			}
			return verb == "TOP"
		}},
		{name: "the whole message", hook: func(c *popscript.Conn, verb, args string) bool {
			if verb == "TOP" {
				c.Write("+OK\r\nSubject: message %s\r\n\r\n%s.\r\n", args[:1], strings.Repeat("body\r\n", 100_000))
			}
			return verb == "TOP"
		}},
		{name: "the connection ends", hook: func(c *popscript.Conn, verb, args string) bool {
			if verb == "TOP" && args == "3 0" {
				c.Close()
				return true
			}
			return false
		}, without: "u00003"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := popscript.Start(t, popscript.Script{Messages: samples(4), CAPA: tt.capa, Command: tt.hook})
			sums := list(t, openSource(t, plainConfig(server.Addr)), source.ListRequest{Needs: message.NeedHeaders})
			if len(sums) != 4 {
				t.Fatalf("%d messages, want 4", len(sums))
			}
			for i, sum := range sums {
				if (sum.Header == nil) != (sum.ID.UIDL == tt.without) {
					t.Errorf("%s: header %v", sum.ID, sum.Header != nil)
				} else if sum.Header != nil && sum.Header.Subject() != fmt.Sprintf("message %d", i+1) {
					t.Errorf("%s: subject %q", sum.ID, sum.Header.Subject())
				}
			}
		})
	}
}

// TestCancel: Fetch ends within a second of its context.
func TestCancel(t *testing.T) {
	t.Parallel()
	server := popscript.Start(t, popscript.Script{Messages: samples(3), Command: func(c *popscript.Conn, verb, args string) bool {
		if verb == "RETR" && args == "2" {
			c.Wait()
		}
		return verb == "RETR" && args == "2"
	}})
	s := openSource(t, plainConfig(server.Addr))
	ids := idsOf(list(t, s, source.ListRequest{}))
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("enough")
	time.AfterFunc(100*time.Millisecond, func() { cancel(stop) })
	start := time.Now()
	a := fetch(ctx, t, s, 0, ids, 3)
	if !errors.Is(a.err, stop) || len(a.octets) != 1 || time.Since(start) > time.Second {
		t.Errorf("%d messages and %v after %s", len(a.octets), a.err, time.Since(start))
	}
}
