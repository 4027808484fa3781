package naming

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rivo/uniseg"

	"github.com/mailhaul/pipeline/pkg/message"
)

// What stands for a value that a message hasn't got.
const (
	noSource  = "source"
	noMailbox = "INBOX" // a source without mailboxes is a maildrop (RFC 1939 §1)
	noUID     = "0"
	noText    = "none" // uidl, message_id, vars
	noSubject = "no subject"
	noFrom    = "unknown"
	noDate    = "undated"
)

// span is where a field's value stands in a name.
type span struct{ start, end int }

// Name returns the message's name: relative, "/" between levels.
func (t *Template) Name(m *message.Summary) string {
	return string(t.Append(make([]byte, 0, 256), m))
}

// Append appends the message's name to b: relative, "/" between levels. The
// same message has the same name always; two messages never have the same,
// not even where case doesn't count.
func (t *Template) Append(b []byte, m *message.Summary) []byte {
	base := len(b)
	var (
		buf     [maxFields]span
		spans   = buf[:0]
		element = len(b)
		when    = moment{header: m.Header}
	)
	for i := range t.pieces {
		p := &t.pieces[i]
		start := len(b)
		switch p.field {
		case literal:
			b = append(b, p.literal...)
			continue
		case separator:
			b = closeDirectory(b, element)
			b = append(b, '/')
			element = len(b)
			continue
		case mailbox:
			if p.last {
				b = appendValue(b, or(m.Landing(), noMailbox))
				break
			}
			b, element = appendLevels(b, element, or(m.Landing(), noMailbox))
			continue
		case hash:
			b = append(b, m.ID.Hash()...)
			continue // never cut
		default:
			b = appendField(b, p, m, &when)
		}
		if p.last {
			spans = append(spans, span{start, len(b)})
		}
	}
	if len(b)-element >= MaxElement { // closeElement may add one
		b = cutSpans(b, spans, len(b)-element-(MaxElement-1), 0, byteLen)
	}
	// The hash stands in the last element: it is never empty.
	n := len(b)
	b = closeElement(b, element)
	if len(b)-base > t.maxPath {
		grew := len(b) - n
		for i := range spans {
			spans[i].start, spans[i].end = max(spans[i].start+grew, element), max(spans[i].end+grew, element)
		}
		b = t.shorten(b, base, element, spans)
	}
	if t.fence != "" {
		b = t.mark(b, base, m.ID.Hash())
	}
	return b
}

// appendField appends the value of one field, or what stands for it.
func appendField(b []byte, p *piece, m *message.Summary, when *moment) []byte {
	start := len(b)
	missing := noText
	switch p.field {
	case source:
		missing = noSource
		b = appendValue(b, m.ID.Source)
	case uid:
		missing = noUID
		if m.ID.UID != 0 {
			b = strconv.AppendUint(b, uint64(m.ID.UID), 10)
		}
	case uidl:
		b = appendValue(b, m.ID.UIDL)
	case date:
		return when.append(b)
	case year:
		return when.part(b, 0)
	case month:
		return when.part(b, 1)
	case day:
		return when.part(b, 2)
	case internalDate:
		return appendDate(b, m.InternalDate.UTC(), !m.InternalDate.IsZero())
	case subject:
		missing = noSubject
		if m.Header != nil {
			b = appendValue(b, m.Header.Subject())
		}
	case from:
		missing = noFrom
		if m.Header != nil {
			if list := m.Header.Addresses("From"); len(list) > 0 {
				b = appendValue(b, or(list[0].Address, list[0].Name))
			}
		}
	case messageID:
		if m.Header != nil {
			b = appendValue(b, strings.Trim(m.Header.MessageID(), "<>"))
		}
	case vars:
		b = appendValue(b, m.Vars[p.name])
	}
	if len(b) == start {
		b = append(b, missing...)
	}
	return b
}

// appendLevels appends a mailbox's name: each level closes an element but the
// last, which goes on with what follows in the template.
func appendLevels(b []byte, element int, name string) ([]byte, int) {
	for {
		level, rest, more := strings.Cut(name, "/")
		b = appendValue(b, level)
		if !more {
			return b, element
		}
		b = closeDirectory(b, element)
		b = append(b, '/')
		element, name = len(b), rest
	}
}

// closeDirectory ends a directory's name. It may be cut: the hash in the last
// element keeps messages apart.
func closeDirectory(b []byte, element int) []byte {
	b = closeElement(b, element)
	if len(b)-element > MaxElement {
		b = b[:element+len(cut(b[element:], MaxElement-1, byteLen))]
		b = closeElement(b, element)
	}
	return b
}

// moment is the date of the header, read once for all fields of a name. It
// stands in the zone that the sender wrote, so that it is the day that the
// mail itself shows.
type moment struct {
	header *message.Header
	at     time.Time
	ok     bool
	read   bool
}

func (w *moment) get() (time.Time, bool) {
	if !w.read {
		w.read = true
		if w.header != nil {
			w.at, w.ok = w.header.Date()
			w.ok = w.ok && w.at.Year() >= 1 && w.at.Year() <= 9999
		}
	}
	return w.at, w.ok
}

func (w *moment) append(b []byte) []byte {
	at, ok := w.get()
	return appendDate(b, at, ok)
}

// part appends year, month or day: noughts when there is no date.
func (w *moment) part(b []byte, i int) []byte {
	y, m, d := 0, time.Month(0), 0
	if at, ok := w.get(); ok {
		y, m, d = at.Date()
	}
	switch i {
	case 0:
		return appendPadded(b, y, 4)
	case 1:
		return appendPadded(b, int(m), 2)
	}
	return appendPadded(b, d, 2)
}

func appendDate(b []byte, at time.Time, ok bool) []byte {
	if !ok || at.Year() < 1 || at.Year() > 9999 {
		return append(b, noDate...)
	}
	y, m, d := at.Date()
	b = append(appendPadded(b, y, 4), '-')
	b = append(appendPadded(b, int(m), 2), '-')
	return appendPadded(b, d, 2)
}

func appendPadded(b []byte, n, width int) []byte {
	for div, i := pow10(width-1), 0; i < width; i++ {
		b = append(b, byte('0'+n/div%10))
		div /= 10
	}
	return b
}

func pow10(n int) int {
	p := 1
	for range n {
		p *= 10
	}
	return p
}

func or(s, missing string) string {
	if s == "" {
		return missing
	}
	return s
}

// cutSpans takes at least over, as measured, out of the values in the last element,
// always from the end of the longest, none below least.
func cutSpans(b []byte, spans []span, over, least int, measure func([]byte) int) []byte {
	size := func(s span) int { return measure(b[s.start:s.end]) }
	for over > 0 {
		long := -1
		for i, s := range spans {
			if n := size(s); n > least && (long < 0 || n > size(spans[long])) {
				long = i
			}
		}
		if long < 0 {
			return b
		}
		s := &spans[long]
		before := size(*s)
		keep := len(cut(b[s.start:s.end], max(before-over, least), measure))
		gone := s.end - s.start - keep
		b = slices.Delete(b, s.start+keep, s.end)
		s.end -= gone
		for i := range spans {
			if spans[i].start > s.start {
				spans[i].start -= gone
				spans[i].end -= gone
			}
		}
		over -= before - size(*s)
	}
	return b
}

// Below these a value or a directory is cut only when nothing else is left.
const (
	shortValue     = 24
	shortDirectory = 16
)

// shorten brings the whole name within maxPath: first the values of the last
// element, then the longest directories, then the deepest directories go, and
// last what is left of the values. The hash is never touched.
func (t *Template) shorten(b []byte, base, element int, spans []span) []byte {
	over := func(dirs []string, last []byte) int {
		n := units(last) - t.maxPath
		for _, d := range dirs {
			n += units([]byte(d)) + 1
		}
		return n
	}
	var dirs []string
	if element > base {
		dirs = strings.Split(string(b[base:element-1]), "/")
	}
	last := slices.Clone(b[element:])
	for i := range spans {
		spans[i].start -= element
		spans[i].end -= element
	}
	if n := over(dirs, last); n > 0 {
		last = cutSpans(last, spans, n, shortValue, units)
	}
	for n := over(dirs, last); n > 0; n = over(dirs, last) {
		long := 0
		for i := range dirs {
			if units([]byte(dirs[i])) > units([]byte(dirs[long])) {
				long = i
			}
		}
		if len(dirs) == 0 {
			last = cutSpans(last, spans, n, 0, units)
			break
		}
		size := units([]byte(dirs[long]))
		if size <= shortDirectory {
			dirs = dirs[:len(dirs)-1]
			continue
		}
		d := closeElement(cut([]byte(dirs[long]), max(size-n, shortDirectory-1), units), 0)
		dirs[long] = string(d)
	}
	b = b[:base]
	for _, d := range dirs {
		b = append(append(b, d...), '/')
	}
	start := len(b)
	return closeElement(append(b, last...), start)
}

// cut returns the longest prefix of v that measures at most limit and ends
// between two characters as a reader sees them, or between two code points
// where the first character alone is too long.
func cut(v []byte, limit int, measure func([]byte) int) []byte {
	if measure(v) <= limit {
		return v
	}
	end, size, state := 0, 0, -1
	for rest := v; len(rest) > 0; {
		var c []byte
		c, rest, _, state = uniseg.FirstGraphemeCluster(rest, state)
		if size += measure(c); size > limit {
			break
		}
		end += len(c)
	}
	if end == 0 {
		for size = 0; end < len(v); {
			_, n := utf8.DecodeRune(v[end:])
			if size += measure(v[end : end+n]); size > limit {
				break
			}
			end += n
		}
	}
	for end > 0 && v[end-1] == ' ' {
		end--
	}
	return v[:end]
}

func byteLen(b []byte) int { return len(b) }

// units returns the number of UTF-16 units of b.
func units(b []byte) int {
	n := 0
	for i := 0; i < len(b); {
		r, size := rune(b[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRune(b[i:])
		}
		i += size
		n++
		if r > 0xffff {
			n++
		}
	}
	return n
}
