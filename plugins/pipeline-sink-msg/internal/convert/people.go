package convert

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/mapi"
)

// row is one recipient.
type row struct {
	typ           int32
	name, address string
}

// Kinds of recipients (MS-OXOMSG §2.2.3.1).
const (
	recipientTo  = 1
	recipientCc  = 2
	recipientBcc = 3
)

// person are the properties that one address fills.
type person struct {
	name, typ, address, smtp, entryID, searchKey uint16
}

var (
	sender       = person{pidSenderName, pidSenderType, pidSenderAddress, pidSenderSMTP, pidSenderEntryID, pidSenderKey}
	representing = person{pidRepresentingName, pidRepresentingType, pidRepresentingAddress, pidRepresentingSMTP, pidRepresentingEntryID, pidRepresentingSearchKey}
	receipt      = person{pidReadReceiptName, pidReadReceiptType, pidReadReceiptAddress, pidReadReceiptSMTP, pidReadReceiptEntryID, pidReadReceiptSearchKey}
	recipient    = person{pidDisplayName, pidAddressType, pidEmailAddress, pidSMTPAddress, pidEntryID, pidSearchKey}
)

// clean makes a name or address fit to stand between NULs: no controls.
func clean(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7F {
			return strings.TrimSpace(strings.Map(func(r rune) rune {
				if r < ' ' || r == 0x7F {
					return -1
				}
				return r
			}, s))
		}
	}
	return s
}

func (b *builder) person(o *mapi.Object, p person, name, address string) []byte {
	o.String(p.name, name)
	o.String(p.typ, "SMTP")
	o.String(p.address, address)
	o.String(p.smtp, address)
	o.Binary(p.searchKey, b.c.file.Copy([]byte("SMTP:"), []byte(strings.ToUpper(address)), []byte{0}))
	id := b.c.entryID(name, address)
	o.Binary(p.entryID, id)
	return id
}

// oneOff begins a one-off EntryID: no flags, the provider, version 0, "send no
// rich text" and "Unicode" (MS-OXCDATA §2.2.5.1).
var oneOff = []byte{
	0, 0, 0, 0,
	0x81, 0x2B, 0x1F, 0xA4, 0xBE, 0xA3, 0x10, 0x19, 0x9D, 0x6E, 0x00, 0xDD, 0x01, 0x0F, 0x54, 0x02,
	0, 0, 0x01, 0x80,
}

func (c *Converter) entryID(name, address string) []byte {
	c.scratch = append(c.scratch[:0], oneOff...)
	for _, s := range [...]string{name, "SMTP", address} {
		at := len(c.scratch)
		c.scratch = append(c.scratch, make([]byte, 2*len(s)+2)...)
		n := mapi.PutUTF16(c.scratch[at:], s)
		c.scratch = append(c.scratch[:at+n], 0, 0)
	}
	return c.file.Copy(c.scratch)
}

// entry makes a fit to be stored. What has only a name gets it for an address
// too, since MAPI has no entries without one, and readers show the name.
func entry(a message.Address) (name, address string) {
	// A semicolon at the end would be one of the lists of names.
	name, address = strings.TrimRight(clean(a.Name), "; "), clean(a.Address)
	if address == "" {
		address = name
	}
	if name == "" {
		name = strings.TrimRight(address, "; ")
	}
	return name, address
}

// first returns the first entry.
func first(list []message.Address) message.Address {
	for _, a := range list {
		if a.Name, a.Address = entry(a); a.Address != "" {
			return a
		}
	}
	return message.Address{}
}

// people sets sender, recipients, Reply-To and the receipt's address
// (MS-OXCMAIL §2.1.3.1, MSG checklist C4 to C7).
func (b *builder) people() {
	from := first(b.h.Addresses("From"))
	by := first(b.h.Addresses("Sender"))
	if by.Address == "" {
		by = from
	}
	if by.Address != "" {
		b.person(b.o, sender, by.Name, by.Address)
		if from.Address == "" {
			from = by
		}
		b.person(b.o, representing, from.Name, from.Address)
	} else {
		// No originator at all: MAPI has no such thing as a sent message
		// without one, so it is a draft.
		b.flags |= flagUnsent
	}
	b.recipients()
	b.replyTo()
	if to := first(b.h.Addresses("Disposition-Notification-To")); to.Address != "" {
		b.o.Bool(pidReadReceiptRequested, true)
		b.person(b.o, receipt, to.Name, to.Address)
	}
}

func (b *builder) recipients() {
	rows := b.c.rows[:0]
	for _, kind := range [...]struct {
		field string
		typ   int32
	}{{"To", recipientTo}, {"Cc", recipientCc}, {"Bcc", recipientBcc}} {
		for _, a := range b.h.Addresses(kind.field) {
			name, address := entry(a)
			if address == "" || undisclosed(address) {
				continue
			}
			if len(rows) == mapi.Limit {
				// Past the format's bound the mail itself has the rest.
				b.incomplete = true
				break
			}
			rows = append(rows, row{typ: kind.typ, name: name, address: address})
		}
	}
	b.c.rows = rows
	for i, r := range rows {
		o := b.o.AddRecipient()
		b.recipientRow(o, i, r)
	}
	for _, kind := range [...]struct {
		typ int32
		id  uint16
	}{{recipientTo, pidDisplayTo}, {recipientCc, pidDisplayCc}, {recipientBcc, pidDisplayBcc}} {
		text := b.c.scratch[:0]
		for _, r := range rows {
			if r.typ == kind.typ {
				if len(text) > 0 {
					text = append(text, "; "...)
				}
				text = append(text, r.name...)
			}
		}
		b.o.String(kind.id, string(text))
		b.c.scratch = text
	}
	clear(rows)
	b.failedRecipients()
}

// undisclosed reports whether the text stands for recipients that aren't told,
// written as if it were one.
func undisclosed(address string) bool {
	return len(address) > 11 && len(address) < 40 && strings.EqualFold(address[:11], "undisclosed") && indexFold(address, "recipient") > 0 && !strings.Contains(address, "@")
}

func (b *builder) recipientRow(o *mapi.Object, i int, r row) {
	o.Int(pidRowID, int32(i))
	o.Int(pidRecipientType, r.typ)
	id := b.person(o, recipient, r.name, r.address)
	o.String(pidRecipientName, r.name)
	o.Binary(pidRecipientEntryID, id)
	o.Int(pidRecipientFlags, 1)
	o.Int(pidObjectType, objectRecipient)
	o.Int(pidDisplayType, 0)
}

// replyTo sets the FlatEntryList (MS-OXCDATA §2.3.3) and the names.
func (b *builder) replyTo() {
	list := b.h.Addresses("Reply-To")
	var entries bytes.Buffer
	var names []string
	n := uint32(0)
	for _, a := range list {
		name, address := entry(a)
		if address == "" || n == mapi.Limit {
			continue
		}
		for entries.Len()%4 != 0 {
			entries.WriteByte(0)
		}
		id := b.c.entryID(name, address)
		var size [4]byte
		binary.LittleEndian.PutUint32(size[:], uint32(len(id)))
		entries.Write(size[:])
		entries.Write(id)
		names = append(names, name)
		n++
	}
	if n == 0 {
		return
	}
	var head [8]byte
	binary.LittleEndian.PutUint32(head[:], n)
	binary.LittleEndian.PutUint32(head[4:], uint32(entries.Len()))
	b.o.Binary(pidReplyEntries, b.c.file.Copy(head[:], entries.Bytes()))
	b.o.String(pidReplyNames, strings.Join(names, "; "))
}
