package message

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strconv"
	"strings"
)

// place is where an entity stands in the tree.
type place struct {
	prefix   string // path of what it stands in
	number   int    // from 1, in a multipart
	embedded bool   // the root of a message
	related  bool   // in a multipart/related, behind its first part
	fallback string // media type where none is given
}

func joinPath(prefix string, n int) string {
	if prefix == "" {
		return strconv.Itoa(n)
	}
	return prefix + "." + strconv.Itoa(n)
}

// entity reads one entity, header and body, up to the boundary or end that
// s.hit then says.
func (s *scanner) entity(at place) (*Part, *Entity) {
	s.parts++
	part := &Part{}
	var e *Entity
	if s.entities {
		e = &Entity{Part: part, start: s.off + int64(s.br)}
	}
	ended, over := s.header(!at.embedded)
	h := readPart(part, s.head[:over], at.fallback)
	replay := s.head[over:]
	bodyStart := s.off - int64(len(replay))
	if len(replay) == 0 {
		bodyStart += int64(s.br)
	}
	if line, _ := cutLine(replay); h.transfer == transferBase64 && !isBase64(line) {
		replay, bodyStart = nil, s.off+int64(s.br) // a garbage line of the header, after all
	}
	if s.mac {
		swapBreaks(replay)
	}
	if s.kept += h.seen; s.kept > maxKept && !s.stopped {
		s.stopped = true
		s.problem("the MIME fields are longer than %d octets in all: parts after this aren't told apart", maxKept)
	}
	part.Inline = at.related && (part.ContentID != "" || part.ContentLocation != "")
	multipart := strings.HasPrefix(part.MediaType, "multipart/") && h.boundary != "" && len(h.boundary) < 1000
	embeds := h.transfer == identity && isMessage(part.MediaType)
	if (multipart || embeds) && len(s.stack) >= maxDepth {
		s.problem("part %s: nested deeper than %d: not entered", joinPath(at.prefix, max(at.number, 1)), maxDepth)
		multipart, embeds = false, false
	}
	inner := at.prefix
	switch {
	case !at.embedded:
		part.Path = joinPath(at.prefix, at.number)
		inner = part.Path
	case !multipart:
		part.Path = joinPath(at.prefix, 1)
		inner = part.Path
	case at.prefix != "":
		part.Path = at.prefix + ".TEXT"
	}
	switch {
	case multipart:
		s.multipart(part, e, h.boundary, inner, ended, replay)
	case embeds && !ended && len(replay) == 0:
		s.embedded(part, e, inner)
	default:
		if strings.HasPrefix(part.MediaType, "multipart/") && h.boundary == "" {
			s.problem("part %q: a multipart without a boundary", part.Path)
		}
		s.leaf(part, h.transfer, ended, replay)
	}
	part.EncodedSize = max(s.off-bodyStart, 0)
	if multipart || embeds && len(part.Children) > 0 {
		part.Size = part.EncodedSize
	}
	if e != nil {
		e.end, e.transfer = s.off, h.transfer
		e.start = min(e.start, e.end)
		e.body = max(min(bodyStart, e.end), e.start)
		if multipart || len(part.Children) > 0 {
			e.transfer = identity
		}
	}
	return part, e
}

// isMessage reports whether the body is a message of its own.
func isMessage(mediaType string) bool {
	return mediaType == "message/rfc822" || mediaType == "message/global" || mediaType == "message/news"
}

func (s *scanner) push(delimiter []byte, sum hash.Hash) {
	s.stack = append(s.stack, frame{delimiter: delimiter, sum: sum})
	if sum != nil {
		s.summing++
	}
}

func (s *scanner) pop() {
	if s.stack[len(s.stack)-1].sum != nil {
		s.summing--
	}
	s.stack = s.stack[:len(s.stack)-1]
}

func (s *scanner) multipart(part *Part, e *Entity, boundary, prefix string, ended bool, replay []byte) {
	if ended {
		return
	}
	level := len(s.stack)
	s.push([]byte("--"+boundary), nil)
	defer s.pop()
	related := part.MediaType == "multipart/related"
	fallback := "text/plain"
	if part.MediaType == "multipart/digest" {
		fallback = "message/rfc822"
	}
	s.preamble(part, level, replay)
	if s.hit.level != level {
		s.problem("part %q: no boundary of the multipart was found", part.Path)
		return
	}
	for s.hit.level == level {
		s.consume(s.hit.length - s.hit.br)
		s.br = s.hit.br
		if s.hit.last {
			s.stack[level].delimiter = nil
			s.rest()
			return
		}
		if s.parts >= maxParts {
			if !s.stopped {
				s.stopped = true
				s.problem("more than %d parts: those after it aren't told apart", maxParts)
			}
			s.rest()
			return
		}
		n := len(part.Children)
		child, ce := s.entity(place{prefix: prefix, number: n + 1, related: related && n > 0, fallback: fallback})
		part.Children = append(part.Children, child)
		if e != nil {
			e.Children = append(e.Children, ce)
		}
	}
	if s.hit.level < 0 && s.err == nil && !s.stopped {
		s.problem("part %q: the multipart's last boundary is missing", part.Path)
	}
}

// rest goes over what no part is made of: behind a multipart's last boundary.
func (s *scanner) rest() {
	if !s.startLine(nil) {
		s.body(nil)
	}
}

// preamble goes over what comes before the first boundary. Until that comes,
// all of it may be one leaf, so it is summed.
func (s *scanner) preamble(part *Part, level int, replay []byte) {
	var sum hash.Hash
	var lead func([]byte)
	if s.hashing {
		sum = sha256.New()
		sum.Write(replay)
		if len(replay) > 0 {
			lead = func(b []byte) { sum.Write(b) }
		}
	}
	if !s.startLine(lead) {
		if sum != nil {
			s.stack[level].sum = sum
			s.summing++
		}
		s.body(nil)
		if sum != nil {
			s.stack[level].sum = nil
			s.summing--
		}
	}
	if sum != nil && s.hit.level != level {
		part.SHA256 = hexSum(sum)
	}
}

func (s *scanner) embedded(part *Part, e *Entity, prefix string) {
	if s.startLine(nil) {
		if s.hashing {
			part.SHA256 = hexSum(sha256.New())
		}
		return
	}
	var sum hash.Hash
	if s.hashing {
		sum = sha256.New()
	}
	s.push(nil, sum)
	child, ce := s.entity(place{prefix: prefix, embedded: true, fallback: "text/plain"})
	s.pop()
	part.Children = []*Part{child}
	if e != nil {
		e.Children = []*Entity{ce}
	}
	if sum != nil {
		part.SHA256 = hexSum(sum)
	}
}

// leaf measures the body of a part that holds no others.
func (s *scanner) leaf(part *Part, t transfer, ended bool, replay []byte) {
	s.decoder.reset(t)
	if s.hashing {
		s.sum.Reset()
	}
	sink := func(b []byte) {
		if t != identity {
			s.out = s.decoder.feed(s.out[:0], b)
			b = s.out
		}
		part.Size += int64(len(b))
		if s.hashing {
			s.sum.Write(b)
		}
	}
	if len(replay) > 0 {
		sink(replay)
	}
	lead := sink
	if len(replay) == 0 {
		lead = nil // it ends the header
	}
	if !ended && !s.startLine(lead) {
		s.body(sink)
	}
	if t != identity {
		s.out = s.decoder.finish(s.out[:0])
		part.Size += int64(len(s.out))
		if s.hashing {
			s.sum.Write(s.out)
		}
		if s.decoder.junk() {
			s.problem("part %q: what is no base64 was passed over", part.Path)
		}
	}
	if s.hashing {
		part.SHA256 = hexSum(s.sum)
	}
}

func hexSum(h hash.Hash) string {
	var sum [sha256.Size]byte
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], h.Sum(sum[:0]))
	return string(text[:])
}
