package message

// base64Values maps an octet to its six bits; 64 and above are no digits.
var base64Values = func() (t [256]byte) {
	for i := range t {
		t[i] = base64Junk
	}
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range len(digits) {
		t[digits[i]] = byte(i)
	}
	t['='] = base64Pad
	return t
}()

const (
	base64Junk = 0xFF
	base64Pad  = 0x80
	// base64MaxLine is the longest line that is looked at whole to tell
	// base64 after padding from the footer of a mailing list.
	base64MaxLine = 1024
)

// base64Decoder reads base64 as it comes: white space and junk between digits
// is passed over, a missing end is no error. After padding, lines count as long
// as they are base64 in whole quanta: some programs encode piece by piece, and
// mailing lists put plain footers behind.
type base64Decoder struct {
	acc    uint32
	digits int
	padded bool   // padding was seen
	line   []byte // after padding: the line so far
	ended  bool   // after padding a line came that is no base64: the end
	fresh  bool   // right behind padding, on its line
	junk   bool   // something was passed over
}

func (d *base64Decoder) feed(dst, src []byte) []byte {
	if d.padded {
		return d.feedPadded(dst, src)
	}
	for i := 0; i < len(src); {
		if d.digits == 0 {
			// Whole quanta at once: nearly all octets go here.
			for len(src)-i >= 8 {
				s := src[i : i+8 : i+8]
				a0, a1, a2, a3 := base64Values[s[0]], base64Values[s[1]], base64Values[s[2]], base64Values[s[3]]
				b0, b1, b2, b3 := base64Values[s[4]], base64Values[s[5]], base64Values[s[6]], base64Values[s[7]]
				if (a0|a1|a2|a3|b0|b1|b2|b3)&0xC0 != 0 {
					break
				}
				v := uint32(a0)<<18 | uint32(a1)<<12 | uint32(a2)<<6 | uint32(a3)
				w := uint32(b0)<<18 | uint32(b1)<<12 | uint32(b2)<<6 | uint32(b3)
				dst = append(dst, byte(v>>16), byte(v>>8), byte(v), byte(w>>16), byte(w>>8), byte(w))
				i += 8
			}
			if i == len(src) {
				break
			}
		}
		c := src[i]
		i++
		switch v := base64Values[c]; {
		case v < 64:
			d.acc = d.acc<<6 | uint32(v)
			if d.digits++; d.digits == 4 {
				dst = append(dst, byte(d.acc>>16), byte(d.acc>>8), byte(d.acc))
				d.acc, d.digits = 0, 0
			}
		case c == '\n' || c == '\r' || c == ' ' || c == '\t':
		case v == base64Pad && d.digits >= 2:
			dst = d.finish(dst)
			d.padded, d.fresh = true, true
			return d.feedPadded(dst, src[i:])
		default:
			d.junk = true
		}
	}
	return dst
}

// isBase64 reports whether the line is nothing but base64.
func isBase64(line []byte) bool {
	for _, c := range line {
		if base64Values[c] == base64Junk {
			return false
		}
	}
	return len(line) > 0
}

func (d *base64Decoder) feedPadded(dst, src []byte) []byte {
	for _, c := range src {
		switch {
		case d.ended:
			return dst
		case c == '\n':
			dst, d.fresh = d.endLine(dst), false
		case c == '\r' || c == ' ' || c == '\t':
		case c == '=' && d.fresh: // the rest of the padding
		case len(d.line) == base64MaxLine || base64Values[c] == base64Junk || c == '=' && len(d.line) == 0:
			d.ended, d.junk = true, true
		default:
			d.line, d.fresh = append(d.line, c), false
		}
	}
	return dst
}

// endLine decodes a line that came after padding, if it is base64.
func (d *base64Decoder) endLine(dst []byte) []byte {
	line := d.line
	d.line = d.line[:0]
	if d.ended {
		return dst
	}
	if len(line)%4 != 0 {
		d.ended, d.junk = true, true
		return dst
	}
	sub := base64Decoder{}
	for i := 0; i < len(line); i += 4 {
		dst = sub.feed(dst, line[i:i+4])
		sub = base64Decoder{}
	}
	return dst
}

// finish decodes what is left of a quantum that never became whole.
func (d *base64Decoder) finish(dst []byte) []byte {
	if d.padded {
		return d.endLine(dst)
	}
	switch d.digits {
	case 2:
		dst = append(dst, byte(d.acc>>4))
	case 3:
		dst = append(dst, byte(d.acc>>10), byte(d.acc>>2))
	}
	d.acc, d.digits = 0, 0
	return dst
}
