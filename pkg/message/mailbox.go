package message

// Mailbox is a folder of a source.
type Mailbox struct {
	Name       string   // UTF-8, "/" between levels whatever the server uses
	SpecialUse []string // RFC 6154 names in lower case without the backslash: "sent", "trash", "all", …
	Selectable bool     // false: a level that holds no messages (\Noselect, \NonExistent)
	State      MailboxState

	// Within names a mailbox that has all messages of this one too, as
	// Gmail's All Mail: a run that takes that one leaves this one out.
	Within string
	// Overlaps says that a message of this mailbox may be in others of the
	// source as well: a run's List is told which of them it takes, and lists
	// each message in one of them (source.ListRequest.Among).
	Overlaps bool
}

// MailboxState is what a server says of a mailbox without listing it.
type MailboxState struct {
	Messages    int64  // the server's own count; -1 when unknown
	Bytes       int64  // the server's own total; -1 when unknown
	UIDValidity uint32 // 0 where a source has none

	// Content is an opaque token that differs whenever a message came or
	// went (IMAP: UIDVALIDITY, UIDNEXT and the count). Empty: always list.
	Content string
	// Flags is the same for changes of flags and labels (IMAP:
	// HIGHESTMODSEQ). Empty: unknown.
	Flags string

	// BlindSpots says, a sentence each, what the server hides or caps of
	// this mailbox, as in "the server shows the newest 10,000 messages only".
	// They stand in the report as they are.
	BlindSpots []string
}
