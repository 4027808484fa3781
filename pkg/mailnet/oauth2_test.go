package mailnet

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// endpoint is a token endpoint. It counts, and hands the form to answer.
func endpoint(t *testing.T, answer func(n int, form url.Values) (status int, body string)) (string, *atomic.Int64) {
	t.Helper()
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		status, body := answer(int(asked.Add(1)), r.Form)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL, &asked
}

func tokenBody(n int, seconds int) string {
	return fmt.Sprintf(`{"access_token":"access-%d","token_type":"Bearer","expires_in":%d}`, n, seconds)
}

func TestClientCredentialsAreSharedByAccounts(t *testing.T) {
	t.Parallel()
	at, asked := endpoint(t, func(n int, form url.Values) (int, string) {
		if form.Get("grant_type") != "client_credentials" || form.Get("client_secret") != "s3cr3t" || form.Get("scope") != "a b" {
			t.Errorf("the form is %v", form)
		}
		return 200, tokenBody(n, 3600)
	})
	o := OAuth2{ClientID: "app", ClientSecret: spec.Plain("s3cr3t"), TokenURL: at, Scopes: []string{"a", "b"}}
	tokens := NewTokens()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			got, err := tokens.Source(o, fmt.Sprintf("user%d", i)).Token(t.Context(), false)
			if err != nil || got != "access-1" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	if asked.Load() != 1 {
		t.Errorf("50 accounts asked %d times, want once", asked.Load())
	}
	if got, err := tokens.Source(o, "user1").Token(t.Context(), true); err != nil || got != "access-2" {
		t.Errorf("after a refusal: %q, %v", got, err)
	}
}

func TestTokensAreRenewedAhead(t *testing.T) {
	t.Parallel()
	at, _ := endpoint(t, func(n int, _ url.Values) (int, string) { return 200, tokenBody(n, 2) })
	s := NewTokens().Source(OAuth2{ClientID: "app", ClientSecret: spec.Plain("x"), TokenURL: at}, "u")
	for _, step := range []struct {
		wait time.Duration
		want string
	}{{0, "access-1"}, {0, "access-1"}, {1700 * time.Millisecond, "access-2"}} {
		time.Sleep(step.wait)
		if got, err := s.Token(t.Context(), false); err != nil || got != step.want {
			t.Errorf("%q, %v, want %q", got, err, step.want)
		}
	}
}

// TestRefreshTokenIsRotated: the new one is stored before the old is needed.
func TestRefreshTokenIsRotated(t *testing.T) {
	t.Parallel()
	at, _ := endpoint(t, func(n int, form url.Values) (int, string) {
		if want := fmt.Sprintf("refresh-%d", n); form.Get("refresh_token") != want {
			t.Errorf("the refresh token is %q, want %q", form.Get("refresh_token"), want)
		}
		return 200, fmt.Sprintf(`{"access_token":"access-%d","expires_in":3600,"refresh_token":"refresh-%d"}`, n, n+1)
	})
	store := newStore(t)
	o := OAuth2{ClientID: "app", RefreshToken: spec.Plain("refresh-1"), TokenStore: store.secret, TokenURL: at}
	for n := range 3 {
		if got, err := NewTokens().Source(o, "u").Token(t.Context(), false); err != nil || got != fmt.Sprintf("access-%d", n+1) {
			t.Errorf("%q, %v", got, err)
		}
	}
	if store.value != "refresh-4" {
		t.Errorf("the store has %q", store.value)
	}
}

// TestRotatedWithoutAStore: the run goes on with the token that came last; the
// next one would need a store.
func TestRotatedWithoutAStore(t *testing.T) {
	t.Parallel()
	at, _ := endpoint(t, func(n int, form url.Values) (int, string) {
		if want := fmt.Sprintf("refresh-%d", n); form.Get("refresh_token") != want {
			t.Errorf("the refresh token is %q, want %q", form.Get("refresh_token"), want)
		}
		return 200, fmt.Sprintf(`{"access_token":"access-%d","expires_in":3600,"refresh_token":"refresh-%d"}`, n, n+1)
	})
	s := NewTokens().Source(OAuth2{ClientID: "app", RefreshToken: spec.Plain("refresh-1"), TokenURL: at}, "u")
	for n := range 3 {
		if got, err := s.Token(t.Context(), true); err != nil || got != fmt.Sprintf("access-%d", n+1) {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// store is a place that a token is kept in, as the host has one for ${store:}.
type store struct {
	secret spec.Secret
	value  string
}

func newStore(t *testing.T) *store {
	t.Helper()
	s := new(store)
	var c struct {
		Token spec.Secret `json:"token"`
	}
	err := spec.DecodeWith([]byte(`{"token":{"$secret":"x"}}`), &c, spec.Vault{
		Value: func(context.Context, string) (string, error) { return s.value, nil },
		Store: func(_ context.Context, _, value string) error { s.value = value; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.secret = c.Token
	return s
}

func TestServiceAccount(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	at, _ := endpoint(t, func(n int, form url.Values) (int, string) {
		claims := claimsOf(t, form.Get("assertion"))
		if claims["sub"] != "alice@example.org" || claims["iss"] != "robot@example.org" || claims["scope"] != "https://www.googleapis.com/auth/gmail.imap_admin" {
			t.Errorf("the claims are %v", claims)
		}
		return 200, tokenBody(n, 3600)
	})
	raw, err := json.Marshal(map[string]string{"client_email": "robot@example.org", "token_uri": at,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))})
	if err != nil {
		t.Fatal(err)
	}
	p, ok := ProviderFor("google-workspace", true)
	o := OAuth2{ServiceAccount: spec.Plain(string(raw)), TokenURL: at}
	o.Fill(p, p.Scopes)
	if !ok || o.TokenURL != at {
		t.Errorf("the provider changed %+v", o)
	}
	if got, err := NewTokens().Source(o, "alice@example.org").Token(t.Context(), false); err != nil || got != "access-1" {
		t.Errorf("%q, %v", got, err)
	}
}

func claimsOf(t *testing.T, assertion string) map[string]any {
	t.Helper()
	pieces := strings.Split(assertion, ".")
	if len(pieces) != 3 {
		t.Fatalf("the assertion is %q", assertion)
	}
	b, err := base64.RawURLEncoding.DecodeString(pieces[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(b, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestCertificateInsteadOfSecret(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "app.pem")
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
	if err := os.WriteFile(file, both, 0o600); err != nil {
		t.Fatal(err)
	}
	var at string
	at, _ = endpoint(t, func(n int, form url.Values) (int, string) {
		claims := claimsOf(t, form.Get("client_assertion"))
		if claims["iss"] != "app" || claims["aud"] != at || form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
			t.Errorf("the claims are %v, the form %v", claims, form)
		}
		return 200, tokenBody(n, 3600)
	})
	o := OAuth2{ClientID: "app", Certificate: file, TokenURL: at}
	if got, err := NewTokens().Source(o, "u").Token(t.Context(), false); err != nil || got != "access-1" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestTokenErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		status int
		body   string
		class  fault.Class
		says   string
	}{
		{"revoked", 400, `{"error":"invalid_grant","error_description":"Token has been expired or revoked."}`, fault.Auth, "revoked"},
		{"a wrong secret", 401, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1"}`, fault.Auth, "AADSTS7000215"},
		{"down", 503, `busy`, fault.Unavailable, "503"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			at, _ := endpoint(t, func(int, url.Values) (int, string) { return tt.status, tt.body })
			o := OAuth2{ClientID: "app", RefreshToken: spec.Plain("r3fresh"), ClientSecret: spec.Plain("s3cr3t"), TokenURL: at}
			_, err := NewTokens().Source(o, "u").Token(t.Context(), false)
			if !fault.Is(err, tt.class) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want class %s and %q", err, tt.class, tt.says)
			}
			if strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), "r3fresh") {
				t.Errorf("a secret stands in %q", err)
			}
		})
	}
}

func TestDeviceLogin(t *testing.T) {
	t.Parallel()
	at, _ := endpoint(t, func(n int, form url.Values) (int, string) {
		switch n {
		case 1:
			return 200, `{"device_code":"dev","user_code":"ABCD-EFGH","verification_uri":"https://example.org/device","expires_in":60,"interval":1}`
		case 2:
			return 400, `{"error":"authorization_pending"}`
		}
		if form.Get("device_code") != "dev" {
			t.Errorf("the form is %v", form)
		}
		return 200, `{"access_token":"a","expires_in":60,"refresh_token":"refresh-1"}`
	})
	store := newStore(t)
	o := OAuth2{ClientID: "app", TokenStore: store.secret, TokenURL: at, DeviceURL: at}
	if _, err := NewTokens().Source(o, "u").Token(t.Context(), false); !fault.Is(err, fault.Auth) || !strings.Contains(fault.As(err).Hint, "auth login") {
		t.Errorf("before the login: %v", err)
	}
	var shown string
	err := DeviceLogin(t.Context(), o, func(url, code string) { shown = url + " " + code })
	if err != nil || shown != "https://example.org/device ABCD-EFGH" {
		t.Errorf("%v, shown %q", err, shown)
	}
	if store.value != "refresh-1" {
		t.Errorf("the store has %q", store.value)
	}
}

func TestProviders(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"gmail", "google-workspace", "microsoft365", "yahoo", "icloud", "fastmail"} {
		if p, ok := ProviderFor(name, false); !ok || p.IMAP == "" || p.Connections == 0 {
			t.Errorf("%s: %+v", name, p)
		}
	}
	p, _ := ProviderFor("microsoft365", true)
	o := OAuth2{ClientID: "app", ClientSecret: spec.Plain("x"), Tenant: "example.org"}
	o.Fill(p, p.Scopes)
	if o.TokenURL != "https://login.microsoftonline.com/example.org/oauth2/v2.0/token" || o.Scopes[0] != "https://outlook.office365.com/.default" {
		t.Errorf("%+v", o)
	}
	if err := o.Check(); err != nil {
		t.Error(err)
	}
}

// A server that tells the client's own words back doesn't have the access token
// told on, in clear or in the response that it was in (I9).
func TestTokenIsHidden(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"xoauth2", "oauthbearer"} {
		const token = "eyJhbGciOi-JIUzI1_NiJ9.x"
		c := &Credentials{Username: "alice", Mechanism: mechanism, Host: "mail.example.com", Port: 993,
			Token: TokenFunc(func(context.Context) (string, error) { return token, nil })}
		if got := c.Hide("no token yet"); got != "no token yet" {
			t.Errorf("%s: %q before any login", mechanism, got)
		}
		client, err := c.Client(t.Context(), nil, false)
		if err != nil {
			t.Fatal(err)
		}
		_, response, err := client.Start()
		if err != nil {
			t.Fatal(err)
		}
		said := "no: AUTHENTICATE " + base64.StdEncoding.EncodeToString(response) + ", Bearer " + token + "!"
		if got, want := c.Hide(said), "no: AUTHENTICATE (secret), Bearer (secret)!"; strings.ReplaceAll(got, "=", "") != want {
			t.Errorf("%s: %q, want %q", mechanism, got, want)
		}
	}
}
