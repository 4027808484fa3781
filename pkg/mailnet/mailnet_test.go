package mailnet

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"

	"github.com/mailhaul/pipeline/pkg/fault"
)

func TestAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		d    Dialer
		want string
		mode Security
	}{
		{"the port of TLS", Dialer{Address: "imap.example.org"}, "imap.example.org:993", TLS},
		{"the plain port", Dialer{Address: "imap.example.org", Security: StartTLS}, "imap.example.org:143", StartTLS},
		{"a port of its own", Dialer{Address: "imap.example.org:1993"}, "imap.example.org:1993", TLS},
		{"auto on the TLS port", Dialer{Address: "imap.example.org:993", Security: Auto}, "imap.example.org:993", TLS},
		{"auto elsewhere", Dialer{Address: "imap.example.org:143", Security: Auto}, "imap.example.org:143", Auto},
		{"IPv6", Dialer{Address: "[::1]:993"}, "[::1]:993", TLS},
		{"IPv6 without a port", Dialer{Address: "::1"}, "[::1]:993", TLS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.d.TLSPort, tt.d.PlainPort = 993, 143
			if err := tt.d.Check(); err != nil {
				t.Fatal(err)
			}
			if got := tt.d.HostPort(); got != tt.want {
				t.Errorf("address %q, want %q", got, tt.want)
			}
			if got := tt.d.Mode(); got != tt.mode {
				t.Errorf("mode %s, want %s", got, tt.mode)
			}
		})
	}
}

func TestPlainIsRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		host string
		ok   bool
	}{{"127.0.0.1:143", true}, {"localhost", true}, {"[::1]:143", true}, {"127.9.9.9", true},
		{"localhost.example.org", false}, {"10.0.0.1", false}, {"imap.example.org", false}} {
		d := Dialer{Address: tt.host, Security: None, PlainPort: 143}
		if err := d.Check(); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.host, err)
		} else if err != nil && (fault.As(err).Key != "security" || fault.As(err).Hint == "") {
			t.Errorf("%s: key %q, hint %q", tt.host, fault.As(err).Key, fault.As(err).Hint)
		}
		d.AllowPlain = true
		if err := d.Check(); err != nil {
			t.Errorf("%s, allowed: %v", tt.host, err)
		}
	}
}

// pair returns both ends of a connection over loopback.
func pair(t *testing.T, timeouts Timeouts) (*Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return NewConn(a, l.Addr().String(), timeouts), b
}

func TestDeadlinesRoll(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, Timeouts{Read: time.Second})
	go func() {
		for range 6 { // a slow transfer, longer than the timeout in all
			peer.Write([]byte("x"))
			time.Sleep(300 * time.Millisecond)
		}
	}()
	start := time.Now()
	got, err := io.ReadAll(c)
	if string(got) != "xxxxxx" {
		t.Errorf("got %q, want 6 octets", got)
	}
	if f := fault.As(Classify(err, "read")); f == nil || f.Class != fault.Unavailable || !strings.Contains(f.Text, "no answer in time") {
		t.Errorf("silence ends in %v", err)
	}
	if d := time.Since(start); d < 2*time.Second || d > 20*time.Second {
		t.Errorf("silence was noticed after %v", d)
	}
}

func TestIdleSilenceIsNoError(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, Timeouts{Read: 50 * time.Millisecond})
	c.SetIdle(func() bool { return true })
	time.AfterFunc(300*time.Millisecond, func() { peer.Write([]byte("x")) })
	if n, err := c.Read(make([]byte, 8)); n != 1 || err != nil {
		t.Errorf("read %d octets and %v", n, err)
	}
}

func TestCancelFreesARead(t *testing.T) {
	t.Parallel()
	c, _ := pair(t, Timeouts{})
	why := errors.New("the user pressed Ctrl-C")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer c.CloseOn(ctx)()
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, why) {
		t.Errorf("the read ends in %v, want %v", err, why)
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, Timeouts{})
	c.SetPace(NewPace(0, 100_000))
	go func() {
		peer.Write(make([]byte, 150_000))
		peer.Close()
	}()
	start := time.Now()
	n, err := io.Copy(io.Discard, struct{ io.Reader }{c})
	if n != 150_000 || err != nil {
		t.Errorf("%d octets, %v", n, err)
	}
	if d := time.Since(start); d < 400*time.Millisecond || d > 30*time.Second {
		t.Errorf("150 KB at 100 KB/s with a second's worth at once took %v, want half a second", d)
	}
	p := NewPace(20, 0)
	start = time.Now()
	if err := p.Messages(t.Context(), 30); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 400*time.Millisecond || d > 30*time.Second {
		t.Errorf("30 messages at 20/s took %v, want half a second", d)
	}
	if err := (*Pace)(nil).Messages(t.Context(), 1e9); err != nil {
		t.Errorf("no pace: %v", err)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	b := Backoff{Min: 100 * time.Millisecond, Max: time.Second}
	for i, ms := range []int{100, 200, 400, 800, 1000, 1000} {
		most := time.Duration(ms) * time.Millisecond
		if d := b.Next(); d < most/2 || d > most {
			t.Errorf("wait %d is %v, want %v to %v", i, d, most/2, most)
		}
	}
	b.Reset()
	if d := b.Next(); d > 100*time.Millisecond {
		t.Errorf("after Reset: %v", d)
	}
}

func TestSASL(t *testing.T) {
	t.Parallel()
	password := func(context.Context) (string, error) { return "pw", nil }
	token := TokenFunc(func(context.Context) (string, error) { return "tok", nil })
	for _, tt := range []struct {
		name      string
		c         Credentials
		offered   []string
		mechanism string
		initial   string
	}{
		{"plain", Credentials{Username: "u", Password: password}, []string{"PLAIN", "LOGIN"}, "PLAIN", "\x00u\x00pw"},
		{"as another", Credentials{Username: "admin", AuthorizeAs: "u", Password: password}, nil, "PLAIN", "u\x00admin\x00pw"},
		{"login only", Credentials{Username: "u", Password: password}, []string{"LOGIN"}, "LOGIN", ""},
		{"xoauth2", Credentials{Username: "u", Token: token}, []string{"XOAUTH2", "OAUTHBEARER"}, "XOAUTH2", "user=u\x01auth=Bearer tok\x01\x01"},
		{"oauthbearer", Credentials{Username: "u", Token: token, Host: "h", Port: 993}, []string{"OAUTHBEARER"}, "OAUTHBEARER", "n,a=u,\x01host=h\x01port=993\x01auth=Bearer tok\x01\x01"},
		{"as the user says", Credentials{Username: "u", Password: password, Mechanism: "login"}, []string{"PLAIN"}, "LOGIN", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client, err := tt.c.Client(t.Context(), tt.offered, false)
			if err != nil {
				t.Fatal(err)
			}
			mechanism, initial, err := client.Start()
			if err != nil || mechanism != tt.mechanism || string(initial) != tt.initial {
				t.Errorf("%s %q %v, want %s %q", mechanism, initial, err, tt.mechanism, tt.initial)
			}
		})
	}
	t.Run("nothing fits", func(t *testing.T) {
		c := Credentials{Username: "u", Password: password}
		if client, err := c.Client(t.Context(), nil, false); client != nil || err != nil {
			t.Errorf("%v %v, want the protocol's own login", client, err)
		}
	})
	t.Run("an unknown mechanism", func(t *testing.T) {
		c := Credentials{Username: "u", Password: password, Mechanism: "kerberos"}
		if _, err := c.Client(t.Context(), nil, false); !fault.Is(err, fault.Config) {
			t.Errorf("%v", err)
		}
	})
}

func TestSASLLoginSteps(t *testing.T) {
	t.Parallel()
	c := Credentials{Username: "u", Mechanism: "login", Password: func(context.Context) (string, error) { return "pw", nil }}
	client, err := c.Client(t.Context(), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	client.Start()
	for _, step := range []struct{ challenge, want string }{{"User Name\x00", "u"}, {"", "pw"}} {
		if got, err := client.Next([]byte(step.challenge)); string(got) != step.want || err != nil {
			t.Errorf("to %q: %q %v, want %q", step.challenge, got, err, step.want)
		}
	}
	if _, err := client.Next(nil); err == nil {
		t.Error("a third question is answered")
	}
}

// TestRefusal is what Google and Microsoft say before they say NO.
func TestRefusal(t *testing.T) {
	t.Parallel()
	token := TokenFunc(func(context.Context) (string, error) { return "tok", nil })
	for mechanism, answer := range map[string]string{"xoauth2": "", "oauthbearer": "\x01"} {
		c := Credentials{Username: "u", Mechanism: mechanism, Token: token}
		client, err := c.Client(t.Context(), nil, false)
		if err != nil {
			t.Fatal(err)
		}
		client.Start()
		got, err := client.Next([]byte(`{"status":"400","schemes":"bearer","scope":"https://mail.google.com/"}`))
		if err != nil || string(got) != answer {
			t.Errorf("%s answers %q, %v; want %q", mechanism, got, err, answer)
		}
		if said := Refusal(client); !strings.Contains(said, "400") || !strings.Contains(said, "mail.google.com") {
			t.Errorf("%s: the refusal is %q", mechanism, said)
		}
	}
	if Refusal(sasl.NewPlainClient("", "u", "p")) != "" {
		t.Error("a refusal of PLAIN")
	}
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"imap.example.org", "h:1", "[::1]:993", "::1", ":", "h:99999", "[", "a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		d := Dialer{Address: address, TLSPort: 993, PlainPort: 143}
		if d.Check() != nil {
			return
		}
		host, port, err := net.SplitHostPort(d.HostPort())
		if err != nil || host == "" || port == "" {
			t.Errorf("%q is accepted and becomes %q: %v", address, d.HostPort(), err)
		}
	})
}

// TestFlow: what waits here already takes no time, and the first octets of an
// answer don't count.
func TestFlow(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	defer here.Close()
	c := NewConn(here, "test", Timeouts{})
	go func() {
		for range 2 {
			if _, err := there.Read(make([]byte, 8)); err != nil {
				return
			}
			for range 3 {
				time.Sleep(30 * time.Millisecond)
				if _, err := there.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		}
	}()
	for range 2 {
		if _, err := c.Write([]byte("go on\r\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 3000)); err != nil {
			t.Fatal(err)
		}
	}
	if octets, took := c.Flow(); octets != 4000 || took < 100*time.Millisecond {
		t.Errorf("%d octets in %v, want 4000 in 120 ms", octets, took)
	}
}
