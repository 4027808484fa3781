package message

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"sync"
)

// The bounds of what is read of one message (I5). What is beyond them is
// still in the octets; it is only not told apart.
const (
	maxDepth    = 160 // 50 mails forwarded one within the other, three levels each
	maxParts    = 10000
	maxHeader   = 16 << 20 // octets of one header block that are looked at
	maxKept     = 64 << 20 // octets of all MIME fields of a message
	scanBuffer  = 64 << 10
	maxLooks    = 16   // lines of a header that are held against its own boundary
	maxBoundary = 2048 // octets of a boundary line, with blanks behind it
)

// scanner is the one reader of MIME's grammar (RFC 2046 §5.1). It goes over
// the octets once, holds a buffer and one header block, and makes a tree of
// parts, with entities beside them when the octets can be read again. It is
// linear in the octets times the depth, which is bounded.
type scanner struct {
	r        io.Reader
	buf      []byte
	pos, end int
	off      int64 // of buf[pos] in the message
	eof      bool
	mac      bool  // lines end in CR alone: CR and LF are swapped in buf
	err      error // r's own

	stack    []frame
	summing  int // frames with a sum
	hit      hit
	br       int  // length of a line break at pos that ends the line before, or belongs to a boundary
	stopped  bool // a bound was met: no boundary counts any more
	parts    int
	kept     int
	head     []byte
	headCut  bool // the header block is longer than head
	problems []string

	entities bool // make entities
	hashing  bool // make sums of decoded octets
	decoder  decoder
	sum      hash.Hash
	out      []byte
}

// frame is a multipart or message that is open.
type frame struct {
	delimiter []byte // "--" and the boundary; nil for a message
	sum       hash.Hash
}

// hit is what ended a header or body: the boundary of a frame, or the end.
type hit struct {
	level  int // -1: the end of the input
	length int // octets from pos to behind the boundary line
	last   bool
	br     int // of length: the boundary line's own line break
}

// scanners are kept for their buffers: a small mail must not cost 64 KiB.
var scanners = sync.Pool{New: func() any {
	return &scanner{buf: make([]byte, scanBuffer), sum: sha256.New()}
}}

// scan reads a message from r to its end.
func scan(r io.Reader, entities, hashing bool) (*Part, *Entity, []string, error) {
	s := scanners.Get().(*scanner)
	s.r, s.pos, s.end, s.off, s.eof, s.err = r, 0, 0, 0, false, nil
	s.stack, s.summing, s.stopped, s.parts, s.kept, s.problems = s.stack[:0], 0, false, 0, 0, nil
	s.entities, s.hashing, s.mac, s.br = entities, hashing, false, 0
	s.start()
	part, entity := s.entity(place{embedded: true, fallback: "text/plain"})
	problems, err := s.problems, s.err
	s.r, s.problems = nil, nil
	if cap(s.head) > 1<<20 {
		s.head = nil
	}
	scanners.Put(s)
	return part, entity, problems, err
}

func (s *scanner) problem(format string, args ...any) {
	if len(s.problems) < maxProblems {
		s.problems = append(s.problems, "structure: "+fmt.Sprintf(format, args...))
	}
}

// fill reads more behind what is in the buffer. It is false at the end.
func (s *scanner) fill() bool {
	if s.eof {
		return false
	}
	if s.pos > 0 {
		copy(s.buf, s.buf[s.pos:s.end])
		s.end -= s.pos
		s.pos = 0
	}
	if s.end == len(s.buf) {
		return false
	}
	for range 100 {
		n, err := s.r.Read(s.buf[s.end:])
		if s.mac {
			swapBreaks(s.buf[s.end : s.end+n])
		}
		s.end += n
		if err != nil {
			s.eof = true
			if err != io.EOF {
				s.err = err
			}
			return n > 0
		}
		if n > 0 {
			return true
		}
	}
	s.eof, s.err = true, io.ErrNoProgress
	return false
}

// start fills the buffer until a line ends. Where lines end in CR alone, CR and
// LF change places for the grammar, and change back for whoever gets the octets.
func (s *scanner) start() {
	for s.fill() && bytes.IndexByte(s.buf[:s.end], '\n') < 0 {
	}
	if first := s.buf[:s.end]; linesEndInCR(first) {
		s.mac = true
		swapBreaks(first)
	}
}

// consume goes over n octets, which count for every open message.
func (s *scanner) consume(n int) {
	if s.summing > 0 {
		if s.mac {
			swapBreaks(s.buf[s.pos : s.pos+n])
		}
		for i := range s.stack {
			if s.stack[i].sum != nil {
				s.stack[i].sum.Write(s.buf[s.pos : s.pos+n])
			}
		}
	}
	s.pos += n
	s.off += int64(n)
}

// boundary reports whether the line that starts at line in the buffer is a
// boundary of an open multipart, the innermost first. more: the line isn't
// whole in the buffer yet. On true, hit is set; length counts from pos.
func (s *scanner) boundary(line int) (found, more bool) {
	if s.stopped {
		return false, false
	}
	b := s.buf[line:s.end]
	if len(b) < 2 {
		return false, !s.eof
	}
	if b[0] != '-' || b[1] != '-' {
		return false, false
	}
	n := bytes.IndexByte(b, '\n')
	if n < 0 {
		if !s.eof && len(b) < maxBoundary {
			return false, true
		}
		if len(b) >= maxBoundary {
			return false, false
		}
		n = len(b) - 1
	}
	whole := b[:n+1]
	for i := len(s.stack) - 1; i >= 0; i-- {
		d := s.stack[i].delimiter
		// Its last octet first: a message may have many such lines, and open
		// many multiparts.
		if k := len(d); k == 0 || k > len(whole) || whole[k-1] != d[k-1] || !bytes.HasPrefix(whole, d) {
			continue
		}
		rest := whole[len(d):]
		last := bytes.HasPrefix(rest, []byte("--"))
		if last {
			rest = rest[2:]
		}
		if len(bytes.TrimRight(rest, " \t\r\n")) > 0 {
			continue
		}
		br := 0
		if bytes.HasSuffix(rest, []byte("\r\n")) {
			br = 2
		} else if bytes.HasSuffix(rest, []byte("\n")) {
			br = 1
		}
		s.hit = hit{level: i, length: line + n + 1 - s.pos, last: last, br: br}
		return true, false
	}
	return false, false
}

// startLine goes over the line break that is still before pos's line, unless
// that line is a boundary, to which it belongs then: hit says so. Where the
// line break is content, it is given to lead.
func (s *scanner) startLine(lead func([]byte)) (ended bool) {
	for s.open() {
		found, more := s.boundary(s.pos + s.br)
		if found {
			s.br = 0
			return true
		}
		if !more || !s.fill() {
			break
		}
	}
	if s.open() { // what came with the end
		if found, _ := s.boundary(s.pos + s.br); found {
			s.br = 0
			return true
		}
	}
	if lead != nil && s.br > 0 {
		b := s.buf[s.pos : s.pos+s.br]
		if s.mac {
			swapBreaks(b)
		}
		lead(b)
		if s.mac {
			swapBreaks(b)
		}
	}
	s.consume(s.br)
	s.br = 0
	return false
}

// lineBreak returns the length of the line break at pos.
func (s *scanner) lineBreak() int {
	b := s.buf[s.pos:s.end]
	if len(b) > 0 && b[0] == '\n' {
		return 1
	}
	if len(b) > 1 && b[0] == '\r' && b[1] == '\n' {
		return 2
	}
	return 0
}

// header reads a header block into s.head: to its empty line, a boundary or
// the end; ended is true for the last two. Where it ends without an empty
// line in text that is no field, over is where in s.head the body begins.
// A part whose first line is no field has no header at all.
func (s *scanner) header(isPart bool) (ended bool, over int) {
	s.head, s.headCut = s.head[:0], false
	if s.startLine(nil) {
		return true, 0
	}
	tail := -1 // where the lines begin that may be body already
	first, inLine, looks := true, false, 0
	br := 0 // length of the line break before pos's line, which isn't consumed yet
	take := func(n int) {
		keep := min(n, maxHeader-len(s.head))
		s.head = append(s.head, s.buf[s.pos:s.pos+keep]...)
		if keep < n && !s.headCut {
			s.headCut = true
			s.problem("a header block is longer than %d octets", maxHeader)
		}
		s.consume(n)
	}
	done := func(ended bool) (bool, int) {
		if tail < 0 || s.headCut {
			tail = len(s.head)
		}
		return ended, tail
	}
	for {
		line := s.pos + br
		n := -1
		if line < s.end {
			n = bytes.IndexByte(s.buf[line:s.end], '\n')
		}
		if n < 0 && s.fill() {
			continue
		}
		line = s.pos + br
		if line >= s.end { // the end
			take(br)
			s.hit = hit{level: -1}
			return done(true)
		}
		if !inLine {
			found, _ := s.boundary(line)
			if found {
				return done(true)
			}
		}
		text := s.buf[line:s.end]
		if n >= 0 {
			text = text[:n]
			if n > 0 && text[n-1] == '\r' {
				text = text[:n-1]
			}
		}
		if !inLine {
			if len(text) == 0 && n >= 0 {
				take(br)
				s.br = s.lineBreak()
				return done(false)
			}
			folded := text[0] == ' ' || text[0] == '\t'
			switch {
			case folded && !first:
			case !first && tail < 0 && continues(s.head, text):
			case fieldColon(bytes.TrimPrefix(text, byteOrderMark)) >= 0:
				tail = -1
			case first && isPart && !isMboxFrom(text):
				return done(false)
			case first && isMboxFrom(text):
			default:
				if tail < 0 && bytes.IndexByte(text, ':') < 0 {
					tail = len(s.head) + br
				}
				if looks < maxLooks && bytes.HasPrefix(text, []byte("--")) {
					looks++
					if !s.opensBody(text) {
						break
					}
					take(br)
					tail = len(s.head)
					return done(false)
				}
			}
			first = false
		}
		inLine = n < 0
		take(br + len(text))
		br = 0
		if n >= 0 {
			br = s.lineBreak()
		}
	}
}

// opensBody reports whether the line is the first boundary of the entity whose
// header is being read: the empty line before it is missing.
func (s *scanner) opensBody(line []byte) bool {
	var p Part
	h := readPart(&p, s.head, "")
	return h.boundary != "" && bytes.Equal(bytes.TrimRight(line, " \t"), []byte("--"+h.boundary))
}

// body goes over a body, behind its first line break that startLine looks at,
// to the boundary that ends it, and gives it to sink, in order, without the
// line break that belongs to the boundary.
func (s *scanner) body(sink func([]byte)) {
	give := func(n int) {
		if n > 0 {
			if sink != nil {
				b := s.buf[s.pos : s.pos+n]
				if s.mac {
					swapBreaks(b)
				}
				sink(b)
				if s.mac {
					swapBreaks(b)
				}
			}
			s.consume(n)
		}
	}
	from := 0 // from pos: searched already
	for {
		if !s.open() {
			give(s.end - s.pos)
			if !s.fill() {
				s.hit = hit{level: -1}
				return
			}
			continue
		}
		i := bytes.Index(s.buf[s.pos+from:s.end], []byte("\n--"))
		if i < 0 {
			// What may be the beginning of "\r\n--" waits for more.
			keep := 0
			if !s.eof {
				keep = heldBack(s.buf[s.pos:s.end])
			}
			give(s.end - s.pos - keep)
			from = 0
			if !s.fill() {
				give(s.end - s.pos)
				s.hit = hit{level: -1}
				return
			}
			continue
		}
		i += from
		before := i
		if i > 0 && s.buf[s.pos+i-1] == '\r' {
			before--
		}
		found, more := s.boundary(s.pos + i + 1)
		switch {
		case found:
			s.hit.length -= before
			give(before)
			return
		case more:
			give(before)
			from = 0
			s.fill() // there is room: a boundary line is shorter than the buffer
		default:
			from = i + 1
		}
	}
}

// open reports whether a boundary may end what is being read.
func (s *scanner) open() bool { return len(s.stack) > 0 && !s.stopped }

// heldBack returns how many octets at the end of b may begin "\r\n--".
func heldBack(b []byte) int {
	for _, t := range [...]string{"\r\n-", "\r\n", "\n-", "\r", "\n"} {
		if len(b) >= len(t) && string(b[len(b)-len(t):]) == t {
			return len(t)
		}
	}
	return 0
}
