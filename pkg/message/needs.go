// Package message holds the data that flows: ids, summaries, messages, bodies
// and the structure of a mail. It reads MIME lazily and leniently: the octets
// of a message are never changed, and one broken part never hides the others.
package message

import "strings"

// Needs is the set of things that a stage or sink wants to know of a message.
// A source publishes with the same words what it can provide. The numbers are
// part of the wire contract.
type Needs uint32

// What can be asked for. The id is always there.
const (
	NeedSize         Needs = 1 << iota // Size: the server's own claim
	NeedInternalDate                   // InternalDate
	NeedFlags                          // Flags, Keywords, Labels
	NeedGmail                          // Gmail's ids and labels, and ObjectID
	NeedHeaders                        // Header: the whole header block
	NeedStructure                      // Structure: parts, names, media types, sizes
	NeedBody                           // Body: the octets
)

// AllSummary is everything but the body.
const AllSummary = NeedSize | NeedInternalDate | NeedFlags | NeedGmail | NeedHeaders | NeedStructure

var needNames = []string{"size", "internal_date", "flags", "gmail", "headers", "structure", "body"}

// Has reports whether n contains all of m.
func (n Needs) Has(m Needs) bool { return n&m == m }

// String returns the names, joined by ", "; "id" for the empty set.
func (n Needs) String() string {
	var out []string
	for i, name := range needNames {
		if n&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	if len(out) == 0 {
		return "id"
	}
	return strings.Join(out, ", ")
}
