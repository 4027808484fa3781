package imapdata

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// modified is the base64 of modified UTF-7 (RFC 3501 §5.1.3).
var modified = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

// DecodeName returns a mailbox name in UTF-8. It takes what servers really
// send: raw UTF-8, raw 8-bit of another charset (read as windows-1252 would
// be a guess, so octets become U+FFFD only where nothing else helps), a lone
// & and broken base64, which stay as they stand.
func DecodeName(name string) string {
	if !strings.Contains(name, "&") {
		return valid(name)
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(name, "&")
		b.WriteString(before)
		if !found {
			return valid(b.String())
		}
		code, after, closed := strings.Cut(rest, "-")
		switch {
		case closed && code == "":
			b.WriteByte('&')
			name = after
			continue
		case closed:
			if s, ok := decodeUTF16(code); ok {
				b.WriteString(s)
				name = after
				continue
			}
		}
		b.WriteByte('&') // not a shift: the character itself
		name = rest
	}
}

func decodeUTF16(code string) (string, bool) {
	raw, err := modified.DecodeString(code)
	if err != nil || len(raw) < 2 || len(raw)%2 != 0 {
		return "", false
	}
	units := make([]uint16, len(raw)/2)
	for i := range units {
		units[i] = uint16(raw[2*i])<<8 | uint16(raw[2*i+1])
	}
	s := string(utf16.Decode(units))
	return s, !strings.ContainsRune(s, utf8.RuneError)
}

// valid makes UTF-8 of a name in raw 8-bit: octets that aren't UTF-8 are
// taken for ISO 8859-1, which keeps two names apart that differ.
func valid(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	var b strings.Builder
	for i := range len(name) {
		b.WriteRune(rune(name[i]))
	}
	return b.String()
}

// EncodeName returns a name in modified UTF-7.
func EncodeName(name string) string {
	var b strings.Builder
	var shifted []uint16
	flush := func() {
		if len(shifted) == 0 {
			return
		}
		raw := make([]byte, 0, 2*len(shifted))
		for _, u := range shifted {
			raw = append(raw, byte(u>>8), byte(u))
		}
		b.WriteByte('&')
		b.WriteString(modified.EncodeToString(raw))
		b.WriteByte('-')
		shifted = shifted[:0]
	}
	for _, r := range name {
		switch {
		case r == '&':
			flush()
			b.WriteString("&-")
		case r >= 0x20 && r < 0x7f:
			flush()
			b.WriteRune(r)
		default:
			shifted = utf16.AppendRune(shifted, r)
		}
	}
	flush()
	return b.String()
}
