// Package limit is the stage limit: so many messages go on, and no more.
package limit

import (
	"bytes"
	"encoding/json"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// Config is what stands in the file: `limit: 1000`, or a mapping.
type Config struct {
	Messages int    `json:"messages" required:"true" min:"1" doc:"how many messages go on" example:"1000"`
	Per      string `json:"per" enum:"source,mailbox" default:"source" doc:"what is counted by itself"`
}

// written is Config without its methods.
type written Config

// UnmarshalJSON reads both forms.
func (c *Config) UnmarshalJSON(b []byte) error {
	if trimmed := bytes.TrimSpace(b); len(trimmed) > 0 && trimmed[0] != '{' {
		var n int
		if err := json.Unmarshal(b, &n); err != nil || n < 1 {
			return fault.New(fault.Config, "expected a whole number of 1 or more, or {messages: N, per: mailbox}")
		}
		*c = Config{Messages: n, Per: "source"}
		return nil
	}
	return spec.Decode(b, (*written)(c), nil)
}

// ConfigSchema returns the JSON Schema of both forms.
func (*Config) ConfigSchema() []byte {
	long, err := spec.SchemaOf(written{})
	if err != nil {
		panic(err) // the tags above are wrong; the tests see it
	}
	return append(append([]byte(`{"oneOf":[{"type":"integer","minimum":1},`), long...), `]}`...)
}

// Counter counts for one run. It isn't safe for concurrent use.
type Counter struct {
	config Config
	passed map[key]int
}

type key struct{ source, mailbox string }

// NewCounter returns a counter that has seen nothing.
func NewCounter(c Config) *Counter { return &Counter{config: c, passed: map[key]int{}} }

// Admit says whether the next message of the mailbox goes on. It must be
// asked in the order of the listing, for the messages that earlier runs have
// done too: so every run lets the same ones pass (I2).
func (c *Counter) Admit(source, mailbox string) bool {
	k := key{source: source}
	if c.config.Per == "mailbox" {
		k.mailbox = mailbox
	}
	if c.passed[k] >= c.config.Messages {
		return false
	}
	c.passed[k]++
	return true
}

// Full reports whether nothing of the mailbox can go on any more: its listing
// may end.
func (c *Counter) Full(source, mailbox string) bool {
	k := key{source: source}
	if c.config.Per == "mailbox" {
		k.mailbox = mailbox
	}
	return c.passed[k] >= c.config.Messages
}
