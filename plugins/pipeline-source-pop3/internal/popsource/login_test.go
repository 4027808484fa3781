package popsource

import (
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/popscript"
)

// TestSecurity: the four ways to connect, against Dovecot.
func TestSecurity(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{NoPlaintext: true})
	for i := range 3 {
		d.Deliver("alice", "INBOX", []byte(sample(i)), sampleDate)
	}
	for _, tt := range []struct {
		name     string
		address  string
		security mailnet.Security
		ca       bool
		class    fault.Class // Unknown: it works
		key      string
	}{
		{"tls", d.POP3S, mailnet.TLS, true, fault.Unknown, ""},
		{"starttls", d.POP3, mailnet.StartTLS, true, fault.Unknown, ""},
		{"auto on the plain port", d.POP3, mailnet.Auto, true, fault.Unknown, ""},
		{"tls, unknown authority", d.POP3S, mailnet.TLS, false, fault.Config, "tls.ca_file"},
		{"starttls, unknown authority", d.POP3, mailnet.StartTLS, false, fault.Config, "tls.ca_file"},
		{"tls on the plain port", d.POP3, mailnet.TLS, true, fault.Config, "security"},
		{"starttls on the port for TLS", d.POP3S, mailnet.StartTLS, true, fault.Config, "security"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := plainConfig(tt.address)
			c.Security, c.Timeouts.Read = tt.security, 24*time.Second
			if tt.ca {
				c.TLS.CAFile = d.CAFile
			}
			o, err := openWith(t, c)
			if fault.Of(err) != tt.class || (err != nil) != (tt.class != fault.Unknown) {
				t.Fatalf("%v, want class %s", err, tt.class)
			}
			if err != nil {
				if key := fault.As(err).Key; key != tt.key {
					t.Errorf("the key is %q, want %q", key, tt.key)
				}
				return
			}
			defer o.Source.Close()
			s := o.Source.(*Source)
			if a := fetch(t.Context(), t, s, 0, idsOf(list(t, s, source.ListRequest{})), 2); len(a.octets) != 3 || a.err != nil {
				t.Errorf("%d messages, %v", len(a.octets), a.err)
			}
		})
	}
}

// TestRefusedBeforeTLS: what is said between STLS and TLS may be somebody
// else's, and a server without STLS gets no password.
func TestRefusedBeforeTLS(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		capa   []string
		answer string
	}{
		{"early data", []string{"STLS", "USER"}, "+OK begin\r\n+OK injected\r\n"},
		{"no STLS", []string{"USER"}, ""},
		{"no CAPA", []string{}, ""},
		{"STLS is refused", []string{"STLS"}, "-ERR not now\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := popscript.Start(t, popscript.Script{CAPA: tt.capa, Command: func(c *popscript.Conn, verb, args string) bool {
				if verb == "STLS" {
					c.Write("%s", tt.answer)
				}
				return verb == "STLS"
			}})
			c := plainConfig(server.Addr)
			c.Security = mailnet.StartTLS
			_, err := openWith(t, c)
			if f := fault.As(err); f == nil || f.Class != fault.Config || f.Key != "security" {
				t.Errorf("%v, want a fault of the config's security", err)
			}
			for _, command := range server.Commands() {
				if command != "CAPA" && command != "STLS" {
					t.Errorf("the server got %q", command)
				}
			}
		})
	}
}

// TestLogin: each way to log in, as the server sees it.
func TestLogin(t *testing.T) {
	t.Parallel()
	const stamp = "<1896.697170952@dbc.mtview.ca.us>"
	plain := base64.StdEncoding.EncodeToString([]byte("\x00alice\x00secret"))
	admin := base64.StdEncoding.EncodeToString([]byte("bob\x00alice\x00secret"))
	digest := fmt.Sprintf("APOP alice %x", md5.Sum([]byte(stamp+"secret")))
	xoauth := base64.StdEncoding.EncodeToString([]byte("user=alice\x01auth=Bearer token\x01\x01"))
	for _, tt := range []struct {
		name     string
		greeting string
		sasl     string
		change   func(*Config)
		refuse   string   // a command that is refused
		want     []string // from the login on, up to STAT
	}{
		{"USER", "", "", nil, "", []string{"USER alice", "PASS secret"}},
		{"SASL PLAIN", "", "PLAIN", nil, "", []string{"AUTH PLAIN " + plain}},
		{"USER where it is wanted", "", "PLAIN", func(c *Config) { c.Auth.Mechanism = "user" }, "", []string{"USER alice", "PASS secret"}},
		{"SASL LOGIN", "", "LOGIN", nil, "", []string{"AUTH LOGIN"}},
		{"APOP", "+OK " + stamp, "PLAIN", nil, "", []string{digest}},
		{"APOP is refused", "+OK " + stamp, "PLAIN", nil, "APOP", []string{digest, "AUTH PLAIN " + plain}},
		{"as administrator", "", "PLAIN", func(c *Config) { c.AuthorizeAs = "bob" }, "", []string{"AUTH PLAIN " + admin}},
		{"recent", "", "", func(c *Config) { c.Recent = true }, "", []string{"USER recent:alice", "PASS secret"}},
		{"XOAUTH2", "", "PLAIN XOAUTH2", func(c *Config) { c.Auth.Token = spec.Plain("token") }, "", []string{"AUTH XOAUTH2 " + xoauth}},
		{"OAUTHBEARER", "", "OAUTHBEARER", func(c *Config) { c.Auth.Token = spec.Plain("token") }, "", []string{"AUTH OAUTHBEARER "}},
		{"a password of any characters", "", "", func(c *Config) { c.Password = spec.Plain("p ä\"s") }, "", []string{"USER alice", "PASS p ä\"s"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			capa := []string{"PIPELINING", "UIDL", "TOP"}
			if tt.sasl != "" {
				capa = append(capa, "SASL "+tt.sasl)
			}
			server := popscript.Start(t, popscript.Script{Greeting: tt.greeting, CAPA: capa, Messages: samples(1),
				Command: func(c *popscript.Conn, verb, args string) bool {
					if tt.name == "SASL LOGIN" && verb == "AUTH" {
						for _, ask := range []string{"Username:", "Password:"} {
							c.Write("+ %s\r\n", base64.StdEncoding.EncodeToString([]byte(ask)))
							c.ReadLine()
						}
						c.Write("+OK\r\n")
						return true
					}
					if verb == tt.refuse {
						c.Write("-ERR no\r\n")
					}
					return verb == tt.refuse
				}})
			c := plainConfig(server.Addr)
			if tt.change != nil {
				tt.change(&c)
			}
			mailbox(t, openSource(t, c))
			got := server.Commands()
			got = got[1:slices.Index(got, "STAT")]
			same := len(got) == len(tt.want)
			for i := range got {
				same = same && strings.HasPrefix(got[i], tt.want[i])
			}
			if !same {
				t.Errorf("the server got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestLongTokenWaits: an initial response that makes the line too long waits
// for the server to ask (RFC 5034 §4).
func TestLongTokenWaits(t *testing.T) {
	t.Parallel()
	token := strings.Repeat("t", 2000)
	got := make(chan string, 1)
	server := popscript.Start(t, popscript.Script{CAPA: []string{"SASL XOAUTH2", "PIPELINING"}, Command: func(c *popscript.Conn, verb, args string) bool {
		if verb == "AUTH" {
			c.Write("+ \r\n")
			raw, _ := base64.StdEncoding.DecodeString(c.ReadLine())
			got <- args + " " + string(raw)
			c.Write("+OK in\r\n")
		}
		return verb == "AUTH"
	}})
	c := plainConfig(server.Addr)
	c.Auth.Token = spec.Plain(token)
	openSource(t, c)
	if g, want := <-got, "XOAUTH2 user=alice\x01auth=Bearer "+token+"\x01\x01"; g != want {
		t.Errorf("the server got %q", g)
	}
}

// TestTokenIsRenewed: a token that is refused is got anew once, by the same
// code as for IMAP.
func TestTokenIsRenewed(t *testing.T) {
	t.Parallel()
	var given atomic.Int64
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"token%d","token_type":"Bearer","expires_in":3600}`, given.Add(1))
	}))
	defer endpoint.Close()
	server := popscript.Start(t, popscript.Script{CAPA: []string{"SASL XOAUTH2", "PIPELINING"}, Messages: samples(1),
		Command: func(c *popscript.Conn, verb, args string) bool {
			if verb != "AUTH" {
				return false
			}
			_, initial, _ := strings.Cut(args, " ")
			raw, _ := base64.StdEncoding.DecodeString(initial)
			if strings.Contains(string(raw), "Bearer token1\x01") {
				c.Write("+ %s\r\n", base64.StdEncoding.EncodeToString([]byte(`{"status":"401","schemes":"bearer"}`)))
				if line := c.ReadLine(); line != "" {
					t.Errorf("the answer to a refusal is %q, want an empty line", line)
				}
				c.Write("-ERR [AUTH] Authentication failure\r\n")
				return true
			}
			return false
		}})
	c := plainConfig(server.Addr)
	c.Password = spec.Secret{}
	c.OAuth2 = mailnet.OAuth2{ClientID: "app", ClientSecret: spec.Plain("s"), TokenURL: endpoint.URL, Scopes: []string{"x"}}
	s := openSource(t, c)
	if n := len(list(t, s, source.ListRequest{})); n != 1 || given.Load() != 2 {
		t.Errorf("%d messages, %d tokens", n, given.Load())
	}
}

// TestRefusals: what a refused login means, and that no password is in it (I9).
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, greeting, answer string
		class                  fault.Class
	}{
		{"wrong password", "", "-ERR [AUTH] Authentication failed.", fault.Auth},
		{"no code", "", "-ERR bad password", fault.Auth},
		{"in use", "", "-ERR [IN-USE] Mailbox is locked by POP server", fault.Unavailable},
		{"in use, in words", "", "-ERR maildrop already locked", fault.Unavailable},
		{"not now", "", "-ERR [SYS/TEMP] try later", fault.Unavailable},
		{"too often", "", "-ERR [LOGIN-DELAY] minimum time between logins not reached", fault.Throttled},
		{"the greeting", "-ERR too many connections from you", "", fault.Throttled},
		{"the greeting, going down", "-ERR shutting down", "", fault.Unavailable},
		{"not POP3", "220 smtp.example.com ESMTP", "", fault.Unavailable},
		{"nothing but an empty line", "\r\n", "", fault.Unavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := popscript.Start(t, popscript.Script{Greeting: tt.greeting, CAPA: []string{"USER"}, Command: func(c *popscript.Conn, verb, args string) bool {
				if verb == "PASS" {
					c.Write("%s\r\n", tt.answer)
				}
				return verb == "PASS"
			}})
			_, err := openWith(t, plainConfig(server.Addr))
			if fault.Of(err) != tt.class {
				t.Fatalf("%v (%s), want class %s", err, fault.Of(err), tt.class)
			}
			if strings.Contains(err.Error(), dovecot.Password) {
				t.Errorf("the password is in %q", err)
			}
		})
	}
}

// TestNothingIsInjected: arguments with a line break never reach the wire.
func TestNothingIsInjected(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*Config)
	}{
		{"username", func(c *Config) { c.Username = "alice\r\nDELE 1" }},
		{"password", func(c *Config) { c.Password = spec.Plain("x\r\nDELE 1") }},
		{"password, lf", func(c *Config) { c.Password = spec.Plain("x\nDELE 1") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := popscript.Start(t, popscript.Script{CAPA: []string{"USER"}, Messages: samples(1)})
			c := plainConfig(server.Addr)
			tt.change(&c)
			_, err := openWith(t, c)
			if !fault.Is(err, fault.Config) || strings.Contains(err.Error(), "DELE") {
				t.Errorf("%v, want a fault of the config that doesn't quote it", err)
			}
			for _, command := range server.Commands() {
				if strings.HasPrefix(command, "DELE") || strings.HasPrefix(command, "PASS") {
					t.Errorf("the server got %q", command)
				}
			}
		})
	}
}
