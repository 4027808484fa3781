package imapconn

import (
	"bytes"
	"net"
	"strings"
	"sync"
)

// libConn is the net.Conn that go-imap gets. During the login the library
// reads through it; it sees only what it understands: the greeting, tagged
// answers, "+" and CAPABILITY. Afterwards its Read sleeps until Close, and
// wakes for answers to its own commands.
type libConn struct {
	net.Conn // the mailnet.Conn: deadlines of the library are ignored there
	c        *Conn

	mu      sync.Mutex
	cond    *sync.Cond
	out     []byte
	taken   bool // the connection is ours, the library may not read
	reading bool
	closed  bool
	tags    map[string]bool
}

func newLibConn(c *Conn) *libConn {
	l := &libConn{Conn: c.net, c: c, tags: map[string]bool{}}
	l.cond = sync.NewCond(&l.mu)
	return l
}

// Read gives the library one response at a time.
func (l *libConn) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case len(l.out) > 0:
			n := copy(p, l.out)
			l.out = l.out[n:]
			return n, nil
		case l.closed:
			return 0, net.ErrClosed
		case l.taken:
			l.cond.Wait()
			continue
		}
		l.reading = true
		l.mu.Unlock()
		// Only look: who takes the connection now must find all of it.
		_, err := l.c.br.Peek(1)
		l.mu.Lock()
		l.reading = false
		l.cond.Broadcast()
		if err != nil {
			return 0, err
		}
		if l.taken {
			continue
		}
		if err := l.pass(); err != nil {
			return 0, err
		}
	}
}

// pass reads one line and keeps for the library what it understands.
func (l *libConn) pass() error {
	line, err := l.c.line(nil)
	if err != nil {
		return err
	}
	line = trim(line)
	switch {
	case len(line) == 0:
	case line[0] == '+':
		l.out = append(l.out, safeLine(line)...)
		l.out = append(l.out, '\r', '\n')
	case bytes.HasPrefix(line, []byte("* ")):
		r := &Response{}
		word, rest, _ := bytes.Cut(line[2:], []byte(" "))
		r.Name = strings.ToUpper(string(word))
		switch {
		case r.Name == "CAPABILITY":
			l.c.setCaps(string(rest))
			l.out = append(l.out, safeCapability(rest)...)
		case state(r.Name):
			r.code(rest)
			l.c.note(r)
			l.out = append(append(l.out, safeState("*", r)...), '\r', '\n')
		}
	default:
		word, rest, _ := bytes.Cut(line, []byte(" "))
		if !l.tags[string(word)] {
			return nil // an answer to nothing that was asked
		}
		name, rest, _ := bytes.Cut(rest, []byte(" "))
		r := &Response{Tag: string(word), Name: strings.ToUpper(string(name))}
		r.code(rest)
		l.c.note(r)
		l.out = append(append(l.out, safeState(r.Tag, r)...), '\r', '\n')
	}
	return nil
}

// Write passes commands of the library on, and remembers their tags. An empty
// SASL answer is an empty line on the wire: Google and Microsoft don't
// understand the "=" that the library sends.
func (l *libConn) Write(p []byte) (int, error) {
	if word, _, ok := bytes.Cut(p, []byte(" ")); ok && len(word) > 1 && word[0] == 'T' && len(word) < 12 {
		l.mu.Lock()
		l.tags[string(word)] = true
		l.mu.Unlock()
	}
	n := len(p)
	if string(p) == "=\r\n" {
		p = p[1:]
	}
	l.c.wmu.Lock()
	defer l.c.wmu.Unlock()
	if _, err := l.c.w.Write(p); err != nil {
		return 0, err
	}
	return n, nil
}

// take makes the connection ours. It returns when the library no longer
// looks at it: after the next octet from the server.
func (l *libConn) take() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = true
	for l.reading {
		l.cond.Wait()
	}
}

// give hands a line to the library.
func (l *libConn) give(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = append(l.out, line...)
	l.cond.Broadcast()
}

// end wakes the library for the last time.
func (l *libConn) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.cond.Broadcast()
}

// safeState writes a state response so that the library can read it: codes
// that it knows badly are left out, and the text is never empty.
func safeState(tag string, r *Response) []byte {
	b := []byte(tag + " " + r.Name + " ")
	if r.Code == "CAPABILITY" {
		b = append(b, "[CAPABILITY"...)
		for _, word := range strings.Fields(r.Argument) {
			b = append(append(b, ' '), safeAtom(word)...)
		}
		b = append(b, "] "...)
	} else if r.Code != "" {
		b = append(append(append(b, '['), safeAtom(r.Code)...), "] "...)
	}
	if r.Text == "" {
		return append(b, "done"...)
	}
	return append(b, safeLine([]byte(r.Text))...)
}

func safeCapability(rest []byte) []byte {
	b := []byte("* CAPABILITY")
	for _, word := range strings.Fields(string(rest)) {
		b = append(append(b, ' '), safeAtom(word)...)
	}
	return append(b, '\r', '\n')
}

// safeAtom replaces what may not stand in an atom.
func safeAtom(word string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\]`, r) {
			return '_'
		}
		return r
	}, word)
}

func safeLine(line []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, line)
}
