package rtf

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// Encapsulate returns RTF that holds the HTML, which is UTF-8, so that it can be
// taken out again as it was, and that readers of RTF show as text (MS-OXRTFEX
// §2.2). Markup goes into \*\htmltag groups; what RTF alone needs stands
// between \htmlrtf and \htmlrtf0.
func Encapsulate(source string) []byte {
	var out bytes.Buffer
	out.Grow(len(source)*3/2 + 256)
	out.WriteString(`{\rtf1\ansi\ansicpg1252\fromhtml1 \deff0` + "\r\n" +
		`{\fonttbl{\f0\fswiss\fcharset0 Arial;}}` + "\r\n" +
		`{\colortbl\red0\green0\blue0;\red0\green0\blue255;}` + "\r\n" +
		`\uc1\pard\plain\deftab360 \f0\fs24 ` + "\r\n")
	z := html.NewTokenizer(strings.NewReader(source))
	hidden := false
	for {
		kind := z.Next()
		raw := z.Raw()
		switch kind {
		case html.ErrorToken:
			if len(raw) > 0 {
				tag(&out, string(raw))
			}
			out.WriteString("}")
			return out.Bytes()
		case html.TextToken:
			if hidden {
				tag(&out, string(raw))
			} else {
				text(&out, string(raw))
			}
		default:
			markup := string(raw)
			tag(&out, markup)
			if kind == html.CommentToken || kind == html.DoctypeToken {
				continue
			}
			name, _ := z.TagName()
			switch a := atom.Lookup(name); a {
			case atom.Script, atom.Style, atom.Title, atom.Head:
				hidden = kind == html.StartTagToken
			case atom.Br:
				out.WriteString(`\htmlrtf \line \htmlrtf0 `)
			case atom.P, atom.Div, atom.Tr, atom.Li, atom.H1, atom.H2, atom.H3, atom.Blockquote:
				if kind == html.EndTagToken {
					out.WriteString(`\htmlrtf \par \htmlrtf0 `)
				}
			case atom.Td, atom.Th:
				if kind == html.EndTagToken {
					out.WriteString(`\htmlrtf \tab \htmlrtf0 `)
				}
			}
		}
	}
}

func tag(out *bytes.Buffer, markup string) {
	out.WriteString(`{\*\htmltag64 `)
	escape(out, markup, true)
	out.WriteByte('}')
}

// text writes text outside of tags. Character references are markup with the
// character beside them for RTF.
func text(out *bytes.Buffer, s string) {
	for s != "" {
		i := strings.IndexByte(s, '&')
		if i < 0 {
			break
		}
		end := strings.IndexByte(s[i:], ';')
		ref := ""
		if end > 1 && end < 34 {
			ref = s[i : i+end+1]
		}
		char := html.UnescapeString(ref)
		if ref == "" || char == ref {
			escape(out, s[:i+1], false)
			s = s[i+1:]
			continue
		}
		escape(out, s[:i], false)
		out.WriteString(`{\*\htmltag84 ` + ref + `}\htmlrtf `)
		escape(out, char, true)
		out.WriteString(`\htmlrtf0 `)
		s = s[i+len(ref):]
	}
	escape(out, s, false)
}

// escape writes text as RTF. Line ends of the HTML are \par in tags; between
// them they are kept from RTF's readers.
func escape(out *bytes.Buffer, s string, inTag bool) {
	for _, r := range s {
		switch {
		case r == '\\' || r == '{' || r == '}':
			out.WriteByte('\\')
			out.WriteRune(r)
		case r == '\r':
		case r == '\n' && inTag:
			out.WriteString(`\par `)
		case r == '\n':
			out.WriteString("{\\*\\htmltag64 \\par }\r\n")
		case r == '\t':
			out.WriteString(`\tab `)
		case r < ' ':
		case r < 0x80:
			out.WriteByte(byte(r))
		case r > 0xFFFF:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(out, `\u%d?\u%d?`, int16(hi), int16(lo))
		default:
			out.WriteString(`\u` + strconv.Itoa(int(int16(r))) + `?`)
		}
	}
}
