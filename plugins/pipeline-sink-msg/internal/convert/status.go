package convert

import (
	"bytes"
	"strings"
	"unicode"
)

// canonicalStatus returns the fields of a report in one form, whatever program
// wrote them: line ends are LF, each group of fields ends with an empty line and
// another one stands between groups, and fields longer than 78 columns are
// folded at the highest break there is (RFC 5322 §2.2.3): behind a semicolon,
// else behind a comma, else before a blank. Only white space changes, which
// means nothing there (RFC 3464 §2.1.1). The readers that this package is
// checked against compare reports in this form, not by their octets. In a report
// of one group (RFC 5965, RFC 8098, RFC 2046 §5.2.3) what follows it stays as it
// is.
func canonicalStatus(raw []byte, grouped bool) []byte {
	text := lineEnds.Replace(string(raw))
	var out bytes.Buffer
	out.Grow(len(raw) + 64)
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		for i < len(lines) && lines[i] != "" {
			n := i + 1
			for n < len(lines) && lines[n] != "" && (lines[n][0] == ' ' || lines[n][0] == '\t') {
				n++
			}
			canonicalField(&out, lines[i:n])
			i = n
		}
		out.WriteByte('\n')
		if i+1 >= len(lines) {
			break
		}
		if !grouped {
			out.WriteString(strings.Join(lines[i+1:], "\n"))
			break
		}
		out.WriteByte('\n')
	}
	return out.Bytes()
}

var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n")

func canonicalField(out *bytes.Buffer, lines []string) {
	name, value, ok := strings.Cut(lines[0], ":")
	if ok {
		for _, l := range lines {
			ok = ok && ascii([]byte(l))
		}
	}
	if !ok {
		for _, l := range lines {
			out.WriteString(l + "\n")
		}
		return
	}
	f := folder{start: len(name) + 2}
	f.field(strings.TrimLeft(value, " \t"), lines[1:])
	out.WriteString(name + ": " + strings.Join(f.lines, "\n") + "\n")
}

// folder folds one field.
type folder struct {
	lines []string
	start int // columns that the name takes of the first line
	words []foldWord
}

type foldWord struct{ blank, text string }

func (f *folder) field(value string, continued []string) {
	f.feed(value)
	for _, l := range continued {
		f.newline()
		f.feed(l)
	}
	if len(continued) > 0 {
		f.newline()
	}
	f.words = append(f.words, foldWord{" ", ""})
	f.newline()
}

func (f *folder) feed(s string) {
	for s != "" {
		text := strings.TrimLeft(s, " \t")
		blank := s[:len(s)-len(text)]
		end := strings.IndexAny(text, " \t")
		if end < 0 {
			end = len(text)
		}
		f.word(foldWord{blank, text[:end]})
		s = text[end:]
	}
}

func (f *folder) width() int {
	n := f.start
	for _, w := range f.words {
		n += len(w.blank) + len(w.text)
	}
	return n
}

func (f *folder) line() string {
	var b strings.Builder
	for _, w := range f.words {
		b.WriteString(w.blank)
		b.WriteString(w.text)
	}
	return b.String()
}

func (f *folder) newline() {
	if n := len(f.words); n > 0 && f.words[n-1] == (foldWord{" ", ""}) {
		f.words = f.words[:n-1]
	}
	if l := f.line(); f.start > 0 || l != "" {
		if f.start == 0 && strings.TrimFunc(l, unicode.IsSpace) == "" && len(f.lines) > 0 {
			f.lines[len(f.lines)-1] += l
		} else {
			f.lines = append(f.lines, l)
		}
	}
	f.words, f.start = f.words[:0], 0
}

func (f *folder) word(w foldWord) {
	f.words = append(f.words, w)
	if f.width() <= 78 {
		return
	}
	for _, at := range [...]byte{';', ',', ' ', '\t'} {
		for i := len(f.words) - 1; i > 0; i-- {
			blank := f.words[i].blank
			before := f.words[i-1].text
			if (at == ' ' || at == '\t') && blank != "" && blank[0] == at || before != "" && before[len(before)-1] == at {
				rest := append([]foldWord(nil), f.words[i:]...)
				f.words = f.words[:i]
				f.lines = append(f.lines, f.line())
				f.words, f.start = rest, 0
				return
			}
		}
	}
	if f.start > 0 {
		// The name stands on a line by itself.
		last := f.words[len(f.words)-1]
		f.words = f.words[:len(f.words)-1]
		f.newline()
		if last.blank == "" {
			last.blank = " "
		}
		f.words = append(f.words, last)
	}
}
