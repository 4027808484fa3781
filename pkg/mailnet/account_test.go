package mailnet

import (
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

type accountConfig struct{ Account }

func decodeAccount(t *testing.T, json string) (accountConfig, error) {
	t.Helper()
	var c accountConfig
	err := spec.Decode([]byte(json), &c, nil)
	return c, err
}

func TestAccountIsFilledFromItsProvider(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, config string
		protocol     Protocol
		address, url string
		connections  int
		budget       string
	}{
		{"gmail by IMAP", `{"provider":"gmail","username":"a@b","password":"x"}`, IMAP, "imap.gmail.com:993", "imaps://a%40b@imap.gmail.com", 10, "2300MB/day"},
		{"gmail by POP3", `{"provider":"gmail","username":"a","password":"x"}`, POP3, "pop.gmail.com:995", "pop://a@pop.gmail.com", 10, "1100MB/day"},
		{"a budget of its own", `{"provider":"gmail","username":"a","password":"x","budget":{"bytes":"500MB/h"}}`, IMAP, "imap.gmail.com:993", "imaps://a@imap.gmail.com", 10, "500MB/h"},
		{"no budget", `{"provider":"gmail","username":"a","password":"x","budget":{"bytes":"none"}}`, IMAP, "imap.gmail.com:993", "imaps://a@imap.gmail.com", 10, "none"},
		{"none", `{"address":"mail.example.org","username":"admin","authorize_as":"bob","password":"x"}`, IMAP, "mail.example.org", "imaps://bob@mail.example.org", 0, ""},
		{"another port", `{"address":"mail.example.org:1430","security":"starttls","username":"a","password":"x"}`, IMAP, "mail.example.org:1430", "imap://a@mail.example.org:1430", 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := decodeAccount(t, tt.config)
			if err != nil {
				t.Fatal(err)
			}
			n, err := c.Complete(tt.protocol)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Budget.Bytes.String(); n != tt.connections || c.Address != tt.address || got != tt.budget {
				t.Errorf("%d connections to %s, budget %q; want %d, %s, %q", n, c.Address, got, tt.connections, tt.address, tt.budget)
			}
			if got := c.URL(tt.protocol); got != tt.url {
				t.Errorf("the URL is %s, want %s", got, tt.url)
			}
		})
	}
}

func TestAccountsThatAreRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, config string
		protocol     Protocol
		key          string
	}{
		{"nowhere", `{"username":"a","password":"x"}`, IMAP, "address"},
		{"no way to log in", `{"address":"h","username":"a"}`, IMAP, "password"},
		{"a provider that takes no password", `{"provider":"microsoft365","username":"a","password":"x"}`, IMAP, "password"},
		{"a provider without POP3", `{"provider":"icloud","username":"a","password":"x"}`, POP3, "provider"},
		{"in clear", `{"address":"h","security":"none","username":"a","password":"x"}`, IMAP, "security"},
		{"POP3's way to log in", `{"address":"h","username":"a","password":"x","auth":{"mechanism":"apop"}}`, IMAP, "auth.mechanism"},
		{"a name of two lines", `{"address":"h","username":"a\nb","password":"x"}`, POP3, "username"},
		{"half an application", `{"address":"h","username":"a","oauth2":{"client_id":"app"}}`, IMAP, "oauth2.client_secret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := decodeAccount(t, tt.config)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Complete(tt.protocol); !fault.Is(err, fault.Config) || fault.As(err).Key != tt.key {
				t.Errorf("%+v, want a fault of the key %s", err, tt.key)
			}
		})
	}
}

func TestAllowance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want Allowance
		ok   bool
	}{
		{"2.3GB/day", Allowance{2_300_000_000, 24 * time.Hour}, true},
		{"1GiB / week", Allowance{1 << 30, 7 * 24 * time.Hour}, true},
		{"none", Allowance{Octets: -1}, true},
		{"2GB", Allowance{}, false},
		{"0GB/day", Allowance{}, false},
		{"2GB/month", Allowance{}, false},
	} {
		var got Allowance
		if err := got.UnmarshalText([]byte(tt.text)); (err == nil) != tt.ok || got != tt.want {
			t.Errorf("%q is %+v, %v", tt.text, got, err)
		}
		var again Allowance
		if tt.ok && (again.UnmarshalText([]byte(got.String())) != nil || again != got) {
			t.Errorf("%q reads back as %+v", got.String(), again)
		}
	}
}
