package imapdata

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/pkg/message"
)

// The bounds of a structure: no real mail comes near them, and a server that
// goes beyond is not followed (I5).
const (
	maxDepth = 64
	maxNodes = 100_000
)

// node is a value of a BODYSTRUCTURE: a list, or a string, or NIL (neither).
type node struct {
	list   []node
	isList bool
	value  []byte
	isText bool // a quoted string, literal or atom; not NIL
}

// Structure reads a BODYSTRUCTURE (RFC 9051 §7.5.2) as servers send it:
// without extension data, with an empty multipart, with NIL or a string where
// a list belongs, with parameters that lack a value. false means that it
// can't be read as a message's structure: the body itself must tell then.
func Structure(raw []byte) (*message.Part, bool) {
	s := scanner{b: raw}
	count := 0
	k, _ := s.next()
	if k != opened {
		return nil, false
	}
	root, ok := s.tree(0, &count)
	if !ok || len(root.list) == 0 {
		return nil, false
	}
	return part(root, place{number: 1, root: true}, 0)
}

// tree reads the rest of a list that was opened.
func (s *scanner) tree(depth int, count *int) (node, bool) {
	n := node{isList: true}
	for {
		if *count++; *count > maxNodes || depth > 2*maxDepth {
			return n, false
		}
		switch k, v := s.next(); k {
		case end:
			return n, s.close()
		case opened:
			child, ok := s.tree(depth+1, count)
			if !ok {
				return n, false
			}
			n.list = append(n.list, child)
		case text:
			n.list = append(n.list, node{value: v, isText: true})
		case atom:
			n.list = append(n.list, node{value: v, isText: !isNIL(v)})
		}
	}
}

// at returns the i-th value; a missing one is NIL.
func (n node) at(i int) node {
	if i < len(n.list) {
		return n.list[i]
	}
	return node{}
}

// size returns a number; -1 for anything else.
func (n node) size() int64 {
	if v, ok := number(n.value); ok && n.isText {
		return v
	}
	return -1
}

// place is where a part stands in the message, which is what numbers it.
type place struct {
	prefix  string // of the parent: "" or "2."
	number  int
	root    bool // of a message, the whole or an attached one
	related bool // the parent is a multipart/related
}

func part(n node, at place, depth int) (*message.Part, bool) {
	if depth > maxDepth || len(n.list) == 0 {
		return nil, false
	}
	if multi, first := multipart(n); multi {
		return container(n, first, at, depth)
	}
	return leaf(n, at, depth)
}

// multipart tells the two kinds apart and says where the subtype stands. A
// multipart without parts is sent as ("MIXED" ("BOUNDARY" …) …), (NIL "MIXED"
// …) or (() "MIXED" …).
func multipart(n node) (bool, int) {
	i := 0
	for i < len(n.list) && n.list[i].isList {
		i++
	}
	if i > 0 {
		return true, i
	}
	if !n.at(0).isText {
		return true, 1
	}
	// One string, and then a list or NIL instead of a subtype.
	return !n.at(1).isText, 0
}

func container(n node, subtype int, at place, depth int) (*message.Part, bool) {
	sub := strings.ToLower(string(n.at(subtype).value))
	if !n.at(subtype).isText || strings.ContainsAny(sub, "/ \t\r\n") {
		sub = "mixed"
	}
	p := message.NewPart(headerOf("multipart/"+sub, n.at(subtype+1), nil, node{}, nil))
	p.Path = strings.TrimSuffix(at.prefix, ".")
	switch {
	case at.root && at.prefix != "":
		p.Path = at.prefix + "TEXT" // RFC 9051 §6.4.5: the text of an attached message
	case !at.root:
		p.Path = at.prefix + strconv.Itoa(at.number)
	}
	inner := at.prefix
	if !at.root {
		inner = p.Path + "."
	}
	number := 0
	for _, child := range n.list[:subtype] {
		if !child.isList {
			continue
		}
		if len(child.list) == 0 {
			continue // (): no part at all
		}
		number++
		c, ok := part(child, place{prefix: inner, number: number, related: sub == "related"}, depth+1)
		if !ok {
			return nil, false
		}
		p.Children = append(p.Children, c)
	}
	return p, true
}

func leaf(n node, at place, depth int) (*message.Part, bool) {
	typ, sub := lower(n.at(0)), lower(n.at(1))
	params, id, encoding := n.at(2), n.at(3), n.at(5)
	ext := 7
	var attached *node
	switch {
	case typ == "text":
		if n.at(7).size() >= 0 {
			ext = 8
		}
	case typ == "message" && (sub == "rfc822" || sub == "global") && n.at(7).isList && n.at(8).isList:
		attached, ext = &n.list[8], 9
		if n.at(9).size() >= 0 {
			ext = 10
		}
	case typ == "message" && !n.at(7).isText && n.at(8).isList && len(n.list) > 9:
		// NIL for the envelope.
		attached, ext = &n.list[8], 10
	}
	disposition, location := extension(n, ext)
	p := message.NewPart(headerOf(typ+"/"+sub, params, encoding.value, disposition, id.value))
	if encoding.isList || !encoding.isText {
		p.Encoding = "7bit"
	}
	if location.isText {
		p.ContentLocation = message.NewPart([]byte("Content-Location: " + oneLine(location.value) + "\r\n\r\n")).ContentLocation
	}
	p.Path = at.prefix + strconv.Itoa(at.number)
	p.EncodedSize = n.at(6).size()
	p.Inline = at.related && (p.ContentID != "" || p.ContentLocation != "")
	if attached != nil {
		if inner, ok := part(*attached, place{prefix: p.Path + ".", number: 1, root: true}, depth+1); ok {
			p.Children = []*message.Part{inner}
		}
	}
	return p, true
}

// extension finds disposition and location among the extension data, which
// starts with the MD5 at i. Some servers leave the MD5 out or send a plain
// word for the disposition.
func extension(n node, i int) (disposition, location node) {
	for ; i < len(n.list); i++ {
		v := n.list[i]
		if v.isList && len(v.list) > 0 && v.list[0].isText && (len(v.list) == 1 || !v.list[1].isText) {
			return v, n.at(i + 2)
		}
		if v.isText && (strings.EqualFold(string(v.value), "attachment") || strings.EqualFold(string(v.value), "inline")) {
			return node{isList: true, list: []node{v}}, n.at(i + 2)
		}
	}
	return node{}, node{}
}

func lower(n node) string {
	if !n.isText {
		return "" // no type at all: NewPart makes text/plain of it
	}
	return strings.ToLower(oneLine(n.value))
}

// headerOf writes the header fields that the server read its answer from, so
// that one parser reads names everywhere.
func headerOf(mediaType string, params node, encoding []byte, disposition node, id []byte) []byte {
	var b bytes.Buffer
	b.WriteString("Content-Type: " + mediaType)
	writeParams(&b, params)
	if len(encoding) > 0 && !isNIL(encoding) {
		b.WriteString("\r\nContent-Transfer-Encoding: " + oneLine(encoding))
	}
	if disposition.isList {
		b.WriteString("\r\nContent-Disposition: " + oneLine(disposition.at(0).value))
		writeParams(&b, disposition.at(1))
	}
	if len(id) > 0 && !isNIL(id) {
		b.WriteString("\r\nContent-ID: " + oneLine(id))
	}
	b.WriteString("\r\n\r\n")
	return b.Bytes()
}

// writeParams writes (key value key value …), or ((key value) (key value)) as
// some servers send it. A key without a value is left out.
func writeParams(b *bytes.Buffer, params node) {
	for i := 0; i < len(params.list); i++ {
		key, value := params.list[i], params.at(i+1)
		if key.isList {
			writeParams(b, key)
			continue
		}
		if i++; !key.isText || !value.isText {
			continue
		}
		name := oneLine(key.value)
		if name == "" || strings.ContainsAny(name, " ;=\"") {
			continue
		}
		b.WriteString("; " + name + "=")
		if strings.HasSuffix(name, "*") {
			b.WriteString(oneLine(value.value)) // RFC 2231 §7: never quoted
			continue
		}
		b.WriteString(`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(oneLine(value.value)) + `"`)
	}
}

// oneLine keeps a value from breaking out of its header field. Octets that
// aren't UTF-8 stay: the header's parser knows what to make of them.
func oneLine(b []byte) string {
	if bytes.ContainsAny(b, "\r\n\x00") {
		b = bytes.Clone(b)
		for i, c := range b {
			if c == '\r' || c == '\n' || c == 0 {
				b[i] = ' '
			}
		}
	}
	return string(b)
}
