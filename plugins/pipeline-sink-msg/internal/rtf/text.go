package rtf

import (
	"strconv"
	"strings"
	"unicode/utf16"

	"golang.org/x/text/encoding/charmap"
)

// Text returns the plain text of RTF, as far as control words go that make
// text: paragraphs, lines, tabs, characters. Groups that hold no text (fonts,
// colours, pictures, encapsulated markup) are left out.
func Text(rtf []byte) string {
	p := parser{uc: 1}
	p.run(rtf)
	return string(utf16.Decode(p.out))
}

type parser struct {
	out   []uint16
	uc    int // octets that stand for a \u character
	skip  int // of them still to come
	depth int
	mute  int  // depth of the group that is left out; 0: none
	rtf   bool // between \htmlrtf and \htmlrtf0
}

func (p *parser) put(r rune) {
	if p.mute > 0 || p.rtf {
		return
	}
	p.out = utf16.AppendRune(p.out, r)
}

func (p *parser) run(b []byte) {
	for i := 0; i < len(b); {
		c := b[i]
		i++
		switch c {
		case '{':
			p.depth++
			if p.mute == 0 && strings.HasPrefix(string(b[i:min(i+2, len(b))]), `\*`) {
				p.mute = p.depth
			}
		case '}':
			if p.mute == p.depth {
				p.mute = 0
			}
			p.depth--
		case '\r', '\n':
		case '\\':
			i = p.control(b, i)
		default:
			if p.skip > 0 {
				p.skip--
				continue
			}
			p.put(charmap.Windows1252.DecodeByte(c))
		}
	}
}

func (p *parser) control(b []byte, i int) int {
	if i >= len(b) {
		return i
	}
	c := b[i]
	if c == '\'' {
		if i+3 <= len(b) {
			if v, err := strconv.ParseUint(string(b[i+1:i+3]), 16, 8); err == nil {
				if p.skip > 0 {
					p.skip--
				} else {
					p.put(charmap.Windows1252.DecodeByte(byte(v)))
				}
			}
		}
		return min(i+3, len(b))
	}
	if c|0x20 < 'a' || c|0x20 > 'z' {
		switch c {
		case '\\', '{', '}':
			p.put(rune(c))
		case '~':
			p.put('\u00a0')
		case '_':
			p.put('-')
		}
		return i + 1
	}
	start := i
	for i < len(b) && b[i]|0x20 >= 'a' && b[i]|0x20 <= 'z' {
		i++
	}
	word := string(b[start:i])
	number := i
	if i < len(b) && b[i] == '-' {
		i++
	}
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	arg, err := strconv.Atoi(string(b[number:i]))
	if i < len(b) && b[i] == ' ' {
		i++
	}
	p.word(word, arg, err == nil)
	return i
}

func (p *parser) word(word string, arg int, hasArg bool) {
	switch word {
	case "par", "line", "sect", "page", "row":
		p.put('\n')
	case "tab", "cell":
		p.put('\t')
	case "uc":
		p.uc = min(max(arg, 0), 16)
	case "u":
		if p.mute == 0 && !p.rtf {
			p.out = append(p.out, uint16(arg))
		}
		p.skip = p.uc
	case "htmlrtf":
		p.rtf = !hasArg || arg != 0
	case "lquote":
		p.put('‘')
	case "rquote":
		p.put('’')
	case "ldblquote":
		p.put('“')
	case "rdblquote":
		p.put('”')
	case "endash":
		p.put('–')
	case "emdash":
		p.put('—')
	case "bullet":
		p.put('•')
	case "fonttbl", "colortbl", "stylesheet", "info", "pict", "object", "header", "footer":
		if p.mute == 0 {
			p.mute = p.depth
		}
	}
}
