// Package tnef reads winmail.dat: the message that Outlook wraps in one
// attachment (MS-OXTNEF). It reads a stream once and holds no file of it.
package tnef

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"time"
	"unicode/utf16"

	"golang.org/x/text/encoding/charmap"
)

const signature = 0x223E9F78

// Attributes (MS-OXTNEF §2.1.3.2), with their types.
const (
	attFrom         = 0x00008000
	attSubject      = 0x00018004
	attDateSent     = 0x00038005
	attBody         = 0x0002800C
	attRecipients   = 0x00069004
	attMessageProps = 0x00069003
	attOEMCodepage  = 0x00069007
	attRenderData   = 0x00069002
	attTitle        = 0x00018010
	attData         = 0x0006800F
	attAttachProps  = 0x00069005
)

// The bounds of what is held of one stream.
const (
	maxHeld        = 8 << 20 // octets of texts and properties
	maxAttachments = 4096
)

// ErrCorrupt says that the stream isn't TNEF, or ends in the middle.
var ErrCorrupt = errors.New("the TNEF stream is corrupt")

// Message is what a stream holds. What the mail around it says as well counts
// only for a message that is attached within.
type Message struct {
	Subject     string
	From        Person
	Recipients  []Recipient
	Sent        time.Time // zero when it isn't said
	MessageID   string
	Text        string
	HTML        []byte // as it stands, in code page Codepage
	Codepage    int32  // of HTML; 0 when it isn't said
	RTF         []byte // compressed
	Attachments []Attachment
}

// Person is an address with its name; either may be empty.
type Person struct{ Name, Address string }

// Recipient is a row of the recipient table. Kind is 1 (To), 2 (Cc) or 3 (Bcc).
type Recipient struct {
	Person
	Kind int32
}

// Attachment is a file in the stream. Its octets are the Size octets from
// Offset on; a Message that is attached is a stream of its own (Nested).
type Attachment struct {
	Name      string
	MediaType string
	ContentID string
	Offset    int64
	Size      int64
	Nested    bool
}

type reader struct {
	r      *bufio.Reader
	at     int64
	held   int
	oem    uint32
	out    *Message
	lastly *Attachment
}

// Read reads the stream to its end. ErrCorrupt comes with nothing; other errors
// are r's.
func Read(r io.Reader) (*Message, error) {
	t := &reader{r: bufio.NewReaderSize(r, 16<<10), out: &Message{}}
	head, err := t.take(6)
	if err != nil {
		return nil, middle(err)
	}
	if binary.LittleEndian.Uint32(head) != signature {
		return nil, ErrCorrupt
	}
	for {
		head, err := t.take(9)
		if err == io.EOF {
			return t.out, nil
		}
		if err != nil {
			return nil, err
		}
		level, id, size := head[0], binary.LittleEndian.Uint32(head[1:]), int64(binary.LittleEndian.Uint32(head[5:]))
		if level != 1 && level != 2 {
			return nil, ErrCorrupt
		}
		if err := t.attribute(id, size); err != nil {
			return nil, err
		}
		if _, err := t.take(2); err != nil { // the checksum, which some programs get wrong
			return nil, middle(err)
		}
	}
}

// middle turns an end where more must come into ErrCorrupt.
func middle(err error) error {
	if err == io.EOF {
		return ErrCorrupt
	}
	return err
}

// take returns the next n octets: io.EOF when there are none, ErrCorrupt when
// there are fewer.
func (t *reader) take(n int) ([]byte, error) {
	if t.held += n; t.held > maxHeld {
		return nil, ErrCorrupt
	}
	b := make([]byte, n)
	k, err := io.ReadFull(t.r, b)
	t.at += int64(k)
	if err == io.ErrUnexpectedEOF {
		err = ErrCorrupt
	}
	return b, err
}

func (t *reader) attribute(id uint32, size int64) error {
	switch id {
	case attFrom, attSubject, attDateSent, attBody, attRecipients, attMessageProps, attOEMCodepage, attTitle, attAttachProps:
		if size > maxHeld {
			return ErrCorrupt
		}
		start := t.at
		b, err := t.take(int(size))
		if err != nil && size > 0 {
			return middle(err)
		}
		return t.keep(id, b, start)
	case attRenderData:
		if len(t.out.Attachments) == maxAttachments {
			return ErrCorrupt
		}
		t.out.Attachments = append(t.out.Attachments, Attachment{})
		t.lastly = &t.out.Attachments[len(t.out.Attachments)-1]
	case attData:
		if t.lastly == nil {
			return ErrCorrupt
		}
		if !t.lastly.Nested {
			t.lastly.Offset, t.lastly.Size = t.at, size
		}
	}
	n, err := io.CopyN(io.Discard, t.r, size)
	t.at += n
	return middle(err)
}

func (t *reader) keep(id uint32, b []byte, start int64) error {
	switch id {
	case attOEMCodepage:
		if len(b) >= 4 {
			t.oem = binary.LittleEndian.Uint32(b)
		}
	case attSubject:
		t.out.Subject = t.narrow(b)
	case attFrom:
		t.out.From = t.from(b)
	case attDateSent:
		t.out.Sent = date(b)
	case attRecipients:
		return t.recipients(b)
	case attBody:
		t.out.Text = t.narrow(b)
	case attTitle:
		if t.lastly == nil {
			return ErrCorrupt
		}
		if t.lastly.Name == "" {
			t.lastly.Name = t.narrow(b)
		}
	case attMessageProps:
		var represented Person
		defer func() {
			if represented != (Person{}) {
				t.out.From = represented
			}
		}()
		return properties(b, func(id, typ uint16, v []byte, _ int) {
			switch {
			case id == 0x0037:
				t.out.Subject = t.text(typ, v)
			case id == 0x0042:
				represented.Name = t.text(typ, v)
			case id == 0x0065 && represented.Address == "", id == 0x5D02:
				represented.Address = t.text(typ, v)
			case id == 0x1035:
				t.out.MessageID = t.text(typ, v)
			case id == 0x0039 && typ == 0x40 && len(v) == 8:
				t.out.Sent = fileTime(v)
			case id == 0x1000 && t.out.Text == "":
				t.out.Text = t.text(typ, v)
			case id == 0x1013 && typ == 0x0102:
				t.out.HTML = v
			case id == 0x1009 && typ == 0x0102:
				t.out.RTF = v
			case id == 0x3FDE && len(v) >= 4:
				t.out.Codepage = int32(binary.LittleEndian.Uint32(v))
			}
		})
	case attAttachProps:
		if t.lastly == nil {
			return ErrCorrupt
		}
		return properties(b, func(id, typ uint16, v []byte, at int) {
			switch id {
			case 0x3707:
				if s := t.text(typ, v); s != "" {
					t.lastly.Name = s
				}
			case 0x370E:
				t.lastly.MediaType = t.text(typ, v)
			case 0x3712:
				t.lastly.ContentID = strings.Trim(t.text(typ, v), "<>")
			case 0x3701:
				if typ == 0x0D && len(v) > 16 { // the interface's id, then the stream
					t.lastly.Nested = true
					t.lastly.Offset, t.lastly.Size = start+int64(at)+16, int64(len(v)-16)
				}
			}
		})
	}
	return nil
}

func (t *reader) text(typ uint16, v []byte) string {
	switch typ {
	case 0x1F:
		u := make([]uint16, len(v)/2)
		for i := range u {
			u[i] = binary.LittleEndian.Uint16(v[2*i:])
		}
		return strings.TrimRight(string(utf16.Decode(u)), "\x00")
	case 0x1E:
		return t.narrow(v)
	}
	return ""
}

// from reads the triple of MS-OXTNEF §2.1.3.3.4: a name, and "SMTP:address".
func (t *reader) from(b []byte) Person {
	if len(b) < 16 {
		return Person{}
	}
	name, address := int(binary.LittleEndian.Uint16(b[4:])), int(binary.LittleEndian.Uint16(b[6:]))
	if len(b) < 8+name+address {
		return Person{}
	}
	p := Person{Name: t.narrow(b[8 : 8+name])}
	if kind, a, ok := strings.Cut(t.narrow(b[8+name:8+name+address]), ":"); ok && strings.EqualFold(kind, "SMTP") {
		p.Address = a
	}
	return p
}

// date reads a DTR (MS-OXTNEF §2.1.3.3.3), in UTC.
func date(b []byte) time.Time {
	if len(b) < 12 {
		return time.Time{}
	}
	n := func(i int) int { return int(binary.LittleEndian.Uint16(b[2*i:])) }
	if n(0) == 0 {
		return time.Time{}
	}
	return time.Date(n(0), time.Month(n(1)), n(2), n(3), n(4), n(5), 0, time.UTC)
}

func fileTime(v []byte) time.Time {
	n := int64(binary.LittleEndian.Uint64(v))
	return time.Unix(n/1e7-11644473600, n%1e7*100).UTC()
}

// maxRecipients bounds the rows that are kept.
const maxRecipients = 4096

// recipients reads the recipient table: lists of properties.
func (t *reader) recipients(b []byte) error {
	c := cursor{b: b}
	rows := c.u32()
	rest := b[min(4, len(b)):]
	for range rows {
		if len(t.out.Recipients) == maxRecipients {
			return nil
		}
		r := Recipient{Kind: 1}
		n, err := propertyList(rest, func(id, typ uint16, v []byte, _ int) {
			switch {
			case id == 0x3001:
				r.Name = t.text(typ, v)
			case id == 0x3003 && r.Address == "", id == 0x39FE:
				r.Address = t.text(typ, v)
			case id == 0x0C15 && len(v) >= 4:
				r.Kind = int32(binary.LittleEndian.Uint32(v) & 15)
			}
		})
		if err != nil {
			return err
		}
		rest = rest[n:]
		t.out.Recipients = append(t.out.Recipients, r)
	}
	return nil
}

// narrow reads text in the stream's own code page.
func (t *reader) narrow(b []byte) string {
	if i := strings.IndexByte(string(b), 0); i >= 0 {
		b = b[:i]
	}
	m := charmap.Windows1252
	switch t.oem {
	case 1250:
		m = charmap.Windows1250
	case 1251:
		m = charmap.Windows1251
	case 1253:
		m = charmap.Windows1253
	case 1254:
		m = charmap.Windows1254
	case 1255:
		m = charmap.Windows1255
	case 1256:
		m = charmap.Windows1256
	case 1257:
		m = charmap.Windows1257
	}
	out := make([]rune, len(b))
	for i, c := range b {
		out[i] = m.DecodeByte(c)
	}
	return string(out)
}
