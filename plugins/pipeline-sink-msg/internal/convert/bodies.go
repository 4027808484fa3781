package convert

import (
	"bytes"
	"html"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/rtf"
)

// bodies sets the text, the HTML and, where it is asked for, RTF. There is a
// text whenever there is any body (MSG checklist D1).
func (b *builder) bodies() {
	if b.text == nil && b.html == nil && strings.HasPrefix(b.e.Part.MediaType, "multipart/") && len(b.e.Children) == 0 {
		b.text = b.e // a multipart without parts: what is there is text
	}
	b.openTNEF()
	text, haveText, codepage := "", false, int32(0)
	if b.text != nil {
		raw := b.read(b.text, maxText)
		decoded, charset, _ := message.DecodeCharset(b.text.Part.Params["charset"], raw)
		text, haveText = strings.TrimPrefix(decoded, "\uFEFF"), true
		codepage = codepageOf(charset)
		if b.text.Part.Size > maxText {
			text += "\n\n[The text goes on in the attachment.]\n"
		}
	} else if b.tnefBodies.text != "" {
		text, haveText = b.tnefBodies.text, true
	}
	native := int32(0)
	var source string // the HTML as UTF-8
	switch {
	case b.html != nil:
		var octets []byte
		octets, source, codepage = b.htmlBody()
		if b.setHTML(octets, source) {
			native = bodyHTML
		}
		if !haveText {
			text, haveText = renderHTML(source), true
		}
	case b.tnefBodies.html != nil:
		var octets []byte
		octets, source, codepage = b.stored(b.tnefBodies.html, charsetOf(b.tnefBodies.codepage))
		if b.setHTML(octets, source) {
			native = bodyHTML
		}
		if !haveText {
			text, haveText = renderHTML(source), true
		}
	}
	if native == 0 && text != "" {
		native = bodyText
	}
	if haveText {
		if text == "" && native == bodyHTML {
			text = "\n" // an empty text can't be stored, and must be there
		}
		b.o.String(pidBody, crlf(text))
	}
	switch {
	case b.tnefBodies.rtf != nil && native != bodyHTML:
		b.o.Binary(pidRTFCompressed, b.tnefBodies.rtf)
		b.o.Bool(pidRTFInSync, true)
		native = bodyRTF
		if !haveText {
			if plain, err := rtf.Decompress(b.tnefBodies.rtf, maxText); err == nil {
				b.o.String(pidBody, crlf(rtf.Text(plain)))
			}
		}
	case b.c.options.RTF && native == bodyHTML:
		b.o.Binary(pidRTFCompressed, rtf.Compress(rtf.Encapsulate(source)))
		b.o.Bool(pidRTFInSync, true)
	default:
		b.o.Bool(pidRTFInSync, false)
	}
	if native != 0 {
		b.o.Int(pidNativeBody, native)
	}
	if codepage == 0 || native == 0 {
		codepage = 65001 // of what isn't there; some readers fail on others
	}
	b.o.Int(pidInternetCodepage, codepage)
	b.o.Int(pidMessageCodepage, codepage)
	if b.report && text != "" && len(text) < 64<<10 {
		b.o.String(pidReportText, crlf(text))
	}
}

// setHTML stores the HTML; it is false for one that is empty.
func (b *builder) setHTML(octets []byte, source string) bool {
	if len(octets) == 0 {
		return false
	}
	b.o.Binary(pidHTML, octets)
	for i := range b.attachments {
		a := &b.attachments[i]
		if a.e != nil && (a.e.Part.ContentID != "" || a.e.Part.ContentLocation != "") || a.tnef != nil {
			b.htmlNames = strings.ToLower(html.UnescapeString(source))
			break
		}
	}
	return true
}

// read returns at most limit octets of a decoded part.
func (b *builder) read(e *message.Entity, limit int64) []byte {
	n := min(e.Part.Size, limit)
	if n <= 0 {
		return nil
	}
	raw := make([]byte, n)
	k, err := io.ReadFull(e.Open(), raw)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		b.c.failed(err)
	}
	return raw[:k]
}

// htmlBody returns the HTML as it is stored, the same as UTF-8, and the code
// page of the former.
func (b *builder) htmlBody() (octets []byte, source string, codepage int32) {
	raw := b.read(b.html, maxText)
	declared := b.html.Part.Params["charset"]
	if declared == "" && !ascii(raw) {
		// The HTML may name its own.
		if _, charset, err := b.html.Text(maxText); err == nil {
			declared = charset
		}
	}
	return b.stored(raw, declared)
}

// stored keeps HTML in its own octets where most readers know its code page
// and it decodes in it; else it becomes UTF-8, with the <meta> mended.
func (b *builder) stored(raw []byte, charset string) (octets []byte, source string, codepage int32) {
	source, charset, _ = message.DecodeCharset(charset, raw)
	codepage = codepageOf(charset)
	if codepage != 0 && decodes(codepage, raw) && (!b.c.options.UTF8 || codepage == 65001 || codepage == 20127) {
		return raw, source, codepage
	}
	source = mendMeta(source)
	return []byte(source), source, 65001
}

func ascii(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// mendMeta makes the charset that the HTML's <meta> names UTF-8.
func mendMeta(s string) string {
	head := strings.ToLower(s[:min(len(s), 4096)])
	if len(head) != min(len(s), 4096) {
		return s // lower case has other lengths here: leave it
	}
	for at := 0; ; {
		i := strings.Index(head[at:], "<meta")
		if i < 0 {
			return s
		}
		at += i + 5
		end := strings.IndexByte(head[at:], '>')
		if end < 0 {
			return s
		}
		k := strings.Index(head[at:at+end], "charset")
		if k < 0 {
			continue
		}
		v := at + k + len("charset")
		for v < at+end && strings.IndexByte(" \t\r\n=\"'", head[v]) >= 0 {
			v++
		}
		stop := v
		for stop < at+end && strings.IndexByte(" \t\r\n\"';/>", head[stop]) < 0 {
			stop++
		}
		if stop > v {
			return s[:v] + "utf-8" + s[stop:]
		}
	}
}

// crlf makes every line end CRLF: Outlook shows bare line feeds as one line.
// A lone carriage return stays.
func crlf(s string) string {
	bare := 0
	for i := 0; ; {
		k := strings.IndexByte(s[i:], '\n')
		if k < 0 {
			break
		}
		if i += k; i == 0 || s[i-1] != '\r' {
			bare++
		}
		i++
	}
	if bare == 0 {
		return s
	}
	var out bytes.Buffer
	out.Grow(len(s) + bare)
	for s != "" {
		k := strings.IndexByte(s, '\n')
		if k < 0 {
			break
		}
		if k > 0 && s[k-1] == '\r' {
			out.WriteString(s[:k+1])
		} else {
			out.WriteString(s[:k])
			out.WriteString("\r\n")
		}
		s = s[k+1:]
	}
	out.WriteString(s)
	return out.String()
}
