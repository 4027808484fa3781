package naming

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxValue is how many bytes of a value are looked at: more than any element
// can hold, so that a subject of a megabyte costs no more than a long one.
const maxValue = 1024

// portable returns what stands for r in a file name, and false when nothing
// does. Windows forbids <>:"/\|?* and controls (Microsoft, "Naming Files,
// Paths, and Namespaces"); bidirectional and other invisible formatting
// characters make a name read as another (Unicode TR 36).
func portable(r rune) (rune, bool) {
	switch {
	case r < 0x80:
		switch r {
		case '<', '>', ':', '"', '/', '\\', '|', '?', '*':
			return '_', true
		case ' ', '\t', '\n', '\r', '\v', '\f':
			return ' ', true
		}
		return r, r > ' ' && r != 0x7f
	case r == utf8.RuneError:
		return '_', true
	case r == 0x200c || r == 0x200d: // the joiners make letters and emoji
		return r, true
	case unicode.Is(unicode.Cf, r), unicode.Is(unicode.Cc, r), unicode.Is(unicode.Co, r):
		return 0, false
	case r >= 0xfdd0 && r <= 0xfdef, r&0xfffe == 0xfffe: // noncharacters
		return 0, false
	case r == 0x034f, r == 0x115f, r == 0x1160, r == 0x3164, r == 0xffa0: // letters that show nothing
		return 0, false
	case unicode.IsSpace(r):
		return ' ', true
	}
	return r, true
}

// appendValue appends what of s can stand in an element: no separators, runs
// of white space as one space and none at the ends, in NFC.
func appendValue(b []byte, s string) []byte {
	if len(s) > maxValue {
		s = s[:maxValue]
		for len(s) > 0 && !utf8.RuneStart(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
		if len(s) > 0 && s[len(s)-1] >= utf8.RuneSelf {
			s = s[:len(s)-1]
		}
	}
	start := len(b)
	space, ascii := false, true
	for i := 0; i < len(s); {
		r, n := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(s[i:])
		}
		i += n
		r, ok := portable(r)
		if !ok {
			continue
		}
		if r == ' ' {
			space = true
			continue
		}
		if space && len(b) > start {
			b = append(b, ' ')
		}
		space = false
		if r < utf8.RuneSelf {
			b = append(b, byte(r))
			continue
		}
		ascii = false
		b = utf8.AppendRune(b, r)
	}
	if ascii {
		return b
	}
	v := b[start:]
	if !norm.NFC.IsNormal(v) {
		v = norm.NFC.Bytes(v)
		b = append(b[:start], v...)
	}
	// A mark at the start would change the character before it.
	if !norm.NFC.Properties(v).BoundaryBefore() {
		b = append(b, 0)
		copy(b[start+1:], b[start:])
		b[start] = '_'
	}
	return b
}

// closeElement makes b[start:] a name that every system takes as it stands:
// not empty, no dots or spaces at the end, not a device of Windows, not the
// folder where sinks keep their books.
func closeElement(b []byte, start int) []byte {
	e := start
	for e < len(b) && b[e] == ' ' {
		e++
	}
	if e > start {
		b = append(b[:start], b[e:]...)
	}
	for len(b) > start && (b[len(b)-1] == '.' || b[len(b)-1] == ' ') {
		b = b[:len(b)-1]
	}
	if len(b) == start || reserved(b[start:]) {
		b = append(b, 0)
		copy(b[start+1:], b[start:])
		b[start] = '_'
	}
	return b
}

// reserved reports whether the element names a device on Windows, with any
// extension, or a sink's own folder.
func reserved(e []byte) bool {
	if e[0] == '.' && strings.EqualFold(string(e), ".mailhaul") {
		return true
	}
	stem := e
	for i, c := range e {
		if c == '.' {
			stem = e[:i]
			break
		}
	}
	for len(stem) > 0 && stem[len(stem)-1] == ' ' {
		stem = stem[:len(stem)-1]
	}
	if len(stem) < 3 || len(stem) > 7 {
		return false
	}
	s := strings.ToUpper(string(stem))
	switch s {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	if strings.HasPrefix(s, "COM") || strings.HasPrefix(s, "LPT") {
		switch s[3:] {
		case "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "¹", "²", "³":
			return true
		}
	}
	return false
}
