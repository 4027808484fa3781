// Package attachments is the stage attachments: it strips what a filter means
// from a message, and leaves a text in its place that says what was there.
package attachments

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/mailhaul/pipeline/pkg/attachment"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// Config is what stands in the file: `attachments: strip`, or
// `attachments: {strip: {…}}`.
type Config struct {
	Strip *attachment.Filter `json:"strip" required:"true" doc:"which attachments are taken out; {} is all that aren't shown within the text"`
}

// written is Config without its methods.
type written Config

// UnmarshalJSON reads both forms.
func (c *Config) UnmarshalJSON(b []byte) error {
	if trimmed := bytes.TrimSpace(b); len(trimmed) > 0 && trimmed[0] != '{' {
		var word string
		if err := json.Unmarshal(b, &word); err != nil || word != "strip" {
			return fault.New(fault.Config, "expected strip, or {strip: {media_types: …, names: …, min_size: …}}")
		}
		c.Strip = &attachment.Filter{}
		return nil
	}
	return spec.Decode(b, (*written)(c), nil)
}

// ConfigSchema returns the JSON Schema of both forms.
func (*Config) ConfigSchema() []byte {
	long, err := spec.SchemaOf(written{})
	if err != nil {
		panic(err) // the tags above are wrong; the tests see it
	}
	return append(append([]byte(`{"oneOf":[{"const":"strip"},`), long...), `]}`...)
}

// Strip takes the attachments that the filter means out of a message. The
// octets around them stay. Nothing inside a signed or encrypted part is
// touched, since it would be worthless without the rest. When nothing was
// meant, changed is false and the result nil. The result reads from whole.
func Strip(_ context.Context, f *attachment.Filter, whole *message.Whole) (result io.Reader, size int64, changed bool, err error) {
	root, _, err := whole.Entities()
	if err != nil {
		return nil, 0, false, err
	}
	sealed := sealedParts(root)
	var pieces []io.Reader
	at := int64(0)
	for _, e := range f.Of(root) {
		if sealed[e] {
			continue
		}
		start, body, end := e.Offsets()
		br, err := lineBreak(whole, start, body)
		if err != nil {
			return nil, 0, false, err
		}
		text, err := epitaph(e, br)
		if err != nil {
			return nil, 0, false, err
		}
		if e == root {
			head := make([]byte, body-start)
			if _, err := io.ReadFull(io.NewSectionReader(whole, start, body-start), head); err != nil {
				return nil, 0, false, err
			}
			text = append(otherFields(head, br), text...)
			if end == whole.Size() {
				text = append(text, br...)
			}
		}
		pieces = append(pieces, io.NewSectionReader(whole, at, start-at), bytes.NewReader(text))
		size += start - at + int64(len(text))
		at = end
	}
	if pieces == nil {
		return nil, 0, false, nil
	}
	pieces = append(pieces, io.NewSectionReader(whole, at, whole.Size()-at))
	return io.MultiReader(pieces...), size + whole.Size() - at, true, nil
}

// sealedParts returns the entities that a signature or encryption covers, or
// that are one.
func sealedParts(root *message.Entity) map[*message.Entity]bool {
	out := map[*message.Entity]bool{}
	var walk func(e *message.Entity, sealed bool)
	walk = func(e *message.Entity, sealed bool) {
		switch e.Part.MediaType {
		case "multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime":
			sealed = true
		}
		if sealed {
			out[e] = true
		}
		for _, c := range e.Children {
			walk(c, sealed)
		}
	}
	walk(root, false)
	return out
}

// lineBreak returns the line break of the header that begins at start.
func lineBreak(whole *message.Whole, start, body int64) (string, error) {
	b := make([]byte, min(body-start, 4096))
	if _, err := io.ReadFull(io.NewSectionReader(whole, start, int64(len(b))), b); err != nil {
		return "", err
	}
	switch i := bytes.IndexByte(b, '\n'); {
	case i > 0 && b[i-1] != '\r', i == 0:
		return "\n", nil
	case i < 0 && bytes.IndexByte(b, '\r') >= 0:
		return "\r", nil
	}
	return "\r\n", nil
}

// epitaph is the part that stands in the place of an attachment: what it was,
// how large, and the sum by which it can be found again.
func epitaph(e *message.Entity, br string) ([]byte, error) {
	sum := sha256.New()
	size, err := io.Copy(sum, e.Open())
	if err != nil {
		return nil, err
	}
	name := e.Part.Name
	if name == "" {
		name = "(no name)"
	}
	lines := []string{
		"Content-Type: text/plain; charset=utf-8",
		"Content-Transfer-Encoding: 8bit",
		"Content-Disposition: inline",
		"",
		"An attachment was taken out of this message.",
		"Name: " + oneLine(name),
		"Type: " + oneLine(e.Part.MediaType),
		fmt.Sprintf("Size: %d octets", size),
		fmt.Sprintf("SHA-256: %x", sum.Sum(nil)),
	}
	return []byte(strings.Join(lines, br)), nil
}

// oneLine keeps a stranger's text from being more than one line: it would be
// taken for a boundary.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' || r == '\u0085' {
			return ' '
		}
		return r
	}, s)
}

// otherFields returns a message's header without the fields that describe its
// body, and without the empty line.
func otherFields(head []byte, br string) []byte {
	var out []byte
	skip := false
	for len(head) > 0 {
		n := bytes.Index(head, []byte(br))
		line := head
		if n >= 0 {
			line = head[:n+len(br)]
		}
		head = head[len(line):]
		text := bytes.TrimRight(line, "\r\n")
		if len(text) == 0 {
			break
		}
		if text[0] != ' ' && text[0] != '\t' || len(out) == 0 && !skip {
			skip = len(text) > 8 && strings.EqualFold(string(text[:8]), "content-")
		}
		if !skip {
			out = append(out, line...)
		}
	}
	if len(out) > 0 && !bytes.HasSuffix(out, []byte(br)) {
		out = append(out, br...)
	}
	return out
}
