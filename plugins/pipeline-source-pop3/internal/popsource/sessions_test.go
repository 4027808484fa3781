package popsource

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/popscript"
)

// TestLockedMailbox: a server that gives the mailbox to one session only. It
// goes on with one, and says so; a lost session that the server still holds
// the lock for is waited for.
func TestLockedMailbox(t *testing.T) {
	t.Parallel()
	server := popscript.Start(t, popscript.Script{Messages: samples(30), Lock: true})
	c := plainConfig(server.Addr)
	c.Connections = 5
	o, err := openWith(t, c)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Source.Close()
	if o.Lanes != 1 || len(o.Notes) != 1 || !strings.Contains(o.Notes[0], "1 of 5 connections") {
		t.Errorf("%d lanes, notes %q", o.Lanes, o.Notes)
	}
	if server.Connections() != 2 {
		t.Errorf("%d connections were tried, want 2", server.Connections())
	}
	if got, failed := export(t, o.Source.(*Source)); len(got) != 30 || len(failed) > 0 {
		t.Errorf("%d messages, %v", len(got), failed)
	}
}

// TestLockComesLater: the second session is refused only in mid-run.
func TestLockComesLater(t *testing.T) {
	t.Parallel()
	server := popscript.Start(t, popscript.Script{Messages: samples(40), CAPA: []string{"UIDL", "PIPELINING"}, Command: func(c *popscript.Conn, verb, args string) bool {
		if verb == "PASS" && c.Number > 2 {
			c.Write("-ERR [IN-USE] locked\r\n")
			return true
		}
		return false
	}})
	c := plainConfig(server.Addr)
	c.Connections = 3
	s := openSource(t, c)
	ids := idsOf(list(t, s, source.ListRequest{}))
	if s.Lanes() != 3 {
		t.Errorf("%d lanes before, want 3", s.Lanes())
	}
	done := make(chan answers, 3)
	for lane := range 3 {
		go func() {
			done <- fetch(t.Context(), t, s, 0, slices.Collect(every(ids, lane, 3)), 4)
		}()
	}
	got := 0
	for range 3 {
		a := <-done
		if a.err != nil || len(a.errs) > 0 {
			t.Error(a.err, a.errs)
		}
		got += len(a.octets)
	}
	if got != 40 {
		t.Errorf("%d messages came, want 40", got)
	}
}

func every(ids []message.ID, from, step int) func(func(message.ID) bool) {
	return func(yield func(message.ID) bool) {
		for i := from; i < len(ids); i += step {
			if !yield(ids[i]) {
				return
			}
		}
	}
}

// TestSecondSessionEndsFirst: some servers hang up on the session before.
func TestSecondSessionEndsFirst(t *testing.T) {
	t.Parallel()
	var last atomic.Int64
	server := popscript.Start(t, popscript.Script{Messages: samples(5), CAPA: []string{"UIDL", "PIPELINING"}, Command: func(c *popscript.Conn, verb, args string) bool {
		if verb == "PASS" {
			last.Store(int64(c.Number))
		}
		if int64(c.Number) < last.Load() {
			c.Close()
			return true
		}
		return false
	}})
	c := plainConfig(server.Addr)
	c.Connections = 2
	o, err := openWith(t, c)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Source.Close()
	if o.Lanes != 1 || len(o.Notes) != 1 {
		t.Errorf("%d lanes, notes %q", o.Lanes, o.Notes)
	}
	if got, failed := export(t, o.Source.(*Source)); len(got) != 5 || len(failed) > 0 {
		t.Errorf("%d messages, %v", len(got), failed)
	}
}

// TestResume: a second source fetches what the first didn't, by unique id,
// though messages came and went.
func TestResume(t *testing.T) {
	t.Parallel()
	all := samples(20)
	server := popscript.Start(t, popscript.Script{Messages: all[:12]})
	first := idsOf(list(t, openSource(t, plainConfig(server.Addr)), source.ListRequest{}))
	server.Change(func(s *popscript.Script) { s.Messages = all[3:] })
	s := openSource(t, plainConfig(server.Addr))
	var left []message.ID
	for _, id := range idsOf(list(t, s, source.ListRequest{})) {
		if !slices.Contains(first, id) {
			left = append(left, id)
		}
	}
	a := fetch(t.Context(), t, s, 0, left, 3)
	if len(a.octets) != 8 || a.err != nil {
		t.Fatalf("%d messages came, want 8: %v", len(a.octets), a.err)
	}
	for i, id := range left {
		if a.octets[id] != all[12+i].Raw {
			t.Errorf("%s came as %q", id, a.octets[id])
		}
	}
}

// TestOneRoundTrip: a count is one command, STAT. Where the server takes
// commands ahead the state of the maildrop is one round trip, too: STAT, LIST
// and UIDL travel together.
func TestOneRoundTrip(t *testing.T) {
	t.Parallel()
	const rtt = 100 * time.Millisecond
	server := popscript.Start(t, popscript.Script{Messages: samples(3), Command: func(c *popscript.Conn, verb, args string) bool {
		if verb == "STAT" {
			time.Sleep(rtt)
		}
		return false
	}})
	s := openSource(t, plainConfig(server.Addr))
	began := len(server.Commands())
	var st message.MailboxState
	if none := list(t, s, source.ListRequest{IDs: []message.ID{}, State: func(x message.MailboxState) { st = x }}); len(none) != 0 || st.Messages != 3 || st.Bytes != octetsOf(3) {
		t.Errorf("%d messages and %+v for a listing of none", len(none), st)
	}
	if got := server.Commands()[began:]; !slices.Equal(got, []string{"STAT"}) {
		t.Errorf("a count is %q, want STAT alone", got)
	}
	mailbox(t, s)
	got := server.Commands()
	if want := []string{"STAT", "LIST", "UIDL"}; !slices.Equal(got[len(got)-3:], want) {
		t.Errorf("the last commands are %q, want %q", got, want)
	}
	list(t, s, source.ListRequest{Needs: message.NeedSize})
	if more := server.Commands(); len(more) != len(got) {
		t.Errorf("a listing behind the mailbox's state costs %q more", more[len(got):])
	}
}

// TestThrottled: a server that asks to slow down is waited for, and one that
// asks for ever ends the fetch with that class, so that the host can park.
func TestThrottled(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		times int64
		class fault.Class
	}{{"for a moment", 2, fault.Unknown}, {"for ever", 1 << 40, fault.Throttled}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int64
			server := popscript.Start(t, popscript.Script{Messages: samples(3), CAPA: []string{"UIDL"}, Command: func(c *popscript.Conn, verb, args string) bool {
				if verb == "RETR" && args == "2" && n.Add(1) <= tt.times {
					c.Write("-ERR too many requests, rate limit\r\n")
					return true
				}
				return false
			}})
			s := openSource(t, plainConfig(server.Addr))
			a := fetch(t.Context(), t, s, 0, idsOf(list(t, s, source.ListRequest{})), 3)
			if fault.Of(a.err) != tt.class {
				t.Errorf("%v, want class %s", a.err, tt.class)
			}
			if tt.class == fault.Unknown && len(a.octets) != 3 {
				t.Errorf("%d messages came, want 3: %v", len(a.octets), a.errs)
			}
		})
	}
}

// TestConfig: what is wrong with a config is said with its key.
func TestConfig(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		key    string
		change func(*Config)
	}{
		{"", func(*Config) {}},
		{"address", func(c *Config) { c.Address = "" }},
		{"address", func(c *Config) { c.Address = "host:port" }},
		{"security", func(c *Config) { c.Address = "pop.example.com"; c.Security = "none" }},
		{"security", func(c *Config) { c.Security = "ssl" }},
		{"password", func(c *Config) { c.Password = Config{}.Password }},
		{"password", func(c *Config) { c.Provider = "microsoft365" }},
		{"oauth2.token_url", func(c *Config) { c.OAuth2.ClientID, c.OAuth2.ClientSecret = "a", c.Password }},
		{"select.sequence", func(c *Config) { c.Select.Sequence = "1:x" }},
		{"select.sequence", func(c *Config) { c.Select.Sequence = "0" }},
		{"username", func(c *Config) { c.Username = "a\nb" }},
	} {
		c := plainConfig("127.0.0.1:110")
		tt.change(&c)
		err := c.Validate()
		f := fault.As(err)
		if tt.key == "" && err != nil || tt.key != "" && (f == nil || f.Class != fault.Config || f.Key != tt.key) {
			t.Errorf("%v (%+v), want a fault of key %q", err, f, tt.key)
		}
	}
	c := Config{Account: mailnet.Account{Provider: "gmail", Username: "a", Password: plainConfig("").Password}, Connections: 50}
	if err := c.Validate(); err != nil || c.Address != "pop.gmail.com:995" || c.Connections != 10 {
		t.Errorf("gmail: %+v, %v", c, err)
	}
	if got := c.URL(mailnet.POP3); got != "pop://a@pop.gmail.com" {
		t.Errorf("the url is %q", got)
	}
}
