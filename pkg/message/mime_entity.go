package message

import (
	"io"
	"strings"
)

// Entity is one node of a message whose octets can be read again: a part with
// its place in the message. It holds none of the octets. An entity that is a
// message/rfc822 has one child, the root of that message, which can be used
// like the root that Read returns. Entities may be used by any number of
// goroutines.
type Entity struct {
	Part     *Part
	Children []*Entity

	ra               io.ReaderAt
	start, body, end int64
	transfer         transfer
}

// Read reads the message that is the first size octets of ra and returns its
// root. It is ReadStructure's grammar with the same bounds, but makes no sums:
// SHA256 is empty for every part. Problems are the message's, err is ra's own.
func Read(ra io.ReaderAt, size int64) (root *Entity, problems []string, err error) {
	_, root, problems, err = scan(io.NewSectionReader(ra, 0, size), true, false)
	root.bind(ra)
	return root, problems, err
}

func (e *Entity) bind(ra io.ReaderAt) {
	e.ra = ra
	for _, c := range e.Children {
		c.bind(ra)
	}
}

// Header reads the entity's header block. The error is the reader's.
func (e *Entity) Header() (*Header, error) {
	raw := make([]byte, e.body-e.start)
	if _, err := io.ReadFull(io.NewSectionReader(e.ra, e.start, e.body-e.start), raw); err != nil {
		return NewHeader(nil), err
	}
	return NewHeader(raw), nil
}

// Offsets returns where in the message the entity's header begins, where its
// body does, and where it ends.
func (e *Entity) Offsets() (header, body, end int64) { return e.start, e.body, e.end }

// Raw returns the entity as it stands in the message, header and body, without
// the line break that belongs to the boundary behind it: what a signature in a
// multipart/signed is made over (RFC 1847 §2.1).
func (e *Entity) Raw() *io.SectionReader { return io.NewSectionReader(e.ra, e.start, e.end-e.start) }

// Body returns the body as it stands in the message, still encoded.
func (e *Entity) Body() *io.SectionReader { return io.NewSectionReader(e.ra, e.body, e.end-e.body) }

// Open returns the decoded body: base64, quoted-printable and uuencode,
// tolerantly. It has Part.Size octets. Its errors are only those of the
// underlying reader.
func (e *Entity) Open() io.Reader { return newDecodingReader(e.Body(), e.transfer) }

// Text returns at most max octets of the decoded body as UTF-8, and the
// charset that they were read as: the declared one, else the one that HTML
// names itself, else UTF-8 or windows-1252. max below 0 means all.
func (e *Entity) Text(max int64) (text, charset string, err error) {
	r := e.Open()
	if max >= 0 {
		r = io.LimitReader(r, max)
	}
	b, err := io.ReadAll(r)
	declared := e.Part.Params["charset"]
	if declared == "" && e.Part.MediaType == "text/html" {
		declared = htmlCharset(b)
	}
	text, charset, _ = DecodeCharset(declared, b)
	return strings.TrimPrefix(text, "\uFEFF"), charset, err
}

// htmlCharset returns what a <meta> in the first 4,096 octets says.
func htmlCharset(b []byte) string {
	head := strings.ToLower(string(b[:min(len(b), 4096)]))
	for {
		i := strings.Index(head, "<meta")
		if i < 0 {
			return ""
		}
		head = head[i+5:]
		tag := head
		if j := strings.IndexByte(tag, '>'); j >= 0 {
			tag = tag[:j]
		}
		k := strings.Index(tag, "charset")
		if k < 0 {
			continue
		}
		v := strings.TrimLeft(tag[k+7:], " \t\r\n")
		if !strings.HasPrefix(v, "=") {
			continue
		}
		v = strings.TrimLeft(v[1:], " \t\r\n\"'")
		if j := strings.IndexAny(v, " \t\r\n\"';/>"); j >= 0 {
			v = v[:j]
		}
		return v
	}
}
