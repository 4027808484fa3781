package convert

import (
	"errors"
	"io"
	"strings"

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
			opened = append(opened, attachment{e: a.e, kind: attachOpened, tnef: &m.Attachments[k]})
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

// fromTNEF writes an attachment whose octets lie inside of a winmail.dat.
func (b *builder) fromTNEF(o *mapi.Object, a *attachment) {
	t := a.tnef
	name, mediaType := longName(t.Name), t.MediaType
	if t.Nested {
		// A message of Outlook's own, which only TNEF can hold.
		if name == "" {
			name = "message"
		}
		if !strings.HasSuffix(strings.ToLower(name), ".dat") {
			name += ".dat"
		}
		mediaType = "application/ms-tnef"
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
	e := a.e
	b.data(o, t.Size, func() io.Reader {
		r := e.Open()
		if _, err := io.CopyN(io.Discard, r, t.Offset); err != nil {
			return errReader{err}
		}
		return io.LimitReader(r, t.Size)
	})
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }
