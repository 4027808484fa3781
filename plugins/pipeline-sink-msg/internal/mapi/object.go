package mapi

import (
	"encoding/binary"
	"io"
	"time"
	"unicode/utf8"
)

// Property types (MS-OXCDATA §2.11.1).
const (
	ptInt32      = 0x0003
	ptBool       = 0x000B
	ptObject     = 0x000D
	ptUnicode    = 0x001F
	ptTime       = 0x0040
	ptBinary     = 0x0102
	ptMVUnicode  = 0x101F
	objectSize   = 0xFFFFFFFF
	objectMarker = 1 // of an attached message (MS-OXMSG §2.4.2.2)
)

// Object is a bag of properties: a message, a recipient or an attachment. A
// property is set by its id; what was set last counts. Values are copied but
// for those of Binary and BinaryFunc, which are kept until the file is written.
type Object struct {
	f           *File
	header      int
	props       []property
	recipients  []*Object
	attachments []*Object
}

type property struct {
	tag   uint32
	value uint64 // the entry's last eight octets
	data  []byte // the stream, where there is one
	more  *more
}

type more struct {
	object *Object
	values [][]byte
	write  func(io.Writer) error
	size   int64
}

func fixedSize(tag uint32) bool {
	switch tag & 0xFFFF {
	case ptInt32, ptBool, ptTime:
		return true
	}
	return false
}

func (o *Object) set(id uint16, typ uint32, value uint64) {
	o.props = append(o.props, property{tag: uint32(id)<<16 | typ, value: value})
}

// Int sets a 32-bit number.
func (o *Object) Int(id uint16, v int32) { o.set(id, ptInt32, uint64(uint32(v))) }

// Bool sets a truth value.
func (o *Object) Bool(id uint16, v bool) {
	n := uint64(0)
	if v {
		n = 1
	}
	o.set(id, ptBool, n)
}

// Time sets a moment, to the 100 nanoseconds (FILETIME). One that readers
// refuse, before 1900 or after 2104, is left out and false returned.
func (o *Object) Time(id uint16, t time.Time) bool {
	if y := t.UTC().Year(); y < 1900 || y > 2103 {
		return false
	}
	o.set(id, ptTime, FileTime(t))
	return true
}

// FileTime returns t in 100 nanoseconds since 1601.
func FileTime(t time.Time) uint64 {
	return uint64((t.Unix()+11644473600)*1e7 + int64(t.Nanosecond()/100))
}

// String sets a text. It stands in the file as UTF-16 without a terminator;
// NUL is dropped, octets that are no UTF-8 become U+FFFD. An empty text is left
// out: Outlook 2003 to 2010 refuse files with empty strings.
func (o *Object) String(id uint16, s string) {
	b := o.f.utf16(s, 0)
	if len(b) == 0 {
		return
	}
	o.props = append(o.props, property{tag: uint32(id)<<16 | ptUnicode, value: uint64(uint32(len(b) + 2)), data: b})
}

// Strings sets a list of texts; an empty list is left out.
func (o *Object) Strings(id uint16, list []string) {
	if len(list) == 0 {
		return
	}
	lengths, m := o.f.alloc(4*len(list)), &more{}
	for i, s := range list {
		v := o.f.utf16(s, 1) // MS-OXMSG §2.1.4.1: these do have a terminator
		binary.LittleEndian.PutUint32(lengths[4*i:], uint32(len(v)))
		m.values = append(m.values, v)
	}
	o.props = append(o.props, property{tag: uint32(id)<<16 | ptMVUnicode, value: uint64(len(lengths)), data: lengths, more: m})
}

// Binary sets octets, which it keeps.
func (o *Object) Binary(id uint16, b []byte) {
	o.props = append(o.props, property{tag: uint32(id)<<16 | ptBinary, value: uint64(uint32(len(b))), data: b})
}

// BinaryFunc sets size octets that write is asked for when the file is written.
func (o *Object) BinaryFunc(id uint16, size int64, write func(io.Writer) error) {
	o.props = append(o.props, property{tag: uint32(id)<<16 | ptBinary, value: uint64(uint32(size)), more: &more{write: write, size: size}})
}

// StringFunc sets a text whose UTF-16 has size octets, which write is asked
// for when the file is written. size is not zero.
func (o *Object) StringFunc(id uint16, size int64, write func(io.Writer) error) {
	o.props = append(o.props, property{tag: uint32(id)<<16 | ptUnicode, value: uint64(uint32(size + 2)), more: &more{write: write, size: size}})
}

// AddRecipient adds a row to the recipient table. The caller keeps to Limit.
func (o *Object) AddRecipient() *Object {
	r := o.f.object(partHeader)
	o.recipients = append(o.recipients, r)
	return r
}

// AddAttachment adds an attachment. The caller keeps to Limit.
func (o *Object) AddAttachment() *Object {
	a := o.f.object(partHeader)
	o.attachments = append(o.attachments, a)
	return a
}

// Recipients returns how many there are.
func (o *Object) Recipients() int { return len(o.recipients) }

// Attachments returns how many there are.
func (o *Object) Attachments() int { return len(o.attachments) }

// AddMessage makes the attachment o hold a message, in property id.
func (o *Object) AddMessage(id uint16) *Object {
	m := o.f.object(embeddedHeader)
	o.props = append(o.props, property{
		tag: uint32(id)<<16 | ptObject, value: objectMarker<<32 | objectSize, more: &more{object: m},
	})
	return m
}

// Copy returns octets of the file's own memory with the contents of all parts,
// for Binary.
func (f *File) Copy(parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := f.alloc(n)[:0]
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// File returns the file that o is in.
func (o *Object) File() *File { return o.f }

// utf16 encodes s in the arena, with terminators behind.
func (f *File) utf16(s string, terminators int) []byte {
	n := utf16Size(s) + 2*terminators
	if n == 0 {
		return nil
	}
	b := f.alloc(n)
	rest := b[PutUTF16(b, s):]
	clear(rest)
	return b
}

// utf16Size returns how many octets PutUTF16 writes.
func utf16Size(s string) int {
	n := 0
	for i := 0; i < len(s); i++ {
		if c := s[i]; c-1 < 0x7F {
			n += 2
		} else if c >= utf8.RuneSelf {
			for _, r := range s[i:] {
				switch {
				case r == 0:
				case r > 0xFFFF:
					n += 4
				default:
					n += 2
				}
			}
			break
		}
	}
	return n
}

// PutUTF16 writes s as UTF-16LE to b, as String stores it, and returns how many
// octets it wrote: at most twice the length of s.
func PutUTF16(b []byte, s string) int {
	n := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= utf8.RuneSelf {
			return n + putRunes(b[n:], s[i:])
		}
		if c != 0 {
			b[n], b[n+1] = c, 0
			n += 2
		}
	}
	return n
}

func putRunes(b []byte, s string) int {
	n := 0
	for _, r := range s {
		switch {
		case r == 0:
		case r > 0xFFFF:
			r -= 0x10000
			binary.LittleEndian.PutUint16(b[n:], uint16(0xD800+r>>10))
			binary.LittleEndian.PutUint16(b[n+2:], uint16(0xDC00+r&0x3FF))
			n += 4
		default:
			b[n], b[n+1] = byte(r), byte(r>>8)
			n += 2
		}
	}
	return n
}
