package message

import "time"

// Header is a message's header block: the raw octets, parsed when first asked.
// One bad line never hides the others. It is safe for concurrent use.
type Header struct {
	raw []byte
}

// Address is one mailbox of an address list, decoded.
type Address struct {
	Name    string `json:"name,omitempty"`
	Address string `json:"address,omitempty"`
}

// NewHeader returns the header that stands in raw: the octets up to and with
// the empty line, or all of raw when there is none. It keeps raw.
func NewHeader(raw []byte) *Header { return &Header{raw: raw} }

// Raw returns the octets. Don't change them.
func (h *Header) Raw() []byte { return h.raw }

// Get returns the first value of the field, unfolded, neither decoded nor
// trimmed of comments; empty when there is none.
func (h *Header) Get(name string) string { panic("unwritten") }

// Values returns all values of the field, as Get does.
func (h *Header) Values(name string) []string { panic("unwritten") }

// Text returns the first value decoded: RFC 2047 words, raw 8-bit as UTF-8,
// else windows-1252. Valid UTF-8 always.
func (h *Header) Text(name string) string { panic("unwritten") }

// Subject returns the decoded subject.
func (h *Header) Subject() string { return h.Text("Subject") }

// MessageID returns the Message-ID as it stands, with its angle brackets.
func (h *Header) MessageID() string { panic("unwritten") }

// MessageIDs returns the ids of In-Reply-To or References, with brackets.
func (h *Header) MessageIDs(name string) []string { panic("unwritten") }

// Addresses returns the decoded addresses of all fields of the name, groups
// flattened. What can't be parsed is still there, as well as it could be read.
func (h *Header) Addresses(name string) []Address { panic("unwritten") }

// Date returns the Date field; false when it is missing or can't be read.
func (h *Header) Date() (time.Time, bool) { panic("unwritten") }

// Problems returns what couldn't be read, in words, in order.
func (h *Header) Problems() []string { panic("unwritten") }
