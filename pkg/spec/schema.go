package spec

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// The schema's own words beside those of JSON Schema 2020-12.
const (
	// SecretMark is true on a value that must not be shown.
	SecretMark = "x-secret"
	// TypeMark names what a string means: duration, size or rate.
	TypeMark = "x-type"
)

const (
	durationPattern = `^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h|d))+)$`
	sizePattern     = `^[0-9]+(\.[0-9]+)? *(([KMGTkmgt][Ii]?)?[Bb])?$`
	ratePattern     = `^[0-9]+(\.[0-9]+)? *(([KMGTkmgt][Ii]?)?[Bb])? */ *[smh]$`
)

// SchemaOf returns the JSON Schema (2020-12) of a config struct, or of a
// pointer to one: keys in the order of the fields, closed to unknown keys,
// with doc, default, examples and enum of the tags, and "x-secret": true on
// secrets. A type or tag that a config can't have is a fault.Bug.
func SchemaOf(v any) ([]byte, error) {
	t := reflect.TypeOf(v)
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return nil, fault.New(fault.Bug, "make a schema of %T: expected a struct", v)
	}
	s, err := schemaOf(t, &field{typ: t}, nil)
	if err != nil {
		return nil, fault.New(fault.Bug, "make a schema of %T: %w", v, err)
	}
	s.names = append([]string{"$schema"}, s.names...)
	s.members["$schema"] = stringTree("https://json-schema.org/draft/2020-12/schema")
	return s.json(), nil
}

func newObject() *tree             { return &tree{kind: "object", members: map[string]*tree{}} }
func stringTree(s string) *tree    { return &tree{kind: "string", text: s} }
func boolTree(b bool) *tree        { return &tree{kind: "boolean", text: fmt.Sprint(b)} }
func numberTree(text string) *tree { return &tree{kind: "number", text: text} }

func (t *tree) set(name string, v *tree) {
	if _, ok := t.members[name]; !ok {
		t.names = append(t.names, name)
	}
	t.members[name] = v
}

func schemaOf(t reflect.Type, f *field, within []reflect.Type) (*tree, error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	s := newObject()
	if d, ok := reflect.New(t).Interface().(Described); ok {
		var err error
		if s, err = parseTree(d.ConfigSchema()); err != nil {
			return nil, fmt.Errorf("the schema of %s: %w", t, err)
		}
		return s, nil
	}
	typed := func(name string) { s.set("type", stringTree(name)) }
	switch t {
	case durationType:
		typed("string")
		s.set("pattern", stringTree(durationPattern))
		s.set(TypeMark, stringTree("duration"))
		return s, nil
	case bytesType:
		s.set("type", &tree{kind: "array", items: []*tree{stringTree("string"), stringTree("integer")}})
		s.set("pattern", stringTree(sizePattern))
		s.set("minimum", numberTree("0"))
		s.set(TypeMark, stringTree("size"))
		return s, nil
	case rateType:
		typed("string")
		s.set("pattern", stringTree(ratePattern))
		s.set(TypeMark, stringTree("rate"))
		return s, nil
	case secretType:
		typed("string")
		s.set(SecretMark, boolTree(true))
		return s, nil
	case rawType:
		return s, nil
	}
	if reflect.PointerTo(t).Implements(textType) {
		typed("string")
		return s, nil
	}
	switch t.Kind() {
	case reflect.Bool:
		typed("boolean")
	case reflect.String:
		typed("string")
		if len(f.enum) > 0 {
			list := &tree{kind: "array"}
			for _, e := range f.enum {
				list.items = append(list.items, stringTree(e))
			}
			s.set("enum", list)
		}
		if f.pattern != "" {
			s.set("pattern", stringTree("^(?:"+f.pattern+")$"))
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		typed("integer")
		bounds(s, f, t.Kind() >= reflect.Uint)
	case reflect.Float32, reflect.Float64:
		typed("number")
		bounds(s, f, false)
	case reflect.Slice:
		item, err := schemaOf(t.Elem(), f, within)
		if err != nil {
			return nil, err
		}
		typed("array")
		s.set("items", item)
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			return nil, fmt.Errorf("a config can't hold a %s", t)
		}
		item, err := schemaOf(t.Elem(), f, within)
		if err != nil {
			return nil, err
		}
		typed("object")
		s.set("additionalProperties", item)
	case reflect.Struct:
		return structSchema(t, within)
	default:
		return nil, fmt.Errorf("a config can't hold a %s", t)
	}
	return s, nil
}

func bounds(s *tree, f *field, unsigned bool) {
	switch {
	case jsonNumber(f.min):
		s.set("minimum", numberTree(f.min))
	case unsigned:
		s.set("minimum", numberTree("0"))
	}
	if jsonNumber(f.max) {
		s.set("maximum", numberTree(f.max))
	}
}

func structSchema(t reflect.Type, within []reflect.Type) (*tree, error) {
	for _, w := range within {
		if w == t {
			return nil, fmt.Errorf("%s holds itself", t)
		}
	}
	within = append(within, t)
	fs, err := fields(t)
	if err != nil {
		return nil, err
	}
	s := newObject()
	s.set("type", stringTree("object"))
	props := newObject()
	required := &tree{kind: "array"}
	for i := range fs {
		f := &fs[i]
		p, err := schemaOf(f.typ, f, within)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", f.name, err)
		}
		if f.doc != "" {
			p.set("description", stringTree(f.doc))
		}
		if f.hasSet {
			preset, err := tagTree(f.typ, f.preset)
			if err != nil {
				return nil, fmt.Errorf("key %s: default: %w", f.name, err)
			}
			p.set("default", preset)
		}
		if len(f.examples) > 0 {
			list := &tree{kind: "array"}
			for _, e := range f.examples {
				x, err := tagTree(f.typ, e)
				if err != nil {
					return nil, fmt.Errorf("key %s: example: %w", f.name, err)
				}
				list.items = append(list.items, x)
			}
			p.set("examples", list)
		}
		if f.required {
			required.items = append(required.items, stringTree(f.name))
		}
		props.set(f.name, p)
	}
	s.set("properties", props)
	if len(required.items) > 0 {
		s.set("required", required)
	}
	s.set("additionalProperties", boolTree(false))
	return s, nil
}

func tagTree(t reflect.Type, text string) (*tree, error) {
	raw, err := tagJSON(t, text)
	if err != nil {
		return nil, err
	}
	return parseTree(raw)
}

// MarshalText makes a Bytes print as it is written in a file.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// MarshalJSON writes the rate as it is written in a file.
func (r Rate) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }
