package message

import (
	"strings"
	"unicode/utf16"
)

// decodeUTF7 reads UTF-7 (RFC 2152). It is false when b holds octets above
// 127, which UTF-7 never does: then the label lies.
func decodeUTF7(b []byte) (string, bool) {
	if !isASCII(b) {
		return "", false
	}
	var out strings.Builder
	out.Grow(len(b))
	var units []uint16
	for i := 0; i < len(b); {
		if b[i] != '+' {
			out.WriteByte(b[i])
			i++
			continue
		}
		i++
		if i < len(b) && b[i] == '-' {
			out.WriteByte('+')
			i++
			continue
		}
		start := i
		units = units[:0]
		var acc uint32
		var bits uint
		for i < len(b) {
			v := base64Values[b[i]]
			if v > 63 {
				break
			}
			acc = acc<<6 | uint32(v)
			bits += 6
			i++
			if bits >= 16 {
				bits -= 16
				units = append(units, uint16(acc>>bits))
				acc &= 1<<bits - 1
			}
		}
		if i == start { // a bare "+"
			out.WriteByte('+')
			continue
		}
		out.WriteString(string(utf16.Decode(units)))
		if i < len(b) && b[i] == '-' {
			i++
		}
	}
	return out.String(), true
}
