package message

// Part is one node of a message's MIME structure. Paths are the sections of
// IMAP (RFC 3501 §6.4.5): the root's is "" for a multipart, "1" for a single
// part. A message/rfc822 that was entered has one child, the root of the
// embedded message: where that is a multipart, its path is that of the message
// with ".TEXT", and its parts count on from the message's ("2.TEXT", "2.1",
// "2.2"); else it is "2.1".
type Part struct {
	Path            string
	MediaType       string            // lower case, "text/plain" when absent or broken
	Params          map[string]string // of Content-Type, decoded (RFC 2231, RFC 2047, raw 8-bit), keys in lower case
	Name            string            // decoded file name, of Content-Disposition, else of Content-Type; may be empty
	Disposition     string            // "attachment", "inline" or another word in lower case; empty when absent
	ContentID       string            // without angle brackets
	ContentLocation string
	Encoding        string // content transfer encoding in lower case, "7bit" when absent
	EncodedSize     int64  // octets as they stand in the message; -1 when unknown
	Size            int64  // octets after decoding; -1 when unknown (a server only knows EncodedSize)
	SHA256          string // hex, of the decoded octets; empty when no body passed, and for a multipart with parts
	Inline          bool   // shown within the text: in a multipart/related, with a Content-ID or Location
	Children        []*Part
}

// Walk calls f for p and everything below it, depth first, until f returns
// false for a node, whose children are then passed over.
func (p *Part) Walk(f func(*Part) bool) {
	if p == nil || !f(p) {
		return
	}
	for _, c := range p.Children {
		c.Walk(f)
	}
}
