package imapdata

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Items is what a FETCH response says of one message. Slices belong to the
// response and end with it, unless said otherwise.
type Items struct {
	Seq  uint32
	UID  uint32 // 0: not said
	Have message.Needs

	Size         int64
	InternalDate time.Time // zero when the server sent NIL or nonsense
	Flags        []string  // own memory
	Header       []byte
	Structure    []byte // BODYSTRUCTURE as it stands
	ModSeq       uint64
	ObjectID     string // EMAILID
	Gmail        message.Gmail
	HaveGmail    bool
	HaveLabels   bool
	Extra        map[string]string // items by name that aren't known here; own memory

	// Section is the body when it came as a string within the response;
	// nil with NoData set when the server answered NIL.
	Section []byte
	NoData  bool
}

// Read reads a FETCH response's items from data: what stands behind the word
// FETCH. It overwrites it, and may be called again for the rest of a response
// whose middle was a streamed literal (Seq stays).
func (it *Items) Read(data []byte) {
	s := scanner{b: data}
	s.spaces()
	if s.pos < len(s.b) && s.b[s.pos] == '(' {
		s.pos++
	}
	for {
		s.spaces()
		name := s.itemName()
		if name == nil {
			// Something that can't be an item: step over one octet, so
			// that a stray one doesn't hide the rest.
			if s.pos >= len(s.b) {
				return
			}
			s.pos++
			continue
		}
		it.read(&s, name)
	}
}

// itemName reads the name of an item, with its section in brackets:
// BODY[HEADER.FIELDS (SUBJECT)]<0>.
func (s *scanner) itemName() []byte {
	start := s.pos
	for s.pos < len(s.b) {
		c := s.b[s.pos]
		if c == '[' {
			if i := bytes.IndexByte(s.b[s.pos:], ']'); i >= 0 {
				s.pos += i + 1
				continue
			}
		}
		if c == ' ' || c == '(' || c == ')' || c == '"' || c == '{' || c == '\r' || c == '\n' {
			break
		}
		s.pos++
	}
	if s.pos == start {
		return nil
	}
	return upper(s.b[start:s.pos])
}

func (it *Items) read(s *scanner, name []byte) {
	switch string(name) {
	case "UID":
		if _, v := s.next(); v != nil {
			if n, ok := number32(v); ok {
				it.UID = n
			}
		}
	case "RFC822.SIZE":
		if _, v := s.next(); v != nil {
			if n, ok := number(v); ok {
				it.Size = n
				it.Have |= message.NeedSize
			}
		}
	case "INTERNALDATE":
		_, v := s.next()
		if t, ok := InternalDate(v); ok {
			it.InternalDate = t
		}
		it.Have |= message.NeedInternalDate
	case "FLAGS":
		it.Flags = s.strings(it.Flags[:0])
		it.Have |= message.NeedFlags
	case "BODYSTRUCTURE":
		it.Structure = s.raw()
		it.Have |= message.NeedStructure
	case "BODY[HEADER]", "RFC822.HEADER":
		if k, v := s.next(); k == text {
			it.Header = v
			it.Have |= message.NeedHeaders
		}
	case "BODY[]", "RFC822", "BODY[TEXT]":
		switch k, v := s.next(); {
		case k == text:
			it.Section = v
			if it.Section == nil {
				it.Section = []byte{}
			}
		case k == atom && isNIL(v):
			it.NoData = true
		}
	case "MODSEQ":
		if k, _ := s.next(); k == opened {
			if _, v := s.next(); v != nil {
				it.ModSeq, _ = number64(v)
			}
			s.skipRest()
		}
	case "EMAILID":
		// EMAILID (M123), RFC 8474 §5.1; Yahoo sends it without the list.
		k, v := s.next()
		if k == opened {
			_, v = s.next()
			it.ObjectID = string(v)
			s.skipRest()
			return
		}
		if !isNIL(v) {
			it.ObjectID = string(v)
		}
	case "X-GM-MSGID":
		_, v := s.next()
		it.Gmail.MessageID, it.HaveGmail = gmailNumber(v)
	case "X-GM-THRID":
		_, v := s.next()
		it.Gmail.ThreadID, _ = gmailNumber(v)
	case "X-GM-LABELS":
		labels := s.strings(nil)
		for i, l := range labels {
			labels[i] = DecodeName(l)
		}
		slices.Sort(labels)
		it.Gmail.Labels, it.HaveLabels = labels, true
	default:
		v := s.raw()
		if it.Extra == nil {
			it.Extra = map[string]string{}
		}
		it.Extra[string(name)] = plain(v)
	}
}

func gmailNumber(b []byte) (uint64, bool) { return number64(b) }

// plain returns a value without its quotes, or as it stands.
func plain(raw []byte) string {
	s := scanner{b: raw}
	k, v := s.next()
	if (k == text || k == atom) && s.pos == len(raw) {
		return strings.ToValidUTF8(string(v), "\uFFFD")
	}
	return strings.ToValidUTF8(string(raw), "\uFFFD")
}

// strings reads a list of atoms and strings; NIL is an empty one. Flags with
// characters that no atom may have come through as they are.
func (s *scanner) strings(into []string) []string {
	k, _ := s.next()
	if k != opened {
		return into
	}
	for {
		switch k, v := s.next(); k {
		case end:
			s.close()
			return into
		case opened:
			s.skipRest()
		default:
			into = append(into, known(v))
		}
	}
}

// known returns b as a string, without new memory for the flags that nearly
// every message has.
func known(b []byte) string {
	switch string(b) {
	case `\Seen`:
		return `\Seen`
	case `\Recent`:
		return `\Recent`
	case `\Answered`:
		return `\Answered`
	case `\Flagged`:
		return `\Flagged`
	case `\Deleted`:
		return `\Deleted`
	case `\Draft`:
		return `\Draft`
	case `\Inbox`:
		return `\Inbox`
	}
	return string(b)
}

// InternalDate reads a date-time (RFC 9051 §9) leniently: one-digit days,
// missing zones and names in any case.
func InternalDate(b []byte) (time.Time, bool) {
	v := strings.TrimSpace(string(b))
	for _, layout := range []string{
		"_2-Jan-2006 15:04:05 -0700", "2-Jan-2006 15:04:05 -0700", "2-Jan-2006 15:04:05 MST",
		"2-Jan-2006 15:04:05", "2 Jan 2006 15:04:05 -0700", time.RFC1123Z, time.RFC3339,
	} {
		if t, err := time.Parse(layout, v); err == nil {
			return t, t.Year() > 0
		}
	}
	return time.Time{}, false
}

// SplitFlags sorts flags into system flags and keywords. \Recent is left out:
// it says something of the session, not of the message.
func SplitFlags(all []string) (flags, keywords []string) {
	for _, f := range all {
		switch {
		case strings.EqualFold(f, `\Recent`):
		case strings.HasPrefix(f, `\`):
			flags = append(flags, f)
		case f != "":
			keywords = append(keywords, strings.ToValidUTF8(f, "\uFFFD"))
		}
	}
	slices.Sort(flags)
	slices.Sort(keywords)
	return slices.Compact(flags), slices.Compact(keywords)
}

// String says what a set of items holds, for errors.
func (it *Items) String() string {
	return "message " + strconv.FormatUint(uint64(it.Seq), 10) + " (UID " + strconv.FormatUint(uint64(it.UID), 10) + "): " + it.Have.String()
}
