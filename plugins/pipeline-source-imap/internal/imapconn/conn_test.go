package imapconn

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// octets is a net.Conn that reads from memory.
type octets struct {
	net.Conn
	io.Reader
}

func (o octets) Read(p []byte) (int, error)       { return o.Reader.Read(p) }
func (o octets) Write(p []byte) (int, error)      { return len(p), nil }
func (o octets) Close() error                     { return nil }
func (o octets) SetReadDeadline(time.Time) error  { return nil }
func (o octets) SetWriteDeadline(time.Time) error { return nil }

// reading returns a connection on which the server has sent text and closed.
func reading(text string) *Conn {
	nc := mailnet.NewConn(octets{Reader: strings.NewReader(text)}, "test:143", mailnet.Timeouts{})
	return &Conn{net: nc, w: nc, br: bufio.NewReaderSize(nc, 64)} // a small buffer: lines don't fit
}

func TestResponses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"* OK [UIDVALIDITY 7] fine\r\n", `"" OK 0 [UIDVALIDITY 7] "fine"`},
		{"* OK [PERMANENTFLAGS (\\* a]b)] x y\r\n", `"" OK 0 [PERMANENTFLAGS (\* a]b)] "x y"`},
		{"m5 NO\r\n", `"m5" NO 0 [ ] ""`},
		{"m5 ok\n", `"m5" OK 0 [ ] ""`},
		{"* BYE {5}\r\n", `"" BYE 0 [ ] "{5}"`},
		{"* 12 EXISTS\r\n", `"" EXISTS 12 [ ] ""`},
		{"+ go on\r\n", `"+" + 0 [ ] "go on"`},
		{"\r\n\r\n* 4294967295 EXPUNGE\r\n", `"" EXPUNGE 4294967295 [ ] ""`},
	} {
		r, err := reading(tt.text).Next()
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		if got := fmt.Sprintf("%q %s %d [%s %s] %q", r.Tag, r.Name, r.Num, r.Code, r.Argument, r.Text); got != tt.want {
			t.Errorf("%q is %s, want %s", tt.text, got, tt.want)
		}
	}
}

func TestLiterals(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 500)
	for _, tt := range []struct{ name, text, data, body, tail string }{
		{"a body", "* 1 FETCH (UID 5 BODY[] {3}\r\nabc)\r\n", "(UID 5 BODY[] ", "abc", ")"},
		{"a body and more", "* 1 FETCH (BODY[] {3}\r\nabc UID 5)\r\n", "(BODY[] ", "abc", " UID 5)"},
		{"a body and another literal", "* 1 FETCH (BODY[] {3}\r\nabc X-A {2}\r\n)) UID 5)\r\n", "(BODY[] ", "abc", " X-A {2}\r\n)) UID 5)"},
		{"an empty body", "* 1 FETCH (BODY[] {0}\r\n)\r\n", "(BODY[] ", "", ")"},
		{"a long body", "* 1 FETCH (rfc822 {500}\r\n" + long + ")\r\n", "(rfc822 ", long, ")"},
		{"a header", "* 1 FETCH (BODY[HEADER] {3}\r\nabc UID 5)\r\n", "(BODY[HEADER] {3}\r\nabc UID 5)", "", ""},
		{"two headers and a body", "* 1 FETCH (A {1}\r\n{ B {1}\r\n} BODY[] {1}\r\nx)\r\n", "(A {1}\r\n{ B {1}\r\n} BODY[] ", "x", ")"},
		{"a literal that looks like one", "* 1 FETCH (A {5}\r\n x{9})\r\n", "(A {5}\r\n x{9})", "", ""},
		{"a list", "* LIST () \"/\" {3}\r\na\"b\r\n", "() \"/\" {3}\r\na\"b", "", ""},
		{"without a space", "* 1 FETCH(UID 5)\r\n", "(UID 5)", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := reading(tt.text + "m1 OK done\r\n")
			r, err := c.Next()
			if err != nil {
				t.Fatal(err)
			}
			if string(r.Data) != tt.data || r.Streams != (tt.tail != "") {
				t.Errorf("data %q, streams %v; want %q", r.Data, r.Streams, tt.data)
			}
			if r.Streams {
				body, err := io.ReadAll(c.Body())
				if err != nil || string(body) != tt.body {
					t.Errorf("body %q, %v; want %q", body, err, tt.body)
				}
				tail, err := c.Tail()
				if err != nil || string(tail) != tt.tail {
					t.Errorf("tail %q, %v; want %q", tail, err, tt.tail)
				}
			}
			if r, err := c.Next(); err != nil || r.Tag != "m1" {
				t.Errorf("the next response is %+v, %v", r, err)
			}
		})
	}
}

// TestBodyThatIsNotWhole is what keeps half a message from passing for one.
func TestBodyThatIsNotWhole(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text string }{
		{"cut", "* 1 FETCH (UID 5 BODY[] {10}\r\nabc"},
		{"cut at its end", "* 1 FETCH (UID 5 BODY[] {3}\r\nabc"},
		{"longer than announced", "* 1 FETCH (UID 5 BODY[] {3}\r\nabcdef)\r\nm1 OK done\r\n"},
		{"shorter, with the next response in it", "* 1 FETCH (UID 5 BODY[] {8}\r\nabc)\r\n* 2 FETCH (UID 6 BODY[] {1}\r\nx)\r\n"},
		{"shorter, with the tag in it", "* 1 FETCH (UID 5 BODY[] {8}\r\nabc)\r\nm1 OK done\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := reading(tt.text)
			if _, err := c.Next(); err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(c.Body())
			if !fault.Is(err, fault.Unavailable) || !c.Broken() {
				t.Errorf("body %q ends in %v, and the connection is broken: %v", body, err, c.Broken())
			}
			if strings.Contains(tt.name, "er") != errors.Is(err, ErrMismatch) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status, code, text string
		class              fault.Class
		after              time.Duration
	}{
		{"NO", "AUTHENTICATIONFAILED", "Authentication failed.", fault.Auth, 0},
		{"NO", "", "Account exceeded command or bandwidth limits.", fault.Throttled, 0},
		{"NO", "OVERQUOTA", "Account exceeded command or bandwidth limits.", fault.Throttled, 0},
		{"BAD", "", "Request is throttled. Suggested Backoff Time: 299961 milliseconds", fault.Throttled, 299961 * time.Millisecond},
		{"NO", "LIMIT", "UID FETCH Rate limit hit.", fault.Throttled, 0},
		{"NO", "ALERT", "Too many simultaneous connections. (Failure)", fault.Throttled, 0},
		{"NO", "UNAVAILABLE", "UID FETCH Server error", fault.Unavailable, 0},
		{"BAD", "", "User is authenticated but not connected.", fault.Auth, 0},
		{"BYE", "", "Session invalidated - AccessTokenExpired", fault.Auth, 0},
		{"NO", "NOPERM", "no", fault.Message, 0},
	} {
		f := refusal(fault.Message, tt.status, tt.code, tt.text, "do it")
		if f.Class != tt.class || f.RetryAfter != tt.after {
			t.Errorf("%s [%s] %s: class %s after %v, want %s after %v", tt.status, tt.code, tt.text, f.Class, f.RetryAfter, tt.class, tt.after)
		}
		if !strings.Contains(f.Text, tt.text) {
			t.Errorf("the server's words are missing in %q", f.Text)
		}
	}
}

// FuzzResponses feeds a server's octets to the reader: it must come to an end
// without a panic, and what it makes of go-imap's part must be lines.
func FuzzResponses(f *testing.F) {
	for _, s := range []string{
		"* 1 FETCH (UID 5 BODY[] {3}\r\nabc)\r\nm1 OK done\r\n", "* LIST () \"/\" {3}\r\na\"b\r\n", "* OK [X (a]b)] c\r\n",
		"* 1 FETCH (BODY[] {3}\r\nabc X-A {2}\r\n)) UID 5)\r\n", "* 9 FETCH(", "{3}\r\n", "+\r\nT1 NO\r\n", "* CAPABILITY A=\"] (\r\n", "* SEARCH {99999999999}\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c := reading(string(text))
		for n := 0; ; n++ {
			r, err := c.Next()
			if err != nil {
				break
			}
			if n > len(text) {
				t.Fatalf("%q: more responses than octets", text)
			}
			if r.Streams && n%2 == 0 {
				io.Copy(io.Discard, struct{ io.Reader }{c.Body()})
				c.Tail()
			}
			var it imapdata.Items
			it.Read(bytes.Clone(r.Data))
		}
		c = reading(string(text))
		c.lib = newLibConn(c)
		c.lib.tags["T1"] = true
		for {
			c.lib.mu.Lock()
			err := c.lib.pass()
			c.lib.mu.Unlock()
			if err != nil {
				break
			}
		}
		for _, line := range strings.Split(strings.TrimSuffix(string(c.lib.out), "\r\n"), "\r\n") {
			if strings.ContainsAny(line, "\r\n\x00") || line == "" && len(c.lib.out) > 0 {
				t.Fatalf("%q becomes %q for the library", text, c.lib.out)
			}
		}
	})
}
