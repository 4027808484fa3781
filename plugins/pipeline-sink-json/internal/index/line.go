package index

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/pkg/message"
)

// schemaVersion is the version of docs/reference/index.schema.json. Fields may
// be added without a new one.
const schemaVersion = 1

// line is one message of the index. Nothing in it depends on when or how often
// the pipeline ran (I2); a field is absent when its value is unknown.
type line struct {
	SchemaVersion   int               `json:"schema_version"` // first, with id: lineKey relies on it
	ID              string            `json:"id"`
	ObjectID        string            `json:"object_id,omitempty"`
	Source          string            `json:"source"`
	Vars            map[string]string `json:"vars,omitempty"`
	Mailbox         string            `json:"mailbox,omitempty"`
	LandsIn         string            `json:"lands_in,omitempty"`
	UID             uint32            `json:"uid,omitempty"`
	UIDValidity     uint32            `json:"uid_validity,omitempty"`
	SequenceNumber  uint32            `json:"sequence_number,omitempty"`
	UIDL            string            `json:"uidl,omitempty"`
	MessageID       string            `json:"message_id,omitempty"`
	Subject         *string           `json:"subject,omitempty"`
	From            []address         `json:"from,omitempty"`
	To              []address         `json:"to,omitempty"`
	Cc              []address         `json:"cc,omitempty"`
	Bcc             []address         `json:"bcc,omitempty"`
	ReplyTo         []address         `json:"reply_to,omitempty"`
	Date            string            `json:"date,omitempty"`
	InternalDate    string            `json:"internal_date,omitempty"`
	Size            *int64            `json:"size,omitempty"`
	Octets          *int64            `json:"octets,omitempty"`
	Flags           []string          `json:"flags,omitzero"`
	Keywords        []string          `json:"keywords,omitzero"`
	Labels          []string          `json:"labels,omitempty"`
	InReplyTo       []string          `json:"in_reply_to,omitempty"`
	References      []string          `json:"references,omitempty"`
	ListUnsubscribe string            `json:"list_unsubscribe,omitempty"`
	Attachments     []attachment      `json:"attachments,omitzero"`
	SHA256          string            `json:"sha256,omitempty"`
	ChangedBy       []string          `json:"changed_by,omitempty"`
	Files           map[string]string `json:"files,omitempty"`
	Gmail           *gmail            `json:"gmail,omitempty"`
	ParseErrors     []string          `json:"parse_errors,omitempty"`
}

type address struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

type attachment struct {
	Part        string `json:"part"`
	Name        string `json:"name,omitempty"`
	MediaType   string `json:"media_type"`
	Size        *int64 `json:"size,omitempty"`
	EncodedSize *int64 `json:"encoded_size,omitempty"`
	Disposition string `json:"disposition,omitempty"`
	ContentID   string `json:"content_id,omitempty"`
	Inline      bool   `json:"inline"`
	SHA256      string `json:"sha256,omitempty"`
}

// gmail has 64-bit ids as strings: JavaScript would round the numbers.
type gmail struct {
	MessageID string   `json:"message_id"`
	ThreadID  string   `json:"thread_id"`
	Labels    []string `json:"labels"`
}

// encoder makes lines in one buffer. One goroutine uses it at a time.
type encoder struct {
	buf       []byte
	structure bool // with attachments
}

func newEncoder(structure bool) *encoder { return &encoder{structure: structure} }

// encode returns the message's line with its line end, valid until the next
// call.
func (e *encoder) encode(m *message.Message) []byte {
	l := e.line(m)
	e.buf = l.append(e.buf[:0])
	return e.buf
}

func (e *encoder) line(m *message.Message) line {
	l := line{
		SchemaVersion: schemaVersion, ID: idText(m.ID), ObjectID: m.ObjectID,
		Source: m.ID.Source, Vars: m.Vars, Mailbox: m.Folder(), LandsIn: m.LandsIn,
		UID: m.ID.UID, UIDValidity: m.ID.UIDValidity, SequenceNumber: m.SequenceNumber, UIDL: m.ID.UIDL,
		// The server's zone may change with the season; the moment doesn't.
		InternalDate: message.RFC3339(m.InternalDate.UTC()),
	}
	if m.Have.Has(message.NeedSize) {
		l.Size = known(m.Size)
	}
	if m.Have.Has(message.NeedFlags) {
		l.Flags, l.Keywords, l.Labels = list(m.Flags), list(m.Keywords), m.Labels
	}
	if g := m.Gmail; g != nil {
		l.Gmail = &gmail{strconv.FormatUint(g.MessageID, 10), strconv.FormatUint(g.ThreadID, 10), list(g.Labels)}
	}
	if m.Header != nil {
		l.header(m.Header)
	}
	if e.structure && m.Structure != nil {
		l.Attachments = attachments(m.Structure)
	}
	if r := m.Record; r != nil {
		l.Octets, l.SHA256, l.Files, l.ChangedBy = known(r.Octets), r.SHA256, r.Files, r.Changed
		for _, p := range r.Problems {
			if !slices.Contains(l.ParseErrors, p) {
				l.ParseErrors = append(l.ParseErrors, p)
			}
		}
	}
	return l
}

func (l *line) header(h *message.Header) {
	l.MessageID = h.MessageID()
	if h.Has("Subject") {
		s := h.Subject()
		l.Subject = &s
	}
	l.From, l.To, l.Cc = addresses(h, "From"), addresses(h, "To"), addresses(h, "Cc")
	l.Bcc, l.ReplyTo = addresses(h, "Bcc"), addresses(h, "Reply-To")
	if at, ok := h.Date(); ok {
		l.Date = message.RFC3339(at)
	}
	l.InReplyTo, l.References = h.MessageIDs("In-Reply-To"), h.MessageIDs("References")
	l.ListUnsubscribe = h.Text("List-Unsubscribe")
	l.ParseErrors = h.Problems()
}

// idText returns the id as text, with what tells apart messages of one UIDL.
func idText(id message.ID) string {
	s := id.String()
	if id.HeaderHash != "" {
		s += ";HEADER=" + id.HeaderHash
	}
	if id.Ordinal != 0 {
		s += fmt.Sprintf(";ORDINAL=%d", id.Ordinal)
	}
	return s
}

func addresses(h *message.Header, field string) []address {
	found := h.Addresses(field)
	if len(found) == 0 {
		return nil
	}
	out := make([]address, len(found))
	for i, a := range found {
		out[i] = address{a.Name, a.Address}
	}
	return out
}

func attachments(root *message.Part) []attachment {
	found := message.Attachments(root)
	out := make([]attachment, len(found))
	for i, p := range found {
		out[i] = attachment{
			Part: p.Path, Name: p.Name, MediaType: p.MediaType,
			Size: known(p.Size), EncodedSize: known(p.EncodedSize),
			Disposition: p.Disposition, ContentID: p.ContentID, Inline: p.Inline, SHA256: p.SHA256,
		}
	}
	return out
}

// known returns nil for a size that isn't.
func known(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

// list returns an empty list for nil: it is known to be empty.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// keyPrefix is what every line begins with, before the id's quote.
var keyPrefix = fmt.Sprintf(`{"schema_version":%d,"id":"`, schemaVersion)

// lineKey returns the id in a line as it stands there, nil when the line isn't
// ours.
func lineKey(l []byte) []byte {
	if !strings.HasPrefix(string(l[:min(len(l), len(keyPrefix))]), keyPrefix) {
		return nil
	}
	l = l[len(keyPrefix):]
	for i := 0; i < len(l); i++ {
		switch l[i] {
		case '\\':
			i++
		case '"':
			return l[:i]
		}
	}
	return nil
}
