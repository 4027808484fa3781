package message

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
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
	var b strings.Builder
	b.WriteString(strconv.Quote(id.Source))
	b.WriteByte(' ')
	b.WriteString(strconv.Quote(id.Mailbox))
	if id.UID != 0 {
		fmt.Fprintf(&b, " %d %d", id.UIDValidity, id.UID)
		return b.String()
	}
	b.WriteByte(' ')
	b.WriteString(strconv.Quote(id.UIDL))
	if id.HeaderHash != "" || id.Ordinal != 0 {
		fmt.Fprintf(&b, " %s %d", id.HeaderHash, id.Ordinal)
	}
	return b.String()
}

// Hash returns 10 characters of lower-case base32 of sha256(Key): enough to
// keep two messages' file names apart.
func (id ID) Hash() string {
	sum := sha256.Sum256([]byte(id.Key()))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:10]
}

// URL returns the id as text for people: base is the source's own address,
// as in "imap://user@host". IMAP ids follow RFC 5092 §6
// (imap://user@host/INBOX;UIDVALIDITY=1/;UID=5); string ids are written as
// pop://user@host/;UIDL=….
func (id ID) URL(base string) string {
	b := strings.TrimSuffix(base, "/") + "/"
	if id.UID != 0 {
		return fmt.Sprintf("%s%s;UIDVALIDITY=%d/;UID=%d", b, escapeLevels(id.Mailbox), id.UIDValidity, id.UID)
	}
	if id.Mailbox != "" {
		b += escapeLevels(id.Mailbox) + "/"
	}
	return b + ";UIDL=" + url.PathEscape(id.UIDL)
}

// String returns the id for logs and errors.
func (id ID) String() string { return id.URL(id.Source + ":/") }

func escapeLevels(name string) string {
	levels := strings.Split(name, "/")
	for i, l := range levels {
		levels[i] = strings.ReplaceAll(url.PathEscape(l), ";", "%3B")
	}
	return strings.Join(levels, "/")
}
