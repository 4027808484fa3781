package convert

import (
	"strings"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/mapi"
)

// gather decides what becomes of each part: the first text and the first HTML
// that are neither named nor of disposition attachment are the message's own;
// every other leaf is an attachment.
func (b *builder) gather() {
	if b.opened {
		return
	}
	if b.clearSigned() {
		// The signed entity is the one attachment (MS-OXOSMIME §2.1.2); what
		// can be read of it without checking it is the body.
		b.attachments = append(b.attachments, attachment{e: b.e, kind: attachSigned})
		if len(b.e.Children) > 0 {
			kept := b.attachments
			b.walk(b.e.Children[0])
			b.attachments = kept
		}
		return
	}
	b.walk(b.e)
}

// clearSigned reports whether the message is S/MIME in clear text. Other
// signatures (PGP) are attachments like any other, so that their readers find
// them.
func (b *builder) clearSigned() bool {
	return b.e.Part.MediaType == "multipart/signed" && strings.Contains(strings.ToLower(b.e.Part.Params["protocol"]), "pkcs7")
}

func (b *builder) walk(e *message.Entity) {
	p := e.Part
	switch {
	case isMail(p):
		b.attachments = append(b.attachments, attachment{e: e, kind: attachMail})
		return
	case strings.HasPrefix(p.MediaType, "multipart/") && len(e.Children) > 0:
		for _, c := range e.Children {
			b.walk(c)
		}
		return
	case isTNEF(p):
		b.attachments = append(b.attachments, attachment{e: e, kind: attachTNEF})
		return
	}
	if p.Disposition != "attachment" && p.Name == "" {
		switch {
		case p.MediaType == "text/plain" && b.text == nil:
			b.text = e
			if p.Size > maxText {
				b.attachments = append(b.attachments, attachment{e: e})
			}
			return
		case p.MediaType == "text/html" && b.html == nil:
			if p.Size > maxText {
				break
			}
			b.html = e
			return
		}
	}
	b.attachments = append(b.attachments, attachment{e: e})
}

// isMail reports whether the part is a mail: as it always was, or with UTF-8 in
// its header (RFC 6532).
func isMail(p *message.Part) bool {
	return p.MediaType == "message/rfc822" || p.MediaType == "message/global"
}

// class sets the message class (MSG checklist C1).
func (b *builder) class() {
	p := b.e.Part
	class := "IPM.Note"
	switch p.MediaType {
	case "multipart/signed":
		class = "IPM.Note.SMIME.MultipartSigned"
	case "application/pkcs7-mime", "application/x-pkcs7-mime":
		class = "IPM.Note.SMIME"
	case "multipart/report":
		switch strings.ToLower(p.Params["report-type"]) {
		case "delivery-status":
			b.report = true
			class = "REPORT.IPM.Note." + b.deliveryReport()
		case "disposition-notification":
			class = "REPORT.IPM.Note." + b.readReport()
		}
	}
	b.o.String(pidMessageClass, class)
}

// limit returns how many attachments are written. Where some are left out, the
// original takes the last place. A mail within may turn out incomplete when all
// places are taken: then the last one is given up before.
func (b *builder) limit() int {
	n := len(b.attachments)
	if n < mapi.Limit {
		return n
	}
	if b.depth > 0 {
		b.incomplete = b.incomplete || n > mapi.Limit
		return mapi.Limit
	}
	for _, a := range b.attachments {
		b.incomplete = b.incomplete || a.kind == attachMail
	}
	b.incomplete = b.incomplete || n > mapi.Limit
	if b.incomplete {
		return mapi.Limit - 1
	}
	return n
}
