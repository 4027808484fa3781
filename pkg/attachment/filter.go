// Package attachment says which attachments of a message are meant: what a
// stage that strips them and a sink that writes them have in common.
package attachment

import (
	"path"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// Filter chooses among the attachments of a message, as message.Attachments
// finds them. All that is given must hold. The zero Filter means all but those
// that are shown within the text.
type Filter struct {
	MediaTypes []string    `json:"media_types" doc:"patterns of media types, one of which must match; * is any text" example:"[\"application/pdf\", \"image/*\"]"`
	Names      []string    `json:"names" doc:"patterns of file names, one of which must match, upper and lower case the same; * is any text, ? any character" example:"[\"*.pdf\", \"*.docx\"]"`
	MinSize    *spec.Bytes `json:"min_size" doc:"only those of so many octets or more, after decoding" example:"100KB"`
	MaxSize    *spec.Bytes `json:"max_size" doc:"only those of so many octets or fewer, after decoding" example:"25MB"`
	Inline     bool        `json:"inline" doc:"also what is shown within the text, as a logo is"`
}

// Validate says what tags can't.
func (f *Filter) Validate() error {
	for key, patterns := range map[string][]string{"media_types": f.MediaTypes, "names": f.Names} {
		for _, p := range patterns {
			if _, err := path.Match(p, ""); err != nil || p == "" {
				return fault.New(fault.Config, "%q is no pattern: expected text with * for any text and ? for any character", p).WithKey(key)
			}
		}
	}
	for _, p := range f.MediaTypes {
		if p != "*" && strings.Count(p, "/") != 1 {
			return fault.New(fault.Config, "%q is no media type: expected one as in application/pdf or image/*", p).WithKey("media_types")
		}
	}
	if f.MinSize != nil && f.MaxSize != nil && *f.MinSize > *f.MaxSize {
		return fault.New(fault.Config, "nothing is as large as %s and no larger than %s", *f.MinSize, *f.MaxSize).WithKey("min_size")
	}
	return nil
}

// Match reports whether the part, an attachment, is meant. Its Size must be
// known.
func (f *Filter) Match(p *message.Part) bool {
	switch {
	case p.Inline && !f.Inline,
		f.MinSize != nil && p.Size < int64(*f.MinSize),
		f.MaxSize != nil && p.Size > int64(*f.MaxSize):
		return false
	}
	return matches(f.MediaTypes, p.MediaType) && matches(f.Names, p.Name)
}

// matches reports whether one of the patterns matches; none: anything does.
func matches(patterns []string, s string) bool {
	s = strings.ToLower(s)
	// path.Match stops at a slash: here it is a character as any other.
	flat := strings.ReplaceAll(s, "/", "\x00")
	for _, p := range patterns {
		if ok, err := path.Match(strings.ReplaceAll(strings.ToLower(p), "/", "\x00"), flat); err == nil && ok {
			return true
		}
	}
	return len(patterns) == 0
}

// Of returns the entities below root that are attachments and meant, in the
// order in which they stand.
func (f *Filter) Of(root *message.Entity) []*message.Entity {
	wanted := map[*message.Part]bool{}
	for _, p := range message.Attachments(root.Part) {
		wanted[p] = f.Match(p)
	}
	var out []*message.Entity
	var walk func(*message.Entity)
	walk = func(e *message.Entity) {
		if wanted[e.Part] {
			out = append(out, e)
			return
		}
		for _, c := range e.Children {
			walk(c)
		}
	}
	walk(root)
	return out
}
