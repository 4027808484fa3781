package imapsource

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/test/imapscript"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	if _, err := spec.SchemaOf(new(Config)); err != nil {
		t.Fatal(err)
	}
	var c Config
	err := spec.Decode([]byte(`{"address": "imap.example.com", "username": "alice", "password": {"$secret": "p"},
		"rate": {"messages": "50/s", "bytes": "5MB/s"}, "timeouts": {"read": "5m"}, "select": {"uids": "1:9"}}`), &c,
		func(context.Context, string) (string, error) { return "pw", nil })
	if err != nil {
		t.Fatal(err)
	}
	if c.Connections != 4 || c.Security != "tls" || c.Timeouts.Read != 5*time.Minute || c.Timeouts.Connect != 30*time.Second || c.Gmail != "once" || c.Compress != "auto" {
		t.Errorf("the defaults are %+v", c)
	}
	if got := c.URL(mailnet.IMAP); got != "imaps://alice@imap.example.com" {
		t.Errorf("the URL is %s", got)
	}
	if pw, err := c.settings(nil).Credentials.Secret(t.Context()); pw != "pw" || err != nil {
		t.Errorf("the password is %q, %v", pw, err)
	}
}

func TestProviderFillsIn(t *testing.T) {
	t.Parallel()
	var c Config
	err := spec.Decode([]byte(`{"provider": "microsoft365", "username": "alice@example.org", "connections": 40,
		"oauth2": {"client_id": "app", "client_secret": "s", "tenant": "example.org"}}`), &c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Address != "outlook.office365.com:993" || c.Connections != 10 || c.OAuth2.TokenURL != "https://login.microsoftonline.com/example.org/oauth2/v2.0/token" ||
		len(c.OAuth2.Scopes) != 1 || c.OAuth2.Scopes[0] != "https://outlook.office365.com/.default" {
		t.Errorf("%+v", c)
	}
	err = spec.Decode([]byte(`{"provider": "icloud", "username": "alice", "pasword": "x"}`), &c, nil)
	if f := (*fault.Error)(nil); !errors.As(err, &f) || f.Class != fault.Config {
		t.Errorf("a misspelt key: %v", err)
	}
}

// TestBudget: what the provider grants, or the file, reaches the host.
func TestBudget(t *testing.T) {
	t.Parallel()
	server := imapscript.Start(t, imapscript.Script{})
	for _, tt := range []struct {
		provider, budget string
		want             source.Budget
	}{
		{"gmail", "", source.Budget{Bytes: 2_300_000_000, Per: 24 * time.Hour}},
		{"gmail", "5GB/week", source.Budget{Bytes: 5_000_000_000, Per: 7 * 24 * time.Hour}},
		{"gmail", "none", source.Budget{}},
		{"", "", source.Budget{}},
	} {
		c := plainConfig(server.Addr)
		c.Provider = tt.provider
		if tt.budget != "" {
			if err := c.Budget.Bytes.UnmarshalText([]byte(tt.budget)); err != nil {
				t.Fatal(err)
			}
		}
		o, err := openWith(t, c, source.Env{})
		if err != nil {
			t.Fatal(err)
		}
		if o.Source.Close(); o.Budget != tt.want {
			t.Errorf("%s %q: %+v, want %+v", tt.provider, tt.budget, o.Budget, tt.want)
		}
	}
}
