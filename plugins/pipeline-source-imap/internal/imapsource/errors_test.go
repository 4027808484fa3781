package imapsource

import (
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/imapscript"
)

// TestOpenErrors is what a user sees when a source can't be opened: one line,
// a class, a hint, never the password.
func TestOpenErrors(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	expired := dovecot.Start(t, dovecot.Options{ExpiredCert: true})
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	tls := func(s *dovecot.Server) func(*Config) {
		return func(c *Config) {
			c.Address, c.Security, c.TLS.CAFile = s.IMAPS, mailnet.TLS, s.CAFile
		}
	}
	for _, tt := range []struct {
		name  string
		with  func(c *Config)
		class fault.Class
		key   string
		says  string
		hint  string
	}{
		{"wrong password", func(c *Config) { c.Password = spec.Plain("s3cr3t-wrong") }, fault.Auth, "", "Authentication failed", "password"},
		{"unknown host", func(c *Config) { c.Address = "no-such-host.invalid:143"; c.AllowPlain = true }, fault.Config, "address", "unknown host", "spelling"},
		{"nothing listens", func(c *Config) { c.Address = "127.0.0.1:1" }, fault.Unavailable, "", "connection refused", "port"},
		{"expired certificate", tls(expired), fault.Config, "tls", "expired", "renewed"},
		{"unknown authority", func(c *Config) { tls(d)(c); c.TLS.CAFile = "" }, fault.Config, "tls.ca_file", "unknown authority", "tls.ca_file"},
		{"another name", func(c *Config) { tls(d)(c); c.TLS.ServerName = "mail.example.org" }, fault.Config, "tls.server_name", "mail.example.org", "server_name"},
		{"TLS on the plain port", func(c *Config) { c.Security = mailnet.TLS }, fault.Config, "security", "doesn't speak TLS", "starttls"},
		{"STARTTLS on the port for TLS", func(c *Config) {
			c.Address, c.Security, c.Timeouts.Read = d.IMAPS, mailnet.StartTLS, 24*time.Second
		}, fault.Config, "security", "speaks TLS from the first octet", "security: tls"},
		{"no such file of authorities", func(c *Config) { tls(d)(c); c.TLS.CAFile = "/nonexistent" }, fault.Config, "tls.ca_file", "no such file", ""},
		{"plain over a network", func(c *Config) { c.Address = "imap.example.org" }, fault.Config, "security", "in clear", "allow_plain"},
		{"silent", func(c *Config) {
			c.Address, c.Timeouts.Read = silent.Addr().String(), 200*time.Millisecond
		}, fault.Unavailable, "", "no answer in time", "timeouts"},
		{"the port of POP3", func(c *Config) { c.Address = d.POP3 }, fault.Config, "address", "greets as a POP3 server", "the plugin pop3"},
		{"no credentials", func(c *Config) { c.Password = spec.Secret{} }, fault.Config, "password", "neither", ""},
		{"a bad port", func(c *Config) { c.Address = "localhost:imap" }, fault.Config, "address", "port", "host:port"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := plainConfig(d.IMAP)
			tt.with(&c)
			o, err := openWith(t, c, source.Env{Log: slog.New(slog.DiscardHandler)})
			if err == nil {
				o.Source.Close()
				t.Fatal("no error")
			}
			f := fault.As(err)
			if f == nil || f.Class != tt.class || f.Key != tt.key {
				t.Fatalf("%+v, want class %s and key %q", f, tt.class, tt.key)
			}
			if !strings.Contains(f.Text, tt.says) || !strings.Contains(f.Hint, tt.hint) || strings.Contains(f.Text, "\n") {
				t.Errorf("the error is %q with the hint %q; want %q and %q", f.Text, f.Hint, tt.says, tt.hint)
			}
			if strings.Contains(f.Text+f.Hint, "s3cr3t") {
				t.Errorf("the password stands in %q", f.Text)
			}
		})
	}
}

func TestSecureWays(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{NoPlaintext: true})
	d.Deliver("alice", "INBOX", sampleMail(1), sampleDate)
	for _, tt := range []struct {
		security mailnet.Security
		address  string
	}{{mailnet.TLS, d.IMAPS}, {mailnet.StartTLS, d.IMAP}, {mailnet.Auto, d.IMAP}} {
		t.Run(string(tt.security), func(t *testing.T) {
			t.Parallel()
			c := plainConfig(tt.address)
			c.Security, c.TLS.CAFile = tt.security, d.CAFile
			s := openSource(t, c)
			sums := list(t, s, source.ListRequest{Mailbox: "INBOX"})
			a := fetch(t.Context(), t, s, "INBOX", 0, idsOf(sums), 10)
			if string(a.octets[1]) != string(sampleMail(1)) {
				t.Errorf("the body is %q", a.octets[1])
			}
			conn, err := s.pool.Get(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.pool.Put(conn)
			if !conn.Net().Secure() {
				t.Error("the connection isn't under TLS")
			}
		})
	}
}

func TestNoDowngrade(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		script imapscript.Script
	}{
		{"STARTTLS isn't offered", imapscript.Script{}},
		{"STARTTLS is refused", imapscript.Script{Capabilities: "IMAP4rev1 STARTTLS", Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			if verb == "STARTTLS" {
				c.Write("%s NO not today\r\n", tag)
				return true
			}
			return false
		}}},
		{"PREAUTH before TLS", imapscript.Script{Greeting: "* PREAUTH hello"}},
		{"octets are injected before TLS", imapscript.Script{Capabilities: "IMAP4rev1 STARTTLS", Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			if verb == "STARTTLS" {
				c.Write("%s OK go on\r\n* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] injected\r\n", tag)
				return true
			}
			return false
		}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := imapscript.Start(t, tt.script)
			c := plainConfig(server.Addr)
			c.Security = mailnet.StartTLS
			if _, err := openWith(t, c, source.Env{}); err == nil {
				t.Error("no error")
			}
			for _, command := range server.Commands() {
				if strings.HasPrefix(command, "LOGIN") || strings.HasPrefix(command, "AUTHENTICATE") {
					t.Errorf("the source sent %.10q… without TLS", command)
				}
			}
		})
	}
}

func TestCancelStopsWithinASecond(t *testing.T) {
	t.Parallel()
	server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(5)},
		Fetch: func(c *imapscript.Conn, m *imapscript.Message, seq int, items string) bool {
			c.Wait()
			return true
		}})
	s := openSource(t, plainConfig(server.Addr))
	ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
	ctx, cancel := contextAfter(t, 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	var failed error
	for _, err := range s.Fetch(ctx, source.FetchRequest{Mailbox: "INBOX", IDs: batches(ids, 2)}) {
		failed = err
	}
	if failed == nil || time.Since(start) > time.Second {
		t.Errorf("Fetch ended after %v with %v", time.Since(start), failed)
	}
}
