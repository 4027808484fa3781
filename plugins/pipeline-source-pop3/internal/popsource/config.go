// Package popsource is the POP3 source: it lists what is in a maildrop and
// fetches messages, over as many sessions as the user and the server allow.
// It reads only: no DELE, and sessions end by hanging up, not by QUIT, unless
// the user says so (I7).
package popsource

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-pop3/internal/popconn"
)

// Config is the source's block in the file.
type Config struct {
	Provider    string            `json:"provider" enum:"gmail,google-workspace,microsoft365,yahoo,fastmail" doc:"sets address, OAuth2 endpoints and scopes as this provider has them"`
	Address     string            `json:"address" doc:"host or host:port; the port follows from security when left out; needed without provider" example:"pop.example.com:995"`
	Security    mailnet.Security  `json:"security" enum:"tls,starttls,auto,none" default:"tls" doc:"tls from the first octet; starttls (STLS) or nothing; auto: tls on port 995, else starttls; none: refused off this machine unless allow_plain is set"`
	AllowPlain  bool              `json:"allow_plain" doc:"allow password and mail in clear over a network"`
	TLS         mailnet.TLSConfig `json:"tls" doc:"how the server's certificate is checked"`
	Username    string            `json:"username" required:"true" doc:"name to log in with"`
	Password    spec.Secret       `json:"password" doc:"its password"`
	AuthorizeAs string            `json:"authorize_as" doc:"read this user's mail, as the administrator username (SASL PLAIN)"`
	Auth        Auth              `json:"auth" doc:"other ways to log in"`
	OAuth2      mailnet.OAuth2    `json:"oauth2" doc:"get access tokens from a token endpoint, and renew them in mid-run"`
	Connections int               `json:"connections" min:"1" max:"32" default:"1" doc:"most sessions at once; many servers lock the mailbox to one: then it goes on with one, and says so"`
	Identity    string            `json:"identity" enum:"uidl,headers" default:"uidl" doc:"how a message is known again: uidl: by the server's unique id; headers: by the sha256 of its header, for servers that change their unique ids, as Exchange does when it moves a mailbox. It costs a TOP for each message"`
	Select      Select            `json:"select" doc:"only these messages"`
	Recent      bool              `json:"recent" doc:"Gmail: the mail of the last 30 days, whether it was popped before or not"`
	Advance     bool              `json:"advance" doc:"end a session in which nothing failed with QUIT: Gmail then counts what was fetched as popped, and lists the next messages; other servers may mark it as read. Without it nothing changes on the server"`
	Rate        Rate              `json:"rate" doc:"a pace to keep, over all sessions"`
	Timeouts    mailnet.Timeouts  `json:"timeouts" doc:"how long to wait for the server"`
}

// Auth says how to log in when a password isn't all.
type Auth struct {
	Mechanism string      `json:"mechanism" enum:"user,apop,plain,login,xoauth2,oauthbearer" doc:"user: USER and PASS; apop; or a SASL mechanism; the best that the server offers when left out"`
	Token     spec.Secret `json:"token" doc:"OAuth2 access token for xoauth2 and oauthbearer; asked for anew at each login, as from ${exec:…}"`
}

// Rate is a pace.
type Rate struct {
	Messages spec.Rate `json:"messages" doc:"most messages fetched" example:"50/s"`
	Bytes    spec.Rate `json:"bytes" doc:"most octets received" example:"5MB/s"`
}

// Select picks messages. Where both are set a message must be in both.
type Select struct {
	UIDLs    []string `json:"uidls" doc:"unique ids, as the server has them"`
	Sequence string   `json:"sequence" doc:"a set of message numbers, turned into ids when the session begins; * is the last" example:"1:50,100:*"`
}

// Validate says what the tags can't, and fills in what the provider sets.
func (c *Config) Validate() error {
	if p, ok := mailnet.ProviderFor(c.Provider, c.OAuth2.Application()); ok {
		if c.Address == "" {
			c.Address = p.POP3
		}
		c.Connections = min(c.Connections, p.Connections)
		if !c.OAuth2.IsZero() {
			c.OAuth2.Fill(p, p.POPScopes)
		} else if p.OAuthOnly && c.Auth.Token.IsZero() {
			return fault.New(fault.Config, "%s takes no passwords any more", c.Provider).
				WithHint("set oauth2, or auth.token").WithKey("password")
		}
	}
	if c.Address == "" {
		return fault.New(fault.Config, "neither address nor provider is set").WithKey("address")
	}
	if err := c.dialer().Check(); err != nil {
		return err
	}
	if !c.OAuth2.IsZero() {
		if err := c.OAuth2.Check(); err != nil {
			f := fault.As(err)
			return f.WithKey("oauth2." + f.Key)
		}
	} else if c.Password.IsZero() && c.Auth.Token.IsZero() {
		return fault.New(fault.Config, "neither password nor auth.token nor oauth2 is set").WithKey("password")
	}
	if strings.ContainsAny(c.Username, "\r\n\x00") {
		return fault.New(fault.Config, "username must be one line").WithKey("username")
	}
	if _, ok := parseRanges(c.Select.Sequence); !ok {
		return fault.New(fault.Config, "%q is no set of numbers", c.Select.Sequence).
			WithHint("write it as 1:50,100:*").WithKey("select.sequence")
	}
	return nil
}

func (c *Config) dialer() *mailnet.Dialer {
	return &mailnet.Dialer{
		Address: c.Address, Security: c.Security, TLS: c.TLS, AllowPlain: c.AllowPlain,
		Timeouts: c.Timeouts, TLSPort: 995, PlainPort: 110,
	}
}

func (c *Config) settings(tokens *mailnet.Tokens) *popconn.Settings {
	d := c.dialer()
	cred := &mailnet.Credentials{Username: c.Username, AuthorizeAs: c.AuthorizeAs, Mechanism: c.Auth.Mechanism, Host: d.Host(), Port: 995}
	if c.Recent {
		cred.Username = "recent:" + c.Username
	}
	if !c.Password.IsZero() {
		cred.Password = c.Password.Value
	}
	if !c.Auth.Token.IsZero() {
		cred.Token = mailnet.TokenFunc(func(ctx context.Context) (string, error) { return c.Auth.Token.Value(ctx) })
	}
	if !c.OAuth2.IsZero() {
		cred.Token = tokens.Source(c.OAuth2, c.Username)
	}
	return &popconn.Settings{Dialer: d, Credentials: cred, Pace: mailnet.NewPace(c.Rate.Messages.PerSecond, c.Rate.Bytes.PerSecond)}
}

// url returns the source's address for ids in text, as in "pop://user@host"
// (RFC 2384).
func (c *Config) url() string {
	d := c.dialer()
	port := 110
	if d.Mode() == mailnet.TLS {
		port = 995
	}
	host := d.Host()
	if hp := d.HostPort(); hp != host+":"+strconv.Itoa(port) {
		host = hp
	}
	user := c.Username
	if c.AuthorizeAs != "" {
		user = c.AuthorizeAs
	}
	return "pop://" + url.QueryEscape(user) + "@" + host
}
