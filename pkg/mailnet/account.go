package mailnet

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// Account is the part of a source's config that is the same for every protocol
// of mail: where the server is, how the connection is secured, who logs in and
// how, and at what pace. A source's config embeds it, and calls Complete from
// its Validate.
type Account struct {
	Provider    string      `json:"provider" enum:"gmail,google-workspace,microsoft365,yahoo,icloud,fastmail" doc:"sets address, OAuth2 endpoints and scopes, most connections and budget as this provider has them"`
	Address     string      `json:"address" doc:"host or host:port; the port follows from security when left out; needed without provider" example:"mail.example.com"`
	Security    Security    `json:"security" enum:"tls,starttls,auto,none" default:"tls" doc:"tls from the first octet; starttls (POP3: STLS) or nothing; auto: tls on the protocol's port for it, else starttls; none: refused off this machine unless allow_plain is set"`
	AllowPlain  bool        `json:"allow_plain" doc:"allow password and mail in clear over a network"`
	TLS         TLSConfig   `json:"tls" doc:"how the server's certificate is checked"`
	Username    string      `json:"username" required:"true" doc:"name to log in with"`
	Password    spec.Secret `json:"password" doc:"its password"`
	AuthorizeAs string      `json:"authorize_as" doc:"read this user's mail, as the administrator username (SASL PLAIN)"`
	Auth        Auth        `json:"auth" doc:"other ways to log in"`
	OAuth2      OAuth2      `json:"oauth2" doc:"get access tokens from a token endpoint, and renew them in mid-run"`
	Rate        Limits      `json:"rate" doc:"a pace to keep, over all connections"`
	Budget      Budget      `json:"budget" doc:"what may be fetched in a period of time; the provider's when left out. The account is parked when it is used up, and the next run goes on"`
	Timeouts    Timeouts    `json:"timeouts" doc:"how long to wait for the server"`
}

// Auth says how to log in when a password isn't all.
type Auth struct {
	Mechanism string      `json:"mechanism" enum:"plain,login,xoauth2,oauthbearer,user,apop" doc:"SASL mechanism; user (USER and PASS) and apop are POP3's alone; the best that the server offers when left out"`
	Token     spec.Secret `json:"token" doc:"OAuth2 access token for xoauth2 and oauthbearer; asked for anew at each login, as from ${exec:…}"`
}

// Limits is a pace.
type Limits struct {
	Messages spec.Rate `json:"messages" doc:"most messages fetched" example:"50/s"`
	Bytes    spec.Rate `json:"bytes" doc:"most octets received" example:"5MB/s"`
}

// Protocol is a way to speak to a mail server.
type Protocol int

// The protocols.
const (
	IMAP Protocol = iota
	POP3
)

func (p Protocol) ports() (tls, plain int) {
	if p == POP3 {
		return 995, 110
	}
	return 993, 143
}

// preset returns what of a provider is this protocol's.
func (p Protocol) preset(of Provider) (address string, scopes []string, budget Budget) {
	if p == POP3 {
		return of.POP3, of.POPScopes, Budget{of.POPBudget}
	}
	return of.IMAP, of.Scopes, Budget{of.Budget}
}

// Complete fills in what the provider sets and checks the rest, without a
// network. It returns what the provider grants of connections; 0: not known.
// An error is a fault.Config with its key.
func (a *Account) Complete(p Protocol) (connections int, err error) {
	if of, ok := ProviderFor(a.Provider, a.OAuth2.Application()); ok {
		address, scopes, budget := p.preset(of)
		if a.Address == "" {
			if a.Address = address; address == "" {
				return 0, fault.New(fault.Config, "%s has no POP3", a.Provider).WithHint("use the imap plugin").WithKey("provider")
			}
		}
		connections = of.Connections
		if a.Budget.IsZero() {
			a.Budget = budget
		}
		if !a.OAuth2.IsZero() {
			a.OAuth2.Fill(of, scopes)
		} else if of.OAuthOnly && a.Auth.Token.IsZero() {
			return 0, fault.New(fault.Config, "%s takes no passwords any more", a.Provider).
				WithHint("set oauth2, or auth.token").WithKey("password")
		}
	}
	if a.Address == "" {
		return 0, fault.New(fault.Config, "neither address nor provider is set").WithKey("address")
	}
	if err := a.Dialer(p).Check(); err != nil {
		return 0, err
	}
	return connections, a.checkLogin(p)
}

func (a *Account) checkLogin(p Protocol) error {
	if strings.ContainsAny(a.Username, "\r\n\x00") {
		return fault.New(fault.Config, "username must be one line").WithKey("username")
	}
	if p != POP3 && (a.Auth.Mechanism == "user" || a.Auth.Mechanism == "apop") {
		return fault.New(fault.Config, "mechanism %s is POP3's alone", a.Auth.Mechanism).
			WithHint("use plain, login, xoauth2 or oauthbearer").WithKey("auth.mechanism")
	}
	if !a.OAuth2.IsZero() {
		if err := a.OAuth2.Check(); err != nil {
			f := fault.As(err)
			return f.WithKey("oauth2." + f.Key)
		}
		return nil
	}
	if a.Password.IsZero() && a.Auth.Token.IsZero() {
		return fault.New(fault.Config, "neither password nor auth.token nor oauth2 is set").WithKey("password")
	}
	return nil
}

// Dialer returns what opens connections to the account's server.
func (a *Account) Dialer(p Protocol) *Dialer {
	d := &Dialer{Address: a.Address, Security: a.Security, TLS: a.TLS, AllowPlain: a.AllowPlain, Timeouts: a.Timeouts}
	d.TLSPort, d.PlainPort = p.ports()
	return d
}

// Credentials returns what the account logs in with. Tokens are those of the
// process.
func (a *Account) Credentials(p Protocol, tokens *Tokens) *Credentials {
	port, _ := p.ports()
	c := &Credentials{Username: a.Username, AuthorizeAs: a.AuthorizeAs, Mechanism: a.Auth.Mechanism, Host: a.Dialer(p).Host(), Port: port}
	if !a.Password.IsZero() {
		c.Password = a.Password.Value
	}
	if !a.Auth.Token.IsZero() {
		c.Token = TokenFunc(func(ctx context.Context) (string, error) { return a.Auth.Token.Value(ctx) })
	}
	if !a.OAuth2.IsZero() {
		c.Token = tokens.Source(a.OAuth2, a.Username)
	}
	return c
}

// Pace returns the pace to keep; nil when there is none.
func (a *Account) Pace() *Pace {
	return NewPace(a.Rate.Messages.PerSecond, a.Rate.Bytes.PerSecond)
}

// URL returns the account's address for ids in text: imap://user@host
// (RFC 5092), pop://user@host (RFC 2384).
func (a *Account) URL(p Protocol) string {
	d := a.Dialer(p)
	scheme, port := "imap", d.PlainPort
	if p == POP3 {
		scheme = "pop"
	}
	if d.Mode() == TLS {
		port = d.TLSPort
		if p == IMAP {
			scheme = "imaps"
		}
	}
	host := d.Host()
	if hp := d.HostPort(); hp != host+":"+strconv.Itoa(port) {
		host = hp
	}
	user := a.Username
	if a.AuthorizeAs != "" {
		user = a.AuthorizeAs
	}
	return scheme + "://" + url.QueryEscape(user) + "@" + host
}
