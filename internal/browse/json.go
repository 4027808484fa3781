package browse

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/mailhaul/pipeline/pkg/message"
)

// JSON writes one JSON document: messages, each with the fields that it has,
// and then total, page and next.
type JSON struct {
	out     *bufio.Writer
	fields  []Field
	several bool
	n       int
}

// NewJSON returns a writer of JSON. several says that messages of several
// mailboxes come: each then has its mailbox.
func NewJSON(w io.Writer, fields []Field, several bool) *JSON {
	return &JSON{out: bufio.NewWriter(w), fields: fields, several: several}
}

// Message implements Writer.
func (j *JSON) Message(s *message.Summary) error {
	if j.n == 0 {
		j.fields = located(suited(j.fields, s), j.several)
		fmt.Fprint(j.out, "{\"messages\":[\n")
	} else {
		fmt.Fprint(j.out, ",\n")
	}
	j.n++
	b, err := Object(s, j.fields)
	if err != nil {
		return err
	}
	_, err = j.out.Write(b)
	return err
}

// End implements Writer.
func (j *JSON) End(p *Page) error {
	if j.n == 0 {
		fmt.Fprint(j.out, "{\"messages\":[")
	}
	type meta struct {
		Source    string   `json:"source"`
		Mailboxes []string `json:"mailboxes"`
		Total     int64    `json:"total"`
		Page      int      `json:"page"`
		PageSize  int      `json:"page_size"`
		Pages     int64    `json:"pages"`
		Next      *int     `json:"next"`
	}
	m := meta{p.Source, p.Mailboxes, p.Total, p.Number, p.Size, p.Pages(), nil}
	if n := p.Next(); n > 0 {
		m.Next = &n
	}
	b, err := marshal(m)
	if err != nil {
		return err
	}
	fmt.Fprint(j.out, "\n],")
	fmt.Fprintf(j.out, "%s\n", b[1:])
	return j.out.Flush()
}

// Object returns a message's fields as a JSON object, in their order. A field
// that the message lacks is left out.
func Object(s *message.Summary, fields []Field) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for _, f := range fields {
		v, ok := f.Value(s)
		if !ok {
			continue
		}
		if at, isTime := v.(time.Time); isTime {
			text := message.RFC3339(at)
			if text == "" {
				continue
			}
			v = text
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		name, err := marshal(f.Name)
		if err != nil {
			return nil, err
		}
		value, err := marshal(v)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// marshal returns JSON in which no character is left that could do something
// to a terminal: they are escaped.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	raw := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	out := make([]byte, 0, len(raw))
	for len(raw) > 0 {
		r, n := utf8.DecodeRune(raw)
		switch {
		case r >= 0x7F && unsafe(r) && r > 0xFFFF:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xD800+r>>10, 0xDC00+r&0x3FF)
		case r >= 0x7F && unsafe(r):
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = append(out, raw[:n]...)
		}
		raw = raw[n:]
	}
	return out, nil
}
