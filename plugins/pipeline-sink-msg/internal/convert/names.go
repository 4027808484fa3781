package convert

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/mailhaul/pipeline/pkg/message"
)

// longName makes a file name that Windows takes: no controls, none of
// "/:<>\| (MSG checklist E2) nor of *? (MSG98 of msglint), at most 255 UTF-16
// units.
func longName(s string) string {
	ok := len(s) <= 200
	for i := 0; ok && i < len(s); i++ {
		ok = s[i] >= ' ' && s[i] != 0x7F && strings.IndexByte(forbidden, s[i]) < 0
	}
	if ok {
		return s
	}
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F || strings.ContainsRune(forbidden, r) {
			return -1
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if len(s) <= 255 {
		return s
	}
	ext := extension(s)
	if len(ext) > 32 {
		ext = ""
	}
	stem := s[:255-len(ext)]
	for !utf8.ValidString(stem) {
		stem = stem[:len(stem)-1]
	}
	return stem + ext
}

// forbidden are the characters that no long name may have.
const forbidden = `"*/:<>?\|`

// extension returns the name's end from its last dot; empty when it has none.
func extension(name string) string {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[i:]
	}
	return ""
}

// shortName makes the 8.3 name (MS-OXCMSG §2.2.2.11): what isn't ASCII, blanks
// and further dots are dropped, + , = [ ] ; become _; a stem that doesn't fit
// ends in ~1.
func shortName(name string) string {
	ext := extension(name)
	stem := name[:len(name)-len(ext)]
	short := func(s string) (string, bool) {
		var out []byte
		whole := true
		for i := 0; i < len(s); i++ {
			c := s[i]
			switch {
			case c <= ' ' || c >= 0x7F || c == '.' || strings.IndexByte(`"*/:<>?\|`, c) >= 0:
				whole = false
				continue
			case strings.IndexByte("+,=[];", c) >= 0:
				c = '_'
				whole = false
			}
			out = append(out, c)
		}
		return string(out), whole
	}
	stem, whole := short(stem)
	if len(stem) > 8 || !whole {
		stem = stem[:min(len(stem), 6)] + "~1"
	}
	if stem == "" {
		stem = "FILE"
	}
	e, _ := short(ext)
	if e = e[:min(len(e), 3)]; e != "" {
		stem += "." + e
	}
	return stem
}

// extensions of made up names, by media type.
var extensions = map[string]string{
	"text/plain": ".txt", "text/html": ".html", "text/calendar": ".ics", "text/csv": ".csv", "text/xml": ".xml",
	"text/x-vcard": ".vcf", "text/vcard": ".vcf", "text/rtf": ".rtf", "text/enriched": ".txt", "text/css": ".css",
	"text/x-amp-html": ".html", "text/watch-html": ".html", "text/x-diff": ".diff", "text/x-patch": ".patch",
	"text/rfc822-headers": ".txt", "message/rfc822": ".eml", "message/global": ".eml", "message/delivery-status": ".txt",
	"message/disposition-notification": ".txt", "message/feedback-report": ".txt", "message/partial": ".txt",
	"message/external-body": ".txt", "message/news": ".eml",
	"image/jpeg": ".jpg", "image/png": ".png", "image/gif": ".gif", "image/bmp": ".bmp", "image/tiff": ".tif",
	"image/svg+xml": ".svg", "image/webp": ".webp", "application/pdf": ".pdf", "application/zip": ".zip",
	"application/rtf": ".rtf", "application/msword": ".doc", "application/json": ".json", "application/xml": ".xml",
	"application/pgp-signature": ".asc", "application/pgp-encrypted": ".asc", "application/pgp-keys": ".asc",
	"application/pkcs7-mime": ".p7m", "application/x-pkcs7-mime": ".p7m",
	"application/pkcs7-signature": ".p7s", "application/x-pkcs7-signature": ".p7s",
	"application/ms-tnef": ".dat", "audio/mpeg": ".mp3", "audio/wav": ".wav", "video/mp4": ".mp4",
}

// nameOf returns the part's file name, one made up where it has none.
func (b *builder) nameOf(e *message.Entity) string {
	p := e.Part
	if name := longName(p.Name); name != "" {
		return name
	}
	switch p.MediaType {
	case "application/pkcs7-mime", "application/x-pkcs7-mime":
		return "smime.p7m"
	case "application/pkcs7-signature", "application/x-pkcs7-signature":
		return "smime.p7s"
	case "application/pgp-signature":
		return "signature.asc"
	case "text/calendar":
		return "invite.ics"
	}
	ext := extensions[p.MediaType]
	if ext == "" {
		switch {
		case strings.HasPrefix(p.MediaType, "text/"), strings.HasPrefix(p.MediaType, "multipart/"):
			ext = ".txt"
		default:
			ext = ".bin"
		}
	}
	return fmt.Sprintf("ATT%05d%s", b.o.Attachments(), ext)
}
