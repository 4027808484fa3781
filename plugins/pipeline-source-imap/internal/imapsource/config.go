// Package imapsource is the IMAP source: it lists mailboxes and messages and
// fetches bodies, over as many connections as the user and the server allow.
// It reads only: EXAMINE, never SELECT; BODY.PEEK, never BODY (I7).
package imapsource

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// Config is the source's block in the file.
type Config struct {
	Provider    string            `json:"provider" enum:"gmail,google-workspace,microsoft365,yahoo,icloud,fastmail" doc:"sets address, OAuth2 endpoints, scopes and most connections as this provider has them"`
	Address     string            `json:"address" doc:"host or host:port; the port follows from security when left out; needed without provider" example:"imap.example.com:993"`
	Security    mailnet.Security  `json:"security" enum:"tls,starttls,auto,none" default:"tls" doc:"tls from the first octet; starttls or nothing; auto: tls on port 993, else starttls; none: refused off this machine unless allow_plain is set"`
	AllowPlain  bool              `json:"allow_plain" doc:"allow password and mail in clear over a network"`
	TLS         mailnet.TLSConfig `json:"tls" doc:"how the server's certificate is checked"`
	Username    string            `json:"username" required:"true" doc:"name to log in with"`
	Password    spec.Secret       `json:"password" doc:"its password"`
	AuthorizeAs string            `json:"authorize_as" doc:"read this user's mail, as the administrator username (SASL PLAIN)"`
	Auth        Auth              `json:"auth" doc:"other ways to log in"`
	OAuth2      mailnet.OAuth2    `json:"oauth2" doc:"get access tokens from a token endpoint, and renew them in mid-run"`
	Connections int               `json:"connections" min:"1" max:"64" default:"4" doc:"most connections at once; fewer are used when the server grants fewer"`
	Select      Select            `json:"select" doc:"only these messages of each mailbox"`
	Search      string            `json:"search" doc:"only messages that the server's SEARCH finds (RFC 9051 §6.4.4)" example:"SINCE 1-Jan-2024 NOT DELETED"`
	ExtraFields []string          `json:"extra_fields" doc:"other FETCH items to list by their names, as the server knows them" example:"[\"THREADID\"]"`
	Gmail       string            `json:"gmail" enum:"once,folders" default:"once" doc:"once: each message once, from All Mail, Spam and Trash, with its labels; folders: each mailbox as it stands. Servers other than Gmail have no use for it"`
	Compress    string            `json:"compress" enum:"auto,always,never" default:"auto" doc:"COMPRESS=DEFLATE: auto is on a slow link only; on a fast one it makes servers many times slower"`
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

// Select picks messages by number. Both may be set: a message must be in both.
type Select struct {
	UIDs     string `json:"uids" doc:"a set of UIDs" example:"1:100,205,4000:*"`
	Sequence string `json:"sequence" doc:"a set of sequence numbers, turned into UIDs when the mailbox is opened" example:"1:50"`
}

// Validate says what the tags can't, and fills in what the provider sets.
func (c *Config) Validate() error {
	if p, ok := mailnet.ProviderFor(c.Provider, c.OAuth2.Application()); ok {
		if c.Address == "" {
			c.Address = p.IMAP
		}
		c.Connections = min(c.Connections, p.Connections)
		if !c.OAuth2.IsZero() {
			c.OAuth2.Fill(p, p.Scopes)
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
	for key, set := range map[string]string{"select.uids": c.Select.UIDs, "select.sequence": c.Select.Sequence} {
		if _, ok := imapdata.ParseSet(set); set != "" && !ok {
			return fault.New(fault.Config, "%q is no set of numbers", set).WithHint("write it as 1:100,205,4000:*").WithKey(key)
		}
	}
	if strings.ContainsAny(c.Search, "\r\n\x00") {
		return fault.New(fault.Config, "search must be one line").WithKey("search")
	}
	for _, f := range c.ExtraFields {
		if strings.IndexFunc(f, notInItem) >= 0 || f == "" || strings.HasPrefix(strings.ToUpper(f), "BODY[") {
			return fault.New(fault.Config, "%q is no FETCH item that changes nothing on the server", f).WithKey("extra_fields")
		}
	}
	return nil
}

// notInItem reports whether a character has no place in the name of a FETCH
// item. BODY.PEEK[HEADER.FIELDS (X)] has nearly all that may stand there.
func notInItem(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._[]() <>", r))
}

func (c *Config) dialer() *mailnet.Dialer {
	return &mailnet.Dialer{
		Address: c.Address, Security: c.Security, TLS: c.TLS, AllowPlain: c.AllowPlain,
		Timeouts: c.Timeouts, TLSPort: 993, PlainPort: 143,
	}
}

func (c *Config) settings(tokens *mailnet.Tokens) *imapconn.Settings {
	d := c.dialer()
	cred := &mailnet.Credentials{Username: c.Username, AuthorizeAs: c.AuthorizeAs, Mechanism: c.Auth.Mechanism, Host: d.Host(), Port: 993}
	if !c.Password.IsZero() {
		cred.Password = c.Password.Value
	}
	if !c.Auth.Token.IsZero() {
		cred.Token = mailnet.TokenFunc(func(ctx context.Context) (string, error) { return c.Auth.Token.Value(ctx) })
	}
	if !c.OAuth2.IsZero() {
		cred.Token = tokens.Source(c.OAuth2, c.Username)
	}
	return &imapconn.Settings{Dialer: d, Credentials: cred, Compress: c.Compress,
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
