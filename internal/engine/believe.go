package engine

import (
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// What a source may claim, whether it is wrong or means harm. What is more
// would only make sums overflow.
const (
	mostOctets    = 1 << 50 // of a message, or of a mailbox
	mostMessages  = 1 << 40 // in a mailbox
	MostMailboxes = 1 << 17 // of an account
)

// Believable returns a state without counts that no server can have.
func Believable(s message.MailboxState) message.MailboxState {
	s.Messages, s.Bytes = min(s.Messages, mostMessages), min(s.Bytes, mostOctets)
	return s
}

// circle finds out that a listing never ends because it comes back to where it
// was. It remembers one message, and another one each time it has gone twice as
// far: a listing of any length costs no memory (I5).
type circle struct {
	mark  message.ID
	gone  int64 // messages since
	until int64 // how far to go with this one
}

// closed returns the message that a page lists again; nil when there is none.
func (c *circle) closed(page []listed) *message.ID {
	for i := range page {
		id := &page[i].sum.ID
		if c.until > 0 && *id == c.mark {
			return id
		}
		if c.gone++; c.gone > c.until {
			c.mark, c.gone, c.until = *id, 0, max(1, 2*c.until)
		}
	}
	return nil
}

// circles returns an error when a page lists again what another one listed.
func (a *account) circles(c *circle, b *box, page []listed) error {
	if id := c.closed(page); id != nil {
		return fault.New(fault.Bug, "source %s: plugin %s lists %s of mailbox %s again and again", a.plan.Name, a.plan.Plugin, *id, b.name)
	}
	return nil
}
