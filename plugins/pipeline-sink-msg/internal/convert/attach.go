package convert

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/mapi"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/tnef"
)

// What an attachment is made of.
const (
	attachPart   = iota // a part's decoded octets
	attachMail          // a message within the message
	attachSigned        // the whole signed entity of a clear-signed message
	attachTNEF          // winmail.dat, not opened
	attachOpened        // a file that was in a winmail.dat
)

type attachment struct {
	e    *message.Entity // the part it comes from
	kind int
	tnef *tnef.Attachment // attachOpened
	at   int64            // where in e its octets begin
}

// inMemory is the largest attachment that is copied when it is met; larger
// ones are decoded as the file is written.
const inMemory = 16 << 10

// attach writes the attachments, and what the message says of them.
func (b *builder) attach() {
	for i := range b.attachments[:b.limit()] {
		b.attachment(&b.attachments[i])
	}
	if b.incomplete && b.depth == 0 {
		o := b.newAttachment()
		b.named(o, "original.eml", "message/rfc822")
		b.data(o, b.c.size, func() io.Reader { return io.NewSectionReader(b.c.src, 0, b.c.size) })
		b.visible++
	}
	if b.o.Attachments() > 0 && b.visible > 0 {
		b.flags |= flagHasAttach
	}
	b.o.Bool(pidHasAttachments, b.visible > 0)
}

// newAttachment sets what all attachments have.
func (b *builder) newAttachment() *mapi.Object {
	i := b.o.Attachments()
	o := b.o.AddAttachment()
	o.Int(pidAttachNumber, int32(i))
	o.Int(pidRenderingPosition, -1)
	o.Int(pidObjectType, objectAttachment)
	o.Int(pidStoreSupport, storeUnicode)
	var key [4]byte
	binary.LittleEndian.PutUint32(key[:], uint32(i))
	o.Binary(pidRecordKey, b.c.file.Copy(key[:]))
	return o
}

// named sets the file's names and type.
func (b *builder) named(o *mapi.Object, name, mediaType string) {
	o.Int(pidAttachMethod, attachByValue)
	o.Binary(pidAttachEncoding, nil)
	o.String(pidAttachLongName, name)
	o.String(pidDisplayName, name)
	o.String(pidAttachShortName, shortName(name))
	o.String(pidAttachExtension, extension(name))
	o.String(pidAttachMediaType, mediaType)
}

// data sets the octets: now when they are few, else when the file is written.
func (b *builder) data(o *mapi.Object, size int64, open func() io.Reader) {
	o.Int(pidAttachSize, int32(min(size, 1<<31-1)))
	if size <= inMemory {
		raw := b.c.file.Alloc(int(size))
		if _, err := io.ReadFull(open(), raw); err != nil && size > 0 {
			b.c.failed(err)
		}
		o.Binary(pidAttachData, raw)
		return
	}
	c := b.c
	o.BinaryFunc(pidAttachData, size, func(w io.Writer) error {
		if c.copied == nil {
			c.copied = make([]byte, 32<<10)
		}
		_, err := io.CopyBuffer(onlyWriter{w}, onlyReader{open()}, c.copied)
		return err
	})
}

// onlyWriter and onlyReader keep io.CopyBuffer to its buffer.
type onlyWriter struct{ io.Writer }
type onlyReader struct{ io.Reader }

func (b *builder) attachment(a *attachment) {
	p := a.e.Part
	o := b.newAttachment()
	switch a.kind {
	case attachSigned:
		b.signed(o, a.e)
		b.visible++
		return
	case attachOpened:
		b.fromTNEF(o, a)
		return
	case attachMail:
		if b.mail(o, a.e) {
			b.describe(o, a.e)
			return
		}
	}
	mediaType := p.MediaType
	if a.kind == attachTNEF {
		mediaType = "application/octet-stream" // it couldn't be opened (MSG checklist E6)
	}
	b.named(o, b.nameOf(a.e), mediaType)
	o.String(pidAttachCharset, p.Params["charset"])
	b.describe(o, a.e)
	if grouped, ok := reportParts[p.MediaType]; ok && p.Size <= maxText {
		raw := canonicalStatus(b.read(a.e, maxText), grouped)
		b.data(o, int64(len(raw)), func() io.Reader { return bytes.NewReader(raw) })
		return
	}
	e := a.e
	b.data(o, p.Size, e.Open)
}

// reportParts are the parts of reports that are fields, and whether in groups.
var reportParts = map[string]bool{
	"message/delivery-status": true, "message/feedback-report": false, "message/disposition-notification": false,
	"message/external-body": false,
}

// describe sets what the part's header says, and whether it is shown within
// the HTML only.
func (b *builder) describe(o *mapi.Object, e *message.Entity) {
	p := e.Part
	id, inline := p.ContentID, false
	if id != "" {
		id, inline = b.inHTML(id)
		o.String(pidAttachContentID, id)
	}
	if p.ContentLocation != "" {
		o.String(pidAttachLocation, p.ContentLocation)
		if id == "" && p.Inline && len(p.ContentLocation) > 3 {
			inline = strings.Contains(b.htmlNames, strings.ToLower(p.ContentLocation))
		}
	}
	b.show(o, inline)
	if p.Disposition != "" {
		b.fileDates(o, e)
	}
}

func (b *builder) show(o *mapi.Object, inline bool) {
	o.Bool(pidAttachHidden, inline)
	if inline {
		o.Int(pidAttachFlags, attachInHTML)
		return
	}
	o.Int(pidAttachFlags, 0)
	b.visible++
}

// inHTML reports whether the HTML shows the part with this content id, and
// returns the id in the form in which the HTML names it. Only what the HTML
// names is inline: many programs give every part a Content-ID. Whether it lies
// in a multipart/related doesn't matter: Outlook shows it in the HTML, and
// listing it again would show it twice (MSG86 of msglint, which is stricter here
// than the checklist's E3). A cid URL may be percent-encoded (RFC 2392 §2).
func (b *builder) inHTML(id string) (string, bool) {
	if b.htmlNames == "" {
		return id, false
	}
	if strings.Contains(b.htmlNames, "cid:"+strings.ToLower(id)) {
		return id, true
	}
	for _, form := range [...]string{url.PathEscape(id), url.QueryEscape(id), strings.ReplaceAll(id, "@", "%40")} {
		if form != id && strings.Contains(b.htmlNames, "cid:"+strings.ToLower(form)) {
			return form, true
		}
	}
	return id, false
}

// fileDates sets the dates of RFC 2183 §2.4 and §2.5.
func (b *builder) fileDates(o *mapi.Object, e *message.Entity) {
	h, err := e.Header()
	if err != nil {
		b.c.failed(err)
		return
	}
	v := h.Get("Content-Disposition")
	for _, d := range [...]struct {
		name string
		id   uint16
	}{{"creation-date", pidCreationTime}, {"modification-date", pidModificationTime}} {
		i := indexFold(v, d.name)
		if i < 0 {
			continue
		}
		text := strings.TrimLeft(v[i+len(d.name):], " =\"")
		if j := strings.IndexAny(text, "\";"); j >= 0 {
			text = text[:j]
		}
		if at, ok := message.ParseDate(text); ok {
			o.Time(d.id, at.Truncate(time.Second))
		}
	}
}

// indexFold is strings.Index without regard to the case of ASCII letters.
func indexFold(s, word string) int {
	for i := 0; i+len(word) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(word)], word) {
			return i
		}
	}
	return -1
}

// mail makes the attachment a message of its own. It is false when it has to
// be kept as a file: nested too deeply, or no message can be seen in it.
func (b *builder) mail(o *mapi.Object, e *message.Entity) bool {
	if b.depth+1 >= maxNesting {
		b.incomplete = true
		return false
	}
	var root *message.Entity
	switch {
	case len(e.Children) == 1:
		root = e.Children[0]
	case e.Part.Size == 0 || e.Part.Encoding != "7bit" && e.Part.Size <= maxText:
		// Encoded, against RFC 2046 §5.2.1, but whole; or nothing at all.
		raw := b.read(e, maxText)
		var problems []string
		var err error
		if root, problems, err = message.Read(bytes.NewReader(raw), int64(len(raw))); err != nil || cutShort(problems) {
			return false
		}
	default:
		return false
	}
	o.Int(pidAttachMethod, attachEmbedded)
	o.Int(pidAttachSize, int32(min(e.Part.EncodedSize, 1<<31-1)))
	inner := builder{c: b.c, o: o.AddMessage(pidAttachData), e: root, depth: b.depth + 1}
	inner.message()
	if inner.incomplete {
		b.incomplete = true
	}
	name := inner.h.Subject()
	if name == "" {
		name = "message"
	}
	o.String(pidDisplayName, name)
	if e.Part.Name != "" {
		o.String(pidAttachLongName, longName(e.Part.Name))
	}
	return true
}

// signed sets the attachment of a clear-signed message: the multipart as it
// stands, with its Content-Type (MS-OXOSMIME §2.1.2.1).
func (b *builder) signed(o *mapi.Object, e *message.Entity) {
	b.named(o, "smime.p7m", "multipart/signed")
	o.Bool(pidAttachHidden, false)
	o.Int(pidAttachFlags, 0)
	field := rawField(b.h.Raw(), "Content-Type")
	body := e.Body()
	b.data(o, int64(len(field))+body.Size(), func() io.Reader { return io.MultiReader(bytes.NewReader(field), e.Body()) })
}

// rawField returns the first field of the name as it stands, with the empty
// line behind it.
func rawField(raw []byte, name string) []byte {
	end := "\n"
	if bytes.Contains(raw, []byte("\r\n")) {
		end = "\r\n"
	}
	for at := 0; at < len(raw); {
		n := lineEnd(raw, at)
		if len(raw)-at > len(name) && strings.EqualFold(string(raw[at:at+len(name)]), name) && bytes.HasPrefix(bytes.TrimLeft(raw[at+len(name):n], " \t"), []byte(":")) {
			for n < len(raw) && (raw[n] == ' ' || raw[n] == '\t') {
				n = lineEnd(raw, n)
			}
			field := bytes.TrimRight(raw[at:n], "\r\n")
			return fmt.Appendf(nil, "%s%s%s", field, end, end)
		}
		at = n
	}
	return nil
}

func lineEnd(b []byte, at int) int {
	if i := bytes.IndexByte(b[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(b)
}
