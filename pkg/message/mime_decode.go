package message

import (
	"bytes"
	"io"
	"strings"
)

// transfer is a content transfer encoding that we can undo (RFC 2045 §6).
type transfer int

const (
	identity transfer = iota
	transferBase64
	transferQuoted
	transferUU
)

// canonicalEncoding returns the word in lower case, "7bit" for none.
func canonicalEncoding(v string) (string, transfer) {
	if i := strings.IndexAny(v, ";("); i >= 0 {
		v = v[:i]
	}
	v = strings.Trim(v, " \t\r\n\"'<>.")
	if i := strings.IndexAny(v, " \t,"); i >= 0 {
		v = v[:i]
	}
	switch len(v) {
	case 0:
		return "7bit", identity
	case 4:
		if v == "7bit" || v == "8bit" {
			return v, identity
		}
	case 6:
		if v == "base64" {
			return v, transferBase64
		}
	case 16:
		if v == "quoted-printable" {
			return v, transferQuoted
		}
	}
	v = strings.ToLower(validUTF8(v))
	switch v {
	case "base64", "b64", "base-64", "x-base64":
		return v, transferBase64
	case "quoted-printable", "quoted_printable", "quoted/printable", "quotedprintable", "qp":
		return v, transferQuoted
	case "x-uuencode", "uuencode", "x-uue", "uue":
		return v, transferUU
	}
	return v, identity
}

// decoder undoes a transfer encoding as octets come. Nothing is an error:
// junk is passed over or kept as it stands.
type decoder struct {
	transfer transfer
	base64   base64Decoder
	quoted   quotedDecoder
	uu       uuDecoder
}

func (d *decoder) reset(t transfer) {
	line := d.base64.line[:0]
	uu := d.uu.line[:0]
	*d = decoder{transfer: t}
	d.base64.line, d.uu.line = line, uu
}

// feed appends to dst what src decodes to. It grows dst by less than
// len(src) + 1,100.
func (d *decoder) feed(dst, src []byte) []byte {
	switch d.transfer {
	case transferBase64:
		return d.base64.feed(dst, src)
	case transferQuoted:
		return d.quoted.feed(dst, src)
	case transferUU:
		return d.uu.feed(dst, src)
	}
	return append(dst, src...)
}

// finish appends what was held back at the end.
func (d *decoder) finish(dst []byte) []byte {
	switch d.transfer {
	case transferBase64:
		return d.base64.finish(dst)
	case transferQuoted:
		return d.quoted.finish(dst)
	case transferUU:
		return d.uu.finish(dst)
	}
	return dst
}

// junk reports whether something was passed over.
func (d *decoder) junk() bool { return d.transfer == transferBase64 && d.base64.junk }

// quotedDecoder reads quoted-printable (RFC 2045 §6.7). What is no escape is
// kept as it stands. Blanks before a line break are kept, against rule 3:
// programs leave those of "-- " and of format=flowed bare, and mean them.
type quotedDecoder struct {
	held [40]byte // "=" and what came after it, until it has a meaning
	n    int
}

func (d *quotedDecoder) feed(dst, src []byte) []byte {
	for i := 0; i < len(src); {
		if d.n == 0 {
			k := bytes.IndexByte(src[i:], '=')
			if k < 0 {
				return append(dst, src[i:]...)
			}
			dst = append(dst, src[i:i+k]...)
			i += k
			if i+2 < len(src) && isHex(src[i+1]) && isHex(src[i+2]) {
				dst = append(dst, unhex(src[i+1])<<4|unhex(src[i+2]))
				i += 3
				continue
			}
			d.held[0], d.n = '=', 1
			i++
			continue
		}
		c := src[i]
		blank := c == ' ' || c == '\t' || c == '\r'
		switch {
		case c == '\n' && (d.n == 1 || !isHex(d.held[1])):
			d.n = 0 // a soft line break
			i++
		case blank && d.n < len(d.held) && (d.n == 1 || !isHex(d.held[1])):
			d.held[d.n] = c
			d.n++
			i++
		case d.n == 1 && isHex(c):
			d.held[1], d.n = c, 2
			i++
		case d.n == 2 && isHex(d.held[1]) && isHex(c):
			dst = append(dst, unhex(d.held[1])<<4|unhex(c))
			d.n = 0
			i++
		case d.held[d.n-1] == '\r':
			d.n = 0 // a soft line break where lines end in CR alone
		default:
			dst = append(dst, d.held[:d.n]...)
			d.n = 0
		}
	}
	return dst
}

func (d *quotedDecoder) finish(dst []byte) []byte {
	if d.n == 1 || d.n > 1 && !isHex(d.held[1]) {
		d.n = 0
		return dst // a soft line break that the end cut
	}
	dst = append(dst, d.held[:d.n]...)
	d.n = 0
	return dst
}

// uuDecoder reads uuencoded lines between "begin" and "end". Text that isn't
// uuencoded at all comes through as it stands.
type uuDecoder struct {
	line  []byte
	state int // 0 before the data, 1 in it, 2 behind it, 3 no uuencoding
}

func (d *uuDecoder) feed(dst, src []byte) []byte {
	for len(src) > 0 {
		if d.state == 3 {
			return append(dst, src...)
		}
		k := bytes.IndexByte(src, '\n')
		if k < 0 {
			k = len(src) - 1
			d.line = append(d.line, src...)
		} else {
			d.line = append(d.line, src[:k+1]...)
		}
		src = src[k+1:]
		if n := len(d.line); n > 0 && (d.line[n-1] == '\n' || n > 1024) {
			dst = d.decodeLine(dst)
		}
	}
	return dst
}

func (d *uuDecoder) decodeLine(dst []byte) []byte {
	whole := d.line
	line := bytes.TrimRight(whole, "\r\n")
	d.line = d.line[:0]
	if d.state == 0 {
		switch {
		case len(bytes.TrimSpace(line)) == 0:
			return dst
		case bytes.HasPrefix(line, []byte("begin ")):
			d.state = 1
			return dst
		case len(line) == 1+(int(line[0]-' ')&63+2)/3*4 && line[0] > ' ' && line[0] <= '`':
			d.state = 1
		default:
			d.state = 3
			return append(dst, whole...)
		}
	}
	if d.state != 1 || len(line) == 0 {
		return dst
	}
	if bytes.Equal(bytes.TrimSpace(line), []byte("end")) {
		d.state = 2
		return dst
	}
	n := int(line[0]-' ') & 63
	at := func(i int) uint32 {
		if i < len(line) {
			return uint32(line[i]-' ') & 63
		}
		return 0 // blanks at the end were cut off
	}
	for i := 1; n > 0; i, n = i+4, n-3 {
		v := at(i)<<18 | at(i+1)<<12 | at(i+2)<<6 | at(i+3)
		three := [3]byte{byte(v >> 16), byte(v >> 8), byte(v)}
		dst = append(dst, three[:min(n, 3)]...)
	}
	return dst
}

func (d *uuDecoder) finish(dst []byte) []byte {
	if len(d.line) > 0 {
		dst = d.decodeLine(dst)
	}
	return dst
}

// decodingReader decodes what it reads. It is for one goroutine.
type decodingReader struct {
	r    io.Reader
	d    decoder
	in   []byte
	out  []byte
	rest []byte
	err  error
}

func newDecodingReader(r io.Reader, t transfer) io.Reader {
	if t == identity {
		return r
	}
	return &decodingReader{r: r, d: decoder{transfer: t}, in: make([]byte, 16<<10)}
}

func (d *decodingReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(d.rest) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		n, err := d.r.Read(d.in)
		d.out = d.d.feed(d.out[:0], d.in[:n])
		if err == io.EOF {
			d.out = d.d.finish(d.out)
		}
		d.rest, d.err = d.out, err
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}
