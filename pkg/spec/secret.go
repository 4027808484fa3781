package spec

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// hidden is what every printing of a secret shows.
const hidden = "(secret)"

// Secret is a config value that must not be shown: a password, a token. It
// holds a reference; the value is asked of the host each time, so that it can
// be renewed while a run goes on. Every way of printing it prints "(secret)"
// (I9). The zero Secret is empty. A Secret may be copied, and used by many
// goroutines at once.
type Secret struct {
	ref   string
	plain string
	set   bool
	vault Vault
}

// Vault is where the values of secrets come from and, where they can be
// renewed, go to. Both are called by many goroutines at once.
type Vault struct {
	// Value returns the value that ref stands for, as it is now.
	Value func(ctx context.Context, ref string) (string, error)
	// Store keeps a new value in the place of ref; nil: there is no place.
	Store func(ctx context.Context, ref, value string) error
}

// Plain returns a secret whose value is known: for tests and for plugins that
// are used in-process.
func Plain(value string) Secret { return Secret{plain: value, set: true} }

// Value returns the value as it is now. Ask anew for each use and don't keep
// it: a password from ${exec:} may have been renewed. The value of the zero
// Secret is empty.
func (s Secret) Value(ctx context.Context) (string, error) {
	if s.vault.Value == nil {
		return s.plain, nil
	}
	return s.vault.Value(ctx, s.ref)
}

// Store keeps a renewed value, as a rotated refresh token, in the secret's
// place: from then on Value returns it, in later runs too. It is durable when
// Store returns. Only a secret that stands in the file as ${store:NAME} has a
// place; for any other the error is a fault.Config with a hint.
func (s Secret) Store(ctx context.Context, value string) error {
	if s.vault.Store == nil {
		return fault.New(fault.Config, "the secret can't be stored: it has no place that can be written to").
			WithHint("write it as ${store:NAME} in the file")
	}
	return s.vault.Store(ctx, s.ref, value)
}

// IsZero reports whether the secret was left out of the file.
func (s Secret) IsZero() bool { return !s.set }

// String returns "(secret)", and nothing for the zero Secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return hidden
}

// Format prints what String returns, whatever the verb: %#v too.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// LogValue logs what String returns.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON writes what String returns: a config that is printed back shows
// no secret.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// secretRef is how a secret stands in the JSON that the host sends.
const secretRef = "$secret"

// SecretJSON returns the JSON in which a host sends a secret to a plugin: a
// reference that the plugin hands back to get the value.
func SecretJSON(ref string) json.RawMessage {
	b, err := json.Marshal(map[string]string{secretRef: ref})
	if err != nil {
		panic(err) // a map of strings always marshals
	}
	return b
}
