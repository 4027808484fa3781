package engine

import (
	"cmp"
	"context"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// opening says how a List stands to those before it.
type opening int

const (
	goingOn opening = iota // the mailbox as it was opened for the one before will do
	anew                   // what was there before may be gone
	first                  // of the mailbox: its state is what is saved when all is final
)

// summaries runs one List.
func (a *account) summaries(ctx context.Context, b *box, req source.ListRequest, how opening) (sums []message.Summary, more bool, err error) {
	var state message.MailboxState
	stated := false
	req.State = func(s message.MailboxState) { state, stated = Believable(s), true }
	req.GoesOn = how == goingOn
	if most := min(int64(cmp.Or(req.Limit, len(req.IDs))), b.server.Messages); most > 0 {
		sums = make([]message.Summary, 0, min(most, pageShort))
	}
	octets := 0
	var seen doubles
	for s, err := range a.source.List(ctx, req) {
		if err != nil {
			return nil, false, err
		}
		s.ID.Source = a.plan.Name
		if most := cmp.Or(req.Limit, len(req.IDs)); seen.has(sums, &s.ID) || most > 0 && len(sums) >= most {
			return nil, false, fault.New(fault.Bug, "source %s: plugin %s lists %s twice, or more than was asked for", a.plan.Name, a.plan.Plugin, s.ID)
		}
		if s.Fails < 0 || s.Fails > len(req.Where) {
			return nil, false, fault.New(fault.Bug, "source %s: plugin %s says that %s fails condition %d of %d", a.plan.Name, a.plan.Plugin, s.ID, s.Fails, len(req.Where))
		}
		s.Size = min(s.Size, mostOctets)
		s.Vars = a.plan.Vars
		sums = append(sums, s)
		if s.Header != nil {
			octets += len(s.Header.Raw())
		}
		if more = req.Limit > 0 && (len(sums) == req.Limit || octets > pageOctets); more && len(sums) < req.Limit {
			break
		}
	}
	validity := state.UIDValidity
	if validity == 0 && len(sums) > 0 {
		validity = sums[0].ID.UIDValidity
	}
	if validity == 0 {
		validity = b.uidValidity
	}
	if how == first {
		b.mu.Lock()
		b.state, b.stated, b.uidValidity = state, stated, validity
		b.mu.Unlock()
	}
	if validity != b.uidValidity {
		return nil, false, fault.New(fault.Unavailable, "UIDVALIDITY changed from %d to %d while the mailbox was being listed", b.uidValidity, validity)
	}
	for i := range sums {
		// The server would give none of them, and a look for them find none: they
		// would be called vanished (I1).
		if id := &sums[i].ID; id.UID != 0 && id.UIDValidity != validity {
			return nil, false, fault.New(fault.Unavailable, "%s is listed in a mailbox whose UIDVALIDITY is %d", *id, validity)
		}
	}
	return sums, more, nil
}

// doubles finds an id that is listed twice. Where UIDs rise, or fall, none is.
type doubles struct {
	falls bool
	seen  map[message.ID]bool // nil: they did so far
}

// has reports whether an id is among those of the list, or else makes ready for
// it to be added.
func (d *doubles) has(list []message.Summary, id *message.ID) bool {
	if d.seen == nil {
		if len(list) == 0 {
			return false
		}
		last := &list[len(list)-1].ID
		if len(list) == 1 {
			d.falls = id.UID < last.UID
		}
		if id.UID != 0 && last.UID != 0 && id.UID != last.UID && id.UID < last.UID == d.falls && id.UIDValidity == last.UIDValidity && id.Mailbox == last.Mailbox {
			return false
		}
		d.seen = make(map[message.ID]bool, cap(list))
		for i := range list {
			d.seen[list[i].ID] = true
		}
	}
	again := d.seen[*id]
	d.seen[*id] = true
	return again
}
