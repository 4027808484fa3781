// Package imapdata reads what IMAP servers send, as they really send it:
// FETCH items, BODYSTRUCTURE, LIST, STATUS, SEARCH, mailbox names. Its
// parsers never fail on the whole because of a part: what can't be read is
// left out, and the caller sees that it is missing.
package imapdata

import (
	"bytes"
	"strconv"
	"strings"
)

// kind is the kind of a value.
type kind uint8

const (
	end    kind = iota // no more values, or a closing parenthesis
	atom               // NIL too
	text               // quoted string or literal
	opened             // an opening parenthesis was read
)

// scanner reads values out of a response that is whole in memory. Literals
// stand in it as on the wire: {n} CR LF and the octets.
type scanner struct {
	b   []byte
	pos int
}

func (s *scanner) spaces() {
	for s.pos < len(s.b) && (s.b[s.pos] == ' ' || s.b[s.pos] == '\r' || s.b[s.pos] == '\n' || s.b[s.pos] == '\t') {
		s.pos++
	}
}

// next reads one value. The octets belong to the response; a quoted string
// with escapes is copied.
func (s *scanner) next() (kind, []byte) {
	s.spaces()
	if s.pos >= len(s.b) {
		return end, nil
	}
	switch c := s.b[s.pos]; c {
	case '(':
		s.pos++
		return opened, nil
	case ')':
		return end, nil
	case '"':
		return text, s.quoted()
	case '{', '~':
		if lit, ok := s.literal(); ok {
			return text, lit
		}
	}
	start := s.pos
	for s.pos < len(s.b) {
		c := s.b[s.pos]
		if c == ' ' || c == '(' || c == ')' || c == '"' && s.pos > start || c == '\r' || c == '\n' {
			break
		}
		s.pos++
	}
	return atom, s.b[start:s.pos]
}

// close steps over a closing parenthesis, if there is one.
func (s *scanner) close() bool {
	s.spaces()
	if s.pos < len(s.b) && s.b[s.pos] == ')' {
		s.pos++
		return true
	}
	return false
}

func (s *scanner) quoted() []byte {
	s.pos++
	start := s.pos
	var unescaped []byte
	for s.pos < len(s.b) {
		switch s.b[s.pos] {
		case '"':
			v := s.b[start:s.pos]
			s.pos++
			if unescaped != nil {
				return append(unescaped, v...)
			}
			return v
		case '\\':
			if s.pos+1 < len(s.b) {
				unescaped = append(append(unescaped, s.b[start:s.pos]...), s.b[s.pos+1])
				s.pos += 2
				start = s.pos
				continue
			}
		}
		s.pos++
	}
	return append(unescaped, s.b[start:]...)
}

// literal reads {n} or ~{n+}, CR LF and n octets, or leaves all as it was.
func (s *scanner) literal() ([]byte, bool) {
	i := s.pos
	if s.b[i] == '~' {
		i++
	}
	eol := bytes.IndexByte(s.b[i:], '\n')
	if eol < 0 {
		return nil, false
	}
	n, ok := LiteralSize(bytes.TrimRight(s.b[i:i+eol], "\r"))
	if !ok || s.b[i] != '{' {
		return nil, false
	}
	from := i + eol + 1
	if n > int64(len(s.b)-from) {
		return nil, false
	}
	s.pos = from + int(n)
	return s.b[from:s.pos], true
}

// skip steps over one whole value, lists with all that is in them.
func (s *scanner) skip() {
	if k, _ := s.next(); k == opened {
		s.skipRest()
	}
}

// skipRest steps over what is left of a list, and its end.
func (s *scanner) skipRest() {
	for depth := 1; depth > 0 && s.pos < len(s.b); {
		switch k, _ := s.next(); k {
		case opened:
			depth++
		case end:
			if !s.close() {
				return
			}
			depth--
		}
	}
}

// raw reads one whole value and returns it as it stands.
func (s *scanner) raw() []byte {
	s.spaces()
	start := s.pos
	s.skip()
	return s.b[start:s.pos]
}

// LiteralSize returns the n of a line that ends in {n} or {n+}: a literal of
// n octets follows it (RFC 9051 §4.3).
func LiteralSize(line []byte) (int64, bool) {
	if len(line) < 3 || line[len(line)-1] != '}' {
		return 0, false
	}
	open := bytes.LastIndexByte(line, '{')
	if open < 0 {
		return 0, false
	}
	digits := line[open+1 : len(line)-1]
	if l := len(digits); l > 0 && digits[l-1] == '+' {
		digits = digits[:l-1]
	}
	return number(digits)
}

// number reads decimal digits and nothing else.
func number(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func number32(b []byte) (uint32, bool) {
	n, ok := number(b)
	return uint32(n), ok && n < 1<<32
}

func number64(b []byte) (uint64, bool) {
	n, err := strconv.ParseUint(string(b), 10, 64)
	return n, err == nil
}

func isNIL(b []byte) bool { return len(b) == 3 && bytes.EqualFold(b, []byte("NIL")) }

// upper makes ASCII letters upper case in place; it is for names in a buffer
// that is ours.
func upper(b []byte) []byte {
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return b
}

// Number reads a decimal number; -1 for anything else.
func Number(s string) int64 {
	if n, ok := number([]byte(strings.TrimSpace(s))); ok {
		return n
	}
	return -1
}

// Uint64 writes a number in decimal.
func Uint64(n uint64) string { return strconv.FormatUint(n, 10) }
