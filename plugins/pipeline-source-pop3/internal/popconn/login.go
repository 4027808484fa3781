package popconn

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"regexp"
	"strings"

	"github.com/emersion/go-sasl"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
)

// timestamp is what a server that knows APOP greets with (RFC 1939 §7). RFC
// 5322's msg-id is ASCII: anything else may be a crafted one.
var timestamp = regexp.MustCompile(`<[!-;=?-~]+@[!-;=?-~]+>`)

// login logs in by the mechanism that is set, or by the best there is: SASL
// where it is offered, APOP rather than a password in clear, else USER.
func (c *Conn) login(ctx context.Context, cred *mailnet.Credentials, renewed bool) error {
	stamp := timestamp.FindString(c.wire.greeting)
	switch {
	case cred.Mechanism == "apop" && stamp == "":
		return fault.New(fault.Config, "%s greets without a timestamp: it knows no APOP", c.net.Address()).
			WithHint("leave auth.mechanism out").WithKey("auth.mechanism")
	case cred.Mechanism == "apop":
		return c.apop(ctx, cred, stamp)
	case cred.Mechanism == "user":
		return c.user(ctx, cred)
	case cred.Mechanism == "" && cred.Token == nil && cred.AuthorizeAs == "" && stamp != "" && !c.net.Secure():
		err := c.apop(ctx, cred, stamp)
		if err == nil || c.Broken() || !fault.Is(err, fault.Auth) {
			return err
		}
		// Many servers greet with a timestamp and have no secret to check
		// it with. Passwords in clear were allowed when we got here.
	}
	client, err := cred.Client(ctx, strings.Fields(c.caps["SASL"]), renewed)
	if err != nil {
		return err
	}
	if client == nil {
		return c.user(ctx, cred)
	}
	return c.sasl(cred, client)
}

func (c *Conn) user(ctx context.Context, cred *mailnet.Credentials) error {
	password, err := cred.Secret(ctx)
	if err != nil {
		return err
	}
	if _, err := c.Do("USER " + cred.Username); err != nil {
		return c.loginErr(err, nil, cred)
	}
	_, err = c.Do("PASS " + password)
	return c.loginErr(err, nil, cred)
}

func (c *Conn) apop(ctx context.Context, cred *mailnet.Credentials, stamp string) error {
	password, err := cred.Secret(ctx)
	if err != nil {
		return err
	}
	sum := md5.Sum([]byte(stamp + password))
	_, err = c.Do("APOP " + cred.Username + " " + hex.EncodeToString(sum[:]))
	return c.loginErr(err, nil, cred)
}

// mostChallenges bounds a SASL exchange.
const mostChallenges = 10

// sasl runs AUTH (RFC 5034). An initial response that makes the line too long
// waits for the server's empty challenge (§4).
func (c *Conn) sasl(cred *mailnet.Credentials, client sasl.Client) error {
	mechanism, initial, err := client.Start()
	if err != nil {
		return fault.New(fault.Auth, "log in to %s by %s: %w", c.net.Address(), mechanism, err)
	}
	encode := func(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
	command, waits := "AUTH "+mechanism, initial != nil
	if text := encode(initial); initial != nil && len(command)+1+len(text) <= 253 {
		if text == "" {
			text = "="
		}
		command, waits = command+" "+text, false
	}
	c.wire.sasl = true
	defer func() { c.wire.sasl = false }()
	answer, err := c.Do(command)
	for range mostChallenges {
		if err != nil || len(answer) == 0 || answer[0] != '+' {
			return c.loginErr(err, client, cred)
		}
		var response []byte
		if waits {
			response, waits = initial, false
		} else {
			challenge, bad := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(answer[1:])))
			if bad != nil {
				challenge = answer[1:] // a server's own words, in clear
			}
			if response, err = client.Next(challenge); err != nil {
				_, _ = c.Do("*") // take back the exchange (RFC 5034 §4)
				return fault.New(fault.Auth, "log in to %s by %s: %w", c.net.Address(), mechanism, err)
			}
		}
		answer, err = c.Do(encode(response))
	}
	return fault.New(fault.Unavailable, "log in to %s by %s: the server asks and asks", c.net.Address(), mechanism)
}

// loginErr classes what the login ended with. The password is in none of it
// (I9): only the server's words.
func (c *Conn) loginErr(err error, client sasl.Client, cred *mailnet.Credentials) error {
	if err == nil {
		return nil
	}
	tried := "log in to " + c.net.Address() + " as " + cred.Username
	var refused *Refused
	if !errors.As(err, &refused) {
		return fault.Wrap(fault.Unavailable, err, "%s", tried)
	}
	text := refused.Text
	if more := mailnet.Refusal(client); more != "" {
		text += " (" + more + ")"
	}
	f := refusal(fault.Auth, cred.Hide(text), tried, c.loginDelay())
	if f.Class == fault.Auth && f.Hint == "" {
		f.Hint = "check username and password; many providers want an app password or OAuth2 here, and POP3 to be allowed"
	}
	return f
}
