package demo

import (
	"bytes"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
)

// mailbox is one mailbox of the account. Nothing in it ever changes, so any
// number of connections read it without a lock.
type mailbox struct {
	sampleMailbox
	messages []*Message // by ascending UID
	attrs    []imap.MailboxAttr
	size     int64
	unseen   uint32
	deleted  uint32
	flags    []imap.Flag
}

func newMailbox(box sampleMailbox) (*mailbox, error) {
	messages, err := box.messages()
	if err != nil {
		return nil, err
	}
	m := &mailbox{sampleMailbox: box, messages: messages}
	if box.specialUse != "" {
		m.attrs = append(m.attrs, imap.MailboxAttr(box.specialUse))
	}
	if box.noSelect {
		m.attrs = append(m.attrs, imap.MailboxAttrNoSelect)
	}
	for _, msg := range messages {
		m.size += int64(len(msg.Octets))
		if !slices.Contains(msg.Flags, `\Seen`) {
			m.unseen++
		}
		if slices.Contains(msg.Flags, `\Deleted`) {
			m.deleted++
		}
		for _, flag := range msg.imapFlags() {
			if !slices.Contains(m.flags, flag) {
				m.flags = append(m.flags, flag)
			}
		}
	}
	return m, nil
}

func (m *mailbox) count() uint32 { return uint32(len(m.messages)) }

func (m *mailbox) uidNext() imap.UID {
	if len(m.messages) == 0 {
		return 1
	}
	return m.lastUID() + 1
}

// lastUID is what "*" means in a UID set (RFC 3501 §6.4.8); 0 when empty.
func (m *mailbox) lastUID() imap.UID {
	if len(m.messages) == 0 {
		return 0
	}
	return imap.UID(m.messages[len(m.messages)-1].UID)
}

func (m *mailbox) status(options *imap.StatusOptions) *imap.StatusData {
	count, zero, size := m.count(), uint32(0), m.size
	data := &imap.StatusData{Mailbox: m.name, UIDNext: m.uidNext(), UIDValidity: m.validity}
	if options.NumMessages {
		data.NumMessages = &count
	}
	if options.NumRecent {
		data.NumRecent = &zero
	}
	if options.NumUnseen {
		data.NumUnseen = &m.unseen
	}
	if options.NumDeleted {
		data.NumDeleted = &m.deleted
	}
	if options.Size {
		data.Size = &size
	}
	return data
}

// firstUnseen returns the sequence number for the UNSEEN code, 0 for none.
func (m *mailbox) firstUnseen() uint32 {
	for i, msg := range m.messages {
		if !slices.Contains(msg.Flags, `\Seen`) {
			return uint32(i) + 1
		}
	}
	return 0
}

// matches reports whether the message with sequence number seq is in set.
func (m *mailbox) matches(set imap.NumSet, seq uint32, msg *Message) bool {
	switch set := set.(type) {
	case imap.SeqSet:
		for _, r := range set {
			if inRange(r.Start, r.Stop, seq, m.count()) {
				return true
			}
		}
	case imap.UIDSet:
		for _, r := range set {
			if inRange(uint32(r.Start), uint32(r.Stop), msg.UID, uint32(m.lastUID())) {
				return true
			}
		}
	}
	return false
}

// inRange resolves "*", which the library writes as 0, to last: "9:*" holds
// the last message even when its number is below 9 (RFC 3501 §9, seq-range).
func inRange(start, stop, n, last uint32) bool {
	if start == 0 {
		start = last
	}
	if stop == 0 {
		stop = last
	}
	return min(start, stop) <= n && n <= max(start, stop)
}

func (msg *Message) imapFlags() []imap.Flag {
	flags := make([]imap.Flag, len(msg.Flags))
	for i, flag := range msg.Flags {
		flags[i] = imap.Flag(flag)
	}
	return flags
}

func (msg *Message) hasFlag(flag imap.Flag) bool {
	return slices.ContainsFunc(msg.Flags, func(f string) bool { return strings.EqualFold(f, string(flag)) })
}

// header returns the octets up to and with the empty line; all of them when
// there is none.
func (msg *Message) header() []byte {
	if i := bytes.Index(msg.Octets, []byte("\r\n\r\n")); i >= 0 {
		return msg.Octets[:i+4]
	}
	return msg.Octets
}

// section answers BODY[section]. Sections of the whole message are slices of
// the octets, because the library's extraction writes the header anew.
func (msg *Message) section(item *imap.FetchItemBodySection) []byte {
	if len(item.Part) > 0 {
		return imapserver.ExtractBodySection(bytes.NewReader(msg.Octets), item)
	}
	var octets []byte
	switch item.Specifier {
	case imap.PartSpecifierNone:
		octets = msg.Octets
	case imap.PartSpecifierText:
		octets = msg.Octets[len(msg.header()):]
	case imap.PartSpecifierHeader:
		octets = selectFields(msg.header(), item.HeaderFields, item.HeaderFieldsNot)
	}
	if p := item.Partial; p != nil {
		start := min(max(p.Offset, 0), int64(len(octets)))
		octets = octets[start:]
		octets = octets[:min(max(p.Size, 0), int64(len(octets)))]
	}
	return octets
}

// selectFields keeps the fields that are in only, or those that aren't in not,
// and the empty line (RFC 3501 §6.4.5). Both empty: the header as it is.
func selectFields(header []byte, only, not []string) []byte {
	if len(only) == 0 && len(not) == 0 {
		return header
	}
	var out []byte
	keep := false
	for line := range bytes.Lines(header) {
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return append(out, line...)
		}
		if line[0] != ' ' && line[0] != '\t' {
			name, _, _ := bytes.Cut(line, []byte(":"))
			named := func(want string) bool { return strings.EqualFold(want, string(bytes.TrimSpace(name))) }
			keep = slices.ContainsFunc(only, named) || len(not) > 0 && !slices.ContainsFunc(not, named)
		}
		if keep {
			out = append(out, line...)
		}
	}
	return append(out, "\r\n"...)
}
