// Package imapsource is the IMAP source: it lists mailboxes and messages and
// fetches bodies, over as many connections as the user and the server allow.
// It reads only: EXAMINE, never SELECT; BODY.PEEK, never BODY (I7).
package imapsource

import (
	"context"
	"net/url"
	"strconv"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
)

// Config is the source's block in the file.
type Config struct {
	Address     string            `json:"address" required:"true" doc:"host or host:port; the port follows from security when left out" example:"imap.example.com:993"`
	Security    mailnet.Security  `json:"security" enum:"tls,starttls,auto,none" default:"tls" doc:"tls from the first octet; starttls or nothing; auto: tls on port 993, else starttls; none: refused off this machine unless allow_plain is set"`
	AllowPlain  bool              `json:"allow_plain" doc:"allow password and mail in clear over a network"`
	TLS         mailnet.TLSConfig `json:"tls" doc:"how the server's certificate is checked"`
	Username    string            `json:"username" required:"true" doc:"name to log in with"`
	Password    spec.Secret       `json:"password" doc:"its password"`
	AuthorizeAs string            `json:"authorize_as" doc:"read this user's mail, as the administrator username (SASL PLAIN)"`
	Auth        Auth              `json:"auth" doc:"other ways to log in"`
	Connections int               `json:"connections" min:"1" max:"64" default:"4" doc:"most connections at once; fewer are used when the server grants fewer"`
	Rate        Rate              `json:"rate" doc:"a pace to keep, over all connections"`
	Timeouts    mailnet.Timeouts  `json:"timeouts" doc:"how long to wait for the server"`
}

// Auth says how to log in when a password isn't all.
type Auth struct {
	Mechanism string      `json:"mechanism" enum:"plain,login,xoauth2,oauthbearer" doc:"SASL mechanism; the best that the server offers when left out"`
	Token     spec.Secret `json:"token" doc:"OAuth2 access token for xoauth2 and oauthbearer; asked for anew at each login, as from ${exec:…}"`
}

// Rate is a pace.
type Rate struct {
	Messages spec.Rate `json:"messages" doc:"most messages fetched" example:"50/s"`
	Bytes    spec.Rate `json:"bytes" doc:"most octets received" example:"5MB/s"`
}

// Validate says what the tags can't.
func (c *Config) Validate() error {
	if err := c.dialer().Check(); err != nil {
		return err
	}
	if c.Password.IsZero() && c.Auth.Token.IsZero() {
		return fault.New(fault.Config, "neither password nor auth.token is set").WithKey("password")
	}
	return nil
}

func (c *Config) dialer() *mailnet.Dialer {
	return &mailnet.Dialer{
		Address: c.Address, Security: c.Security, TLS: c.TLS, AllowPlain: c.AllowPlain,
		Timeouts: c.Timeouts, TLSPort: 993, PlainPort: 143,
	}
}

func (c *Config) settings() *imapconn.Settings {
	d := c.dialer()
	cred := &mailnet.Credentials{Username: c.Username, AuthorizeAs: c.AuthorizeAs, Mechanism: c.Auth.Mechanism, Host: d.Host(), Port: 993}
	if !c.Password.IsZero() {
		cred.Password = c.Password.Value
	}
	if !c.Auth.Token.IsZero() {
		cred.Token = mailnet.TokenFunc(func(ctx context.Context) (string, error) { return c.Auth.Token.Value(ctx) })
	}
	return &imapconn.Settings{Dialer: d, Credentials: cred,
		Pace: mailnet.NewPace(c.Rate.Messages.PerSecond, c.Rate.Bytes.PerSecond)}
}

// url returns the source's address for ids in text (RFC 5092).
func (c *Config) url() string {
	d := c.dialer()
	scheme, port := "imap", 143
	if d.Mode() == mailnet.TLS {
		scheme, port = "imaps", 993
	}
	host := d.Host()
	if hp := d.HostPort(); hp != host+":"+strconv.Itoa(port) {
		host = hp
	}
	user := c.Username
	if c.AuthorizeAs != "" {
		user = c.AuthorizeAs
	}
	return scheme + "://" + url.QueryEscape(user) + "@" + host
}
