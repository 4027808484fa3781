package message

import (
	"io"
	"strings"
)

// ReadStructure reads a message from its first octet to its end and returns
// what it is made of, with sizes and sums of the decoded octets. Nothing in a
// message is an error: problems says what was odd, in words, at most 100 of
// them. err is r's own; the structure then reaches as far as r did.
//
// Memory is bounded whatever the message (I5): a buffer of 64 KiB, one header
// block, and the tree, of at most 10,000 parts, 160 deep. What is beyond stays
// in the part that holds it, and is a problem.
func ReadStructure(r io.Reader) (root *Part, problems []string, err error) {
	root, _, problems, err = scan(r, false, true)
	return root, problems, err
}

// Attachments returns the leaves below root that are more than the mail's own
// text: of disposition attachment, with a file name, or of a type other than
// text. An attached message is one of them, and isn't entered. The fields of a
// delivery report (message/delivery-status) and a multipart without parts count
// as text.
func Attachments(root *Part) []*Part {
	var out []*Part
	root.Walk(func(p *Part) bool {
		multipart := strings.HasPrefix(p.MediaType, "multipart/")
		if multipart && len(p.Children) > 0 {
			return true
		}
		text := multipart || strings.HasPrefix(p.MediaType, "text/") || p.MediaType == "message/delivery-status"
		if p.Disposition == "attachment" || p.Name != "" || !text {
			out = append(out, p)
		}
		return false
	})
	return out
}
