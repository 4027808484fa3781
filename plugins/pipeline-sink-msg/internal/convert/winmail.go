package convert

import (
	"errors"
	"io"
	"mime"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/mapi"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/rtf"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/tnef"
)

// tnefBodies are the bodies that a winmail.dat holds. They count where the mail
// has none itself.
type tnefBodies struct {
	text     string
	html     []byte
	codepage int32
	rtf      []byte
}

func isTNEF(p *message.Part) bool {
	switch p.MediaType {
	case "application/ms-tnef", "application/vnd.ms-tnef":
		return true
	}
	return p.MediaType == "application/octet-stream" && strings.EqualFold(p.Name, "winmail.dat")
}

// openTNEF replaces each winmail.dat by what is in it. One that can't be read
// is kept as it is.
func (b *builder) openTNEF() {
	for i := 0; i < len(b.attachments); i++ {
		a := b.attachments[i]
		if a.kind != attachTNEF {
			continue
		}
		m, err := tnef.Read(a.e.Open())
		if err != nil {
			if !errors.Is(err, tnef.ErrCorrupt) {
				b.c.failed(err)
			}
			continue
		}
		opened := make([]attachment, 0, len(m.Attachments))
		for k := range m.Attachments {
			opened = append(opened, attachment{e: a.e, kind: attachOpened, tnef: &m.Attachments[k], at: m.Attachments[k].Offset})
		}
		b.attachments = append(b.attachments[:i], append(opened, b.attachments[i+1:]...)...)
		i += len(opened) - 1
		b.takeBodies(m)
	}
}

func (b *builder) takeBodies(m *tnef.Message) {
	t := &b.tnefBodies
	if b.text == nil && t.text == "" && strings.TrimSpace(m.Text) != "" {
		t.text = m.Text
	}
	if b.html != nil || t.html != nil || t.rtf != nil {
		return
	}
	if len(m.HTML) > 0 && len(m.HTML) <= maxText {
		t.html, t.codepage = m.HTML, m.Codepage
		return
	}
	if _, err := rtf.Decompress(m.RTF, maxText); err == nil {
		t.rtf = m.RTF
	}
}

// open returns the octets of an attachment that lie inside of a winmail.dat.
func (a *attachment) open() io.Reader {
	r := a.e.Open()
	if _, err := io.CopyN(io.Discard, r, a.at); err != nil {
		return errReader{err}
	}
	return io.LimitReader(r, a.tnef.Size)
}

// fromTNEF writes an attachment whose octets lie inside of a winmail.dat.
func (b *builder) fromTNEF(o *mapi.Object, a *attachment) {
	t := a.tnef
	name, mediaType := longName(t.Name), t.MediaType
	if t.Nested {
		if b.tnefMail(o, a) {
			b.show(o, false)
			return
		}
		// A message that can't be read is kept as it is.
		if name == "" {
			name = "message"
		}
		if !strings.HasSuffix(strings.ToLower(name), ".dat") {
			name += ".dat"
		}
		mediaType = "application/octet-stream"
	}
	if name == "" {
		name = "attachment.bin"
	}
	if mediaType == "" {
		mediaType = "application/octet-stream"
	}
	b.named(o, name, mediaType)
	inline := false
	if t.ContentID != "" {
		id := t.ContentID
		id, inline = b.inHTML(id)
		o.String(pidAttachContentID, id)
	}
	b.show(o, inline)
	b.data(o, t.Size, a.open)
}

// tnefMail makes a message that is attached within a winmail.dat one of its
// own. It is false when it is nested too deeply or can't be read.
func (b *builder) tnefMail(o *mapi.Object, a *attachment) bool {
	if b.depth+1 >= maxNesting {
		b.incomplete = true
		return false
	}
	m, err := tnef.Read(a.open())
	if err != nil {
		if !errors.Is(err, tnef.ErrCorrupt) {
			b.c.failed(err)
		}
		return false
	}
	head := tnefHeader(m)
	root, _, err := message.Read(strings.NewReader(head), int64(len(head)))
	if err != nil {
		b.c.failed(err)
		return false
	}
	o.Int(pidAttachMethod, attachEmbedded)
	o.Int(pidAttachSize, int32(min(a.tnef.Size, 1<<31-1)))
	inner := builder{c: b.c, o: o.AddMessage(pidAttachData), e: root, depth: b.depth + 1, opened: true}
	for k := range m.Attachments {
		inner.attachments = append(inner.attachments, attachment{e: a.e, kind: attachOpened, tnef: &m.Attachments[k], at: a.at + m.Attachments[k].Offset})
	}
	inner.takeBodies(m)
	inner.message()
	b.incomplete = b.incomplete || inner.incomplete
	name := m.Subject
	if name == "" {
		name = "message"
	}
	o.String(pidDisplayName, name)
	return true
}

// tnefHeader writes what the stream knows of its message as a header block.
func tnefHeader(m *tnef.Message) string {
	var h strings.Builder
	word := func(s string) string { return mime.BEncoding.Encode("utf-8", clean(s)) }
	person := func(field string, p tnef.Person) {
		if p == (tnef.Person{}) {
			return
		}
		address := strings.Map(func(r rune) rune {
			if r <= ' ' || strings.ContainsRune("<>,;()\"\\", r) {
				return -1
			}
			return r
		}, p.Address)
		h.WriteString(field + ": " + word(p.Name) + " <" + address + ">\r\n")
	}
	person("From", m.From)
	for _, r := range m.Recipients {
		switch r.Kind {
		case recipientTo:
			person("To", r.Person)
		case recipientCc:
			person("Cc", r.Person)
		case recipientBcc:
			person("Bcc", r.Person)
		}
	}
	h.WriteString("Subject: " + word(m.Subject) + "\r\n")
	if !m.Sent.IsZero() {
		h.WriteString("Date: " + m.Sent.Format(time.RFC1123Z) + "\r\n")
	}
	if m.MessageID != "" {
		h.WriteString("Message-ID: " + clean(m.MessageID) + "\r\n")
	}
	return h.String() + "\r\n"
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }
