// Package header is the stage header: fields of a message's header are set,
// added, removed and renamed, while every other octet stays as it is.
package header

import (
	"maps"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Config is what stands in the file. A field is named in any case. What is
// given applies in this order to the header as it came.
type Config struct {
	Remove []string          `json:"remove" doc:"names of fields that are taken out, all of each" example:"[\"X-Spam-Status\"]"`
	Rename map[string]string `json:"rename" doc:"other names for fields; their values stay octet for octet" example:"{\"X-Old-Id\": \"X-New-Id\"}"`
	Set    map[string]string `json:"set" doc:"fields that are to stand once, with this value: in the place of the first, else at the end of the header" example:"{\"X-Exported-By\": \"mailhaul\"}"`
	Add    map[string]string `json:"add" doc:"fields that are put at the end of the header, whatever stands there already"`
}

// Edit is a Config that is ready for use. It is safe for concurrent use.
type Edit struct {
	remove map[string]bool
	rename map[string]string // by name in lower case
	set    map[string]string // names as written, by name in lower case
	values map[string]string // of set, by name in lower case
	last   [][2]string       // add
}

// New returns the edit of a config. Errors are of class Config.
func New(c Config) (*Edit, error) {
	e := &Edit{remove: map[string]bool{}, rename: map[string]string{}, set: map[string]string{}, values: map[string]string{}}
	if len(c.Set)+len(c.Add)+len(c.Remove)+len(c.Rename) == 0 {
		return nil, fault.New(fault.Config, "expected set, add, remove or rename")
	}
	said := map[string]string{}
	once := func(key, name string) error {
		if !isName(name) {
			return fault.New(fault.Config, "%q is no name of a field: expected one as in X-Spam-Status", name).WithKey(key)
		}
		lower := strings.ToLower(name)
		if other := said[lower]; other != "" {
			return fault.New(fault.Config, "%s stands under %s too", name, other).WithKey(key)
		}
		said[lower] = key
		return nil
	}
	for _, name := range c.Remove {
		if err := once("remove", name); err != nil {
			return nil, err
		}
		e.remove[strings.ToLower(name)] = true
	}
	for _, from := range slices.Sorted(maps.Keys(c.Rename)) {
		if err := once("rename", from); err != nil {
			return nil, err
		}
		if !isName(c.Rename[from]) {
			return nil, fault.New(fault.Config, "%q is no name of a field: expected one as in X-Spam-Status", c.Rename[from]).WithKey("rename." + from)
		}
		e.rename[strings.ToLower(from)] = c.Rename[from]
	}
	for _, name := range slices.Sorted(maps.Keys(c.Set)) {
		err := once("set", name)
		if err == nil {
			err = isValue("set."+name, c.Set[name])
		}
		if err != nil {
			return nil, err
		}
		e.set[strings.ToLower(name)], e.values[strings.ToLower(name)] = name, c.Set[name]
	}
	for _, name := range slices.Sorted(maps.Keys(c.Add)) {
		if !isName(name) {
			return nil, fault.New(fault.Config, "%q is no name of a field: expected one as in X-Spam-Status", name).WithKey("add")
		}
		if err := isValue("add."+name, c.Add[name]); err != nil {
			return nil, err
		}
		e.last = append(e.last, [2]string{name, c.Add[name]})
	}
	return e, nil
}

// isName reports whether a field can have that name (RFC 5322 §3.6.8).
func isName(s string) bool {
	return s != "" && len(s) <= 76 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' })
}

func isValue(key, v string) error {
	if !utf8.ValidString(v) || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return fault.New(fault.Config, "a field's value is one line of text; long ones are folded by themselves").WithKey(key)
	}
	return nil
}

// lineMost is what a line should have at most (RFC 5322 §2.1.1).
const lineMost = 78

// field returns a field as it stands in a header: non-ASCII in encoded words
// (RFC 2047), folded, with line breaks br.
func field(name, value, br string) []byte {
	words := strings.Split(mime.QEncoding.Encode("utf-8", value), " ")
	b := []byte(name + ":")
	line := len(b)
	for i, w := range words {
		// A fold stands before a space that is there anyway; a line of
		// blanks only would end up as none.
		if i > 0 && w != "" && line+1+len(w) > lineMost {
			b = append(b, br...)
			line = 0
		}
		b = append(append(b, ' '), w...)
		line += 1 + len(w)
	}
	return append(b, br...)
}
