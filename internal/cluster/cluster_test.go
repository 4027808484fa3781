package cluster_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/mailhaul/pipeline/internal/cluster"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/test/natsserver"
)

func open(t *testing.T, url, credentials string) error {
	t.Helper()
	c, err := cluster.Open(t.Context(), cluster.Options{URL: url, Credentials: credentials, Stream: "T", Replicas: 1, Lease: time.Minute, Make: true})
	if err == nil {
		c.Close()
	}
	return err
}

// refused checks that an error is of its class, names what was tried, says how
// to go on, and shows no secret.
func refused(t *testing.T, err error, class fault.Class, names, hint string) {
	t.Helper()
	f := fault.As(err)
	if f == nil || f.Class != class {
		t.Fatalf("it ended with %v, want class %s", err, class)
	}
	if !strings.Contains(f.Error(), names) || !strings.Contains(f.Hint, hint) {
		t.Errorf("it says %q with the hint %q; want it to name %q and %q", f.Error(), f.Hint, names, hint)
	}
	if strings.Contains(f.Error()+f.Hint, "sesame") {
		t.Errorf("it shows the password: %s, %s", f, f.Hint)
	}
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "login")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUserAndPassword(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t, `authorization {user: mail, password: "open sesame"}`)
	with := func(user string) string { return strings.Replace(s.URL, "://", "://"+user+"@", 1) }
	if err := open(t, with("mail:open%20sesame"), ""); err != nil {
		t.Error(err)
	}
	refused(t, open(t, s.URL, ""), fault.Auth, s.URL, "engine.credentials")
	refused(t, open(t, with("mail:sesame"), ""), fault.Auth, s.URL, "the user or the password in the address is wrong")
	refused(t, open(t, with("mail:open sesame%"), ""), fault.Config, "is no address of NATS", "%XX")
	refused(t, open(t, with("mail:open/sesame"), ""), fault.Config, "is no address of NATS", "%XX")
	seed, _ := user(t)
	path := file(t, seed)
	refused(t, open(t, s.URL, path), fault.Auth, path, "the server doesn't let in")
}

// user makes the key of a user: its seed, and what the server knows of it.
func user(t *testing.T) (seed, public string) {
	t.Helper()
	k, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	return texts(t, k)
}

func texts(t *testing.T, k nkeys.KeyPair) (seed, public string) {
	t.Helper()
	s, err := k.Seed()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = k.PublicKey(); err != nil {
		t.Fatal(err)
	}
	return string(s), public
}

func TestNKey(t *testing.T) {
	t.Parallel()
	seed, public := user(t)
	s := natsserver.Start(t, fmt.Sprintf(`authorization {users: [{nkey: %s}]}`, public))
	if err := open(t, s.URL, file(t, seed)); err != nil {
		t.Error(err)
	}
	other, _ := user(t)
	path := file(t, other)
	refused(t, open(t, s.URL, path), fault.Auth, path, "its user is in the server's configuration")
	path = file(t, "open sesame")
	refused(t, open(t, s.URL, path), fault.Config, path+" holds no credentials", "seed of an NKey")
	path = filepath.Join(t.TempDir(), "missing")
	refused(t, open(t, s.URL, path), fault.Config, path, "")
}

// authority signs what a server with operator and accounts trusts.
type authority struct{ operator, account nkeys.KeyPair }

func token(t *testing.T, by nkeys.KeyPair, of, name string, expires time.Time, nats map[string]any) string {
	t.Helper()
	_, issuer := texts(t, by)
	nats["version"] = 2
	claims := map[string]any{"jti": name, "iat": time.Now().Unix(), "iss": issuer, "sub": of, "name": name, "nats": nats}
	if !expires.IsZero() {
		claims["exp"] = expires.Unix()
	}
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"JWT","alg":"ed25519-nkey"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum, err := by.Sign([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sum)
}

func newAuthority(t *testing.T) (a authority, configuration string) {
	t.Helper()
	var errs [3]error
	a.operator, errs[0] = nkeys.CreateOperator()
	a.account, errs[1] = nkeys.CreateAccount()
	system, err := nkeys.CreateAccount()
	if err = errors.Join(append(errs[:], err)...); err != nil {
		t.Fatal(err)
	}
	_, operator := texts(t, a.operator)
	limits := map[string]any{
		"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
	}
	account := func(k nkeys.KeyPair, name string, storage int) (public, text string) {
		_, public = texts(t, k)
		limits["mem_storage"], limits["disk_storage"], limits["streams"], limits["consumer"] = storage, storage, storage, storage
		return public, token(t, a.operator, public, name, time.Time{}, map[string]any{"type": "account", "limits": limits})
	}
	sysKey, sysToken := account(system, "SYS", 0)
	key, text := account(a.account, "MAIL", -1)
	signed := token(t, a.operator, operator, "O", time.Time{}, map[string]any{"type": "operator", "system_account": sysKey})
	return a, fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {%s: %s, %s: %s}\n", signed, sysKey, sysKey, sysToken, key, text)
}

// creds writes a user's file as nsc does.
func (a *authority) creds(t *testing.T, expires time.Time) string {
	t.Helper()
	seed, public := user(t)
	text := token(t, a.account, public, "worker", expires, map[string]any{"type": "user", "subs": -1, "data": -1, "payload": -1})
	return file(t, fmt.Sprintf("-----BEGIN NATS USER JWT-----\n%s\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n%s\n------END USER NKEY SEED------\n", text, seed))
}

func TestCredentialsFile(t *testing.T) {
	t.Parallel()
	a, configuration := newAuthority(t)
	s := natsserver.Start(t, configuration)
	if err := open(t, s.URL, a.creds(t, time.Time{})); err != nil {
		t.Error(err)
	}
	stranger, _ := newAuthority(t)
	path := stranger.creds(t, time.Time{})
	refused(t, open(t, s.URL, path), fault.Auth, path, "is the file for this server")
	path = a.creds(t, time.Now().Add(-time.Hour))
	refused(t, open(t, s.URL, path), fault.Auth, path, "hasn't expired")
	path = file(t, "-----BEGIN NATS USER JWT-----\nsesame\n------END NATS USER JWT------\n")
	refused(t, open(t, s.URL, path), fault.Config, path+" holds no credentials", "nsc generate creds")
	refused(t, open(t, s.URL, ""), fault.Auth, s.URL, "engine.credentials")
}

// A login that ends while the connection stands is told, rather than tried for
// ever.
func TestCredentialsExpire(t *testing.T) {
	t.Parallel()
	a, configuration := newAuthority(t)
	s := natsserver.Start(t, configuration)
	c, err := cluster.Open(t.Context(), cluster.Options{
		URL: s.URL, Credentials: a.creds(t, time.Now().Add(20*time.Second)), Stream: "T", Replicas: 1, Lease: time.Minute, Make: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Closed(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for c.Closed() == nil {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the connection is still there")
		}
	}
	refused(t, c.Closed(), fault.Auth, "the connection to NATS is closed", "expired")
}

func TestTooFewNodes(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t)
	_, err := cluster.Open(t.Context(), cluster.Options{URL: s.URL, Stream: "T", Replicas: 3, Lease: time.Minute, Make: true})
	refused(t, err, fault.Config, s.URL, "1 for a single server")
}
