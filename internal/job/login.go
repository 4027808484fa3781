package job

import (
	"context"
	"encoding/json"

	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// account is what of a network source's config is for logging in.
type account struct{ mailnet.Account }

// Login logs a source in by the device flow (RFC 8628): show is given the
// address to open and the code to type there. The refresh token goes where the
// source's token_store says.
func (j *Job) Login(ctx context.Context, name string, show func(url, code string)) error {
	a, err := j.account(ctx, name)
	if err != nil {
		return err
	}
	if a.OAuth2.IsZero() {
		return j.placeSource(name, fault.New(fault.Config, "source %s logs in without OAuth2", name).
			WithHint("write oauth2: {client_id: …, token_store: ${store:%s}}, with a provider or its URLs", name).WithKey("oauth2"))
	}
	if a.OAuth2.Application() {
		return j.placeSource(name, fault.New(fault.Config, "source %s logs in as an application: no person has to", name).
			WithHint("leave it as it is, or set oauth2.token_store instead of a secret alone").WithKey("oauth2"))
	}
	return j.placeSource(name, mailnet.DeviceLogin(ctx, a.OAuth2, show))
}

// Logout forgets a source's refresh token.
func (j *Job) Logout(ctx context.Context, name string) error {
	a, err := j.account(ctx, name)
	if err != nil {
		return err
	}
	if a.OAuth2.TokenStore.IsZero() {
		return fault.New(fault.Config, "source %s has no token_store: there is nothing to forget", name).
			WithHint("only a source with oauth2.token_store was logged in by pipeline auth login")
	}
	return a.OAuth2.TokenStore.Store(ctx, "")
}

// Way is how a source logs in.
type Way struct {
	Name   string
	How    string // in words
	Lacks  bool   // somebody has to log in first
	Failed error  // that can't be told; the others are
}

// Ways returns how the file's sources log in. No server is asked, and no
// command of ${exec:} is run but for a token_store.
func (j *Job) Ways(ctx context.Context) []Way {
	var out []Way
	for i := range j.File.Sources {
		name := j.File.Sources[i].Name
		w := Way{Name: name}
		a, err := j.account(ctx, name)
		switch {
		case err != nil:
			w.Failed = err
		case a.OAuth2.IsZero() && !a.Auth.Token.IsZero():
			w.How = "a token, asked for at each login"
		case a.OAuth2.IsZero():
			w.How = "a password"
		case a.OAuth2.Application():
			w.How = "as an application"
		case a.OAuth2.TokenStore.IsZero():
			w.How = "a refresh token from the file"
		default:
			w.How, w.Lacks, w.Failed = j.stored(ctx, a)
		}
		out = append(out, w)
	}
	return out
}

// stored says what is in an account's token store.
func (j *Job) stored(ctx context.Context, a *account) (how string, lacks bool, err error) {
	token, err := a.OAuth2.TokenStore.Value(ctx)
	switch {
	case err != nil:
		return "", false, err
	case token != "":
		return "a refresh token, stored", false, nil
	case !a.OAuth2.RefreshToken.IsZero():
		return "a refresh token from the file, nothing stored yet", false, nil
	}
	return "a refresh token, not there yet", true, nil
}

// account returns what of a source's config is for logging in, with what its
// provider sets.
func (j *Job) account(ctx context.Context, name string) (*account, error) {
	session, err := j.resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(session.Config, &all); err != nil {
		return nil, fault.New(fault.Bug, "read the config of source %s: %w", name, err)
	}
	raw, err := spec.SchemaOf(account{})
	if err != nil {
		return nil, err
	}
	var schema struct{ Properties map[string]any }
	if err := json.Unmarshal(raw, &schema); err != nil {
		return nil, fault.New(fault.Bug, "read the schema of an account: %w", err)
	}
	for key := range all {
		if _, ok := schema.Properties[key]; !ok {
			delete(all, key) // the plugin's own
		}
	}
	if raw, err = json.Marshal(all); err != nil {
		return nil, fault.New(fault.Bug, "write the account of source %s: %w", name, err)
	}
	a := new(account)
	if err := spec.DecodeWith(raw, a, spec.Vault{Value: session.Secrets.Value, Store: session.Secrets.Store}); err != nil {
		return nil, fault.New(fault.Config, "source %s has no account of a mail server: %w", name, err).
			WithHint("only sources as imap and pop3 are logged in")
	}
	if _, err := a.Complete(protocol(session)); err != nil {
		return nil, j.placeSource(name, err)
	}
	return a, nil
}

// protocol is what a source speaks, as far as presets of providers differ by
// it: the scopes of a token.
func protocol(s pluginhost.SessionSpec) mailnet.Protocol {
	if s.Plugin == "pop3" {
		return mailnet.POP3
	}
	return mailnet.IMAP
}
