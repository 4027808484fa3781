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
		h.fields = make([]field, 0, 32)
		raw := h.raw
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
	if ids := messageIDs(v); len(ids) > 0 {
		return ids[0]
	}
	return v
}

// MessageIDs returns the ids of In-Reply-To or References, with brackets.
func (h *Header) MessageIDs(name string) []string {
	var out []string
	for _, v := range h.Values(name) {
		out = append(out, messageIDs(decodeRaw(v))...)
	}
	return out
}

// messageIDs returns what stands in angle brackets, with them.
func messageIDs(v string) []string {
	var out []string
	for {
		i := strings.IndexByte(v, '<')
		if i < 0 {
			return out
		}
		v = v[i:]
		j := strings.IndexByte(v, '>')
		if j < 0 {
			return out
		}
		id := v[:j+1]
		if len(id) > 2 {
			out = append(out, id)
		}
		v = v[j+1:]
	}
}

// Addresses returns the decoded addresses of all fields of the name, groups
// flattened. What can't be parsed is still there, as well as it could be read.
func (h *Header) Addresses(name string) []Address {
	var out []Address
	declared := h.declared(name)
	for _, v := range h.Values(name) {
		if declared != "" && !utf8.ValidString(v) {
			v, _, _ = DecodeCharset(declared, []byte(v))
		}
		out = append(out, ParseAddresses(v)...)
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
		if bytes.Contains(f.value, []byte("=?")) {
			decodeWords(unfold(f.value), func(charset string) {
				if len(out) < maxProblems {
					out = append(out, fmt.Sprintf("header: %s: unknown charset %q", clip(f.name), clip([]byte(charset))))
				}
			})
		}
	}
	return out
}

// clip shortens what is quoted in a problem, and makes it valid UTF-8.
func clip(b []byte) string {
	const most = 60
	if len(b) > most {
		return validUTF8(string(b[:most])) + "…"
	}
	return validUTF8(string(b))
}
