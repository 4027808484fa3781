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
	"github.com/mailhaul/pipeline/test/imapscript"
)

// inbox returns a mailbox of n messages with UIDs from 10 on.
func inbox(n int) imapscript.Mailbox {
	m := imapscript.Mailbox{Name: "INBOX", UIDValidity: 7}
	for i := range n {
		m.Messages = append(m.Messages, imapscript.Message{UID: uint32(10 + i), Raw: string(sampleMail(i + 1)), Flags: `\Seen`})
	}
	return m
}

// everything is what a run could ask of a summary.
const everything = message.NeedSize | message.NeedInternalDate | message.NeedFlags | message.NeedHeaders | message.NeedStructure

// literal writes an item with a body as a literal.
func bodyItem(raw string) string { return fmt.Sprintf("BODY[] {%d}\r\n%s", len(raw), raw) }

// isBody reports whether a FETCH asks for bodies.
func isBody(items string) bool { return strings.Contains(items, "BODY.PEEK[]") }

// TestServersAsTheyAre replays servers that break rules, lie and die. Each
// ends with every message listed and every body exact, or with exactly those
// missing that the case names, each with its class.
func TestServersAsTheyAre(t *testing.T) {
	t.Parallel()
	type script = imapscript.Script
	type conn = imapscript.Conn
	type msg = imapscript.Message
	// on makes a hook that changes the FETCH of bodies only.
	on := func(f func(c *conn, m *msg, seq int)) func(*conn, *msg, int, string) bool {
		return func(c *conn, m *msg, seq int, items string) bool {
			if !isBody(items) {
				return false
			}
			f(c, m, seq)
			return true
		}
	}
	// summaries makes a hook that changes everything else.
	summaries := func(f func(c *conn, m *msg, seq int, items string)) func(*conn, *msg, int, string) bool {
		return func(c *conn, m *msg, seq int, items string) bool {
			if isBody(items) {
				return false
			}
			f(c, m, seq, items)
			return true
		}
	}
	for _, tt := range []struct {
		name   string
		script func(s *script)
		config func(c *Config)
		errs   map[uint32]fault.Class // ids that are answered with an error
		needs  message.Needs          // of Fetch
		check  func(t *testing.T, s *imapscript.Server, sums []message.Summary, a answers)
	}{
		{name: "a correct one"},
		{name: "UID after the body", script: func(s *script) {
			s.Fetch = on(func(c *conn, m *msg, seq int) {
				c.Write("* %d FETCH (%s UID %d)\r\n", seq, bodyItem(m.Raw), m.UID)
			})
		}},
		{name: "UID and flags after a large body", needs: message.NeedFlags, script: func(s *script) {
			s.Mailboxes[0].Messages[2].Raw += strings.Repeat("0123456789\r\n", 200_000)
			s.Fetch = on(func(c *conn, m *msg, seq int) {
				c.Write("* %d FETCH (%s FLAGS (\\Seen) UID %d)\r\n", seq, bodyItem(m.Raw), m.UID)
			})
		}},
		{name: "flags of the same message first, by themselves", script: func(s *script) {
			s.Fetch = on(func(c *conn, m *msg, seq int) {
				c.Write("* %d FETCH (UID %d FLAGS (\\Seen))\r\n* %d FETCH (FLAGS (\\Seen))\r\n", seq, m.UID, seq)
				c.Write("* %d FETCH (UID %d %s)\r\n", seq, m.UID, bodyItem(m.Raw))
			})
		}},
		{name: "EXISTS, EXPUNGE, FLAGS, VANISHED and blank lines in the middle", script: func(s *script) {
			s.Fetch = func(c *conn, m *msg, seq int, items string) bool {
				c.Write("* 99 EXISTS\r\n\r\n* 98 EXPUNGE\r\n* FLAGS (\\Seen a]b)\r\n* VANISHED 3000:4000\r\n* OK [PERMANENTFLAGS (\\* a]b)] x\r\n* XNEWS today {5}\r\nhello\r\n")
				return false
			}
		}},
		{name: "unknown items with any kind of value", script: func(s *script) {
			s.Fetch = func(c *conn, m *msg, seq int, items string) bool {
				c.Write("* %d FETCH (X-AAA NIL ENVELOPE NIL BODY NIL X-BBB (a (b \"c)\") {3}\r\n) ( d) X-CCC \"\\\"x\" X-DDD[1 2]<0> 5 %s)\r\n", seq, m.Items(items))
				return true
			}
		}},
		{name: "BODYSTRUCTURE as Exchange and Courier send it", script: func(s *script) {
			for i, v := range []string{
				`("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "7bit" 10 1 NIL "attachment" NIL NIL)`,
				`(NIL "MIXED" ("BOUNDARY" "x") NIL NIL NIL)`,
				`("text" "html" nil nil nil nil nil nil nil nil nil nil)`,
				`(("TEXT" "PLAIN" ("CHARSET" NIL) NIL NIL "7BIT" 5 1)("APPLICATION" "PDF" ("NAME" "a.pdf") NIL NIL "BASE64" 100 NIL ("ATTACHMENT" ("FILENAME" "a.pdf")) NIL NIL) "MIXED")`,
				`(`,
			} {
				s.Mailboxes[0].Messages[i].Structure = v
			}
		}, check: func(t *testing.T, _ *imapscript.Server, sums []message.Summary, _ answers) {
			if p := sums[3].Structure; len(p.Children) != 2 || p.Children[1].Name != "a.pdf" || p.Children[1].Path != "2" {
				t.Errorf("the structure with an attachment is %+v", p)
			}
			for i, s := range sums {
				if s.Structure == nil {
					t.Errorf("message %d has no structure", i)
				}
			}
		}},
		{name: "INTERNALDATE empty, NIL and odd; a flag with a bracket", script: func(s *script) {
			for i, v := range []string{`""`, `NIL`, `"1-Jan-2020 00:00:00 +0000"`, `" 1-Jan-2020 00:00:00 +0000"`, `"32-Foo-2020"`} {
				s.Mailboxes[0].Messages[i].Date = v
				s.Mailboxes[0].Messages[i].Flags = `\Seen a]b $X`
			}
		}, check: func(t *testing.T, _ *imapscript.Server, sums []message.Summary, _ answers) {
			want := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
			if !sums[0].InternalDate.IsZero() || !sums[2].InternalDate.Equal(want) || !sums[3].InternalDate.Equal(want) {
				t.Errorf("dates are %v, %v, %v", sums[0].InternalDate, sums[2].InternalDate, sums[3].InternalDate)
			}
			if !slices.Equal(sums[0].Keywords, []string{"$X", "a]b"}) {
				t.Errorf("keywords are %q", sums[0].Keywords)
			}
		}},
		{name: "names in raw 8-bit, with a lone &, in bad UTF-7", script: func(s *script) {
			for _, n := range []string{"Entw\xfcrfe", "A&B", "&AOk", "&####-", "Gesendete Objekte", "&BB4EQgQ,BEAEMAQyBDsENQQ9BD0ESwQ1-"} {
				m := inbox(1)
				m.Name = n
				s.Mailboxes = append(s.Mailboxes, m)
			}
			s.Command = func(c *conn, tag, verb, args string) bool {
				if verb != "LIST" {
					return false
				}
				for _, m := range s.Mailboxes {
					c.Write("* LIST () \"/\" \"%s\"\r\n", m.Name)
				}
				c.Write("%s OK done\r\n", tag)
				return true
			}
		}, check: func(t *testing.T, s *imapscript.Server, _ []message.Summary, _ answers) {
			src := openSource(t, plainConfig(s.Addr))
			names := mailboxNames(t, src)
			for _, want := range []string{"Entwürfe", "A&B", "&AOk", "&####-", "Gesendete Objekte", "Отправленные"} {
				if !slices.Contains(names, want) {
					t.Errorf("%q isn't among the mailboxes %q", want, names)
					continue
				}
				if got := list(t, src, source.ListRequest{Mailbox: want}); len(got) != 1 {
					t.Errorf("%q has %d messages, want 1", want, len(got))
				}
			}
		}},
		{name: "a literal longer than announced", script: func(s *script) {
			s.Fetch = on(func(c *conn, m *msg, seq int) {
				if m.UID == 12 {
					c.Write("* %d FETCH (UID %d BODY[] {%d}\r\n%s)\r\n", seq, m.UID, len(m.Raw)-9, m.Raw)
					return
				}
				c.Write("* %d FETCH (UID %d %s)\r\n", seq, m.UID, bodyItem(m.Raw))
			})
		}, errs: map[uint32]fault.Class{12: fault.Message}},
		{name: "a literal shorter than announced", script: func(s *script) {
			s.Fetch = on(func(c *conn, m *msg, seq int) {
				if m.UID == 12 {
					c.Write("* %d FETCH (UID %d BODY[] {%d}\r\n%s)\r\n", seq, m.UID, len(m.Raw)+5, m.Raw)
					return
				}
				c.Write("* %d FETCH (UID %d %s)\r\n", seq, m.UID, bodyItem(m.Raw))
			})
		}, errs: map[uint32]fault.Class{12: fault.Message}},
		{name: "the connection is cut inside a literal, once", script: func(s *script) {
			var cut atomic.Bool
			s.Fetch = on(func(c *conn, m *msg, seq int) {
				if m.UID == 12 && cut.CompareAndSwap(false, true) {
					c.Write("* %d FETCH (UID %d BODY[] {%d}\r\n%s", seq, m.UID, len(m.Raw), m.Raw[:50])
					c.Close()
					return
				}
				c.Write("* %d FETCH (UID %d %s)\r\n", seq, m.UID, bodyItem(m.Raw))
			})
		}},
		{name: "a message that always ends the connection", script: func(s *script) {
			s.Mailboxes[0] = inbox(40)
			s.Fetch = on(func(c *conn, m *msg, seq int) {
				if m.UID == 33 {
					c.Close()
					return
				}
				c.Write("* %d FETCH (UID %d %s)\r\n", seq, m.UID, bodyItem(m.Raw))
			})
		}, errs: map[uint32]fault.Class{33: fault.Message}},
		{name: "a message that ends the connection before anything of its batch is sent", script: func(s *script) {
			s.Mailboxes[0] = inbox(40)
			s.Command = func(c *conn, tag, verb, args string) bool {
				if verb == "UID FETCH" && isBody(args) && contains(args, 33) {
					c.Close()
					return true
				}
				return false
			}
		}, errs: map[uint32]fault.Class{33: fault.Message}},
		{name: "a message that ends the connection when it is listed", script: func(s *script) {
			s.Fetch = summaries(func(c *conn, m *msg, seq int, items string) {
				if m.UID == 12 {
					c.Close()
					return
				}
				c.Write("* %d FETCH (%s)\r\n", seq, m.Items(items))
			})
		}},
		{name: "a message that is left out, and sent when asked for alone", script: func(s *script) {
			s.Command = func(c *conn, tag, verb, args string) bool {
				set, _, _ := strings.Cut(args, " ")
				s.Fetch = nil
				if verb == "UID FETCH" && set != "12" {
					s.Fetch = func(_ *conn, m *msg, _ int, _ string) bool { return m.UID == 12 }
				}
				return false
			}
		}},
		{name: "a message that comes in pieces only", script: func(s *script) {
			s.Fetch = func(c *conn, m *msg, seq int, items string) bool {
				if m.UID == 12 && isBody(items) {
					c.Write("* %d FETCH (UID %d BODY[] NIL)\r\n", seq, m.UID)
					return true
				}
				return false
			}
		}},
		{name: "a message that is listed and has no data", script: func(s *script) {
			s.Fetch = func(c *conn, m *msg, seq int, items string) bool {
				if m.UID == 12 && (isBody(items) || strings.Contains(items, "[TEXT]")) {
					c.Write("* %d FETCH (UID %d BODY[] NIL)\r\n", seq, m.UID)
					return true
				}
				return false
			}
		}, errs: map[uint32]fault.Class{12: fault.Message}},
		{name: "a batch that is refused because of one message", script: func(s *script) {
			s.Mailboxes[0] = inbox(30)
			s.Command = func(c *conn, tag, verb, args string) bool {
				if verb == "UID FETCH" && (isBody(args) || strings.Contains(args, "[TEXT]")) && contains(args, 33) {
					c.Write("%s NO [UNAVAILABLE] UID FETCH Server error - Please try again later\r\n", tag)
					return true
				}
				return false
			}
		}, errs: map[uint32]fault.Class{33: fault.Message}},
		{name: "a message of 0 octets", script: func(s *script) { s.Mailboxes[0].Messages[2].Raw = "" }},
		{name: "a body as a quoted string", script: func(s *script) {
			s.Mailboxes[0].Messages[2].Raw = `a "quoted" \ body`
			s.Fetch = on(func(c *conn, m *msg, seq int) {
				if m.UID == 12 {
					c.Write("* %d FETCH (UID %d BODY[] \"a \\\"quoted\\\" \\\\ body\")\r\n", seq, m.UID)
					return
				}
				c.Write("* %d FETCH (UID %d %s)\r\n", seq, m.UID, bodyItem(m.Raw))
			})
		}},
		{name: "NULs and other octets of any value", script: func(s *script) {
			all := make([]byte, 256)
			for i := range all {
				all[i] = byte(i)
			}
			s.Mailboxes[0].Messages[1].Raw = "Subject: x\r\n\r\n" + strings.Repeat(string(all), 100)
			s.Mailboxes[0].Messages[3].Raw = "no header at all, {20}\r\n)\r\n* 1 FETCH (UID 10 BODY[] {3}\r\nxyz)\r\n"
		}},
		{name: "UIDs near 2^32", script: func(s *script) {
			for i := range s.Mailboxes[0].Messages {
				s.Mailboxes[0].Messages[i].UID = 4294967291 + uint32(i)
			}
		}},
		{name: "RFC822.SIZE that lies", needs: message.NeedSize, script: func(s *script) {
			s.Fetch = func(c *conn, m *msg, seq int, items string) bool {
				c.Write("* %d FETCH (%s)\r\n", seq, strings.Replace(m.Items(items), "RFC822.SIZE ", "RFC822.SIZE 9", 1))
				return true
			}
		}},
		{name: "an empty mailbox", script: func(s *script) { s.Mailboxes[0] = inbox(0) }},
		{name: "capabilities only after login", script: func(s *script) {
			var in atomic.Bool
			s.Command = func(c *conn, tag, verb, args string) bool {
				switch {
				case verb == "LOGIN":
					in.Store(true)
				case verb == "CAPABILITY" && !in.Load():
					c.Write("* CAPABILITY IMAP4rev1\r\n%s OK done\r\n", tag)
					return true
				}
				return false
			}
		}},
		{name: "BYE in the middle, once", script: func(s *script) {
			var said atomic.Bool
			s.Fetch = on(func(c *conn, m *msg, seq int) {
				if m.UID == 12 && said.CompareAndSwap(false, true) {
					c.Write("* BYE Session expired, please login again\r\n")
					c.Close()
					return
				}
				c.Write("* %d FETCH (UID %d %s)\r\n", seq, m.UID, bodyItem(m.Raw))
			})
		}},
		{name: "a server that is silent for ever on one message", script: func(s *script) {
			s.Fetch = on(func(c *conn, m *msg, seq int) {
				if m.UID == 12 {
					c.Wait()
					return
				}
				c.Write("* %d FETCH (UID %d %s)\r\n", seq, m.UID, bodyItem(m.Raw))
			})
		}, config: func(c *Config) { c.Timeouts.Read = 300 * time.Millisecond }, errs: map[uint32]fault.Class{12: fault.Message}},
		{name: "throttled, with the wait that Microsoft suggests", script: func(s *script) {
			var n atomic.Int64
			s.Command = func(c *conn, tag, verb, args string) bool {
				if verb == "UID FETCH" && isBody(args) && n.Add(1) == 1 {
					c.Write("%s BAD Request is throttled. Suggested Backoff Time: 50 milliseconds\r\n", tag)
					return true
				}
				return false
			}
		}},
		{name: "search results in any order and doubled", script: func(s *script) {
			s.Command = func(c *conn, tag, verb, args string) bool {
				if verb == "UID SEARCH" && args == "ALL" {
					c.Write("* SEARCH 14 12 10\r\n* SEARCH 11 13 12\r\n%s OK done\r\n", tag)
					return true
				}
				return false
			}
		}},
		{name: "answers in descending order", script: func(s *script) {
			s.Command = func(c *conn, tag, verb, args string) bool {
				if verb != "UID FETCH" {
					return false
				}
				_, items, _ := strings.Cut(args, " ")
				for i := len(c.Selected.Messages) - 1; i >= 0; i-- {
					m := &c.Selected.Messages[i]
					if contains(args, m.UID) {
						c.Write("* %d FETCH (%s)\r\n", i+1, m.Items(items))
					}
				}
				c.Write("%s OK done\r\n", tag)
				return true
			}
		}},
		{name: "tagged answers without text, lower case, extra spaces", script: func(s *script) {
			s.Command = func(c *conn, tag, verb, args string) bool {
				if verb == "UID SEARCH" {
					c.Write("* search 10 11 12 13 14 \r\n%s OK\r\n", tag)
					return true
				}
				return false
			}
			s.Fetch = func(c *conn, m *msg, seq int, items string) bool {
				c.Write("* %d fetch ( %s )\r\n", seq, strings.ReplaceAll(m.Items(items), "UID", "uid"))
				return true
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			script := imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(5)}}
			if tt.script != nil {
				tt.script(&script)
			}
			server := imapscript.Start(t, script)
			config := plainConfig(server.Addr)
			if tt.config != nil {
				tt.config(&config)
			}
			s := openSource(t, config)
			sums := list(t, s, source.ListRequest{Mailbox: "INBOX", Needs: everything})
			messages := script.Mailboxes[0].Messages
			if len(sums) != len(messages) {
				t.Fatalf("%d messages are listed, want %d", len(sums), len(messages))
			}
			for i, sum := range sums {
				if sum.ID.UID != messages[i].UID || sum.ID.UIDValidity != 7 {
					t.Errorf("message %d is listed as %s, want UID %d", i, sum.ID, messages[i].UID)
				}
			}
			a := fetch(t.Context(), t, s, "INBOX", tt.needs, idsOf(sums), 20)
			if a.err != nil {
				t.Fatalf("fetch: %v", a.err)
			}
			for _, m := range messages {
				class, bad := tt.errs[m.UID]
				got, ok := a.octets[m.UID]
				switch {
				case bad && fault.Of(a.errs[m.UID]) != class:
					t.Errorf("UID %d: %v, want an error of class %s", m.UID, a.errs[m.UID], class)
				case !bad && !ok:
					t.Errorf("UID %d: %v", m.UID, a.errs[m.UID])
				case !bad && string(got) != m.Raw:
					t.Errorf("UID %d is %.60q, want %.60q", m.UID, got, m.Raw)
				}
			}
			if tt.check != nil {
				tt.check(t, server, sums, a)
			}
			for _, c := range server.Commands() {
				// I7: nothing that changes the server.
				if strings.HasPrefix(c, "SELECT") || strings.Contains(c, "STORE") || strings.Contains(c, "BODY[") {
					t.Errorf("the source sent %q", c)
				}
			}
		})
	}
}

// contains reports whether the set at the start of args has the UID.
func contains(args string, uid uint32) bool {
	set, _, _ := strings.Cut(args, " ")
	for _, piece := range strings.Split(set, ",") {
		var lo, hi uint32
		if n, _ := fmt.Sscanf(piece, "%d:%d", &lo, &hi); n == 1 {
			hi = lo
		}
		if uid >= lo && uid <= hi {
			return true
		}
	}
	return false
}

func TestCutAtEveryCommand(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"CAPABILITY", "LOGIN", "ID", "ENABLE", "NAMESPACE", "LIST", "STATUS", "EXAMINE", "UID SEARCH", "UID FETCH"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			var cut atomic.Bool
			server := imapscript.Start(t, imapscript.Script{
				Capabilities: "IMAP4rev1 UIDPLUS ID ENABLE UTF8=ACCEPT NAMESPACE",
				Mailboxes:    []imapscript.Mailbox{inbox(5)},
				Command: func(c *imapscript.Conn, tag, verb, args string) bool {
					if verb == at && c.Number > 1 && cut.CompareAndSwap(false, true) {
						c.Close()
						return true
					}
					return false
				}})
			config := plainConfig(server.Addr)
			config.Connections = 4
			s := openSource(t, config)
			// The first connection is kept busy, so that a second is opened.
			first, err := s.pool.Get(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.pool.Put(first)
			if got := mailboxNames(t, s); !slices.Equal(got, []string{"INBOX"}) {
				t.Errorf("the mailboxes are %q", got)
			}
			sums := list(t, s, source.ListRequest{Mailbox: "INBOX", Needs: everything})
			a := fetch(t.Context(), t, s, "INBOX", 0, idsOf(sums), 2)
			if len(a.octets) != 5 || a.err != nil {
				t.Errorf("%d bodies, errors %v %v; want 5 and none", len(a.octets), a.err, a.errs)
			}
			if !cut.Load() {
				t.Errorf("nothing was cut at %s", at)
			}
		})
	}
}

func TestFewerConnectionsThanAsked(t *testing.T) {
	t.Parallel()
	for _, says := range []string{"NO [ALERT] Too many simultaneous connections. (Failure)", "NO [LIMIT] Rate limit hit.", "NO [UNAVAILABLE] Maximum number of connections from user+IP exceeded"} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			fewerConnections(t, says)
		})
	}
}

func fewerConnections(t *testing.T, says string) {
	var open4 atomic.Int64
	server := imapscript.Start(t, imapscript.Script{
		Mailboxes: []imapscript.Mailbox{inbox(50)},
		Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			if verb == "LOGIN" && open4.Add(1) > 2 {
				c.Write("%s %s\r\n", tag, says)
				return true
			}
			if verb == "UID FETCH" {
				time.Sleep(20 * time.Millisecond) // so that all lanes want a connection at once
			}
			return false
		}})
	config := plainConfig(server.Addr)
	config.Connections = 4
	s := openSource(t, config)
	ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
	done := make(chan answers)
	for lane := range 4 {
		go func() { done <- fetch(t.Context(), t, s, "INBOX", 0, ids[lane*12:lane*12+12], 3) }()
	}
	got := map[uint32][]byte{}
	for range 4 {
		a := <-done
		if a.err != nil {
			t.Error(a.err)
		}
		maps.Copy(got, a.octets)
	}
	if len(got) != 48 {
		t.Errorf("%d bodies, want 48", len(got))
	}
	if s.Lanes() > 2 {
		t.Errorf("%d lanes, the server grants 2 connections", s.Lanes())
	}
}

func TestMailboxThatMayNotBeOpened(t *testing.T) {
	t.Parallel()
	server := imapscript.Start(t, imapscript.Script{
		Mailboxes: []imapscript.Mailbox{inbox(2), {Name: "Locked"}},
		Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			if verb == "EXAMINE" && strings.Contains(args, "Locked") {
				c.Write("%s NO [NOPERM] Permission denied\r\n", tag)
				return true
			}
			return false
		}})
	s := openSource(t, plainConfig(server.Addr))
	var failed error
	for _, err := range s.List(t.Context(), source.ListRequest{Mailbox: "Locked"}) {
		failed = err
	}
	if failed == nil || !strings.Contains(failed.Error(), "Permission denied") || !strings.Contains(failed.Error(), "Locked") {
		t.Errorf("the error is %v; it must name the mailbox and the server's words", failed)
	}
	if got := list(t, s, source.ListRequest{Mailbox: "INBOX"}); len(got) != 2 {
		t.Errorf("INBOX has %d messages, want 2", len(got))
	}
}
