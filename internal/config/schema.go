package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	violation "github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// PluginSchema is a plugin's JSON Schema, read once for all its sessions:
// compiled to check, and as a value to look up what the checker's errors don't
// tell. It is safe for concurrent use.
type PluginSchema struct {
	checker *jsonschema.Schema
	root    map[string]any
}

// ParseSchema reads the JSON Schema that a plugin describes its config with.
// One that can't be read is a fault.Bug, the plugin's.
func ParseSchema(raw []byte) (*PluginSchema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fault.New(fault.Bug, "read the plugin's config schema: %w", err)
	}
	root, ok := doc.(map[string]any)
	if !ok {
		return nil, fault.New(fault.Bug, "read the plugin's config schema: it isn't an object")
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(jsonschema.SchemeURLLoader{}) // a schema that refers elsewhere reads nothing from there
	if err := c.AddResource("mem:///config", doc); err != nil {
		return nil, fault.New(fault.Bug, "read the plugin's config schema: %w", err)
	}
	checker, err := c.Compile("mem:///config")
	if err != nil {
		return nil, fault.New(fault.Bug, "read the plugin's config schema: %w", err)
	}
	return &PluginSchema{checker, root}, nil
}

// at returns the schemas that can describe the value at a path, the root's
// alternatives included.
func (s *PluginSchema) at(path []string) []map[string]any {
	here := s.expand(s.root, 0)
	for _, step := range path {
		var next []map[string]any
		for _, h := range here {
			if props, ok := h["properties"].(map[string]any); ok {
				if p, ok := props[step].(map[string]any); ok {
					next = append(next, s.expand(p, 0)...)
					continue
				}
			}
			for _, word := range []string{"additionalProperties", "items"} {
				if p, ok := h[word].(map[string]any); ok {
					next = append(next, s.expand(p, 0)...)
				}
			}
		}
		here = next
	}
	return here
}

// expand follows references and alternatives.
func (s *PluginSchema) expand(m map[string]any, depth int) []map[string]any {
	if depth > 20 {
		return nil
	}
	out := []map[string]any{m}
	if ref, ok := m["$ref"].(string); ok {
		if target := s.resolve(ref); target != nil {
			out = append(out, s.expand(target, depth+1)...)
		}
	}
	for _, word := range []string{"allOf", "anyOf", "oneOf"} {
		alternatives, _ := m[word].([]any)
		for _, a := range alternatives {
			if am, ok := a.(map[string]any); ok {
				out = append(out, s.expand(am, depth+1)...)
			}
		}
	}
	return out
}

func (s *PluginSchema) resolve(ref string) map[string]any {
	rest, ok := strings.CutPrefix(ref, "#/")
	if !ok {
		return nil
	}
	var at any = s.root
	for _, step := range strings.Split(rest, "/") {
		m, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(step)]
	}
	m, _ := at.(map[string]any)
	return m
}

// secret reports whether the value at a path is a secret.
func (s *PluginSchema) secret(path []string) bool {
	for _, h := range s.at(path) {
		if b, _ := h[spec.SecretMark].(bool); b {
			return true
		}
	}
	return false
}

// takes reports whether a value at the path may be of that JSON type.
func (s *PluginSchema) takes(path []string, name string) bool {
	for _, h := range s.at(path) {
		switch t := h["type"].(type) {
		case string:
			if t == name {
				return true
			}
		case []any:
			for _, one := range t {
				if one == name {
					return true
				}
			}
		}
	}
	return false
}

// keys returns the names of the keys that a mapping at the path can have.
func (s *PluginSchema) keys(path []string) []string {
	var out []string
	for _, h := range s.at(path) {
		props, _ := h["properties"].(map[string]any)
		for name := range props {
			out = append(out, name)
		}
	}
	// Sorted, so that of equally near names it is always the same.
	return sorted(out)
}

// expected says in words what stands at a path.
func (s *PluginSchema) expected(path []string) string {
	var words []string
	add := func(w string) {
		for _, have := range words {
			if have == w {
				return
			}
		}
		words = append(words, w)
	}
	for _, h := range s.at(path) {
		switch h[spec.TypeMark] {
		case "duration":
			return "a duration as in 30s, 5m or 1h30m"
		case "size":
			return "a size as in 25MB, 1.5GiB or 4096"
		case "rate":
			return "a rate as in 50/s or 5MB/s"
		}
		if enum, ok := h["enum"].([]any); ok {
			var list []string
			for _, e := range enum {
				list = append(list, fmt.Sprint(e))
			}
			return "one of " + strings.Join(list, ", ")
		}
		switch t := h["type"].(type) {
		case string:
			add(typeWord(t))
		case []any:
			for _, one := range t {
				add(typeWord(fmt.Sprint(one)))
			}
		}
	}
	if len(words) == 0 {
		return "a value"
	}
	return strings.Join(words, " or ")
}

func typeWord(t string) string {
	switch t {
	case "integer":
		return "a whole number"
	case "number":
		return "a number"
	case "boolean":
		return "true or false"
	case "object":
		return "a mapping"
	case "array":
		return "a list"
	case "string":
		return "a text"
	default:
		return t
	}
}

// found is one thing that a schema finds wrong.
type found struct {
	path    []string
	text    string
	unknown string // an unknown key of the mapping at path
	missing bool
}

// check returns what is wrong with an instance. It never quotes a value that
// is a secret, nor one that open says was put in by a reference (I9).
func (s *PluginSchema) check(raw []byte, open func(path []string) bool) ([]found, error) {
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fault.New(fault.Bug, "read a config as JSON: %w", err)
	}
	err = s.checker.Validate(instance)
	if err == nil {
		return nil, nil
	}
	v, ok := err.(*jsonschema.ValidationError)
	if !ok {
		return nil, fault.New(fault.Bug, "check a config: %w", err)
	}
	return s.leaves(v, instance, open), nil
}

func (s *PluginSchema) leaves(v *jsonschema.ValidationError, instance any, open func([]string) bool) []found {
	path := v.InstanceLocation
	switch k := v.ErrorKind.(type) {
	case *violation.AnyOf, *violation.OneOf:
		// The alternative that got furthest is the one that was meant.
		var best []found
		deepest := len(path)
		for _, c := range v.Causes {
			alternative := s.leaves(c, instance, open)
			for _, f := range alternative {
				d := len(f.path)
				if f.unknown != "" || f.missing {
					d++
				}
				if d > deepest {
					best, deepest = alternative, d
				}
			}
		}
		if best != nil {
			return best
		}
		return []found{{path: path, text: s.mismatch(path, instance, open)}}
	case *violation.AdditionalProperties:
		var out []found
		for _, name := range k.Properties {
			out = append(out, found{path: path, unknown: name, text: "unknown key" + spec.DidYouMean(name, s.keys(path))})
		}
		return out
	case *violation.FalseSchema:
		return []found{{path: path, text: "unknown key"}}
	case *violation.Required:
		var out []found
		for _, name := range k.Missing {
			at := append(append([]string{}, path...), name)
			out = append(out, found{path: at, missing: true, text: "missing: expected " + s.expected(at)})
		}
		return out
	case *violation.Minimum:
		return []found{{path: path, text: s.quoted(path, k.Got.RatString(), open) + " is out of range: expected " + k.Want.RatString() + " or more"}}
	case *violation.Maximum:
		return []found{{path: path, text: s.quoted(path, k.Got.RatString(), open) + " is out of range: expected at most " + k.Want.RatString()}}
	case *violation.Enum, *violation.Type, *violation.Pattern, *violation.Const:
		return []found{{path: path, text: s.mismatch(path, instance, open)}}
	}
	if len(v.Causes) > 0 {
		var out []found
		for _, c := range v.Causes {
			out = append(out, s.leaves(c, instance, open)...)
		}
		return out
	}
	return []found{{path: path, text: "this isn't allowed here: expected " + s.expected(path)}}
}

// mismatch says what was expected at a path and, where it may be shown, what
// was found.
func (s *PluginSchema) mismatch(path []string, instance any, open func([]string) bool) string {
	value := instance
	for _, step := range path {
		switch at := value.(type) {
		case map[string]any:
			value = at[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(at) {
				return "expected " + s.expected(path)
			}
			value = at[i]
		}
	}
	what := s.expected(path)
	if open != nil && open(path) {
		return "what the reference gives isn't allowed: expected " + what
	}
	str, isText := value.(string)
	switch {
	case isText && !s.takes(path, "string"):
		return "expected " + what + ", found a text"
	case isText && s.secret(path):
		return "expected " + what
	case isText:
		var allowed []string
		for _, h := range s.at(path) {
			enum, _ := h["enum"].([]any)
			for _, e := range enum {
				allowed = append(allowed, fmt.Sprint(e))
			}
		}
		if what == "a text" {
			what = "a text of another form"
			for _, h := range s.at(path) {
				if p, ok := h["pattern"].(string); ok {
					what = "a text that matches " + p
				}
			}
		}
		return fmt.Sprintf("%q isn't allowed: expected %s%s", str, what, spec.DidYouMean(str, allowed))
	}
	hint := ""
	if _, isNumber := value.(json.Number); isNumber && s.takes(path, "string") {
		hint = "; put it in quotes"
	}
	return "expected " + what + ", found " + valueWord(value) + hint
}

func (s *PluginSchema) quoted(path []string, got string, open func([]string) bool) string {
	if open != nil && open(path) {
		return "what the reference gives"
	}
	return got
}

func valueWord(v any) string {
	switch v := v.(type) {
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	case nil:
		return "nothing"
	case string:
		return "a text"
	case bool:
		return fmt.Sprint(v)
	default:
		return "a number"
	}
}
