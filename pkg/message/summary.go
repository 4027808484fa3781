package message

import "time"

// Summary is what can be known of a message without its body. Have says which
// of the fields were asked for and answered; the others are zero.
type Summary struct {
	ID             ID
	ObjectID       string // survives moves: EMAILID (RFC 8474 §5.1) or Gmail's X-GM-MSGID; may be empty
	Place          string // mailbox that it is filed under, where that isn't the one that it was listed in (Gmail's labels); usually empty
	SequenceNumber uint32 // of the session that listed it; 0 when unknown
	Have           Needs
	Fails          int // in listings with conditions: 1 + index of one that surely fails; then only ID is set. 0: none

	Size         int64     // NeedSize: the server's claim, an estimate on some servers
	InternalDate time.Time // NeedInternalDate; zero when the server has none
	Flags        []string  // NeedFlags: system flags with backslash, sorted: \Answered \Seen
	Keywords     []string  // NeedFlags: all other flags, sorted
	Labels       []string  // NeedFlags: labels in UTF-8, where a server has labels, sorted
	Gmail        *Gmail    // NeedGmail; nil elsewhere
	Header       *Header   // NeedHeaders
	Structure    *Part     // NeedStructure, as the server tells it; or measured from the octets

	// Extra holds what the user asked for by name and the source doesn't
	// know the meaning of.
	Extra map[string]string
	// Vars are the source's variables from the file, with what stages added.
	Vars map[string]string
	// LandsIn is the mailbox that a stage chose for the message; empty: none
	// did. The id stays. Landing is what sinks name their files by.
	LandsIn string
}

// Landing returns the mailbox that the message lands in: the one that a stage
// chose, else its Folder.
func (s *Summary) Landing() string {
	if s.LandsIn != "" {
		return s.LandsIn
	}
	return s.Folder()
}

// Folder returns the mailbox that a person would look for the message in:
// Place, else that of the ID.
func (s *Summary) Folder() string {
	if s.Place != "" {
		return s.Place
	}
	return s.ID.Mailbox
}

// Gmail is what Gmail alone tells (X-GM-EXT-1).
type Gmail struct {
	MessageID uint64
	ThreadID  uint64
	Labels    []string // in UTF-8, sorted, system labels with backslash
}

// Message is a summary and, where it was asked for, the body.
//
// A Message and everything it points to belongs to whoever was given it until
// the call returns (Sink.Write, Stage.Apply) or the next yield (Source.Fetch);
// keep a copy of what must live longer.
type Message struct {
	Summary
	Body *Body // nil where none was asked for, and always nil for a record sink

	// Record is set for record sinks only.
	Record *Record

	// Assembled is set by a source that could not get the octets in one
	// piece and put them together from parts: never called exact.
	Assembled bool
}

// Record is what became of a message, for the sinks that keep the books.
type Record struct {
	Octets   int64             // as received; -1 when no body passed
	SHA256   string            // hex, of the octets as received; empty when no body passed
	Files    map[string]string // sink name -> path of its receipt
	Changed  []string          // names of the stages that changed octets
	Problems []string          // what couldn't be parsed, in the words of the parser
	Replaces bool              // an earlier record of the same id is superseded
}

// RFC3339 writes a time as records and listings have it. It returns "" for one
// that RFC 3339 can't write; a zone that it can't write becomes UTC.
func RFC3339(at time.Time) string {
	if _, offset := at.Zone(); offset <= -24*3600 || offset >= 24*3600 || offset%60 != 0 {
		at = at.UTC()
	}
	if at.IsZero() || at.Year() < 1 || at.Year() > 9999 {
		return ""
	}
	return at.Format(time.RFC3339)
}
