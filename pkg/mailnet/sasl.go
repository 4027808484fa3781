package mailnet

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/emersion/go-sasl"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Credentials are what a login is made of. The functions are asked anew for
// each login, so that a password or token may change in mid-run.
type Credentials struct {
	Username    string
	AuthorizeAs string // authorisation identity (RFC 4616): read this user's mail as administrator Username
	Mechanism   string // plain, login, xoauth2, oauthbearer; empty: the best that server and credentials allow
	Password    func(context.Context) (string, error)
	Token       TokenSource
	Host        string // for OAUTHBEARER (RFC 7628 §3.1)
	Port        int

	token atomic.Value // string: the last that a login was given
}

// inBase64 finds what may be the response of a SASL mechanism.
var inBase64 = regexp.MustCompile(`[A-Za-z0-9+/_-]{16,}`)

// Hide takes the access token of the last login out of what a server said: some
// tell the client's own words back (I9). The host does so with all secrets that
// it handed out itself, and doesn't know a token that came from an endpoint.
func (c *Credentials) Hide(said string) string {
	token, _ := c.token.Load().(string)
	if token == "" {
		return said
	}
	said = strings.ReplaceAll(said, token, "(secret)")
	return inBase64.ReplaceAllStringFunc(said, func(text string) string {
		for _, code := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			if octets, err := code.DecodeString(text); err == nil && bytes.Contains(octets, []byte(token)) {
				return "(secret)"
			}
		}
		return text
	})
}

// Renewing opens a connection, and once more with a new token when the server
// refuses the first: one that was revoked or ran out looks like a wrong one.
func Renewing[C any](c *Credentials, open func(renewed bool) (C, error)) (C, error) {
	conn, err := open(false)
	if c.Token != nil && fault.Is(err, fault.Auth) {
		return open(true)
	}
	return conn, err
}

// TokenSource gives OAuth2 access tokens.
type TokenSource interface {
	// Token returns a token that is still valid for a while. Renewed says
	// that the last one was refused: one from a cache won't do.
	Token(ctx context.Context, renewed bool) (string, error)
}

// TokenFunc is a function as a TokenSource, for tokens from a command or file.
type TokenFunc func(context.Context) (string, error)

// Token calls f.
func (f TokenFunc) Token(ctx context.Context, _ bool) (string, error) { return f(ctx) }

// Client returns a SASL client for one login. offered are the mechanisms that
// the server names. When none fits, name and nil are returned without an
// error: "" for the protocol's own login command (IMAP LOGIN, POP3 USER).
func (c *Credentials) Client(ctx context.Context, offered []string, renewed bool) (sasl.Client, error) {
	mechanism := strings.ToUpper(c.Mechanism)
	has := func(name string) bool {
		return slices.ContainsFunc(offered, func(o string) bool { return strings.EqualFold(o, name) })
	}
	if mechanism == "" {
		mechanism = c.choose(has)
	}
	switch mechanism {
	case "XOAUTH2", sasl.OAuthBearer:
		if c.Token == nil {
			return nil, fault.New(fault.Config, "mechanism %s needs a token", strings.ToLower(mechanism)).
				WithHint("set auth.token or oauth2").WithKey("auth.mechanism")
		}
		token, err := c.Token.Token(ctx, renewed)
		if err != nil {
			return nil, fault.Wrap(fault.Auth, err, "get an access token for %s", c.Username)
		}
		c.token.Store(token)
		if mechanism == "XOAUTH2" {
			return &xoauth2{username: c.Username, token: token}, nil
		}
		return &oauthBearer{Client: sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{
			Username: c.Username, Token: token, Host: c.Host, Port: c.Port})}, nil
	case sasl.Plain, sasl.Login, "":
		if c.AuthorizeAs != "" && mechanism != sasl.Plain {
			return nil, fault.New(fault.Config, "authorize_as needs the mechanism plain, the server offers %s", orNone(offered)).
				WithKey("authorize_as")
		}
		if mechanism == "" {
			return nil, nil
		}
		password, err := c.Secret(ctx)
		if err != nil {
			return nil, err
		}
		if mechanism == sasl.Plain {
			return sasl.NewPlainClient(c.AuthorizeAs, c.Username, password), nil
		}
		return &login{username: c.Username, password: password}, nil
	}
	return nil, fault.New(fault.Config, "mechanism %q is unknown", c.Mechanism).
		WithHint("use plain, login, xoauth2 or oauthbearer").WithKey("auth.mechanism")
}

// Secret returns the password.
func (c *Credentials) Secret(ctx context.Context) (string, error) {
	if c.Password == nil {
		return "", fault.New(fault.Config, "no password for %s", c.Username).WithKey("password")
	}
	p, err := c.Password(ctx)
	if err != nil {
		return "", fault.Wrap(fault.Config, err, "get the password of %s", c.Username)
	}
	return p, nil
}

func (c *Credentials) choose(has func(string) bool) string {
	if c.Token != nil {
		if has(sasl.OAuthBearer) && !has("XOAUTH2") {
			return sasl.OAuthBearer
		}
		return "XOAUTH2"
	}
	if c.AuthorizeAs != "" || has(sasl.Plain) {
		return sasl.Plain
	}
	if has(sasl.Login) {
		return sasl.Login
	}
	return ""
}

func orNone(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, ", ")
}

// Refusal returns what the server told a SASL client beside its final answer,
// as Google and Microsoft do in base64 JSON; empty when it told nothing.
func Refusal(c sasl.Client) string {
	if r, ok := c.(interface{ refusal() string }); ok {
		return r.refusal()
	}
	return ""
}

// xoauth2 is Google's and Microsoft's mechanism; go-sasl has none.
type xoauth2 struct {
	username, token string
	said            string
}

func (x *xoauth2) Start() (string, []byte, error) {
	return "XOAUTH2", []byte("user=" + x.username + "\x01auth=Bearer " + x.token + "\x01\x01"), nil
}

// Next gets the server's reason, and answers with an empty line: only then
// does the server refuse.
func (x *xoauth2) Next(challenge []byte) ([]byte, error) {
	x.said = readRefusal(challenge)
	return []byte{}, nil
}

func (x *xoauth2) refusal() string { return x.said }

// oauthBearer answers a refusal as RFC 7628 §3.2.3 wants, where go-sasl's
// client would hang up in the middle of the exchange.
type oauthBearer struct {
	sasl.Client
	said string
}

func (o *oauthBearer) Next(challenge []byte) ([]byte, error) {
	o.said = readRefusal(challenge)
	return []byte{1}, nil
}

func (o *oauthBearer) refusal() string { return o.said }

func readRefusal(challenge []byte) string {
	var r struct {
		Status, Scope, Error string
		Description          string `json:"error_description"`
	}
	if json.Unmarshal(challenge, &r) != nil {
		return strings.TrimSpace(string(bytes.ToValidUTF8(challenge, []byte("?"))))
	}
	var words []string
	for _, w := range []struct{ name, value string }{
		{"status", r.Status}, {"error", r.Error}, {"", r.Description}, {"scope", r.Scope}} {
		if w.value != "" {
			words = append(words, strings.TrimSpace(w.name+" "+w.value))
		}
	}
	return strings.Join(words, ", ")
}

// login is the LOGIN mechanism. go-sasl's wants the challenges spelt exactly
// so; servers say "User Name\0", "Username:", or nothing.
type login struct {
	username, password string
	step               int
}

func (l *login) Start() (string, []byte, error) { return sasl.Login, nil, nil }

func (l *login) Next([]byte) ([]byte, error) {
	l.step++
	switch l.step {
	case 1:
		return []byte(l.username), nil
	case 2:
		return []byte(l.password), nil
	}
	return nil, fmt.Errorf("the server asks a third question in SASL LOGIN")
}
