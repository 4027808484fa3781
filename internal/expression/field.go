package expression

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Field is one name that an expression can read.
type Field struct {
	Name  string
	Type  string // "text", "list", "number", "time", "boolean" or "attachments"
	Needs message.Needs
	Doc   string

	// get returns the value, and false when this message has none: it is
	// called only when the summary has Needs.
	get func(s *message.Summary) (any, bool)
}

// Value returns the field of a message, and false when the message has none or
// its summary wasn't asked for it: text, []string, int, time.Time, bool or
// []Attachment.
func (f *Field) Value(s *message.Summary) (any, bool) {
	if !s.Have.Has(f.Needs) || f.Needs.Has(message.NeedHeaders) && s.Header == nil {
		return nil, false
	}
	return f.get(s)
}

// Attachment is one element of the field attachments.
type Attachment struct {
	Name      string `expr:"name" json:"name"`
	MediaType string `expr:"media_type" json:"media_type"`
	Size      int    `expr:"size" json:"size"`
	Inline    bool   `expr:"inline" json:"inline"`
}

// Fields returns everything that an expression can read, in the order of the
// reference. header("X-Any") and vars.NAME are not in it: their names are the
// user's.
func Fields() []Field {
	h, s, d, f, g, st := message.NeedHeaders, message.NeedSize, message.NeedInternalDate, message.NeedFlags, message.NeedGmail, message.NeedStructure
	return []Field{
		{"source", "text", 0, "name of the source in the file", func(s *message.Summary) (any, bool) { return s.ID.Source, true }},
		{"mailbox", "text", 0, "the mailbox, with / between levels whatever the server uses", func(s *message.Summary) (any, bool) { return s.Folder(), true }},
		{"lands_in", "text", 0, "the mailbox that the message lands in: what a stage `mailbox` before made of it, else the mailbox", func(s *message.Summary) (any, bool) { return s.Landing(), true }},
		{"uid", "number", 0, "the message's UID; absent where the source has none (POP3)", func(s *message.Summary) (any, bool) { return int(s.ID.UID), s.ID.UID != 0 }},
		{"uidl", "text", 0, "the message's unique id on a POP3 server; empty elsewhere", func(s *message.Summary) (any, bool) { return s.ID.UIDL, true }},
		{"object_id", "text", g, "an id that survives moves (EMAILID, X-GM-MSGID); empty where the server has none", func(s *message.Summary) (any, bool) { return s.ObjectID, true }},
		{"size", "number", s, "octets, as the server says", func(s *message.Summary) (any, bool) { return int(s.Size), true }},
		{"internal_date", "time", d, "when the server took the message in; absent where it doesn't say", func(s *message.Summary) (any, bool) { return s.InternalDate, !s.InternalDate.IsZero() }},
		{"date", "time", h, "the Date header; absent when it is missing or can't be read", func(s *message.Summary) (any, bool) { t, ok := s.Header.Date(); return t, ok }},
		{"subject", "text", h, "the decoded subject", func(s *message.Summary) (any, bool) { return s.Header.Subject(), true }},
		addressText("from"), addressText("to"), addressText("cc"), addressText("bcc"), addressText("reply_to"),
		addressList("from"), addressList("to"), addressList("cc"), addressList("bcc"), addressList("reply_to"),
		{"message_id", "text", h, "the Message-ID, with its angle brackets", func(s *message.Summary) (any, bool) { return s.Header.MessageID(), true }},
		{"in_reply_to", "list", h, "the ids of In-Reply-To", func(s *message.Summary) (any, bool) { return list(s.Header.MessageIDs("In-Reply-To")), true }},
		{"references", "list", h, "the ids of References", func(s *message.Summary) (any, bool) { return list(s.Header.MessageIDs("References")), true }},
		{"list_unsubscribe", "text", h, "the List-Unsubscribe header", func(s *message.Summary) (any, bool) { return s.Header.Get("List-Unsubscribe"), true }},
		{"flags", "list", f, `system flags with their backslash: "\\Seen"`, func(s *message.Summary) (any, bool) { return list(s.Flags), true }},
		{"keywords", "list", f, "all other flags", func(s *message.Summary) (any, bool) { return list(s.Keywords), true }},
		{"labels", "list", f, "labels, where the server has labels", func(s *message.Summary) (any, bool) { return list(s.Labels), true }},
		flag("seen", "read"), flag("flagged", "marked as important"), flag("answered", "answered"), flag("draft", "a draft"),
		flag("deleted", "marked as deleted, not yet expunged"), flag("recent", "new to the server's sessions"),
		{"has_attachments", "boolean", st, "it has at least one attachment", func(s *message.Summary) (any, bool) {
			return len(message.Attachments(s.Structure)) > 0, s.Structure != nil
		}},
		{"attachments", "attachments", st, "the attachments, each with name, media_type, size (octets after decoding, estimated from a listing) and inline (shown within the text, as a logo is)", func(s *message.Summary) (any, bool) { return attachments(s.Structure), s.Structure != nil }},
		{"gmail_message_id", "text", g, "Gmail's id of the message, in decimal; absent elsewhere", func(s *message.Summary) (any, bool) {
			return gmailText(s, func(g *message.Gmail) uint64 { return g.MessageID })
		}},
		{"gmail_thread_id", "text", g, "Gmail's id of the conversation, in decimal; absent elsewhere", func(s *message.Summary) (any, bool) {
			return gmailText(s, func(g *message.Gmail) uint64 { return g.ThreadID })
		}},
		{"gmail_labels", "list", g, "Gmail's labels; absent elsewhere", func(s *message.Summary) (any, bool) {
			if s.Gmail == nil {
				return nil, false
			}
			return list(s.Gmail.Labels), true
		}},
	}
}

// headerNames are the header fields behind the address fields.
var headerNames = map[string]string{"from": "From", "to": "To", "cc": "Cc", "bcc": "Bcc", "reply_to": "Reply-To"}

func addressText(name string) Field {
	header := headerNames[name]
	return Field{name, "text", message.NeedHeaders, "the addresses of " + header + " as text: Name <user@host>, …", func(s *message.Summary) (any, bool) {
		var b strings.Builder
		for i, a := range s.Header.Addresses(header) {
			if i > 0 {
				b.WriteString(", ")
			}
			switch {
			case a.Name == "":
				b.WriteString(a.Address)
			case a.Address == "":
				b.WriteString(a.Name)
			default:
				b.WriteString(a.Name + " <" + a.Address + ">")
			}
		}
		return b.String(), true
	}}
}

func addressList(name string) Field {
	header := headerNames[name]
	return Field{name + "_address", "list", message.NeedHeaders, "the addresses of " + header + " without names, in lower case", func(s *message.Summary) (any, bool) {
		out := []string{}
		for _, a := range s.Header.Addresses(header) {
			if a.Address != "" {
				out = append(out, strings.ToLower(a.Address))
			}
		}
		return out, true
	}}
}

func flag(name, doc string) Field {
	system := `\` + name
	return Field{name, "boolean", message.NeedFlags, "the message is " + doc, func(s *message.Summary) (any, bool) {
		return slices.ContainsFunc(s.Flags, func(f string) bool { return strings.EqualFold(f, system) }), true
	}}
}

func gmailText(s *message.Summary, id func(*message.Gmail) uint64) (any, bool) {
	if s.Gmail == nil {
		return nil, false
	}
	return strconv.FormatUint(id(s.Gmail), 10), true
}

// list makes a missing list an empty one: they read the same in expressions
// and must look the same in kept values.
func list(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

// attachments returns what message.Attachments finds: a filter and the index
// agree on what an attachment is.
func attachments(root *message.Part) []Attachment {
	found := message.Attachments(root)
	out := make([]Attachment, len(found))
	for i, p := range found {
		out[i] = Attachment{Name: p.Name, MediaType: p.MediaType, Size: int(decodedSize(p)), Inline: p.Inline}
	}
	return out
}

// decodedSize is the size, or what base64 makes of it where a listing knows
// only the encoded octets.
func decodedSize(p *message.Part) int64 {
	switch {
	case p.Size >= 0:
		return p.Size
	case p.EncodedSize < 0:
		return 0
	case p.Encoding == "base64":
		// Lines of 76 and CRLF hold 57 octets, the last may be shorter.
		return p.EncodedSize/78*57 + p.EncodedSize%78/4*3
	default:
		return p.EncodedSize
	}
}

// zero returns a value of the type, for the checker.
func (f *Field) zero() any {
	switch f.Type {
	case "number":
		return 0
	case "time":
		return time.Time{}
	case "boolean":
		return false
	case "list":
		return []string{}
	case "attachments":
		return []Attachment{}
	default:
		return ""
	}
}
