package mailnet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// OAuth2 is the `oauth2:` block of a source's config. Which way a token is
// got follows from what is set: a service account, a refresh token (from the
// file or the store), or the application's own secret or certificate.
type OAuth2 struct {
	ClientID       string      `json:"client_id" doc:"the application's id"`
	ClientSecret   spec.Secret `json:"client_secret" doc:"the application's secret; alone: client credentials"`
	Certificate    string      `json:"certificate" doc:"PEM file with the application's certificate and RSA key, instead of a secret"`
	RefreshToken   spec.Secret `json:"refresh_token" doc:"a user's refresh token"`
	TokenStore     spec.Secret `json:"token_store" doc:"where the refresh token is kept, one place for each account: pipeline auth login puts it there, and a provider that gives another at each renewal has it replaced. It wins over refresh_token" example:"${store:alice}"`
	ServiceAccount spec.Secret `json:"service_account" doc:"Google service account: the JSON key as downloaded, as in ${file:key.json}"`
	Subject        string      `json:"subject" doc:"user that a service account acts for; default: username"`
	Tenant         string      `json:"tenant" doc:"Microsoft 365 tenant: its id or domain; default: common"`
	TokenURL       string      `json:"token_url" doc:"token endpoint; the provider's when left out"`
	DeviceURL      string      `json:"device_url" doc:"device authorisation endpoint, for the login; the provider's when left out"`
	Scopes         []string    `json:"scopes" doc:"scopes to ask for; the provider's when left out"`
}

// IsZero reports whether the block is empty.
func (o *OAuth2) IsZero() bool {
	return o.ClientID == "" && o.ServiceAccount.IsZero() && o.RefreshToken.IsZero() && o.TokenStore.IsZero() && o.ClientSecret.IsZero() && o.Certificate == ""
}

// grant is the way a token is got.
type grant int

const (
	byServiceAccount grant = iota + 1 // RFC 7523 §2.1, signed by Google's key
	byRefresh                         // RFC 6749 §6
	byClient                          // RFC 6749 §4.4
)

func (o *OAuth2) grant() grant {
	switch {
	case !o.ServiceAccount.IsZero():
		return byServiceAccount
	case !o.RefreshToken.IsZero() || !o.TokenStore.IsZero():
		return byRefresh
	}
	return byClient
}

// Check says what is missing. Keys are relative to the block.
func (o *OAuth2) Check() error {
	need := func(key, why string) error {
		return fault.New(fault.Config, "%s is missing: %s", key, why).WithKey(key)
	}
	g := o.grant()
	switch {
	case g == byServiceAccount:
		return nil // the key file names its endpoint
	case o.ClientID == "":
		return need("client_id", "every application has one")
	case g == byClient && o.ClientSecret.IsZero() && o.Certificate == "":
		return need("client_secret", "nor is there a certificate, refresh_token, token_store or service_account")
	case o.TokenURL == "":
		return need("token_url", "and no provider is set that has one")
	case !strings.HasPrefix(o.TokenURL, "https://") && !Loopback(hostOf(o.TokenURL)):
		return fault.New(fault.Config, "token_url %s would send secrets in clear", o.TokenURL).WithHint("use https").WithKey("token_url")
	}
	return nil
}

func hostOf(address string) string {
	_, rest, _ := strings.Cut(address, "://")
	rest, _, _ = strings.Cut(rest, "/")
	host, _, found := strings.Cut(rest, ":")
	if !found {
		host = rest
	}
	return host
}

// Tokens is the access tokens of a process. Many accounts of one application
// share one token where the way allows it: a tenant's token endpoint isn't
// asked 3,000 times. It is safe for concurrent use.
type Tokens struct {
	mu  sync.Mutex
	all map[string]*cached
}

// cached is one token; its lock is held while it is renewed, so that many
// accounts wait for one answer.
type cached struct {
	mu    sync.Mutex
	token *oauth2.Token
	life  time.Duration // of the token, when it was new
	again string        // the refresh token that came last
}

// NewTokens returns an empty cache.
func NewTokens() *Tokens { return &Tokens{all: map[string]*cached{}} }

// renewAhead is how long before its end a token is renewed. A session lives
// as long as its token with some providers: one that is about to end isn't
// worth a login.
const renewAhead = 5 * time.Minute

// Source returns the tokens of one account.
func (t *Tokens) Source(o OAuth2, username string) TokenSource {
	if o.Subject == "" {
		o.Subject = username
	}
	key := fmt.Sprintf("%d %s %s %s %s", o.grant(), o.TokenURL, o.ClientID, o.Certificate, strings.Join(o.Scopes, " "))
	if o.grant() != byClient {
		key += " " + o.Subject
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.all[key]
	if c == nil {
		c = new(cached)
		t.all[key] = c
	}
	return &oauthSource{OAuth2: o, cached: c}
}

type oauthSource struct {
	OAuth2
	*cached
}

// Token returns the token in the cache, or a new one when that ends soon or
// was refused.
func (s *oauthSource) Token(ctx context.Context, renewed bool) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.token; !renewed && t != nil && time.Until(t.Expiry) > min(renewAhead, s.life/4) {
		return t.AccessToken, nil
	}
	t, err := s.ask(ctx)
	if err != nil {
		return "", tokenError(err, s.TokenURL)
	}
	s.token, s.life = t, time.Until(t.Expiry)
	return t.AccessToken, nil
}

// askTimeout bounds a request to a token endpoint.
const askTimeout = 30 * time.Second

func (s *oauthSource) ask(ctx context.Context) (*oauth2.Token, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Timeout: askTimeout})
	switch s.grant() {
	case byServiceAccount:
		return s.askAsServiceAccount(ctx)
	case byRefresh:
		return s.refresh(ctx)
	}
	return s.askAsClient(ctx)
}

func (s *oauthSource) config(ctx context.Context) (*oauth2.Config, error) {
	secret, err := s.ClientSecret.Value(ctx)
	if err != nil {
		return nil, err
	}
	return &oauth2.Config{ClientID: s.ClientID, ClientSecret: secret, Scopes: s.Scopes,
		Endpoint: oauth2.Endpoint{TokenURL: s.TokenURL, DeviceAuthURL: s.DeviceURL, AuthStyle: oauth2.AuthStyleInParams}}, nil
}

// refresh trades the refresh token in. When the answer brings another one the
// old is dead: it is stored before the access token is used.
func (s *oauthSource) refresh(ctx context.Context) (*oauth2.Token, error) {
	token, err := s.stored(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.config(ctx)
	if err != nil {
		return nil, err
	}
	t, err := c.TokenSource(ctx, &oauth2.Token{RefreshToken: token}).Token()
	if err != nil {
		return nil, err
	}
	if t.RefreshToken != "" && t.RefreshToken != token {
		s.again = t.RefreshToken
		if !s.TokenStore.IsZero() {
			if err := s.TokenStore.Store(ctx, t.RefreshToken); err != nil {
				return nil, fault.Wrap(fault.Full, err, "keep the renewed refresh token")
			}
		}
	}
	return t, nil
}

// stored returns the refresh token: from the store, else the last that came,
// else from the file.
func (s *oauthSource) stored(ctx context.Context) (string, error) {
	if !s.TokenStore.IsZero() {
		token, err := s.TokenStore.Value(ctx)
		if token = strings.TrimSpace(token); token != "" || err != nil {
			return token, err
		}
	}
	if s.again != "" {
		return s.again, nil
	}
	token, err := s.RefreshToken.Value(ctx)
	if err == nil && token == "" {
		err = fault.New(fault.Auth, "there is no refresh token yet").WithHint("log in first: pipeline auth login SOURCE")
	}
	return strings.TrimSpace(token), err
}

// serviceKey is what of Google's key file is needed.
type serviceKey struct {
	Email    string `json:"client_email"`
	Key      string `json:"private_key"`
	KeyID    string `json:"private_key_id"`
	TokenURI string `json:"token_uri"`
}

func (s *oauthSource) askAsServiceAccount(ctx context.Context) (*oauth2.Token, error) {
	raw, err := s.ServiceAccount.Value(ctx)
	if err != nil {
		return nil, err
	}
	key, err := parseServiceKey(raw)
	if err != nil {
		return nil, err
	}
	url := key.TokenURI
	if s.TokenURL != "" {
		url = s.TokenURL
	}
	c := jwt.Config{Email: key.Email, PrivateKey: []byte(key.Key), PrivateKeyID: key.KeyID, Subject: s.Subject, Scopes: s.Scopes, TokenURL: url}
	return c.TokenSource(ctx).Token()
}

// tokenError says what the endpoint answered, with the hint that its error
// word asks for. Secrets are in none of it (I9).
func tokenError(err error, url string) error {
	var r *oauth2.RetrieveError
	if !errors.As(err, &r) {
		if fault.As(err) != nil {
			return err
		}
		return Classify(err, "ask "+url+" for a token")
	}
	said := strings.TrimSpace(r.ErrorCode + " " + firstLine(r.ErrorDescription))
	if said == "" && r.Response != nil {
		said = r.Response.Status
	}
	f := fault.New(fault.Auth, "ask %s for a token: it answered %q", url, said)
	switch r.ErrorCode {
	case "invalid_grant":
		f.Hint = "the refresh token is used up, revoked or of another application: log in again (a Google application in \"Testing\" has tokens of 7 days)"
	case "invalid_client", "unauthorized_client":
		f.Hint = "check client_id and client_secret or certificate, and that the application may do this"
	case "invalid_scope":
		f.Hint = "check scopes"
	case "temporarily_unavailable", "server_error":
		f.Class = fault.Unavailable
	}
	if r.Response != nil && (r.Response.StatusCode >= 500 || r.Response.StatusCode == http.StatusTooManyRequests) {
		f.Class = fault.Unavailable
	}
	return f
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return strings.TrimSpace(line)
}

// DeviceLogin runs the device flow (RFC 8628): show is given the address to
// open and the code to type there, and the refresh token goes into the token
// store.
func DeviceLogin(ctx context.Context, o OAuth2, show func(url, code string)) error {
	if o.TokenStore.IsZero() {
		return fault.New(fault.Config, "token_store is missing: where should the token go?").
			WithHint("set it to ${store:NAME}").WithKey("oauth2.token_store")
	}
	if o.DeviceURL == "" {
		return fault.New(fault.Config, "device_url is missing, and no provider is set that has one").WithKey("oauth2.device_url")
	}
	s := &oauthSource{OAuth2: o}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Timeout: askTimeout})
	c, err := s.config(ctx)
	if err != nil {
		return err
	}
	device, err := c.DeviceAuth(ctx)
	if err != nil {
		return tokenError(err, o.DeviceURL)
	}
	url := device.VerificationURI
	show(url, device.UserCode)
	t, err := c.DeviceAccessToken(ctx, device)
	if err != nil {
		return tokenError(err, o.TokenURL)
	}
	if t.RefreshToken == "" {
		return fault.New(fault.Auth, "%s gave no refresh token", o.TokenURL).WithHint("add offline_access to scopes")
	}
	return o.TokenStore.Store(ctx, t.RefreshToken)
}
