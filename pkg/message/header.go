package message

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Header is a message's header block: the raw octets, parsed when first asked.
// One bad line never hides the others. It is safe for concurrent use.
type Header struct {
	raw     []byte
	once    sync.Once
	fields  []field
	garbage []string
}

// NewHeader returns the header that stands in raw: the octets up to and with
// the empty line, or all of raw when there is none. It keeps raw.
func NewHeader(raw []byte) *Header { return &Header{raw: raw} }

// Raw returns the octets. Don't change them.
func (h *Header) Raw() []byte { return h.raw }

func (h *Header) parsed() []field {
	h.once.Do(func() {
		raw := h.raw
		h.fields = make([]field, 0, min(bytes.Count(raw, lineFeed)+1, 32))
		if linesEndInCR(raw) {
			raw = bytes.Clone(raw)
			swapBreaks(raw)
		}
		scanFields(raw, func(f field) bool {
			h.fields = append(h.fields, f)
			if len(h.fields) == maxFields {
				h.garbage = append(h.garbage, fmt.Sprintf("header: more than %d fields: those after it aren't read", maxFields))
			}
			return len(h.fields) < maxFields
		}, func(line []byte) {
			if len(h.garbage) < maxProblems {
				h.garbage = append(h.garbage, fmt.Sprintf("header: the line %q is no field", clip(line)))
			}
		})
	})
	return h.fields
}

// Get returns the first value of the field, unfolded, neither decoded nor
// trimmed of comments; empty when there is none.
func (h *Header) Get(name string) string {
	for _, f := range h.parsed() {
		if equalFold(f.name, name) {
			return unfold(f.value)
		}
	}
	return ""
}

// Has reports whether there is such a field.
func (h *Header) Has(name string) bool {
	for _, f := range h.parsed() {
		if equalFold(f.name, name) {
			return true
		}
	}
	return false
}

// Values returns all values of the field, as Get does.
func (h *Header) Values(name string) []string {
	var out []string
	for _, f := range h.parsed() {
		if equalFold(f.name, name) {
			out = append(out, unfold(f.value))
		}
	}
	return out
}

// Fields calls f for each field in order, with the name as it stands and the
// value as Get returns it, until f returns false.
func (h *Header) Fields(f func(name, value string) bool) {
	for _, x := range h.parsed() {
		if !f(string(x.name), unfold(x.value)) {
			return
		}
	}
}

// Text returns the first value decoded: RFC 2047 words, raw 8-bit as UTF-8,
// else in the charset that the message declares, else windows-1252. Valid
// UTF-8 always.
func (h *Header) Text(name string) string {
	return strings.Trim(decodeWordsIn(h.Get(name), h.declared(name), nil), " \t\r\n")
}

// declared returns the charset that the message gives its text, which raw
// octets in its header are in too, as a rule. It looks only when there are any.
func (h *Header) declared(name string) string {
	raw := false
	for _, f := range h.parsed() {
		raw = raw || equalFold(f.name, name) && !utf8.Valid(f.value)
	}
	if !raw {
		return ""
	}
	_, params := parseParams(h.Get("Content-Type"))
	return params["charset"]
}

// Subject returns the decoded subject.
func (h *Header) Subject() string { return h.Text("Subject") }

// MessageID returns the Message-ID as it stands, with its angle brackets. An
// id that has none is returned as it is.
func (h *Header) MessageID() string {
	v := decodeRaw(h.Get("Message-ID"))
	if id, _ := nextMessageID(v); id != "" {
		return id
	}
	return v
}

// MessageIDs returns the ids of In-Reply-To or References, with brackets.
func (h *Header) MessageIDs(name string) []string {
	var out []string
	for _, f := range h.parsed() {
		if !equalFold(f.name, name) {
			continue
		}
		for id, rest := nextMessageID(decodeRaw(unfold(f.value))); id != ""; id, rest = nextMessageID(rest) {
			out = append(out, id)
		}
	}
	return out
}

// nextMessageID returns what stands in the first angle brackets that hold
// something, with them, and the text behind; empty when there are none.
func nextMessageID(v string) (id, rest string) {
	for {
		i := strings.IndexByte(v, '<')
		if i < 0 {
			return "", ""
		}
		v = v[i:]
		j := strings.IndexByte(v, '>')
		if j < 0 {
			return "", ""
		}
		if j > 1 {
			return v[:j+1], v[j+1:]
		}
		v = v[j+1:]
	}
}

// Addresses returns the decoded addresses of all fields of the name, groups
// flattened. What can't be parsed is still there, as well as it could be read.
func (h *Header) Addresses(name string) []Address {
	var out []Address
	for _, f := range h.parsed() {
		if !equalFold(f.name, name) {
			continue
		}
		v := unfold(f.value)
		if !utf8.ValidString(v) {
			if declared := h.declared(name); declared != "" {
				v, _, _ = DecodeCharset(declared, []byte(v))
			}
		}
		if usual, ok := usualAddresses(out, v); ok {
			out = usual
			continue
		}
		out = append(out, anyAddresses(v)...)
	}
	return out
}

// Date returns the Date field; false when it is missing or can't be read.
func (h *Header) Date() (time.Time, bool) { return ParseDate(h.Get("Date")) }

// Problems returns what couldn't be read, in words, in order: lines that are
// no field, a date without a meaning, charsets that nobody knows.
func (h *Header) Problems() []string {
	fields := h.parsed()
	out := append([]string(nil), h.garbage...)
	for _, f := range fields {
		if len(out) >= maxProblems {
			break
		}
		if equalFold(f.name, "Date") {
			if v := unfold(f.value); v != "" {
				if _, ok := ParseDate(v); !ok {
					out = append(out, fmt.Sprintf("header: the date %q can't be read", clip([]byte(v))))
				}
			}
			continue
		}
		if mayBeUnknown(f.value) {
			decodeWords(unfold(f.value), func(charset string) {
				if len(out) < maxProblems {
					out = append(out, fmt.Sprintf("header: %s: unknown charset %q", clip(f.name), clip([]byte(charset))))
				}
			})
		}
	}
	return out
}

// mayBeUnknown reports whether there are encoded words in v whose charset isn't
// surely known: nearly all are in UTF-8, and needn't be decoded to see that.
func mayBeUnknown(v []byte) bool {
	const usual = "utf-8?"
	for {
		i := bytes.Index(v, wordStart)
		if i < 0 {
			return false
		}
		v = v[i+2:]
		if len(v) < len(usual) || !equalFold(v[:len(usual)], usual) {
			return true
		}
	}
}

// clip shortens what is quoted in a problem, and makes it valid UTF-8.
func clip(b []byte) string {
	const most = 60
	if len(b) > most {
		return validUTF8(string(b[:most])) + "…"
	}
	return validUTF8(string(b))
}
