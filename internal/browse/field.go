package browse

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// Field is one thing to show of each message.
type Field struct {
	Name  string
	Type  string // as expression.Field has it
	Needs message.Needs
	Doc   string

	// Value returns it, and false when this message has none.
	Value func(*message.Summary) (any, bool)

	// standing says that nobody asked for this one by name: where messages
	// have no UIDs it gives its place to uidl.
	standing bool
}

// Standard returns what is shown when nothing else was asked for: what names
// the message, and what a person knows it by.
func Standard() []Field {
	fields, err := ParseFields("uid,date,from,subject,size", "")
	if err != nil {
		panic(err) // the names are ours
	}
	fields[0].standing = true
	return fields
}

// suited puts uidl in the place of a uid that nobody asked for by name, where
// messages have no UIDs.
func suited(fields []Field, s *message.Summary) []Field {
	if s.ID.UID != 0 || len(fields) == 0 || !fields[0].standing {
		return fields
	}
	out := slices.Clone(fields)
	for _, f := range Fields("") {
		if f.Name == "uidl" {
			out[0] = f
		}
	}
	return out
}

// located puts the mailbox before the fields, unless it is among them.
func located(fields []Field, several bool) []Field {
	if !several || slices.ContainsFunc(fields, func(f Field) bool { return f.Name == "mailbox" }) {
		return fields
	}
	for _, f := range Fields("") {
		if f.Name == "mailbox" {
			return append([]Field{f}, fields...)
		}
	}
	return fields
}

// prefixes begin fields whose rest is the user's own word.
const (
	headerPrefix = "header:"
	extraPrefix  = "extra:"
	varsPrefix   = "vars."
)

// Fields returns all fields that have a name of their own: those of
// expressions, and a few that only a listing has. base is the source's address,
// as in imaps://user@host.
func Fields(base string) []Field {
	out := []Field{
		{Name: "url", Type: "text", Doc: "where it is, for `pipeline get`", Value: func(s *message.Summary) (any, bool) { return s.ID.URL(base), true }},
		{Name: "id", Type: "text", Doc: "what tells it from all others, for ever: as in the index", Value: func(s *message.Summary) (any, bool) { return idText(s.ID), true }},
		{Name: "sequence_number", Type: "number", Needs: message.NeedSize, Doc: "its number in the mailbox as it stood when it was listed; absent where the source keeps numbers to itself (POP3)", Value: func(s *message.Summary) (any, bool) {
			return int(s.SequenceNumber), s.SequenceNumber != 0
		}},
		{Name: "uid_validity", Type: "number", Doc: "what the mailbox's UIDs are valid with; absent on POP3", Value: func(s *message.Summary) (any, bool) {
			return int(s.ID.UIDValidity), s.ID.UIDValidity != 0
		}},
	}
	for _, f := range expression.Fields() {
		out = append(out, Field{Name: f.Name, Type: f.Type, Needs: f.Needs, Doc: f.Doc, Value: f.Value})
	}
	return out
}

// idText is the id as text, with what tells apart messages of one UIDL.
func idText(id message.ID) string {
	text := id.String()
	if id.HeaderHash != "" {
		text += ";HEADER=" + id.HeaderHash
	}
	if id.Ordinal != 0 {
		text += fmt.Sprintf(";ORDINAL=%d", id.Ordinal)
	}
	return text
}

// ParseFields reads a list of names with commas between them. header:NAME,
// extra:NAME and vars.NAME stand for the user's own. All unknown names are
// told at once, as one fault.Config. base is as for Fields.
func ParseFields(list, base string) ([]Field, error) {
	known := map[string]Field{}
	names := []string{"header:NAME", "extra:NAME", "vars.NAME"}
	for _, f := range Fields(base) {
		known[f.Name] = f
		names = append(names, f.Name)
	}
	var out []Field
	var wrong []string
	hint := "see docs/reference/ls.md for all fields"
	for word := range strings.SplitSeq(list, ",") {
		word = strings.TrimSpace(word)
		f, ok := known[word]
		if !ok {
			f, ok = own(word)
		}
		if !ok {
			if near := spec.Nearest(word, names); near != "" && len(wrong) == 0 {
				hint = fmt.Sprintf("did you mean %s?", near)
			}
			wrong = append(wrong, fmt.Sprintf("%q", word))
			continue
		}
		out = append(out, f)
	}
	if len(wrong) > 0 {
		return nil, fault.New(fault.Config, "--fields: there is no field %s", strings.Join(wrong, ", ")).WithHint("%s", hint)
	}
	return out, nil
}

// own returns the field of a word with one of the prefixes.
func own(word string) (Field, bool) {
	if name, ok := strings.CutPrefix(word, headerPrefix); ok && name != "" {
		return Field{Name: word, Type: "text", Needs: message.NeedHeaders, Value: func(s *message.Summary) (any, bool) {
			if s.Header == nil || len(s.Header.Values(name)) == 0 {
				return nil, false
			}
			return s.Header.Text(name), true
		}}, true
	}
	if name, ok := strings.CutPrefix(word, extraPrefix); ok && name != "" {
		// It comes along with whatever else is asked for.
		return Field{Name: word, Type: "text", Needs: message.NeedSize, Value: func(s *message.Summary) (any, bool) {
			v, ok := s.Extra[name]
			if !ok {
				v, ok = s.Extra[strings.ToUpper(name)]
			}
			return v, ok
		}}, true
	}
	if name, ok := strings.CutPrefix(word, varsPrefix); ok && name != "" {
		return Field{Name: word, Type: "text", Value: func(s *message.Summary) (any, bool) { v, ok := s.Vars[name]; return v, ok }}, true
	}
	return Field{}, false
}

// Extras returns the names behind extra: that are among the fields: what a
// source has to be told to ask for.
func Extras(fields []Field) (names []string) {
	for _, f := range fields {
		if name, ok := strings.CutPrefix(f.Name, extraPrefix); ok {
			names = append(names, name)
		}
	}
	return names
}

// needs is what the fields ask of a source.
func needs(fields []Field) (n message.Needs) {
	for _, f := range fields {
		n |= f.Needs
	}
	return n
}

// provided checks that a source can have the fields at all.
func provided(provides message.Needs, fields []Field) error {
	var wrong []string
	var lacking message.Needs
	for _, f := range fields {
		// Without Gmail's ids the field is just empty: every source may have
		// messages without.
		if lack := f.Needs &^ provides &^ message.NeedGmail; lack != 0 {
			wrong, lacking = append(wrong, f.Name), lacking|lack
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	f := fault.New(fault.Config, "the source can't list %s: its server tells no %s", strings.Join(wrong, ", "), lacking)
	if lacking.Has(message.NeedStructure) {
		f.Hint = "only the whole messages have that: run a pipeline with the json sink and detail: structure"
	} else {
		f.Hint = "leave it out of --fields"
	}
	return f
}
