package spec

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Described is an optional power of a config type: it brings its own JSON
// Schema, and reads itself with UnmarshalJSON. For values with a short form,
// as in `limit: 10` beside `limit: {messages: 10, per: mailbox}`.
type Described interface {
	// ConfigSchema returns a JSON Schema that stands where the type is used.
	ConfigSchema() []byte
	json.Unmarshaler
}

// field is one key of a config struct.
type field struct {
	name     string
	index    []int
	typ      reflect.Type
	doc      string
	preset   string // the default
	hasSet   bool
	required bool
	enum     []string
	examples []string
	min, max string
	pattern  string
}

var (
	durationType  = reflect.TypeFor[time.Duration]()
	bytesType     = reflect.TypeFor[Bytes]()
	rateType      = reflect.TypeFor[Rate]()
	secretType    = reflect.TypeFor[Secret]()
	rawType       = reflect.TypeFor[json.RawMessage]()
	describedType = reflect.TypeFor[Described]()
	textType      = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// fields returns the keys of struct type t in order, those of embedded structs
// in the place of the struct.
func fields(t reflect.Type) ([]field, error) {
	var out []field
	for i := range t.NumField() {
		sf := t.Field(i)
		tag := sf.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		if sf.Anonymous && name == "" && sf.Type.Kind() == reflect.Struct {
			inner, err := fields(sf.Type)
			if err != nil {
				return nil, err
			}
			for _, f := range inner {
				f.index = append([]int{i}, f.index...)
				out = append(out, f)
			}
			continue
		}
		if !sf.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			return nil, fmt.Errorf("field %s of %s has no json tag: the tag names the key, as in `json:\"ca_file\"`", sf.Name, t)
		}
		f := field{name: name, index: []int{i}, typ: sf.Type, doc: sf.Tag.Get("doc"),
			required: sf.Tag.Get("required") == "true", min: sf.Tag.Get("min"), max: sf.Tag.Get("max"), pattern: sf.Tag.Get("pattern")}
		f.preset, f.hasSet = sf.Tag.Lookup("default")
		f.enum = splitList(sf.Tag.Get("enum"), ",")
		f.examples = splitList(sf.Tag.Get("example"), "|")
		for _, other := range out {
			if other.name == name {
				return nil, fmt.Errorf("two fields of %s have the key %q", t, name)
			}
		}
		out = append(out, f)
	}
	return out, nil
}

func splitList(s, sep string) []string {
	if s == "" {
		return nil
	}
	out := strings.Split(s, sep)
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return out
}

// isText reports whether t is written as a string in the file.
func isText(t reflect.Type) bool {
	switch t {
	case durationType, rateType, bytesType, secretType:
		return true
	}
	return t.Kind() == reflect.String || reflect.PointerTo(t).Implements(textType)
}

// tagJSON turns the text of a tag into JSON for type t: as it is for what is
// written as a string, else JSON already.
func tagJSON(t reflect.Type, text string) ([]byte, error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if isText(t) && !reflect.PointerTo(t).Implements(describedType) {
		return json.Marshal(text)
	}
	if t.Kind() == reflect.Slice && isText(t.Elem()) && !strings.HasPrefix(text, "[") {
		return json.Marshal(splitList(text, ","))
	}
	if !json.Valid([]byte(text)) {
		return nil, fmt.Errorf("the tag value %q is no JSON for %s", text, t)
	}
	return []byte(text), nil
}
