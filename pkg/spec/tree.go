package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// maxDepth bounds the nesting of a config: a stranger's file must not exhaust
// the stack.
const maxDepth = 100

// tree is a JSON value whose objects keep their order, and whose doubled keys
// are found: encoding/json silently takes the last one.
type tree struct {
	kind    string // "object", "array", "string", "number", "boolean", "null"
	text    string // of a string, number or boolean
	names   []string
	members map[string]*tree
	items   []*tree
}

func parseTree(b []byte) (*tree, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	t, err := readTree(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the end of the JSON")
	}
	return t, nil
}

func readTree(dec *json.Decoder, depth int) (*tree, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("more than %d levels of nesting", maxDepth)
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	switch tok := tok.(type) {
	case json.Delim:
		if tok == '{' {
			return readObject(dec, depth)
		}
		t := &tree{kind: "array"}
		for dec.More() {
			item, err := readTree(dec, depth+1)
			if err != nil {
				return nil, err
			}
			t.items = append(t.items, item)
		}
		_, err := dec.Token()
		return t, err
	case string:
		return &tree{kind: "string", text: tok}, nil
	case json.Number:
		return &tree{kind: "number", text: tok.String()}, nil
	case bool:
		return &tree{kind: "boolean", text: fmt.Sprint(tok)}, nil
	default:
		return &tree{kind: "null"}, nil
	}
}

func readObject(dec *json.Decoder, depth int) (*tree, error) {
	t := &tree{kind: "object", members: map[string]*tree{}}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		name := tok.(string) // a key is a string, or Token had failed
		if _, twice := t.members[name]; twice {
			return nil, fault.New(fault.Config, "the key %q stands there twice", name)
		}
		member, err := readTree(dec, depth+1)
		if err != nil {
			return nil, err
		}
		t.names = append(t.names, name)
		t.members[name] = member
	}
	_, err := dec.Token()
	return t, err
}

// json writes the tree back.
func (t *tree) json() []byte {
	var b bytes.Buffer
	t.write(&b)
	return b.Bytes()
}

func (t *tree) write(b *bytes.Buffer) {
	switch t.kind {
	case "object":
		b.WriteByte('{')
		for i, name := range t.names {
			if i > 0 {
				b.WriteByte(',')
			}
			writeString(b, name)
			b.WriteByte(':')
			t.members[name].write(b)
		}
		b.WriteByte('}')
	case "array":
		b.WriteByte('[')
		for i, item := range t.items {
			if i > 0 {
				b.WriteByte(',')
			}
			item.write(b)
		}
		b.WriteByte(']')
	case "string":
		writeString(b, t.text)
	case "null":
		b.WriteString("null")
	default:
		b.WriteString(t.text)
	}
}

func writeString(b *bytes.Buffer, s string) {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	b.Truncate(b.Len() - 1) // Encode ends in a line feed
}

// found says in words what stands there, without showing what a string says:
// it may be a secret in the wrong place.
func (t *tree) found() string {
	switch t.kind {
	case "object":
		return "a mapping"
	case "array":
		return "a list"
	case "null":
		return "nothing"
	case "number", "boolean":
		return "the " + t.kind + " " + t.text
	default:
		return "a string"
	}
}
