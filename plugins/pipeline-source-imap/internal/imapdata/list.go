package imapdata

import (
	"strings"
)

// Listed is one line of LIST.
type Listed struct {
	Raw        string // the name's octets as the server sent them: what EXAMINE wants back
	Separator  byte   // 0 when the name has no levels
	Attributes []string
}

// ReadList reads what stands behind the word LIST; false when there is no
// name in it.
func ReadList(data []byte) (Listed, bool) {
	s := scanner{b: data}
	var l Listed
	l.Attributes = s.strings(nil)
	k, sep := s.next()
	if k == text && len(sep) > 0 {
		l.Separator = sep[0]
	} else if k == atom && !isNIL(sep) && len(sep) == 1 {
		l.Separator = sep[0]
	}
	s.spaces()
	if s.pos >= len(s.b) {
		return l, false
	}
	switch s.b[s.pos] {
	case '"', '{', '~':
		_, name := s.next()
		l.Raw = string(name)
	default:
		// Names with spaces and parentheses without quotes are seen; what
		// may follow is extended data in a list (RFC 5258 §6), or nothing.
		rest := strings.TrimRight(string(s.b[s.pos:]), "\r\n")
		if i := strings.Index(rest, ` ("`); i > 0 {
			rest = rest[:i]
		}
		l.Raw = rest
	}
	return l, l.Raw != ""
}

// Has reports whether the mailbox has the attribute, in any case.
func (l *Listed) Has(attribute string) bool {
	for _, a := range l.Attributes {
		if strings.EqualFold(a, attribute) {
			return true
		}
	}
	return false
}

// Name returns the name in UTF-8 with "/" between levels. A "/" that is part
// of a level, where the server separates otherwise, becomes a DIVISION SLASH,
// so that the level stays one.
func (l *Listed) Name(utf8 bool) string {
	decode := DecodeName
	if utf8 {
		decode = valid
	}
	if l.Separator == 0 || l.Separator == '/' {
		return inbox(decode(l.Raw))
	}
	levels := cutLevels(l.Raw, l.Separator, utf8)
	for i, v := range levels {
		levels[i] = strings.ReplaceAll(decode(v), "/", "\u2215")
	}
	return inbox(strings.Join(levels, "/"))
}

// cutLevels cuts a name at its separator. A separator within a shifted piece,
// as the "-" that ends &ANw-, is none.
func cutLevels(name string, sep byte, utf8 bool) (levels []string) {
	start := 0
	for i := 0; i < len(name); i++ {
		if name[i] == '&' && !utf8 {
			if n := strings.IndexFunc(name[i+1:], notModified); n >= 0 && name[i+1+n] == '-' {
				i += 1 + n
				continue
			}
		}
		if name[i] == sep {
			levels = append(levels, name[start:i])
			start = i + 1
		}
	}
	return append(levels, name[start:])
}

// notModified reports whether a character is none of modified base64's.
func notModified(r rune) bool {
	return !(r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '+' || r == ',')
}

// inbox spells INBOX in one way: its name has no case (RFC 9051 §5.1).
func inbox(name string) string {
	if strings.EqualFold(name, "INBOX") {
		return "INBOX"
	}
	if len(name) > 6 && strings.EqualFold(name[:6], "INBOX/") {
		return "INBOX" + name[5:]
	}
	return name
}

// Status is the answer to STATUS. A number that wasn't said is -1.
type Status struct {
	Raw                                    string
	Messages, UIDNext, UIDValidity, ModSeq int64
	Size                                   int64
}

// lastList returns where the last list of b opens; -1 when there is none.
func lastList(b []byte) int {
	depth := 0
	for i := len(b) - 1; i >= 0; i-- {
		switch b[i] {
		case ')':
			depth++
		case '(':
			if depth--; depth <= 0 {
				return i
			}
		}
	}
	return -1
}

// ReadStatus reads what stands behind the word STATUS.
func ReadStatus(data []byte) (Status, bool) {
	st := Status{Messages: -1, UIDNext: -1, UIDValidity: -1, ModSeq: -1, Size: -1}
	s := scanner{b: data}
	s.spaces()
	if s.pos < len(s.b) && (s.b[s.pos] == '"' || s.b[s.pos] == '{') {
		_, name := s.next()
		st.Raw = string(name)
	} else {
		open := lastList(s.b)
		if open < s.pos {
			return st, false
		}
		st.Raw = strings.TrimRight(string(s.b[s.pos:open]), " ")
		s.pos = open
	}
	if k, _ := s.next(); k != opened {
		return st, false
	}
	for {
		k, name := s.next()
		if k != atom {
			return st, true
		}
		kv, v := s.next()
		if kv == opened {
			s.skipRest()
			continue
		}
		n, ok := number(v)
		if !ok {
			continue
		}
		switch strings.ToUpper(string(name)) {
		case "MESSAGES":
			st.Messages = n
		case "UIDNEXT":
			st.UIDNext = n
		case "UIDVALIDITY":
			st.UIDValidity = n
		case "HIGHESTMODSEQ":
			st.ModSeq = n
		case "SIZE":
			st.Size = n
		}
	}
}

// Namespaces are the prefixes of names (RFC 2342 §5).
type Namespaces struct {
	Personal string   // of the user's own mailboxes, as "INBOX."; the first where there are several
	Others   []string // of other users' and shared mailboxes
}

// ReadNamespaces reads what stands behind the word NAMESPACE: personal, other
// users', shared.
func ReadNamespaces(data []byte) (n Namespaces) {
	s := scanner{b: data}
	for group := range 3 {
		if k, _ := s.next(); k != opened {
			continue // NIL
		}
		for first := true; ; first = false {
			k, _ := s.next()
			if k != opened {
				s.close()
				break
			}
			switch k, v := s.next(); {
			case k != text:
			case group > 0:
				n.Others = append(n.Others, string(v))
			case first:
				n.Personal = string(v)
			}
			s.skipRest()
		}
	}
	return n
}
