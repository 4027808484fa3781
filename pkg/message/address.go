package message

import "strings"

// Address is one mailbox of an address list, decoded.
type Address struct {
	Name    string `json:"name,omitempty"`
	Address string `json:"address,omitempty"`
}

// ParseAddresses reads a list of addresses (RFC 5322 §3.4) as programs really
// write them: groups are flattened, routes and comments dropped, a comment
// becomes the name where there is none (RFC 822's way), encoded words are
// decoded wherever they stand. It never fails: what is no address is returned
// with the text as its name.
func ParseAddresses(list string) []Address {
	if usual, ok := usualAddresses(nil, list); ok {
		return usual
	}
	return anyAddresses(list)
}

func anyAddresses(list string) []Address {
	p := addressParser{s: list, lastClose: strings.LastIndexByte(list, '>'), lastAt: strings.LastIndexByte(list, '@'), lastWord: strings.LastIndex(list, "?=")}
	for p.i < len(p.s) {
		p.next()
	}
	p.end()
	return p.out
}

// addressParser walks over the list once. Between separators it gathers words
// before an angle bracket, what stands in the bracket, and comments.
type addressParser struct {
	s       string
	i       int
	out     []Address
	words   strings.Builder // phrase or bare address, as it stands, quotes removed
	bare    strings.Builder // the same with quotes kept: an address's local part needs them
	comment string
	angle   string
	inAngle bool // an angle bracket was seen
	group   bool

	// Where the last of each stands: what isn't there any more isn't looked
	// for again and again.
	lastClose, lastAt, lastWord int
	noQuote                     bool // a quote without an end was met
}

func (p *addressParser) next() {
	c := p.s[p.i]
	switch c {
	case ',', ';':
		// A comma inside an unfinished name (Doe, John <j@x>) separates no
		// addresses: nothing before it looks like one.
		if c == ',' && !p.inAngle && p.rawComma() {
			p.put(",", ",")
			p.i++
			return
		}
		p.i++
		p.end()
		if c == ';' {
			p.group = false
		}
	case ':':
		p.i++
		if !p.inAngle && !p.group && !strings.Contains(p.bare.String(), "@") && p.isGroup() {
			p.words.Reset()
			p.bare.Reset()
			p.comment = ""
			p.group = true
			return
		}
		p.put(":", ":")
	case '"':
		text, n := "", 0
		if !p.noQuote {
			text, n = quoted(p.s[p.i:])
		}
		if n == 0 {
			p.noQuote = true
			p.put(`"`, `"`)
			p.i++
			return
		}
		p.put(text, p.s[p.i:p.i+n])
		p.i += n
	case '(':
		text, n := comment(p.s[p.i:])
		p.i += n
		if p.comment == "" {
			p.comment = text
		}
		p.put(" ", " ")
	case '<':
		if p.inAngle || p.i > p.lastClose && p.i > p.lastAt {
			p.put("<", "<")
			p.i++
			return
		}
		end := -1
		if p.i < p.lastClose {
			end = strings.IndexByte(p.s[p.i:], '>')
		}
		inner := p.s[p.i+1:]
		if end >= 0 {
			inner = p.s[p.i+1 : p.i+end]
			p.i += end + 1
		} else {
			end = len(inner)
			if k := strings.IndexAny(inner, ",;"); k >= 0 {
				end = k
			}
			inner = inner[:end]
			p.i += 1 + end
		}
		if f := strings.TrimSpace(inner); strings.ContainsAny(f, " \t") && !strings.Contains(f, "@") {
			p.put(f, f) // "<Undisclosed Recipients>" is a name
			return
		}
		p.angle, p.inAngle = cleanAddress(inner), true
	case ' ', '\t', '\r', '\n':
		p.put(" ", " ")
		p.i++
	default:
		// An encoded word may hold commas and colons.
		if c == '=' && p.i < p.lastWord && strings.HasPrefix(p.s[p.i:], "=?") {
			if _, n := parseWord(p.s[p.i:]); n > 0 {
				p.put(p.s[p.i:p.i+n], p.s[p.i:p.i+n])
				p.i += n
				return
			}
		}
		start := p.i
		for p.i < len(p.s) && !strings.ContainsRune(",;:\"(< \t\r\n", rune(p.s[p.i])) {
			p.i++
			if p.i < len(p.s) && p.s[p.i] == '=' {
				break
			}
		}
		p.put(p.s[start:p.i], p.s[start:p.i])
	}
}

func (p *addressParser) put(word, raw string) {
	if p.inAngle {
		return // junk behind "<a@b>"
	}
	p.words.WriteString(word)
	p.bare.WriteString(raw)
}

// rawComma reports whether the comma at i stands in an unquoted display name:
// there is text without "@" before it, and the next "<" comes before any other
// comma, semicolon or "@".
func (p *addressParser) rawComma() bool {
	before := strings.TrimSpace(p.bare.String())
	if before == "" || strings.ContainsAny(before, "@\"") || strings.Contains(before, "=?") {
		return false
	}
	rest := p.s[p.i+1:]
	j := strings.IndexAny(rest, "<,;@\":(")
	return j > 0 && rest[j] == '<' && strings.TrimSpace(rest[:j]) != ""
}

// isGroup reports whether the colon just passed ends a group's name: there is
// a semicolon later, or nothing but blanks.
func (p *addressParser) isGroup() bool {
	return strings.TrimSpace(p.words.String()) != ""
}

// end closes the address gathered so far, if there is any.
func (p *addressParser) end() {
	words := strings.TrimSpace(p.words.String())
	bare := strings.TrimSpace(p.bare.String())
	a := Address{}
	switch {
	case p.inAngle:
		a.Address, a.Name = p.angle, decodeName(words)
	case strings.Contains(bare, "@"):
		a.Address, a.Name = splitBare(bare)
	case bare != "" && !strings.ContainsAny(bare, " \t") && !strings.Contains(bare, "=?"):
		a.Address = decodeRaw(bare) // a local user: "root"
	default:
		a.Name = decodeName(words)
	}
	if a.Name == "" && a.Address != "" {
		a.Name = decodeName(p.comment)
	}
	if a.Address != "" || a.Name != "" {
		p.out = append(p.out, a)
	}
	p.words.Reset()
	p.bare.Reset()
	p.comment, p.angle, p.inAngle = "", "", false
}

// splitBare takes the address out of text without brackets: the word with the
// "@", blanks around it dropped; the rest is the name.
func splitBare(bare string) (addr, name string) {
	if strings.HasPrefix(bare, `"`) || !strings.ContainsAny(bare, " \t") {
		return cleanAddress(bare), ""
	}
	if f := strings.Fields(bare); !strings.Contains(bare, "=?") {
		for i, w := range f {
			if at := strings.IndexByte(w, '@'); at > 0 && at < len(w)-1 {
				rest := append(append([]string(nil), f[:i]...), f[i+1:]...)
				return cleanAddress(w), decodeName(strings.Join(rest, " "))
			}
		}
	}
	return cleanAddress(bare), ""
}

// cleanAddress drops a route (RFC 5322 §4.4: "@a,@b:user@host"), comments,
// "mailto:" and blanks.
func cleanAddress(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 7 && strings.EqualFold(s[:7], "mailto:") {
		s = s[7:]
	}
	if strings.HasPrefix(s, "@") {
		if i := strings.IndexByte(s, ':'); i > 0 {
			s = s[i+1:]
		}
	}
	if strings.IndexByte(s, '(') >= 0 {
		s = dropComments(s)
	}
	if !strings.HasPrefix(s, `"`) && strings.ContainsAny(s, " \t") {
		s = oneWord(s)
	}
	s = strings.TrimRight(strings.TrimLeft(s, "<"), ">")
	if strings.Contains(s, "=?") {
		return strings.TrimSpace(decodeWords(s, nil))
	}
	return decodeRaw(s)
}

// dropComments takes the comments out, but not parentheses in quotes.
func dropComments(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); {
		n := 0
		switch s[i] {
		case '"':
			if _, n = quoted(s[i:]); n > 0 {
				out.WriteString(s[i : i+n])
			}
		case '(':
			_, n = comment(s[i:])
		}
		if n == 0 {
			out.WriteByte(s[i])
			n = 1
		}
		i += n
	}
	return strings.TrimSpace(out.String())
}

// oneWord takes the address out of words that shouldn't be there: the only word
// with an "@" inside, else all of them without the blanks ("user @ host").
func oneWord(s string) string {
	found := ""
	for _, w := range strings.Fields(s) {
		if at := strings.IndexByte(w, '@'); at > 0 && at < len(w)-1 {
			if found != "" {
				return strings.Map(dropBlanks, s)
			}
			found = w
		}
	}
	if found == "" {
		return strings.Map(dropBlanks, s)
	}
	return found
}

func dropBlanks(r rune) rune {
	if r == ' ' || r == '\t' {
		return -1
	}
	return r
}

// decodeName decodes a display name: encoded words, single blanks, and one
// pair of quotes that stood inside a word. Single quotes are letters.
func decodeName(s string) string {
	s = decodeWords(strings.TrimSpace(s), nil)
	if strings.ContainsAny(s, "\t\r\n") || strings.Contains(s, "  ") {
		s = strings.Join(strings.Fields(s), " ")
	}
	s = strings.TrimSpace(s)
	if len(s) > 1 && s[0] == '"' && s[len(s)-1] == '"' {
		s = strings.TrimSpace(s[1 : len(s)-1])
	}
	return s
}

// quoted reads the quoted string that s begins with; n is 0 when it has no end.
func quoted(s string) (text string, n int) {
	var out strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i+1 < len(s) {
				i++
				out.WriteByte(s[i])
			}
		case '"':
			return out.String(), i + 1
		default:
			out.WriteByte(s[i])
		}
	}
	return "", 0
}

// comment reads the comment that s begins with, nested ones too. One without
// an end reaches to the end of s.
func comment(s string) (text string, n int) {
	var out strings.Builder
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i+1 < len(s) {
				i++
				out.WriteByte(s[i])
			}
			continue
		case '(':
			if depth++; depth == 1 {
				continue
			}
		case ')':
			if depth--; depth == 0 {
				return out.String(), i + 1
			}
		}
		out.WriteByte(s[i])
	}
	return out.String(), len(s)
}
