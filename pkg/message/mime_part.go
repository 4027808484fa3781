package message

import "strings"

// mimeHead is what the fields of an entity's header say of its body.
type mimeHead struct {
	boundary string
	transfer transfer
	seen     int // octets of the fields that were read
}

// readPart fills p from the header block raw. fallback is the media type where
// none is given: "message/rfc822" in a multipart/digest (RFC 2046 §5.1.5).
func readPart(p *Part, raw []byte, fallback string) mimeHead {
	var h mimeHead
	var typ, disposition, encoding, id, location []byte
	scanFields(raw, func(f field) bool {
		if len(f.name) < 10 || f.name[0]|0x20 != 'c' {
			return true
		}
		to := (*[]byte)(nil)
		switch {
		case equalFold(f.name, "Content-Type"):
			to = &typ
		case equalFold(f.name, "Content-Transfer-Encoding"):
			to = &encoding
		case equalFold(f.name, "Content-Disposition"):
			to = &disposition
		case equalFold(f.name, "Content-ID"):
			to = &id
		case equalFold(f.name, "Content-Location"):
			to = &location
		}
		if to != nil && *to == nil { // the first one counts
			*to = f.value
			h.seen += len(f.value)
		}
		return true
	}, nil)
	p.MediaType = fallback
	if typ != nil {
		p.MediaType, p.Params = parseParams(unfold(typ))
		if !isMediaType(p.MediaType) {
			p.MediaType = "text/plain"
		}
		p.MediaType = validUTF8(p.MediaType)
		h.boundary = strings.TrimRight(p.Params["boundary"], " \t")
	}
	p.Encoding, h.transfer = "7bit", identity
	if encoding != nil {
		p.Encoding, h.transfer = canonicalEncoding(unfold(encoding))
	}
	if disposition != nil {
		word, params := parseParams(unfold(disposition))
		p.Disposition, p.Name = validUTF8(word), strings.TrimSpace(params["filename"])
		if p.Name == "" {
			p.Name = strings.TrimSpace(params["name"])
		}
	}
	if p.Name == "" {
		p.Name = strings.TrimSpace(p.Params["name"])
		if p.Name == "" {
			p.Name = strings.TrimSpace(p.Params["filename"])
		}
	}
	if id != nil {
		p.ContentID = contentID(unfold(id))
	}
	if location != nil {
		p.ContentLocation = decodeWords(unfold(location), nil)
	}
	return h
}

func isMediaType(s string) bool {
	slash := strings.IndexByte(s, '/')
	return slash > 0 && slash < len(s)-1 && strings.IndexByte(s[slash+1:], '/') < 0
}

func contentID(v string) string {
	v = decodeRaw(v)
	if i := strings.IndexByte(v, '<'); i >= 0 {
		v = v[i+1:]
		if j := strings.IndexByte(v, '>'); j >= 0 {
			v = v[:j]
		}
	}
	return strings.TrimSpace(v)
}
