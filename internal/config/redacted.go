package config

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
)

// secretText stands where a secret is in the file itself.
const secretText = "(secret)"

// harmless are references that name where a secret is, and hold none.
var harmless = regexp.MustCompile(`^\$\{(env|file|store|row):[^{}]*\}$`)

// Redacted returns the file as JSON, as it is written, for the record of a run:
// references aren't evaluated, and what stands where a plugin's config has a
// secret is left out (I9). schema gives a plugin's own schema; kind is "source"
// or "sink". Where it gives nil, every value of that plugin's config is left
// out.
func (f *File) Redacted(schema func(kind, plugin string) *PluginSchema) []byte {
	schemas := map[string]*PluginSchema{}
	of := func(list, index string) *PluginSchema {
		kind := strings.TrimSuffix(list, "s")
		n := f.root.get(list)
		for i, item := range n.items {
			if index != strconv.Itoa(i) {
				continue
			}
			plugin := ""
			if p := item.get("plugin"); p != nil {
				plugin = p.value
			}
			key := kind + " " + plugin
			s, ok := schemas[key]
			if !ok {
				s = schema(kind, plugin)
				schemas[key] = s
			}
			return s
		}
		return nil
	}
	var b bytes.Buffer
	f.root.json(&b, nil, func(b *bytes.Buffer, n *node, path []string) bool {
		if len(path) < 4 || path[0] != "sources" && path[0] != "sinks" || path[2] != "config" || n.kind == mapping || n.kind == list {
			return false
		}
		s := of(path[0], path[1])
		if s != nil && !s.secret(path[3:]) || n.kind == text && harmless.MatchString(n.value) && !strings.Contains(n.value, ":-") {
			return false
		}
		quote(b, secretText)
		return true
	})
	return b.Bytes()
}
