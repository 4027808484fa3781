package config

import (
	"bytes"
	"encoding/json"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// InstalledPlugin is a plugin whose config the schema of the file describes.
type InstalledPlugin struct {
	Kind   string // source, sink or stage
	Name   string
	Schema []byte // of its config
}

// referencePattern is what may stand in place of any value of a plugin's config.
const referencePattern = `\$\{.+\}`

// SchemaWith returns the JSON Schema (2020-12) of the whole file with the
// plugins' own configs in it: what editors complete and check by. Where a
// value may be a reference, one is allowed.
func SchemaWith(plugins []InstalledPlugin) ([]byte, error) {
	raw, err := Schema()
	if err != nil {
		return nil, err
	}
	root, err := object(raw)
	if err != nil {
		return nil, err
	}
	root["title"] = "Mailhaul pipeline file"
	for list, kind := range map[string]string{"sources": "source", "sinks": "sink", "stages": "stage"} {
		properties, _ := root["properties"].(map[string]any)
		array, _ := properties[list].(map[string]any)
		items, _ := array["items"].(map[string]any)
		of, _ := items["properties"].(map[string]any)
		if of == nil {
			return nil, fault.New(fault.Bug, "make the schema of the file: %s has no items", list)
		}
		plugin, _ := of["plugin"].(map[string]any)
		if plugin == nil {
			continue
		}
		var names []any
		var cases []any
		for _, p := range plugins {
			if p.Kind != kind {
				continue
			}
			schema, err := object(p.Schema)
			if err != nil {
				return nil, fault.New(fault.Bug, "the schema of %s plugin %s: %w", kind, p.Name, err)
			}
			delete(schema, "$schema")
			// Its own references, as in "#/$defs/x", are to itself.
			schema["$id"] = "mailhaul:" + kind + "/" + p.Name
			then := map[string]any{"properties": map[string]any{"config": allowReferences(schema)}}
			if required, _ := schema["required"].([]any); len(required) > 0 {
				then["required"] = []any{"config"}
			}
			names = append(names, p.Name)
			cases = append(cases, map[string]any{
				"if":   map[string]any{"properties": map[string]any{"plugin": map[string]any{"const": p.Name}}, "required": []any{"plugin"}},
				"then": then,
			})
		}
		if len(cases) == 0 {
			continue
		}
		items["allOf"] = cases
		// Editors offer the installed ones; another may be installed later.
		of["plugin"] = map[string]any{"description": plugin["description"], "anyOf": []any{map[string]any{"enum": names}, map[string]any{"type": "string", "pattern": plugin["pattern"]}}}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(root); err != nil {
		return nil, fault.New(fault.Bug, "write the schema of the file: %w", err)
	}
	return b.Bytes(), nil
}

func object(raw []byte) (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var out map[string]any
	if err := dec.Decode(&out); err != nil {
		return nil, fault.New(fault.Bug, "read a schema: %w", err)
	}
	return out, nil
}

// allowReferences lets a reference stand for every value that isn't free text
// anyway.
func allowReferences(schema map[string]any) map[string]any {
	for _, word := range []string{"properties", "$defs", "patternProperties"} {
		members, _ := schema[word].(map[string]any)
		for name, m := range members {
			if s, ok := m.(map[string]any); ok {
				members[name] = allowReferences(s)
			}
		}
	}
	for _, word := range []string{"items", "additionalProperties"} {
		if s, ok := schema[word].(map[string]any); ok {
			schema[word] = allowReferences(s)
		}
	}
	for _, word := range []string{"anyOf", "oneOf", "allOf"} {
		alternatives, _ := schema[word].([]any)
		for i, a := range alternatives {
			if s, ok := a.(map[string]any); ok {
				alternatives[i] = allowReferences(s)
			}
		}
	}
	if !closed(schema) {
		return schema
	}
	out := map[string]any{}
	for _, word := range []string{"description", "default", "examples", spec.SecretMark, spec.TypeMark} {
		if v, ok := schema[word]; ok {
			out[word] = v
			delete(schema, word)
		}
	}
	out["anyOf"] = []any{schema, map[string]any{"type": "string", "pattern": referencePattern}}
	return out
}

// closed reports whether a schema of one value refuses the text of a
// reference.
func closed(schema map[string]any) bool {
	switch schema["type"] {
	case "integer", "number", "boolean":
		return true
	case "object", "array":
		return false
	}
	_, enum := schema["enum"]
	_, pattern := schema["pattern"]
	return enum || pattern
}
