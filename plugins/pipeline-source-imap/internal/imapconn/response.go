package imapconn

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// Response is one response of the server. It is overwritten by the next.
type Response struct {
	Tag  string // empty: untagged; "+": the server waits
	Name string // upper case: OK, NO, BAD, BYE, FETCH, LIST, EXISTS …
	Num  uint32 // of FETCH, EXISTS, EXPUNGE

	// Code and Argument are the response code of a state response, as in
	// [UIDVALIDITY 1]; Text is what stands behind it.
	Code, Argument, Text string

	// Data is what stands behind Name in any other response, literals as on
	// the wire. Where Streams is set it ends before the literal of a body:
	// read Conn.Body, then Conn.Tail.
	Data    []byte
	Streams bool
}

// state reports whether the name is that of a state response.
func state(name string) bool {
	switch name {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		return true
	}
	return false
}

// Next reads one response. What is left of a body is read first and thrown
// away. Blank lines are passed over, and so is everything that no client
// could do anything with.
func (c *Conn) Next() (*Response, error) {
	for {
		r, err := c.read()
		if err != nil {
			return nil, err
		}
		switch r.Name {
		case "":
			continue
		case "EXISTS", "EXPUNGE", "VANISHED":
			c.opened = nil
		}
		return r, nil
	}
}

func (c *Conn) read() (*Response, error) {
	if err := c.look.End(); err != nil {
		return nil, c.lost(err)
	}
	if c.resp.Streams {
		if _, err := c.Tail(); err != nil {
			return nil, err
		}
	}
	if c.broken != nil {
		return nil, c.lost(c.broken)
	}
	r := &c.resp
	*r = Response{}
	if cap(c.buf) > keepBuffer {
		c.buf = nil
	}
	line, err := c.line(c.buf[:0])
	if err != nil {
		return nil, c.lost(err)
	}
	c.buf = line
	line = trim(line)
	word, rest, _ := bytes.Cut(line, []byte(" "))
	switch {
	case len(word) == 1 && word[0] == '*':
	case len(word) > 0 && word[0] == '+':
		r.Tag, r.Name, r.Text = "+", "+", string(rest)
		return r, nil
	case len(word) > 1 && (word[0] == 'm' || word[0] == 'T'):
		r.Tag = string(word)
		if word[0] == 'T' && c.lib != nil { // an answer to a command of the library
			c.lib.give(append(bytes.Clone(safeLine(line)), '\r', '\n'))
		}
	default:
		return r, nil
	}
	word, rest, _ = bytes.Cut(bytes.TrimLeft(rest, " "), []byte(" "))
	if n, ok := digits(word); ok && r.Tag == "" {
		r.Num = n
		word, rest, _ = bytes.Cut(bytes.TrimLeft(rest, " "), []byte(" "))
		// `* 1 FETCH(UID 5)`, without the space.
		if i := bytes.IndexByte(word, '('); i > 0 {
			from := len(line) - len(rest) - len(word) - 1 + i
			if len(rest) == 0 {
				from++
			}
			word, rest = word[:i], line[max(from, 0):]
		}
	}
	r.Name = name(word)
	if state(r.Name) {
		r.code(rest)
		c.note(r)
		if c.inside && r.Tag != "" && r.Name != "OK" && r.ended() {
			_ = c.fail(refusal(fault.Auth, r.Name, r.Code, r.Text, "go on with the session at "+c.net.Address()))
		}
		return r, nil
	}
	if r.Tag != "" {
		r.Name = ""
		return r, nil
	}
	if r.Name == "CAPABILITY" {
		c.setCaps(string(rest))
	}
	if _, ok := imapdata.LiteralSize(line); !ok {
		r.Data = rest
		return r, nil
	}
	return r, c.literals(len(line) - len(rest))
}

// literals goes on with a response whose line ends in a literal. from is
// where its data begins in c.buf.
func (c *Conn) literals(from int) error {
	r := &c.resp
	for {
		line := trim(c.buf)
		n, ok := imapdata.LiteralSize(line)
		if !ok {
			r.Data = line[from:]
			return nil
		}
		if r.Name == "FETCH" && streams(line) {
			open := bytes.LastIndexByte(line, '{')
			r.Data, r.Streams = line[from:open], true
			c.body = body{c: c, left: n, size: n}
			return nil
		}
		if n > maxResponse-int64(len(c.buf)) {
			return c.lost(errors.New("a response of more than 64 MiB"))
		}
		at := len(c.buf)
		c.buf = append(c.buf, make([]byte, n)...)
		if _, err := io.ReadFull(c.br, c.buf[at:]); err != nil {
			return c.lost(err)
		}
		more, err := c.line(c.buf)
		if err != nil {
			return c.lost(err)
		}
		c.buf = more
		// LiteralSize must see the new line only: octets of a literal may
		// look like one.
		tail := trim(c.buf[at+int(n):])
		if _, ok := imapdata.LiteralSize(tail); !ok {
			r.Data = c.buf[from : at+int(n)+len(tail)]
			return nil
		}
	}
}

// streams reports whether the literal at the end of the line is a message's
// body, which never goes to memory whole.
func streams(line []byte) bool {
	open := bytes.LastIndexByte(line, '{')
	head := bytes.TrimRight(line[:open], " ~")
	for _, section := range []string{"BODY[]", "BODY[TEXT]", "RFC822", "BODY[]<0>"} {
		if l := len(head) - len(section); l >= 0 && strings.EqualFold(string(head[l:]), section) {
			return true
		}
	}
	return false
}

// Body returns the body of a response that Streams: the octets of the
// literal. It ends in io.EOF only when what follows shows that the length was
// right; until then nobody knows whether the message came whole.
func (c *Conn) Body() *Body { return (*Body)(&c.body) }

// Tail reads what is left of a response behind its body and returns it.
func (c *Conn) Tail() ([]byte, error) {
	c.resp.Streams = false
	if c.body.err != io.EOF {
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{c.Body()}); err != nil {
			return nil, err
		}
	}
	c.buf, c.spare = c.spare, c.buf // what stood before the body stays readable
	line, err := c.line(c.buf[:0])
	if err != nil {
		return nil, c.lost(err)
	}
	c.buf = line
	if _, ok := imapdata.LiteralSize(trim(line)); ok {
		if err := c.literals(0); err != nil {
			return nil, err
		}
		if c.resp.Streams { // a second body in one response: nobody asked
			_, err := c.Tail()
			return nil, err
		}
		return c.resp.Data, nil
	}
	return trim(line), nil
}

// line appends one line to buf, with its line end.
func (c *Conn) line(buf []byte) ([]byte, error) {
	for {
		piece, err := c.br.ReadSlice('\n')
		buf = append(buf, piece...)
		if err == nil {
			return buf, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return buf, err
		}
		if len(buf) > maxResponse {
			return buf, errors.New("a line of more than 64 MiB")
		}
	}
}

func trim(line []byte) []byte {
	n := len(line)
	for n > 0 && (line[n-1] == '\n' || line[n-1] == '\r') {
		n--
	}
	return line[:n]
}

func digits(b []byte) (uint32, bool) {
	if len(b) == 0 || len(b) > 10 {
		return 0, false
	}
	var n uint64
	for _, d := range b {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + uint64(d-'0')
	}
	return uint32(n), n < 1<<32
}

// name returns a response's name in upper case, without new memory for the
// frequent ones.
func name(b []byte) string {
	switch string(b) {
	case "FETCH":
		return "FETCH"
	case "OK":
		return "OK"
	case "EXISTS":
		return "EXISTS"
	}
	return strings.ToUpper(string(b))
}

// code splits what stands behind OK, NO, BAD and BYE.
func (r *Response) code(rest []byte) {
	text := strings.ToValidUTF8(strings.TrimSpace(string(rest)), "?")
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if code, after, ok := strings.Cut(inner, "]"); ok {
			// [PERMANENTFLAGS (\Deleted a]b)] has a bracket within.
			if strings.Count(code, "(") > strings.Count(code, ")") {
				more, rest, _ := strings.Cut(after, "]")
				code, after = code+"]"+more, rest
			}
			r.Code, r.Argument, _ = strings.Cut(code, " ")
			r.Code = strings.ToUpper(r.Code)
			text = strings.TrimSpace(after)
		}
	}
	r.Text = text
}

// body is a streamed literal.
type body struct {
	c    *Conn
	left int64
	size int64
	err  error
}

// Body reads a message's octets off the wire.
type Body body

// Size returns the number of octets that the server announced.
func (b *Body) Size() int64 { return b.size }

// Read reads octets. Any error but io.EOF means that the message isn't whole.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.left == 0 {
		b.err = b.check()
		return 0, b.err
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.c.br.Read(p)
	b.left -= int64(n)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		b.err = b.c.lost(err)
		return n, b.err
	}
	return n, nil
}

// check looks at what follows the literal: the end of the list, or another
// item. Anything else is a length that was wrong; " OK done", behind a tag
// that the literal swallowed, is no item.
func (b *Body) check() error {
	next, err := b.c.br.Peek(2)
	if err != nil {
		return b.c.lost(io.ErrUnexpectedEOF)
	}
	if next[0] == ')' && (next[1] == '\r' || next[1] == '\n') || next[0] == ' ' && next[1] == ')' {
		return io.EOF
	}
	if next[0] != ' ' {
		return b.c.lost(ErrMismatch)
	}
	for n := 3; n < 24; n++ {
		next, err = b.c.br.Peek(n)
		if err != nil {
			return b.c.lost(io.ErrUnexpectedEOF)
		}
		if c := next[n-1]; c == ' ' || c == '[' || c == '(' {
			if item(string(next[1 : n-1])) {
				return io.EOF
			}
			break
		}
	}
	return b.c.lost(ErrMismatch)
}

// item reports whether a word is the name of a FETCH item.
func item(word string) bool {
	word = strings.ToUpper(word)
	switch word {
	case "UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE", "RFC822.HEADER", "RFC822.TEXT", "RFC822", "ENVELOPE", "BODY",
		"BODYSTRUCTURE", "BINARY", "BINARY.SIZE", "MODSEQ", "EMAILID", "THREADID", "SAVEDATE", "PREVIEW", "SNIPPET":
		return true
	}
	return strings.HasPrefix(word, "X-")
}
