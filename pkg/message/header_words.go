package message

import (
	"strings"
	"unicode/utf8"
)

// decodeWords returns s with its encoded words (RFC 2047) decoded, and raw
// octets as UTF-8, else windows-1252. White space between two words is not
// text. Neighbours in one charset are joined before they are decoded, since
// programs split them inside a character. Words are taken wherever they stand,
// in quotes and in the middle of text too, and their text may hold spaces.
// Charsets that can't be read go to unknown, when it isn't nil.
func decodeWords(s string, unknown func(charset string)) string {
	return decodeWordsIn(s, "", unknown)
}

// decodeWordsIn is decodeWords with the charset that the message declares for
// its text: raw octets that are no UTF-8 are read in it.
func decodeWordsIn(s, declared string, unknown func(charset string)) string {
	raw := func(s string) string {
		if declared == "" || utf8.ValidString(s) {
			return decodeRaw(s)
		}
		text, _, _ := DecodeCharset(declared, []byte(s))
		return text
	}
	if !strings.Contains(s, "=?") {
		return raw(s)
	}
	var out strings.Builder
	var run []byte // decoded octets of a run of words
	var runCharset string
	inRun := false
	flush := func() {
		if inRun {
			text, _, known := DecodeCharset(runCharset, run)
			if !known && unknown != nil {
				unknown(runCharset)
			}
			out.WriteString(text)
			inRun, run = false, run[:0]
		}
	}
	ends := strings.LastIndex(s, "?=") // behind it no word can end
	for s != "" {
		i := strings.Index(s, "=?")
		if i < 0 || i > ends {
			break
		}
		w, n := parseWord(s[i:])
		if n == 0 {
			flush()
			out.WriteString(raw(s[:i+2]))
			s, ends = s[i+2:], ends-(i+2)
			continue
		}
		between := s[:i]
		if !inRun || strings.Trim(between, " \t\r\n") != "" {
			flush()
			out.WriteString(raw(between))
		} else if !strings.EqualFold(runCharset, w.charset) {
			flush()
		}
		inRun, runCharset = true, w.charset
		run = w.decode(run)
		s, ends = s[i+n:], ends-(i+n)
	}
	flush()
	out.WriteString(raw(s))
	return out.String()
}

func decodeRaw(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	text, _ := guessCharset([]byte(s))
	return text
}

// word is one encoded word, not yet decoded.
type word struct {
	charset string
	base64  bool
	text    string
}

// parseWord reads the encoded word that s begins with and returns its length,
// 0 when there is none.
func parseWord(s string) (word, int) {
	rest := s[2:]
	q := strings.IndexByte(rest, '?')
	if q < 0 || q > 64 || strings.ContainsAny(rest[:q], " \t\r\n=<>\"") {
		return word{}, 0
	}
	charset := rest[:q]
	if star := strings.IndexByte(charset, '*'); star > 0 { // RFC 2231 §5: a language
		charset = charset[:star]
	}
	if len(rest) < q+3 || rest[q+2] != '?' {
		return word{}, 0
	}
	w := word{charset: charset}
	switch rest[q+1] {
	case 'B', 'b':
		w.base64 = true
	case 'Q', 'q':
	default:
		return word{}, 0
	}
	text := rest[q+3:]
	end := strings.Index(text, "?=")
	if end < 0 {
		return word{}, 0
	}
	// "?=" may be a bare question mark before an escape: "?Q?what?=3F?=".
	for !w.base64 && end+4 <= len(text) && isHex(text[end+2]) && isHex(text[end+3]) {
		next := strings.Index(text[end+2:], "?=")
		if next < 0 || strings.Contains(text[end+2:end+2+next], "=?") || strings.ContainsAny(text[end+2:end+2+next], " \t") {
			break
		}
		end += 2 + next
	}
	w.text = text[:end]
	if !w.base64 && !isASCII([]byte(w.text)) && utf8.ValidString(w.text) {
		w.charset = "utf-8" // raw UTF-8 in a word that says otherwise
	}
	return w, 2 + q + 3 + end + 2
}

func (w word) decode(dst []byte) []byte {
	if w.base64 {
		var d base64Decoder
		return d.finish(d.feed(dst, []byte(w.text)))
	}
	for i := 0; i < len(w.text); i++ {
		c := w.text[i]
		switch {
		case c == '_':
			dst = append(dst, ' ')
		case c == '=' && i+2 < len(w.text) && isHex(w.text[i+1]) && isHex(w.text[i+2]):
			dst = append(dst, unhex(w.text[i+1])<<4|unhex(w.text[i+2]))
			i += 2
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	default:
		return c - '0'
	}
}
