package imapconn

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// ended reports whether a refusal says that the session is over: its token
// ran out, though the connection stands. Microsoft's "not connected" isn't
// that: it is asked again.
func (r *Response) ended() bool {
	switch r.Code {
	case "EXPIRED", "AUTHENTICATIONFAILED":
		return true
	}
	low := strings.ToLower(r.Text)
	for _, words := range []string{"accesstokenexpired", "session expired", "session invalidated", "token has expired", "token expired"} {
		if strings.Contains(low, words) {
			return true
		}
	}
	return false
}

// Err returns nil for OK, else the server's refusal as a fault. tried is the
// command.
func (r *Response) Err(tried string) error {
	if r.Name == "OK" {
		return nil
	}
	return refusal(fault.Message, r.Name, r.Code, r.Text, tried)
}

var suggested = regexp.MustCompile(`(?i)suggested backoff time:?\s*(\d+)\s*(milliseconds|ms|seconds|s)?`)

// refusal classes a NO, BAD or BYE by its code (RFC 5530) and its words.
// otherwise is the class when neither says anything: that of the command.
func refusal(otherwise fault.Class, status, code, text, tried string) *fault.Error {
	said := strings.TrimSpace(status + " " + bracket(code) + text)
	f := fault.New(otherwise, "%s: the server answered %q", tried, said)
	low := strings.ToLower(text)
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(low, w) {
				return true
			}
		}
		return false
	}
	switch {
	case code == "THROTTLED" || code == "OVERQUOTA" && has("bandwidth", "command", "limit") || code == "LIMIT" ||
		has("throttl", "rate limit", "too many requests", "bandwidth limit", "suggested backoff"):
		f.Class = fault.Throttled
		f.RetryAfter = backoffSaid(text)
		f.Hint = "the provider asks to slow down: lower rate or connections"
	case has("too many simultaneous connections", "too many connections", "maximum number of connections", "connection limit"):
		f.Class = fault.Throttled
		f.Hint = "the server allows fewer connections: lower connections"
	case code == "AUTHENTICATIONFAILED" || code == "AUTHORIZATIONFAILED" || code == "EXPIRED" || code == "PRIVACYREQUIRED" ||
		code == "WEBALERT" || has("authentication failed", "invalid credentials", "login failed", "accesstokenexpired", "session expired", "session invalidated", "token has expired", "token expired"):
		f.Class = fault.Auth
		f.Hint = "check username and password; many providers want an app password or OAuth2 here"
	case has("not connected") && has("authenticated"):
		f.Class = fault.Auth
		f.Hint = "Microsoft logs in and then refuses: check that IMAP is enabled for the mailbox, that the application has IMAP.AccessAsApp and FullAccess to it, that the account is the right one, and that there aren't too many connections"
	case code == "UNAVAILABLE" || code == "INUSE" || code == "SERVERBUG" || has("try again", "temporar", "unavailable", "internal error"):
		f.Class = fault.Unavailable
	case code == "NONEXISTENT" || code == "NOPERM" || code == "ACL":
		f.Class = fault.Message
	}
	return f
}

func bracket(code string) string {
	if code == "" {
		return ""
	}
	return "[" + code + "] "
}

func backoffSaid(text string) time.Duration {
	m := suggested.FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0
	}
	if strings.HasPrefix(strings.ToLower(m[2]), "s") {
		return time.Duration(n) * time.Second
	}
	return time.Duration(n) * time.Millisecond
}

// note keeps what matters to the whole connection.
func (c *Conn) note(r *Response) {
	switch {
	case r.Name == "BYE":
		c.goodbye = strings.TrimSpace(bracket(r.Code) + r.Text)
	case r.Code == "CAPABILITY":
		c.setCaps(r.Argument)
	}
	if r.Code == "THROTTLED" || strings.HasPrefix(r.Text, "[THROTTLED]") || strings.Contains(r.Text, "[THROTTLED]") {
		c.Throttled = true
	}
}

func (c *Conn) setCaps(list string) {
	c.caps = map[string]bool{}
	for _, w := range strings.Fields(strings.ToUpper(list)) {
		c.caps[w] = true
	}
}
