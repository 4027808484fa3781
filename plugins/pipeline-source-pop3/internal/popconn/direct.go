package popconn

import (
	"bytes"
	"io"
)

// directLeast is the least that is read past the buffer: a read costs more
// than to copy so much.
const directLeast = 4 << 10

// incoming is what a Conn reads: before the network what a Body read from
// there that isn't its own.
type incoming struct {
	io.Reader
	least int // octets that are worth a read past the buffer
	kept  []byte
	buf   []byte // its memory
}

// Read implements io.Reader.
func (in *incoming) Read(p []byte) (int, error) {
	if len(in.kept) > 0 {
		n := copy(p, in.kept)
		in.kept = in.kept[n:]
		return n, nil
	}
	return in.Reader.Read(p)
}

// keep gives octets back. Nothing else is kept then.
func (in *incoming) keep(octets []byte) {
	in.buf = append(in.buf[:0], octets...)
	in.kept = in.buf
}

// room returns how many octets of a message may be read past the buffer into
// memory for so many, 0: none. What the server said of its size is believed so
// far that hardly anything behind the message is read along.
func (b *Body) room(most int) int {
	n := int(min(int64(most), max(b.about, 0)))
	if n < b.c.in.least || !b.open || b.c.broken != nil || b.left <= 0 || b.c.br.Buffered() > 0 || len(b.c.in.kept) > 0 {
		return 0
	}
	return n
}

// direct reads octets of the message into p, past the buffer, and takes the
// dots out where they are: a large message isn't copied once more. 0: the next
// octets must come by way of the buffer.
func (b *Body) direct(p []byte) (n int, err error) {
	p = p[:b.room(len(p))]
	if len(p) == 0 {
		return 0, nil
	}
	n, err = b.c.in.Read(p)
	if n == 0 {
		if err != nil {
			err = b.cut(err)
		}
		return 0, err
	}
	b.about -= int64(n) // an error comes again
	if n = b.unstuff(p[:n]); n > 0 {
		b.note(p[:n])
	}
	return n, nil
}

// unstuff takes the dots that stuff lines out of p, and returns how many octets
// of the message p begins with then. It stops before a dot that may be the end
// where what tells is still to come.
func (b *Body) unstuff(p []byte) (n int) {
	end := []byte(".\r\n")
	if b.bare {
		end = []byte(".\n")
	}
	rest := p
	for {
		i := dotAt(rest, b.bare)
		if len(rest) == len(p) {
			switch { // where the line end came before
			case b.bol && p[0] == '.':
				i = 0
			case !b.bare && b.cr && len(p) > 1 && p[0] == '\n' && p[1] == '.':
				i = 1
			}
		}
		piece := rest
		if i >= 0 {
			piece = rest[:i]
		}
		if n < len(p)-len(rest) { // else it is where it should be
			copy(p[n:], piece)
		}
		n += len(piece)
		if i < 0 {
			return n
		}
		rest = rest[i:]
		if len(rest) < len(end) {
			b.c.in.keep(rest)
			return n
		}
		if bytes.HasPrefix(rest, end) {
			b.open = false
			b.c.in.keep(rest[len(end):])
			return n
		}
		rest = rest[1:]
	}
}

var (
	dotLine     = []byte("\r\n.")
	dotLineBare = []byte("\n.")
)

// dotAt returns where in w the first dot stands behind a line end, -1: nowhere.
// It looks for dots, which a file in base64 has none of; where there are more
// of them than lines, for line ends.
func dotAt(w []byte, bare bool) int {
	for at, vain := 0, 0; ; vain++ {
		if vain > 8 && vain > at/64 {
			end := dotLine
			if bare {
				end = dotLineBare
			}
			i := bytes.Index(w[at:], end) // the octet before is a dot
			if i < 0 {
				return -1
			}
			return at + i + len(end) - 1
		}
		i := bytes.IndexByte(w[at:], '.')
		if i < 0 {
			return -1
		}
		at += i
		if at > 0 && w[at-1] == '\n' && (bare || at > 1 && w[at-2] == '\r') {
			return at
		}
		at++
	}
}
