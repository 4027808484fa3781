package header

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
)

// Reader is a message with its header edited while it passes: memory is
// bounded whatever the header's length (I5).
type Reader struct {
	edit    *Edit
	r       *bufio.Reader
	out     bytes.Buffer
	delim   byte   // what ends a line; 0: nothing was read yet
	br      string // line break of the message, known after its first line
	seen    map[string]bool
	skip    bool // the field under way is taken out
	first   bool
	inLine  bool // the last piece ended within a line
	bare    bool // the last line had no line break
	changed bool
	inBody  bool
	err     error
}

// Read returns a reader of the message r with the edit made. A message's own
// line breaks, CRLF or LF, are those of new fields.
func (e *Edit) Read(r io.Reader) *Reader {
	return &Reader{edit: e, r: bufio.NewReaderSize(r, 16<<10), seen: map[string]bool{}, first: true}
}

// Changed reports whether an octet differs from those that came. It is known
// once the header has been read.
func (r *Reader) Changed() bool { return r.changed }

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for r.out.Len() == 0 && !r.inBody {
		if r.err != nil {
			return 0, r.err
		}
		r.line()
	}
	if r.out.Len() > 0 {
		return r.out.Read(p)
	}
	return r.r.Read(p)
}

// line takes one line of the header, or a piece of a long one.
func (r *Reader) line() {
	if r.delim == 0 {
		r.delim = '\n'
		ahead, _ := r.r.Peek(r.r.Size()) // its error comes again
		if bytes.IndexByte(ahead, '\n') < 0 && bytes.IndexByte(ahead, '\r') >= 0 {
			r.delim, r.br = '\r', "\r" // as on the Macs of old
		}
	}
	b, err := r.r.ReadSlice(r.delim)
	starts := !r.inLine
	r.inLine = errors.Is(err, bufio.ErrBufferFull)
	if err != nil && !r.inLine {
		r.err = err
	}
	if len(b) == 0 {
		if r.err == io.EOF {
			r.end(r.bare)
		}
		return
	}
	if r.br == "" && !r.inLine {
		r.br = "\r\n"
		if b[len(b)-1] == '\n' && !bytes.HasSuffix(b, []byte("\r\n")) {
			r.br = "\n"
		}
	}
	switch text := bytes.TrimRight(b, "\r\n"); {
	case !starts:
	case len(text) == 0:
		r.end(false)
		r.out.Write(b)
		r.inBody = true
		return
	case !r.first && (text[0] == ' ' || text[0] == '\t'):
		// A continuation goes with its field.
	default:
		r.skip = false
		b = r.begin(b)
	}
	r.first = false
	if !r.skip {
		r.out.Write(b)
		r.bare = b[len(b)-1] != r.delim
	}
	if r.err == io.EOF {
		r.end(r.bare)
	}
}

// begin takes the first line of a field and returns what stands in its place.
func (r *Reader) begin(b []byte) []byte {
	end := 0
	for end < len(b) && b[end] > ' ' && b[end] < 127 && b[end] != ':' {
		end++
	}
	colon := end
	for colon < len(b) && (b[colon] == ' ' || b[colon] == '\t') {
		colon++
	}
	if end == 0 || colon == len(b) || b[colon] != ':' {
		return b // no field: it stays
	}
	name := strings.ToLower(string(b[:end]))
	switch {
	case r.edit.remove[name]:
		r.skip, r.changed = true, true
	case r.edit.rename[name] != "":
		r.changed = r.changed || r.edit.rename[name] != string(b[:end])
		return append([]byte(r.edit.rename[name]), b[end:]...)
	case r.edit.set[name] != "":
		r.skip, r.changed = true, true
		if !r.seen[name] {
			r.seen[name] = true
			r.out.Write(field(r.edit.set[name], r.edit.values[name], r.lineBreak()))
		}
	}
	return b
}

func (r *Reader) lineBreak() string {
	if r.br == "" {
		return "\r\n"
	}
	return r.br
}

// end puts what is missing at the end of the header.
func (r *Reader) end(bare bool) {
	br := r.lineBreak()
	r.bare = false
	put := func(name, value string) {
		if bare {
			r.out.WriteString(br)
			bare = false
		}
		r.changed = true
		r.out.Write(field(name, value, br))
	}
	for _, name := range slices.Sorted(maps.Keys(r.edit.set)) {
		if !r.seen[name] {
			r.seen[name] = true
			put(r.edit.set[name], r.edit.values[name])
		}
	}
	for _, f := range r.edit.last {
		put(f[0], f[1])
	}
}
