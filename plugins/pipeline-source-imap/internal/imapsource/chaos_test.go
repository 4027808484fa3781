package imapsource

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/imapscript"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

// TestCutAnywhere cuts connections after any number of octets: every message
// still comes, exact and once. Bodies are small enough to be fetched again
// unseen.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	for i := range 300 {
		raw := sampleMail(i + 1)
		if i%10 == 0 {
			raw = append(raw, strings.Repeat("0123456789012345678901234567890123456789\r\n", 1000)...)
		}
		d.Deliver("alice", "INBOX", raw, sampleDate)
	}
	want := d.Octets("alice", "INBOX")
	p := wireproxy.Start(t, d.IMAP)
	s := openSource(t, plainConfig(p.Addr))
	var cuts atomic.Int64
	p.Cut(func(int) int64 {
		// Far enough for any one message, seldom far enough for all.
		cuts.Add(1)
		return 60_000 + rand.Int64N(150_000)
	})
	p.CutAll()
	sums := list(t, s, source.ListRequest{Mailbox: "INBOX", Needs: message.NeedSize | message.NeedHeaders})
	if len(sums) != len(want) {
		t.Fatalf("%d messages are listed, want %d", len(sums), len(want))
	}
	a := fetch(t.Context(), t, s, "INBOX", 0, idsOf(sums), 50)
	if a.err != nil || len(a.errs) > 0 {
		t.Fatalf("%v %v", a.err, a.errs)
	}
	for uid, octets := range want {
		if string(a.octets[uid]) != string(octets) {
			t.Errorf("UID %d differs", uid)
		}
	}
	if cuts.Load() < 5 {
		t.Errorf("only %d connections were made", cuts.Load())
	}
}

// TestServerRestarts: a server that is away for a moment is waited for.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	for i := range 50 { // more than sockets hold
		d.Deliver("alice", "INBOX", append(sampleMail(i+1), strings.Repeat("0123456789\r\n", 50_000)...), sampleDate)
	}
	s := openSource(t, plainConfig(d.IMAP))
	up := make(chan bool)
	ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
	got := 0
	for f, err := range s.Fetch(t.Context(), source.FetchRequest{Mailbox: "INBOX", IDs: batches(ids, 5)}) {
		if err != nil || f.Err != nil {
			t.Fatal(err, f.Err)
		}
		if got++; got == 20 {
			d.Stop()
			go func() {
				defer close(up)
				time.Sleep(500 * time.Millisecond)
				d.Restart()
			}()
		}
	}
	<-up
	if got != 50 {
		t.Errorf("%d messages, want 50", got)
	}
}

func TestThrottledInsideAnOK(t *testing.T) {
	t.Parallel()
	var said atomic.Int64
	server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(6)},
		Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			if verb == "UID FETCH" && said.Add(1) <= 2 {
				for i := range c.Selected.Messages {
					if m := &c.Selected.Messages[i]; contains(args, m.UID) {
						c.Write("* %d FETCH (UID %d %s)\r\n", i+1, m.UID, bodyItem(m.Raw))
					}
				}
				c.Write("%s OK Success [THROTTLED]\r\n", tag)
				return true
			}
			return false
		}})
	s := openSource(t, plainConfig(server.Addr))
	s.rest = 100 * time.Millisecond
	ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
	start := time.Now()
	a := fetch(t.Context(), t, s, "INBOX", 0, ids, 2)
	if len(a.octets) != 6 || a.err != nil {
		t.Errorf("%d messages, %v", len(a.octets), a.err)
	}
	if d := time.Since(start); d < 100*time.Millisecond {
		t.Errorf("the source rested for %v, want twice 50 to 100 ms", d)
	}
}

// TestParked: a wait that is too long for the source goes to the host.
func TestParked(t *testing.T) {
	t.Parallel()
	server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(3)},
		Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			if verb == "UID FETCH" {
				c.Write("%s NO Request is throttled. Suggested Backoff Time: 3600000 milliseconds\r\n", tag)
				return true
			}
			return false
		}})
	s := openSource(t, plainConfig(server.Addr))
	ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
	a := fetch(t.Context(), t, s, "INBOX", 0, ids, 2)
	if f := fault.As(a.err); f == nil || f.Class != fault.Throttled || f.RetryAfter != time.Hour {
		t.Errorf("%+v, want throttled for an hour", f)
	}
}

// TestListingThatNeverWorks ends in an error, soon, and in no made-up list.
func TestListingThatNeverWorks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		says  string
		class fault.Class
	}{
		{"the connection ends", "", fault.Unavailable},
		{"throttled", "%s NO [LIMIT] Rate limit hit.\r\n", fault.Throttled},
		{"throttled for an hour", "%s NO Request is throttled. Suggested Backoff Time: 3600000 milliseconds\r\n", fault.Throttled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(40)},
				Command: func(c *imapscript.Conn, tag, verb, args string) bool {
					if verb != "UID FETCH" {
						return false
					}
					if tt.says == "" {
						c.Close()
					} else {
						c.Write(tt.says, tag)
					}
					return true
				}})
			s := openSource(t, plainConfig(server.Addr))
			s.rest = 10 * time.Millisecond
			var n int
			var failed error
			for _, err := range s.List(t.Context(), source.ListRequest{Mailbox: "INBOX", Needs: message.NeedSize}) {
				if failed = err; err == nil {
					n++
				}
			}
			if !fault.Is(failed, tt.class) || n > 0 {
				t.Errorf("%d messages and %v, want none and an error of class %s", n, failed, tt.class)
			}
		})
	}
}

// TestServerThatDiesAtEveryFetch: when no message comes it isn't the messages'
// fault, and none becomes a dead letter.
func TestServerThatDiesAtEveryFetch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		bye   string
		class fault.Class
	}{
		{"without a word", "", fault.Unavailable},
		{"throttling", "* BYE [THROTTLED] Too many requests\r\n", fault.Throttled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(40)},
				Command: func(c *imapscript.Conn, tag, verb, args string) bool {
					if verb == "UID FETCH" {
						c.Write("%s", tt.bye)
						c.Close()
						return true
					}
					return false
				}})
			s := openSource(t, plainConfig(server.Addr))
			s.rest = 10 * time.Millisecond
			a := fetch(t.Context(), t, s, "INBOX", 0, idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"})), 10)
			if !fault.Is(a.err, tt.class) || len(a.errs) > 0 {
				t.Errorf("%v and %d dead letters, want an error of class %s and none", a.err, len(a.errs), tt.class)
			}
		})
	}
}

func TestTokenLogins(t *testing.T) {
	t.Parallel()
	var tokens atomic.Int64
	var expired atomic.Bool
	server := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1 AUTH=XOAUTH2 SASL-IR", Mailboxes: []imapscript.Mailbox{inbox(6)},
		Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			switch {
			case verb == "AUTHENTICATE":
				initial, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(args, "XOAUTH2 "))
				if err != nil || string(initial) != fmt.Sprintf("user=alice\x01auth=Bearer token-%d\x01\x01", tokens.Load()) {
					t.Errorf("the client says %q, %v", initial, err)
				}
				if tokens.Load() == 1 { // the first one was revoked
					c.Write("+ %s\r\n", base64.StdEncoding.EncodeToString([]byte(`{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}`)))
					if line := c.ReadLine(); line != "" {
						t.Errorf("the refusal is answered with %q, want an empty line", line)
					}
					c.Write("%s NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)\r\n", tag)
					return true
				}
			case verb == "UID FETCH" && expired.CompareAndSwap(false, true):
				c.Write("* BYE Session invalidated - AccessTokenExpired\r\n")
				c.Close()
				return true
			}
			return false
		}})
	c := plainConfig(server.Addr)
	c.Password = spec.Secret{}
	c.Auth.Token = spec.Plain("set below")
	s := openWithToken(t, c, func() string { return fmt.Sprintf("token-%d", tokens.Add(1)) })
	a := fetch(t.Context(), t, s, "INBOX", 0, idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"})), 10)
	if len(a.octets) != 6 || a.err != nil {
		t.Errorf("%d messages, %v %v", len(a.octets), a.err, a.errs)
	}
	if tokens.Load() != 3 {
		t.Errorf("%d tokens were asked for, want 3: a revoked one, a good one, one after the session's end", tokens.Load())
	}
}

func TestTokenIsRefused(t *testing.T) {
	t.Parallel()
	server := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1 AUTH=XOAUTH2",
		Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			if verb != "AUTHENTICATE" {
				return false
			}
			c.Write("+ \r\n")
			c.ReadLine()
			c.Write("+ %s\r\n", base64.StdEncoding.EncodeToString([]byte(`{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}`)))
			c.ReadLine()
			c.Write("%s NO AUTHENTICATE failed.\r\n", tag)
			return true
		}})
	c := plainConfig(server.Addr)
	c.Password, c.Auth.Token = spec.Secret{}, spec.Plain("s3cr3t-token")
	_, err := openWith(t, c, source.Env{})
	f := fault.As(err)
	if f == nil || f.Class != fault.Auth || !strings.Contains(f.Text, "AUTHENTICATE failed") || !strings.Contains(f.Text, "https://mail.google.com/") || f.Hint == "" {
		t.Errorf("%+v; it must hold the server's words and what it says in JSON", f)
	}
	if strings.Contains(fmt.Sprint(err), "s3cr3t") {
		t.Errorf("the token stands in %v", err)
	}
}

// TestAuthorizeAs reads a user's mail with an administrator's password.
func TestAuthorizeAs(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{Extra: "passdb {\n  driver = static\n  master = yes\n  args = password=master\n}\n"})
	d.Deliver("alice", "INBOX", sampleMail(1), sampleDate)
	c := plainConfig(d.IMAP)
	c.Username, c.AuthorizeAs, c.Password = "admin", "alice", spec.Plain("master")
	s := openSource(t, c)
	if got := list(t, s, source.ListRequest{Mailbox: "INBOX"}); len(got) != 1 {
		t.Errorf("%d messages, want alice's one", len(got))
	}
}
