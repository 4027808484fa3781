package message

import (
	"crypto/sha256"
	"encoding/base32"
	"net/url"
	"strconv"
	"strings"
)

// ID names one message of one source, for ever. It is keyed by the source's
// configured name, so that a host may be renamed. Exactly one of the two
// kinds of id is used: UIDValidity and UID (IMAP), or UIDL (POP3 and any
// source whose ids are strings).
//
// ID is comparable. A plugin leaves Source empty; the host fills it in.
type ID struct {
	Source      string
	Mailbox     string // UTF-8, "/" between levels; empty where a source has no mailboxes
	UIDValidity uint32
	UID         uint32
	UIDL        string // the server's unique id; opaque
	HeaderHash  string // hex sha256 of the header, only where UIDLs are missing or doubled
	Ordinal     uint32 // tells apart messages of one UIDL and HeaderHash; from 0
}

// Key returns the canonical text of the id: what hashes, file names and
// deduplication are made of. It never changes between versions.
func (id ID) Key() string {
	return string(id.appendKey(nil))
}

// appendKey is on the way of every message.
func (id ID) appendKey(b []byte) []byte {
	b = strconv.AppendQuote(b, id.Source)
	b = append(b, ' ')
	b = strconv.AppendQuote(b, id.Mailbox)
	b = append(b, ' ')
	if id.UID != 0 {
		b = strconv.AppendUint(b, uint64(id.UIDValidity), 10)
		b = append(b, ' ')
		return strconv.AppendUint(b, uint64(id.UID), 10)
	}
	b = strconv.AppendQuote(b, id.UIDL)
	if id.HeaderHash != "" || id.Ordinal != 0 {
		b = append(append(append(b, ' '), id.HeaderHash...), ' ')
		b = strconv.AppendUint(b, uint64(id.Ordinal), 10)
	}
	return b
}

// Hash returns 10 characters of lower-case base32 of sha256(Key): enough to
// keep two messages' file names apart.
func (id ID) Hash() string {
	var key [256]byte
	sum := sha256.Sum256(id.appendKey(key[:0]))
	var out [16]byte
	lowerBase32.Encode(out[:], sum[:10]) // ten octets are 16 characters
	return string(out[:10])
}

var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567")

// URL returns the id as text for people: base is the source's own address,
// as in "imap://user@host". IMAP ids follow RFC 5092 §6
// (imap://user@host/INBOX;UIDVALIDITY=1/;UID=5); string ids are written as
// pop://user@host/;UIDL=….
func (id ID) URL(base string) string {
	if id.UID != 0 {
		var text [128]byte
		b := append(append(text[:0], strings.TrimSuffix(base, "/")...), '/')
		b = append(append(b, escapeLevels(id.Mailbox)...), ";UIDVALIDITY="...)
		b = append(strconv.AppendUint(b, uint64(id.UIDValidity), 10), "/;UID="...)
		return string(strconv.AppendUint(b, uint64(id.UID), 10))
	}
	b := strings.TrimSuffix(base, "/") + "/"
	if id.Mailbox != "" {
		b += escapeLevels(id.Mailbox) + "/"
	}
	return b + ";UIDL=" + url.PathEscape(id.UIDL)
}

// String returns the id for logs and errors.
func (id ID) String() string { return id.URL(id.Source + ":/") }

func escapeLevels(name string) string {
	if isPlain(name) {
		return name
	}
	levels := strings.Split(name, "/")
	for i, l := range levels {
		levels[i] = strings.ReplaceAll(url.PathEscape(l), ";", "%3B")
	}
	return strings.Join(levels, "/")
}

// isPlain reports whether nothing in a name is escaped in a URL.
func isPlain(name string) bool {
	for i := range len(name) {
		c := name[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '/' && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
