// Package mailbox is the stage mailbox: where a message lands. Its id, and the
// mailbox in it, stay.
package mailbox

import (
	"regexp"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Config is what stands in the file. What is given applies in this order.
type Config struct {
	Map     map[string]string `json:"map" doc:"other names for mailboxes, and for those below them" example:"{\"Sent Items\": \"Sent\", \"INBOX/Old\": \"Archive\"}"`
	Replace *Replace          `json:"replace" doc:"every match of a regular expression in the name becomes another text"`
	Prefix  string            `json:"prefix" doc:"put before the name as it is: end it in / for a level of its own" example:"Import/"`
}

// Replace is a regular expression and what its matches become.
type Replace struct {
	Pattern string `json:"pattern" required:"true" doc:"regular expression (RE2)" example:"^INBOX/"`
	With    string `json:"with" doc:"the new text; $1 is the first group; nothing when left out"`
}

// Rule is a Config that is ready for use. It is safe for concurrent use.
type Rule struct {
	config  Config
	pattern *regexp.Regexp
}

// New returns the rule of a config. Errors are of class Config.
func New(c Config) (*Rule, error) {
	r := &Rule{config: c}
	if len(c.Map) == 0 && c.Replace == nil && c.Prefix == "" {
		return nil, fault.New(fault.Config, "expected map, replace or prefix")
	}
	for from, to := range c.Map {
		if strings.Trim(from, "/") == "" || strings.Trim(to, "/") == "" {
			return nil, fault.New(fault.Config, "%q: %q: a mailbox has a name", from, to).WithKey("map")
		}
	}
	if c.Replace != nil {
		var err error
		if r.pattern, err = regexp.Compile(c.Replace.Pattern); err != nil {
			return nil, fault.New(fault.Config, "%w", err).WithKey("replace.pattern")
		}
	}
	return r, nil
}

// Apply returns where a message of the mailbox lands. Where nothing is left
// of the name, it stays what it was.
func (r *Rule) Apply(name string) string {
	out := r.mapped(name)
	if r.pattern != nil {
		out = r.pattern.ReplaceAllString(out, r.config.Replace.With)
	}
	out = strings.Trim(r.config.Prefix+strings.TrimLeft(out, "/"), "/")
	if out == "" {
		return name
	}
	return out
}

// mapped gives the name that the map has for the mailbox, or for the nearest
// level above it.
func (r *Rule) mapped(name string) string {
	for level := name; level != ""; {
		if to, ok := r.config.Map[level]; ok {
			return strings.TrimRight(to, "/") + name[len(level):]
		}
		i := strings.LastIndexByte(level, '/')
		if i < 0 {
			break
		}
		level = level[:i]
	}
	return name
}
