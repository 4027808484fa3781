package imapsource

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/test/imapscript"
)

// tokens is a token endpoint that numbers its tokens, and an IMAP server that
// takes the newest only.
type tokens struct {
	url   string
	life  time.Duration
	given atomic.Int64
	taken atomic.Int64 // logins
}

func newTokens(t *testing.T, life time.Duration) *tokens {
	k := &tokens{life: life}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"token-%d","token_type":"Bearer","expires_in":%d}`, k.given.Add(1), int(k.life.Seconds()))
	}))
	t.Cleanup(s.Close)
	k.url = s.URL
	return k
}

// login answers AUTHENTICATE; false when the command is another.
func (k *tokens) login(c *imapscript.Conn, tag, verb, args string) bool {
	if verb != "AUTHENTICATE" {
		return false
	}
	initial, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(args, "XOAUTH2 "))
	if string(initial) != fmt.Sprintf("user=alice\x01auth=Bearer token-%d\x01\x01", k.given.Load()) {
		c.Write("+ %s\r\n", base64.StdEncoding.EncodeToString([]byte(`{"status":"401"}`)))
		c.ReadLine()
		c.Write("%s NO [AUTHENTICATIONFAILED] Invalid credentials\r\n", tag)
		return true
	}
	k.taken.Add(1)
	c.Write("%s OK done\r\n", tag)
	return true
}

func (k *tokens) config(address string) Config {
	c := plainConfig(address)
	c.Password = spec.Secret{}
	c.OAuth2 = mailnet.OAuth2{ClientID: "app", ClientSecret: spec.Plain("s"), TokenURL: k.url}
	return c
}

// TestTokensEndInMidRun: a session whose token runs out, in any words, is
// replaced by one with a new token, and no message suffers.
func TestTokensEndInMidRun(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, at, says string }{
		{"a NO to FETCH", "UID FETCH", "%s NO [EXPIRED] token\r\n"},
		{"a BAD in Microsoft's words", "UID FETCH", "%s BAD Session invalidated - AccessTokenExpired\r\n"},
		{"AUTHENTICATIONFAILED to a search", "UID SEARCH", "%s NO [AUTHENTICATIONFAILED] Invalid credentials\r\n"},
		{"when a mailbox is opened", "EXAMINE", "%s NO Session expired, please login again.\r\n"},
		{"in the listing of mailboxes", "LIST", "%s NO [EXPIRED] token\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newTokens(t, time.Hour)
			var n atomic.Int64
			server := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1 AUTH=XOAUTH2 SASL-IR", Mailboxes: []imapscript.Mailbox{inbox(20)},
				Command: func(c *imapscript.Conn, tag, verb, args string) bool {
					if verb == tt.at && n.Add(1) == 1 {
						k.given.Add(1) // what was given before is worth nothing now
						c.Write(tt.says, tag)
						return true
					}
					return k.login(c, tag, verb, args)
				}})
			s := openSource(t, k.config(server.Addr))
			mailboxNames(t, s)
			ids := idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"}))
			a := fetch(t.Context(), t, s, "INBOX", 0, ids, 4)
			if len(a.octets) != 20 || a.err != nil {
				t.Errorf("%d messages, %v %v", len(a.octets), a.err, a.errs)
			}
			if k.taken.Load() != 2 {
				t.Errorf("%d logins, want 2: before and after", k.taken.Load())
			}
		})
	}
}

// TestTokenThatIsNeverEnough ends in Auth and in no dead letter, after few
// logins: too many lock an account.
func TestTokenThatIsNeverEnough(t *testing.T) {
	t.Parallel()
	k := newTokens(t, time.Hour)
	server := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1 AUTH=XOAUTH2 SASL-IR", Mailboxes: []imapscript.Mailbox{inbox(20)},
		Command: func(c *imapscript.Conn, tag, verb, args string) bool {
			if verb == "UID FETCH" {
				c.Write("%s NO [EXPIRED] token\r\n", tag)
				return true
			}
			return k.login(c, tag, verb, args)
		}})
	s := openSource(t, k.config(server.Addr))
	a := fetch(t.Context(), t, s, "INBOX", 0, idsOf(list(t, s, source.ListRequest{Mailbox: "INBOX"})), 4)
	if !fault.Is(a.err, fault.Auth) || len(a.errs) > 0 || k.taken.Load() > 6 {
		t.Errorf("%v, %d dead letters, %d logins", a.err, len(a.errs), k.taken.Load())
	}
}

// TestTokensAreRenewedAheadInMidRun: a login never uses a token that is about
// to end, and a token endpoint isn't asked for each login.
func TestTokensAreRenewedAheadInMidRun(t *testing.T) {
	t.Parallel()
	k := newTokens(t, 4*time.Second)
	server := imapscript.Start(t, imapscript.Script{Capabilities: "IMAP4rev1 AUTH=XOAUTH2 SASL-IR", Mailboxes: []imapscript.Mailbox{inbox(2)},
		Command: func(c *imapscript.Conn, tag, verb, args string) bool { return k.login(c, tag, verb, args) }})
	all := mailnet.NewTokens()
	login := func() {
		o, err := Opener(all)(t.Context(), k.config(server.Addr), source.Env{})
		if err != nil {
			t.Fatal(err)
		}
		io.Closer(o.Source).Close()
	}
	login()
	login()
	if k.given.Load() != 1 {
		t.Errorf("%d tokens for two logins in a row, want 1", k.given.Load())
	}
	time.Sleep(3200 * time.Millisecond)
	login()
	if k.given.Load() != 2 || k.taken.Load() != 3 {
		t.Errorf("%d tokens and %d logins, want the second token ahead of the first one's end, and no login refused", k.given.Load(), k.taken.Load())
	}
}
