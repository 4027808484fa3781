package spec

import (
	"fmt"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Markdown renders a JSON Schema as a table of its keys, in the schema's
// order: path, type, default and doc. Nested keys stand below their parent,
// as tls.ca_file; the items of a list as sources[].name.
func Markdown(schema []byte) (string, error) {
	t, err := parseTree(schema)
	if err != nil {
		return "", fault.Wrap(fault.Bug, err, "read a JSON Schema")
	}
	if t.kind != "object" {
		return "", fault.New(fault.Bug, "read a JSON Schema: it is %s", t.found())
	}
	var b strings.Builder
	b.WriteString("| key | type | default | what it is |\n|---|---|---|---|\n")
	rows(&b, t, "", 0)
	return b.String(), nil
}

func rows(b *strings.Builder, schema *tree, base string, depth int) {
	props := schema.members["properties"]
	if props == nil || depth > maxDepth {
		return
	}
	required := map[string]bool{}
	if r := schema.members["required"]; r != nil {
		for _, name := range r.items {
			required[name.text] = true
		}
	}
	for _, name := range props.names {
		p := props.members[name]
		if p.kind != "object" {
			continue
		}
		key := join(base, name)
		preset := "–"
		if d := p.members["default"]; d != nil {
			preset = "`" + string(d.json()) + "`"
			if d.kind == "string" {
				preset = "`" + d.text + "`"
			}
			if d.kind == "string" && d.text == "" {
				preset = "empty"
			}
		}
		if required[name] {
			preset = "**required**"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", key, cell(typeWords(p)), preset, cell(rowDoc(p)))
		rows(b, p, key, depth+1)
		if items := p.members["items"]; items != nil {
			rows(b, items, key+"[]", depth+1)
		}
		if more := p.members["additionalProperties"]; more != nil && more.kind == "object" {
			rows(b, more, key+".*", depth+1)
		}
		for _, word := range []string{"oneOf", "anyOf"} {
			if alt := p.members[word]; alt != nil {
				for _, a := range alt.items {
					rows(b, a, key, depth+1)
				}
			}
		}
	}
}

func rowDoc(p *tree) string {
	var parts []string
	if d := p.members["description"]; d != nil {
		parts = append(parts, d.text)
	}
	if n := len(parts); n > 0 && p.members["examples"] != nil {
		parts[0] = strings.TrimSuffix(parts[0], ".") + "."
	}
	lo, hi := p.members["minimum"], p.members["maximum"]
	switch {
	case lo != nil && hi != nil:
		parts = append(parts, fmt.Sprintf("(%s to %s)", lo.text, hi.text))
	case hi != nil:
		parts = append(parts, fmt.Sprintf("(at most %s)", hi.text))
	}
	if x := p.members["examples"]; x != nil {
		var list []string
		for _, item := range x.items {
			if item.kind == "string" {
				list = append(list, "`"+item.text+"`")
			} else {
				list = append(list, "`"+string(item.json())+"`")
			}
		}
		parts = append(parts, "For example "+strings.Join(list, ", ")+".")
	}
	return strings.Join(parts, " ")
}

// typeWords says in words what a schema takes.
func typeWords(p *tree) string {
	if s := p.members[SecretMark]; s != nil && s.text == "true" {
		return "secret"
	}
	if k := p.members[TypeMark]; k != nil {
		return k.text
	}
	if e := p.members["enum"]; e != nil {
		var list []string
		for _, item := range e.items {
			if item.kind == "string" {
				list = append(list, "`"+item.text+"`")
			} else {
				list = append(list, "`"+string(item.json())+"`")
			}
		}
		return strings.Join(list, " or ")
	}
	for _, word := range []string{"oneOf", "anyOf"} {
		if alt := p.members[word]; alt != nil {
			var list []string
			for _, a := range alt.items {
				list = append(list, typeWords(a))
			}
			return strings.Join(list, " or ")
		}
	}
	name := p.members["type"]
	if name == nil {
		return "any"
	}
	switch name.text {
	case "array":
		if items := p.members["items"]; items != nil {
			return "list of " + typeWords(items)
		}
		return "list"
	case "object":
		if more := p.members["additionalProperties"]; more != nil && more.kind == "object" {
			return "mapping to " + typeWords(more)
		}
		return "mapping"
	case "integer":
		return "whole number"
	default:
		return name.text
	}
}

// cell makes text safe within a table.
func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", `\|`), "\n", " ")
}
