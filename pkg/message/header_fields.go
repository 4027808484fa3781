package message

import "bytes"

// maxProblems bounds how many problems of one message are told one by one.
const maxProblems = 100

// maxFields bounds how many fields of one header block are told apart.
const maxFields = 200000

// field is one field of a header block, as two pieces of it.
type field struct {
	name  []byte
	value []byte // with its folding, without the last line break
}

// scanFields calls f for each field of a header block in order, until f
// returns false. A line that is no field and continues none is given to
// garbage and passed over, so that it never hides the others; so is a leading
// "From " line of an mbox. The block ends at its first empty line.
func scanFields(raw []byte, f func(field) bool, garbage func(line []byte)) {
	first := true
	raw = bytes.TrimPrefix(raw, byteOrderMark)
	for len(raw) > 0 {
		line, rest := cutLine(raw)
		if len(line) == 0 {
			return
		}
		colon := fieldColon(line)
		if colon < 0 {
			if garbage != nil && !(first && isMboxFrom(line)) {
				garbage(line)
			}
			// What is folded behind it belongs to it.
			for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
				next, after := cutLine(rest)
				if len(next) == 0 || fieldColon(bytes.TrimLeft(next, " \t")) >= 0 {
					break
				}
				rest = after
			}
			first, raw = false, rest
			continue
		}
		first = false
		end := len(line)
		whole := raw
		for len(rest) > 0 {
			next, after := cutLine(rest)
			if rest[0] != ' ' && rest[0] != '\t' && !continues(whole[:end], next) {
				break
			}
			end = len(whole) - len(rest) + len(next)
			rest = after
		}
		if !f(field{name: trimRight(line[:colon]), value: whole[colon+1 : end]}) {
			return
		}
		raw = rest
	}
}

var byteOrderMark = []byte("\xEF\xBB\xBF")

// linesEndInCR reports whether CR alone ends the lines of the header that b
// begins with, as on the Macs of old: there is no LF at all, or two fields
// stand before the first.
func linesEndInCR(b []byte) bool {
	if bytes.IndexByte(b, '\r') < 0 {
		return false
	}
	lf := bytes.IndexByte(b, '\n')
	if lf < 0 {
		return true
	}
	first := b[:lf]
	for range 2 {
		cr := bytes.IndexByte(first, '\r')
		if cr < 0 || cr == len(first)-1 || fieldColon(first[:cr]) < 0 {
			return false
		}
		first = first[cr+1:]
	}
	return true
}

// swapBreaks makes every CR an LF and every LF a CR, in place.
func swapBreaks(b []byte) {
	for i, c := range b {
		switch c {
		case '\r':
			b[i] = '\n'
		case '\n':
			b[i] = '\r'
		}
	}
}

// continues reports whether a line that is not folded belongs to the field
// before it nevertheless: a parameter behind a semicolon.
func continues(before, line []byte) bool {
	before = trimRight(before)
	return len(before) > 0 && before[len(before)-1] == ';' && bytes.IndexByte(line, '=') > 0 && fieldColon(line) < 0
}

// cutLine returns the first line without its line break, and the rest.
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		line = b
	} else {
		line, rest = b[:i], b[i+1:]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, rest
}

// fieldColon returns where the colon of a header field stands in the line, or
// -1 when the line is none: a name is printable ASCII without spaces
// (RFC 5322 §2.2), though blanks before the colon are obsolete, not wrong.
func fieldColon(line []byte) int {
	i := 0
	for i < len(line) && line[i] > ' ' && line[i] < 127 && line[i] != ':' {
		i++
	}
	if i == 0 {
		return -1
	}
	for j := i; j < len(line); j++ {
		switch line[j] {
		case ':':
			return j
		case ' ', '\t':
			continue
		}
		return -1
	}
	return -1
}

// isMboxFrom reports whether the line separates messages of an mbox: it came
// along when the message was cut out.
func isMboxFrom(line []byte) bool {
	return bytes.HasPrefix(line, []byte("From ")) || bytes.HasPrefix(line, []byte(">From "))
}

// unfold returns the value without its line breaks and the blanks around it.
func unfold(v []byte) string {
	v = trimRight(v)
	for len(v) > 0 && isBlank(v[0]) {
		v = v[1:]
	}
	if bytes.IndexByte(v, '\n') < 0 {
		return string(v)
	}
	out := make([]byte, 0, len(v))
	for {
		i := bytes.IndexByte(v, '\n')
		if i < 0 {
			return string(append(out, v...))
		}
		line := v[:i]
		if i > 0 && line[i-1] == '\r' {
			line = line[:i-1]
		}
		out = append(out, line...)
		v = v[i+1:]
	}
}

// trimRight returns b without the blanks and line breaks at its end.
func trimRight(b []byte) []byte {
	for len(b) > 0 && isBlank(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

var (
	lineFeed  = []byte{'\n'}
	wordStart = []byte("=?")
)

// equalFold compares a field's name with name, ASCII letters without case.
func equalFold(b []byte, name string) bool {
	if len(b) != len(name) {
		return false
	}
	for i, c := range b {
		d := name[i]
		if c == d {
			continue
		}
		if c|0x20 != d|0x20 || c|0x20 < 'a' || c|0x20 > 'z' {
			return false
		}
	}
	return true
}
