package convert

import (
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// renderHTML returns the text of HTML as a reader sees it: no markup, blanks
// joined, lines where blocks begin and end, links behind their text.
func renderHTML(source string) string {
	z := html.NewTokenizer(strings.NewReader(source))
	z.SetMaxBuf(1 << 20)
	var r renderer
	hidden := 0
	for {
		switch z.Next() {
		case html.ErrorToken:
			return strings.TrimSpace(r.out.String()) + "\n"
		case html.TextToken:
			if hidden == 0 {
				r.text(string(z.Text()))
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			name, hasAttr := z.TagName()
			tag := atom.Lookup(name)
			switch tag {
			case atom.Script, atom.Style, atom.Title:
				hidden++
			case atom.Br:
				r.newline()
			case atom.Li:
				r.block(1)
				r.text("* ")
				continue
			case atom.Td, atom.Th:
				r.text(" ")
			case atom.Hr:
				r.block(1)
				r.text("----")
				r.block(1)
			case atom.Pre:
				r.pre++
			case atom.A:
				r.link(z, hasAttr)
			}
			r.block(blockLines(tag))
		case html.EndTagToken:
			name, _ := z.TagName()
			tag := atom.Lookup(name)
			switch tag {
			case atom.Script, atom.Style, atom.Title:
				hidden = max(hidden-1, 0)
			case atom.Pre:
				r.pre = max(r.pre-1, 0)
			case atom.A:
				r.endLink()
			}
			r.block(blockLines(tag))
		}
	}
}

// blockLines returns how many line breaks stand around an element.
func blockLines(tag atom.Atom) int {
	switch tag {
	case atom.P, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Blockquote, atom.Ul, atom.Ol, atom.Pre, atom.Table:
		return 2
	case atom.Div, atom.Tr, atom.Li, atom.Section, atom.Article, atom.Header, atom.Footer, atom.Dt, atom.Dd, atom.Center, atom.Address:
		return 1
	}
	return 0
}

type renderer struct {
	out    strings.Builder
	blank  bool // a blank waits for the next word
	breaks int  // line breaks at the end of out
	pre    int
	href   string
	start  int // of the link's text in out
}

func (r *renderer) text(s string) {
	if r.pre > 0 {
		r.out.WriteString(s)
		r.breaks = 0
		return
	}
	for s != "" {
		i := strings.IndexAny(s, " \t\r\n\f\u00a0")
		word := s
		if i >= 0 {
			word, s = s[:i], strings.TrimLeft(s[i:], " \t\r\n\f\u00a0")
		} else {
			s = ""
		}
		if word != "" {
			if r.blank && r.out.Len() > 0 && r.breaks == 0 {
				r.out.WriteByte(' ')
			}
			r.out.WriteString(word)
			r.blank, r.breaks = false, 0
		}
		if i >= 0 {
			r.blank = true
		}
	}
}

func (r *renderer) newline() {
	r.out.WriteByte('\n')
	r.breaks++
	r.blank = false
}

// block makes sure of n line breaks, of none at the very start.
func (r *renderer) block(n int) {
	if n == 0 || r.out.Len() == 0 {
		return
	}
	for r.breaks < n {
		r.newline()
	}
}

func (r *renderer) link(z *html.Tokenizer, more bool) {
	r.href, r.start = "", r.out.Len()
	for more {
		var k, v []byte
		k, v, more = z.TagAttr()
		if string(k) == "href" {
			r.href = strings.TrimSpace(string(v))
		}
	}
}

func (r *renderer) endLink() {
	href := r.href
	r.href = ""
	if href == "" || strings.HasPrefix(href, "#") || strings.HasPrefix(strings.ToLower(href), "javascript:") {
		return
	}
	shown := strings.TrimSpace(r.out.String()[min(r.start, r.out.Len()):])
	if shown == "" || shown == href || "mailto:"+shown == href || "http://"+shown == href || "https://"+shown == href {
		return
	}
	r.out.WriteString(" <" + href + ">")
	r.breaks = 0
}
