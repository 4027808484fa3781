package message

import (
	"sort"
	"strings"
)

// parseParams reads a value with parameters, as Content-Type and
// Content-Disposition have (RFC 2045 §5.1, RFC 2183), as programs really write
// them: RFC 2231 with continuations, encoded words where they don't belong,
// raw 8-bit, quotes that are missing, unclosed or stand inside, a missing
// semicolon or first word. main is in lower case, names are too; values are
// decoded. params is nil when there are none.
func parseParams(s string) (main string, params map[string]string) {
	p := paramParser{s: s}
	main = p.main()
	p.params()
	if len(p.found) == 0 {
		return main, nil
	}
	return main, p.join()
}

// maxParams bounds the parameters of one value.
const maxParams = 1000

type paramParser struct {
	s     string
	i     int
	found []param
}

// param is one parameter as it stands, or one piece of it.
type param struct {
	name     string // without the marks of RFC 2231
	value    string // unquoted, not yet decoded
	piece    int    // of RFC 2231 §3; -1 when the value is in one piece
	extended bool   // RFC 2231 §4: percent encoded, with a charset in the first piece
}

func (p *paramParser) main() string {
	end := strings.IndexByte(p.s, ';')
	if end < 0 {
		end = len(p.s)
	}
	word := p.s[:end]
	if eq := strings.IndexByte(word, '='); eq >= 0 && !strings.Contains(word, "=?") {
		// A semicolon or the first word is missing: what stands before the
		// parameter's name is the value.
		name := len(strings.TrimRight(word[:eq], " \t"))
		start := strings.LastIndexAny(word[:name], " \t,") + 1
		word, end = word[:start], start
	}
	p.i = end
	if i := strings.IndexByte(word, '('); i >= 0 {
		_, n := comment(word[i:])
		word = word[:i] + word[i+n:]
	}
	return strings.ToLower(strings.Trim(word, " \t\r\n\"',"))
}

func (p *paramParser) params() {
	for p.i < len(p.s) && len(p.found) < maxParams {
		if c := p.s[p.i]; c == ';' || c == ' ' || c == '\t' || c == ',' {
			p.i++
			continue
		}
		rest := p.s[p.i:]
		k := strings.IndexAny(rest, "=;")
		if k < 0 {
			return
		}
		if rest[k] == ';' {
			p.i += k + 1
			continue
		}
		name := rest[:k]
		p.i += k + 1
		if i := strings.IndexByte(name, '('); i >= 0 {
			_, n := comment(name[i:])
			name = name[:i] + name[i+n:]
		}
		name = strings.ToLower(strings.Trim(name, " \t\"'"))
		if i := strings.LastIndexAny(name, " \t"); i >= 0 {
			name = name[i+1:]
		}
		for p.i < len(p.s) && (p.s[p.i] == ' ' || p.s[p.i] == '\t') {
			p.i++
		}
		var value string
		if p.i < len(p.s) && p.s[p.i] == '"' {
			value = p.quoted()
		} else {
			value = p.bare(isNameParam(name))
		}
		if name != "" {
			p.found = append(p.found, splitParam(name, value))
		}
	}
}

func isNameParam(name string) bool {
	return strings.HasPrefix(name, "name") || strings.HasPrefix(name, "filename")
}

// quoted reads a quoted value. A quote ends it only where a semicolon, the
// next parameter or the end follows: file names have quotes inside. Only \\
// and \" are escapes: file names of Windows have single backslashes.
func (p *paramParser) quoted() string {
	s := p.s[p.i+1:]
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && (s[i+1] == '\\' || s[i+1] == '"'):
			i++
			out.WriteByte(s[i])
		case c == '"' && endsParam(s[i+1:]):
			p.i += 1 + i + 1
			return out.String()
		default:
			out.WriteByte(c)
		}
	}
	// Never closed: it ends where the line does.
	text := out.String()
	p.i = len(p.s)
	if k := strings.IndexByte(text, ';'); k >= 0 && strings.Contains(text[k:], "=") {
		p.i = p.i - len(s) + strings.IndexByte(s, ';')
		text = text[:k]
	}
	return strings.TrimSpace(text)
}

// endsParam reports whether a value may end before s.
func endsParam(s string) bool {
	t := strings.TrimLeft(s, " \t\r\n")
	if t == "" || t[0] == ';' || t[0] == '(' {
		return true
	}
	if t[0] == ',' {
		t = t[1:]
	} else if len(t) == len(s) {
		// Right behind the quote: only a parameter that we know.
		low := strings.ToLower(t[:min(len(t), 12)])
		return strings.HasPrefix(low, "name=") || strings.HasPrefix(low, "filename=") || strings.HasPrefix(low, "charset=")
	}
	// A blank, a word and an equals sign: the semicolon was forgotten.
	t = strings.TrimLeft(t, " \t")
	for i := 0; i < len(t) && i < 40; i++ {
		c := t[i]
		if c == '=' {
			return i > 0
		}
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '*' || c == '-' || c == '_') {
			return false
		}
	}
	return false
}

// bare reads a value without quotes: to the semicolon, for a file name; else
// to the first blank.
func (p *paramParser) bare(isName bool) string {
	rest := p.s[p.i:]
	end := strings.IndexByte(rest, ';')
	if end < 0 {
		end = len(rest)
	}
	p.i += end
	value := strings.Trim(rest[:end], " \t\r\n")
	if !isName {
		if k := strings.IndexAny(value, " \t("); k >= 0 {
			if strings.Contains(value[k:], "=") {
				p.i = p.i - end + strings.Index(rest, value) + k
			}
			value = value[:k]
		}
		value = strings.Trim(value, "\"")
	}
	return value
}

// splitParam takes the marks of RFC 2231 off the name: name*, name*0, name*0*.
func splitParam(name, value string) param {
	q := param{name: name, value: value, piece: -1}
	star := strings.IndexByte(name, '*')
	if star <= 0 {
		return q
	}
	marks := name[star+1:]
	if strings.HasSuffix(marks, "*") || marks == "" {
		q.extended = true
		marks = strings.TrimSuffix(marks, "*")
	}
	if marks != "" {
		if digits(marks) != len(marks) || len(marks) > 4 {
			return param{name: name, value: value, piece: -1}
		}
		q.piece = atoi(marks)
	}
	q.name = name[:star]
	return q
}

// join puts pieces together and decodes. Of several values of one name the
// extended wins, then the one in pieces, then the first.
func (p *paramParser) join() map[string]string {
	out := make(map[string]string, len(p.found))
	plain := true
	for _, q := range p.found {
		if q.piece >= 0 || q.extended {
			plain = false
			continue
		}
		if _, ok := out[q.name]; !ok {
			out[q.name] = decodeValue(q.value)
		}
	}
	if plain {
		return out
	}
	done := make(map[string]bool)
	for i, q := range p.found {
		if q.extended && q.piece < 0 && !done[q.name] {
			out[q.name], done[q.name] = decodeExtended([]param{q}), true
			continue
		}
		if q.piece < 0 || done[q.name] {
			continue
		}
		pieces := []param{q}
		for _, o := range p.found[i+1:] {
			if o.name != q.name {
				continue
			}
			if o.piece >= 0 {
				pieces = append(pieces, o)
			} else if o.extended {
				pieces = nil // filename* in one piece is there too
				break
			}
		}
		if pieces == nil {
			continue
		}
		sort.SliceStable(pieces, func(a, b int) bool { return pieces[a].piece < pieces[b].piece })
		out[q.name], done[q.name] = decodeExtended(pieces), true
	}
	return out
}

// decodeExtended decodes the pieces of one value (RFC 2231 §3, §4): octets
// first, the charset over all of them, since pieces end inside characters.
func decodeExtended(pieces []param) string {
	var octets []byte
	charset, extended := "", false
	for i, q := range pieces {
		v := q.value
		if !q.extended {
			octets = append(octets, v...)
			continue
		}
		if i == 0 || !extended {
			if a := strings.IndexByte(v, '\''); a >= 0 {
				if b := strings.IndexByte(v[a+1:], '\''); b >= 0 {
					charset, v = v[:a], v[a+1+b+1:]
				}
			}
		}
		extended = true
		for k := 0; k < len(v); k++ {
			if v[k] == '%' && k+2 < len(v) && isHex(v[k+1]) && isHex(v[k+2]) {
				octets = append(octets, unhex(v[k+1])<<4|unhex(v[k+2]))
				k += 2
			} else {
				octets = append(octets, v[k])
			}
		}
	}
	if !extended {
		return decodeValue(string(octets))
	}
	text, _, _ := DecodeCharset(charset, octets)
	if strings.Contains(text, "=?") {
		text = decodeWords(text, nil)
	}
	return cleanValue(text)
}

func decodeValue(s string) string { return cleanValue(decodeWords(s, nil)) }

// cleanValue drops line breaks and NUL, which no value means.
func cleanValue(s string) string {
	if !strings.ContainsAny(s, "\r\n\x00") {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' || r == 0 {
			return -1
		}
		return r
	}, s)
}
