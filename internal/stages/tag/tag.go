// Package tag is the stage tag: words of the user's own that a message carries
// from there on.
package tag

import (
	"maps"
	"regexp"
	"slices"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Config is what stands in the file: `tag: {team: sales}`.
type Config map[string]string

var form = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Validate says what tags can't.
func (c Config) Validate() error {
	if len(c) == 0 {
		return fault.New(fault.Config, "expected at least one NAME: value")
	}
	for name := range c {
		if !form.MatchString(name) {
			return fault.New(fault.Config, "%q can't be read as vars.%s: expected letters, digits and _", name, name)
		}
	}
	return nil
}

// Names returns the names that are set, sorted.
func (c Config) Names() []string { return slices.Sorted(maps.Keys(c)) }

// Apply returns the variables with those of the stage in them. It changes
// neither.
func (c Config) Apply(vars map[string]string) map[string]string {
	out := make(map[string]string, len(vars)+len(c))
	maps.Copy(out, vars)
	maps.Copy(out, c)
	return out
}
