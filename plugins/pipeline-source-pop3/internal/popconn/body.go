package popconn

import (
	"bytes"
	"errors"
	"io"
	"slices"
)

// Body reads a multi-line answer up to the line with a single dot, with the
// dots that stuff lines taken out (RFC 1939 §3). A line ends with CR LF and
// with nothing else: LF "." LF is a part of the message, and "." behind a bare
// LF or CR is one of its octets. Only where the server ended its status line
// with a bare LF do lines end so in what follows.
type Body struct {
	c     *Conn
	left  int64 // octets that may still come
	about int64 // octets that should still come, as the server counts them; 0: who knows
	open  bool  // the end was not read yet
	bare  bool
	bol   bool // the next octet begins a line
	cr    bool // the last octet was CR
}

// Read reads the next octets.
func (b *Body) Read(p []byte) (int, error) {
	if n, err := b.direct(p); n > 0 || err != nil {
		return n, err
	}
	n := 0
	for n < len(p) {
		chunk, err := b.next(n == 0, len(p)-n)
		if err != nil {
			if n > 0 && errors.Is(err, io.EOF) {
				return n, nil
			}
			return n, err
		}
		if len(chunk) == 0 {
			break // what is buffered is used up: better little now than more later
		}
		n += b.take(copy(p[n:], chunk), chunk)
	}
	return n, nil
}

// AppendTo appends to buf until the end, which is whole = true, or until buf
// holds limit octets or more.
func (b *Body) AppendTo(buf []byte, limit int) (_ []byte, whole bool, err error) {
	for len(buf) < limit {
		if room := b.room(limit - len(buf)); room > 0 {
			buf = slices.Grow(buf, room)
			n, err := b.direct(buf[len(buf) : len(buf)+room])
			if buf = buf[:len(buf)+n]; err != nil {
				return buf, false, err
			}
			if n > 0 {
				continue
			}
		}
		chunk, err := b.next(true, readBuffer)
		if errors.Is(err, io.EOF) {
			return buf, true, nil
		}
		if err != nil {
			return buf, false, err
		}
		buf = append(buf, chunk[:b.take(len(chunk), chunk)]...)
	}
	return buf, false, nil
}

// next returns octets of the message that are in the reader's buffer, at most
// so many, io.EOF at the end. With wait it reads until there are some. take says how many of
// them were used.
func (b *Body) next(wait bool, most int) ([]byte, error) {
	if !b.open {
		return nil, io.EOF
	}
	if b.c.broken != nil {
		return nil, b.c.broken
	}
	br := b.c.br
	if !wait && br.Buffered() == 0 {
		return nil, nil
	}
	if _, err := br.Peek(1); err != nil {
		return nil, b.cut(err)
	}
	w, _ := br.Peek(br.Buffered())
	if b.bol && w[0] == '.' {
		end := 3
		if b.bare {
			end = 2
		}
		// At least the end of the answer is still to come: this never
		// waits for what the server doesn't owe.
		head, err := br.Peek(end)
		if err != nil {
			return nil, b.cut(err)
		}
		if string(head) == ".\r\n" || b.bare && string(head) == ".\n" {
			b.open = false
			_, _ = br.Discard(end)
			return nil, io.EOF
		}
		_, _ = br.Discard(1)
		b.bol = false
		return b.next(true, most)
	}
	if b.left <= 0 {
		return nil, b.c.fail(ErrEndless)
	}
	// Only what can be used is searched: a reader of small pieces must not
	// search all that is buffered for each.
	w = w[:min(len(w), most)]
	b.bol = false
	if !b.bare && b.cr && w[0] == '\n' {
		return w[:1], nil // the CR came in the buffer before
	}
	if i := dotAt(w, b.bare); i >= 0 {
		w = w[:i]
	}
	return w, nil
}

// take notes that the first n octets of a chunk were used.
func (b *Body) take(n int, chunk []byte) int {
	if n == 0 {
		return 0
	}
	b.note(chunk[:n])
	b.about -= int64(n)
	_, _ = b.c.br.Discard(n)
	return n
}

// note notes what octets of the message were read last.
func (b *Body) note(octets []byte) {
	n := len(octets)
	last := octets[n-1]
	b.bol = last == '\n' && (b.bare || n > 1 && octets[n-2] == '\r' || n == 1 && b.cr)
	b.cr = last == '\r'
	b.left -= int64(n)
}

// cut is the error of a connection that ended within an answer.
func (b *Body) cut(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return b.c.fail(err)
}

// Skip reads what is left and throws it away.
func (b *Body) Skip() error {
	for b.open {
		chunk, err := b.next(true, readBuffer)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		b.take(len(chunk), chunk)
	}
	return nil
}

// Lines calls f for each line of an answer of short lines: a listing. No more
// than most lines may come, and of each line f sees at most 1,024 octets.
func (c *Conn) Lines(most int, f func(line []byte)) error {
	for n := 0; ; n++ {
		line, err := readLine(c.br, 1024)
		if err != nil {
			return c.fail(err)
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) > 0 && line[0] == '.' {
			if len(line) == 1 {
				return nil
			}
			line = line[1:]
		}
		if n >= most {
			return c.fail(ErrEndless)
		}
		f(line)
	}
}
