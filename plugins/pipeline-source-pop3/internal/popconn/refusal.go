package popconn

import (
	"errors"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// errInUse marks that another session has the mailbox.
var errInUse = errors.New("the mailbox is in use")

// InUse reports whether err says that the server gives the mailbox to one
// session only, and another has it.
func InUse(err error) bool { return errors.Is(err, errInUse) }

// Err classes the -ERR of a command by its response code (RFC 2449 §8, RFC
// 3206) and its words. Other errors stay as they are. otherwise is the class
// when neither says anything.
func Err(otherwise fault.Class, err error, tried string) error {
	var refused *Refused
	if !errors.As(err, &refused) {
		return err
	}
	return refusal(otherwise, refused.Text, tried, 0)
}

func refusal(otherwise fault.Class, text, tried string, loginDelay time.Duration) *fault.Error {
	f := fault.New(otherwise, "%s: the server answered %q", tried, strings.TrimSpace("-ERR "+text))
	code := ""
	if strings.HasPrefix(text, "[") {
		code, _, _ = strings.Cut(strings.ToUpper(text[1:]), "]")
	}
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
	case code == "IN-USE" || code == "" && has("mailbox is locked", "maildrop already locked", "mailbox in use", "maildrop is in use", "unable to lock", "already in use", "lock busy", "mailbox locked"):
		f.Class, f.Err = fault.Unavailable, errInUse
		f.Hint = "another session has the mailbox: close other mail programs, or set connections: 1"
	case code == "LOGIN-DELAY" || has("login too frequent", "logins too frequent", "too many login"):
		f.Class, f.RetryAfter = fault.Throttled, max(loginDelay, 10*time.Second)
		f.Hint = "the server wants more time between two logins"
	case code == "SYS/TEMP" || has("try again", "temporar", "unavailable"):
		f.Class = fault.Unavailable
	case has("throttl", "rate limit", "too many requests", "bandwidth limit", "exceeded"):
		f.Class = fault.Throttled
		f.Hint = "the provider asks to slow down: lower rate or connections"
	case has("too many connections", "too many simultaneous", "maximum number of connections", "connection limit"):
		f.Class = fault.Throttled
		f.Hint = "the server allows fewer connections: lower connections"
	case code == "AUTH":
		f.Class = fault.Auth
		f.Hint = "check username and password; many providers want an app password or OAuth2 here, and POP3 to be allowed"
	}
	return f
}
