package segments

import (
	"context"
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Each method is as that of *ledger.Ledger says. Those that the Head can answer
// are answered from there while there is no scratch file.

// fromHead calls f while there is no scratch file, and returns nil; else it
// returns the scratch ledger. Where f says that the Head doesn't know, the file
// is made.
func (l *Ledger) fromHead(ctx context.Context, f func(*ledger.Head) (knows bool, err error)) (*ledger.Ledger, error) {
	if s := l.scratch.Load(); s != nil {
		return s, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.scratch.Load(); s != nil { // made meanwhile
		return s, nil
	}
	if err := l.usable(); err != nil {
		return nil, err
	}
	if knows, err := f(&l.head); knows || err != nil {
		return nil, err
	}
	return l.open(ctx)
}

// changes calls f to change the Head while there is no scratch file, and
// otherwise write. What is changed is committed, unless it may come later.
func (l *Ledger) changes(ctx context.Context, later bool, f func(*ledger.Head) error, write func(*ledger.Ledger) error) error {
	s, err := l.fromHead(ctx, func(h *ledger.Head) (bool, error) {
		if err := f(h); err != nil {
			return true, err
		}
		l.changed = true
		if later {
			return true, nil
		}
		return true, l.commitHead()
	})
	if s == nil {
		return err
	}
	return l.write(ctx, later, write)
}

// Box gives a mailbox its number.
func (l *Ledger) Box(ctx context.Context, source, mailbox string, uidValidity uint32) (box ledger.Box, err error) {
	s, err := l.fromHead(ctx, func(h *ledger.Head) (bool, error) {
		n := len(h.Boxes)
		box = h.Box(source, mailbox, uidValidity)
		l.changed = l.changed || len(h.Boxes) > n
		return true, nil
	})
	if s == nil {
		return box, err
	}
	return s.Box(ctx, source, mailbox, uidValidity)
}

// SavedState returns what was saved of a mailbox.
func (l *Ledger) SavedState(ctx context.Context, source, mailbox string, uidValidity uint32) (state ledger.BoxState, err error) {
	s, err := l.fromHead(ctx, func(h *ledger.Head) (_ bool, err error) {
		state, err = h.SavedState(source, mailbox, uidValidity)
		return true, err
	})
	if s == nil {
		return state, err
	}
	return s.SavedState(ctx, source, mailbox, uidValidity)
}

// holds reports whether something is known of the messages of a mailbox.
func holds(h *ledger.Head, box ledger.Box) bool {
	b := h.BoxOf(box)
	return b != nil && b.Messages
}

// HasMessages reports whether something is known of the mailbox's messages.
func (l *Ledger) HasMessages(ctx context.Context, box ledger.Box) (has bool, err error) {
	s, err := l.fromHead(ctx, func(h *ledger.Head) (bool, error) {
		has = holds(h, box)
		return true, nil
	})
	if s == nil {
		return has, err
	}
	return s.HasMessages(ctx, box)
}

// Lookup returns what is known of messages.
func (l *Ledger) Lookup(ctx context.Context, box ledger.Box, ids []message.ID) (entries []ledger.Entry, err error) {
	s, err := l.fromHead(ctx, func(h *ledger.Head) (bool, error) {
		if len(ids) > 0 && holds(h, box) {
			return false, nil
		}
		entries = make([]ledger.Entry, len(ids))
		for i := range entries {
			entries[i].Octets = -1
		}
		return true, nil
	})
	if s == nil {
		return entries, err
	}
	return s.Lookup(ctx, box, ids)
}

// Commit stores an epoch. One of which nothing follows but where mailboxes and
// accounts stand is stored with the next one, or with Done.
func (l *Ledger) Commit(ctx context.Context, e ledger.Epoch) error {
	later := ledger.Carries(e) && len(e.Checkpoints) == 0
	commit := func(s *ledger.Ledger) error { return s.Commit(ctx, e) }
	if !ledger.Carries(e) {
		return l.write(ctx, later, commit)
	}
	return l.changes(ctx, later, func(h *ledger.Head) error { return h.Commit(e) }, commit)
}

// AddSuspects counts a death for each of the messages.
func (l *Ledger) AddSuspects(ctx context.Context, box ledger.Box, target ledger.TargetID, ids []message.ID) error {
	return l.write(ctx, false, func(s *ledger.Ledger) error { return s.AddSuspects(ctx, box, target, ids) })
}

// Target returns what is known of a sink's target. A new one is stored with the
// next commit: until then nothing refers to it.
func (l *Ledger) Target(ctx context.Context, sink, target string) (t ledger.Target, err error) {
	err = l.changes(ctx, true, func(h *ledger.Head) error {
		t = h.Target(sink, target)
		return nil
	}, func(s *ledger.Ledger) (err error) {
		t, err = s.Target(ctx, sink, target)
		return err
	})
	return t, err
}

// MarkDirty says that a target is about to be written to.
func (l *Ledger) MarkDirty(ctx context.Context, id ledger.TargetID) error {
	return l.mark(ctx, id, true, false, func(s *ledger.Ledger) error { return s.MarkDirty(ctx, id) })
}

// MarkClean says that a target holds just what was committed. It is stored with
// the next commit: until then its sink is opened once too often, no more.
func (l *Ledger) MarkClean(ctx context.Context, id ledger.TargetID) error {
	return l.mark(ctx, id, false, true, func(s *ledger.Ledger) error { return s.MarkClean(ctx, id) })
}

func (l *Ledger) mark(ctx context.Context, id ledger.TargetID, dirty, later bool, write func(*ledger.Ledger) error) error {
	return l.changes(ctx, later, func(h *ledger.Head) error {
		if t := h.TargetOf(id); t != nil {
			t.Dirty = dirty
		}
		return nil
	}, write)
}

// Forget takes back all that is known of a target.
func (l *Ledger) Forget(ctx context.Context, id ledger.TargetID) error {
	return l.write(ctx, false, func(s *ledger.Ledger) error { return s.Forget(ctx, id) })
}

// WrittenAndRemoved counts messages that only the target has.
func (l *Ledger) WrittenAndRemoved(ctx context.Context, id ledger.TargetID) (n int64, err error) {
	s, err := l.fromHead(ctx, func(h *ledger.Head) (bool, error) {
		t := h.TargetOf(id)
		return t == nil || !t.Known, nil
	})
	if s == nil {
		return 0, err
	}
	return s.WrittenAndRemoved(ctx, id)
}

// scratched returns the scratch ledger, for what only messages can answer.
func (l *Ledger) scratched(ctx context.Context) (*ledger.Ledger, error) {
	return l.fromHead(ctx, func(*ledger.Head) (bool, error) { return false, nil })
}

// NewClaims begins a round of claims.
func (l *Ledger) NewClaims(ctx context.Context) (round int64, err error) {
	err = l.write(ctx, false, func(s *ledger.Ledger) (err error) {
		round, err = s.NewClaims(ctx)
		return err
	})
	return round, err
}

// Claim notes what messages share with their copies.
func (l *Ledger) Claim(ctx context.Context, round int64, box ledger.Box, claims []ledger.Claim) error {
	if len(claims) == 0 {
		return nil
	}
	return l.write(ctx, false, func(s *ledger.Ledger) error { return s.Claim(ctx, round, box, claims) })
}

// Claimed returns what is known of claims.
func (l *Ledger) Claimed(ctx context.Context, round int64, box ledger.Box, ids []message.ID) ([]ledger.Claimed, error) {
	s, err := l.scratched(ctx)
	if err != nil {
		return nil, err
	}
	return s.Claimed(ctx, round, box, ids)
}

// Copies returns the messages with a digest that wait.
func (l *Ledger) Copies(ctx context.Context, round int64, d ledger.Digest) ([]ledger.Copy, error) {
	s, err := l.scratched(ctx)
	if err != nil {
		return nil, err
	}
	return s.Copies(ctx, round, d)
}

// Hold notes which of several copies goes on.
func (l *Ledger) Hold(ctx context.Context, holdings []ledger.Holding) error {
	if len(holdings) == 0 {
		return nil
	}
	return l.write(ctx, false, func(s *ledger.Ledger) error { return s.Hold(ctx, holdings) })
}

// Tell gives a message the digest that it turned out to have.
func (l *Ledger) Tell(ctx context.Context, box ledger.Box, id message.ID, d ledger.Digest) error {
	return l.write(ctx, false, func(s *ledger.Ledger) error { return s.Tell(ctx, box, id, d) })
}

// ToldApart counts groups of messages that share their Kin, and differ.
func (l *Ledger) ToldApart(ctx context.Context, round int64) (int64, error) {
	s, err := l.scratched(ctx)
	if err != nil {
		return 0, err
	}
	return s.ToldApart(ctx, round)
}

// OtherValidity returns what is known of a mailbox under other UIDVALIDITYs.
func (l *Ledger) OtherValidity(ctx context.Context, source, mailbox string, box ledger.Box) (*ledger.Formers, error) {
	s, err := l.fromHead(ctx, func(h *ledger.Head) (bool, error) {
		for _, b := range h.Boxes {
			if b.Source == source && b.Mailbox == mailbox && b.Number != box && !b.Superseded {
				return false, nil
			}
		}
		return true, nil
	})
	if s == nil {
		return &ledger.Formers{}, err
	}
	return s.OtherValidity(ctx, source, mailbox, box)
}

// OwnStrings returns what is known of a mailbox of string ids.
func (l *Ledger) OwnStrings(ctx context.Context, box ledger.Box) (*ledger.Formers, error) {
	s, err := l.fromHead(ctx, func(h *ledger.Head) (bool, error) { return !holds(h, box), nil })
	if s == nil {
		return &ledger.Formers{}, err
	}
	return s.OwnStrings(ctx, box)
}

// Hashes returns the sha256 of messages.
func (l *Ledger) Hashes(ctx context.Context, keys []int64) ([][]byte, error) {
	s, err := l.scratched(ctx)
	if err != nil {
		return nil, err
	}
	return s.Hashes(ctx, keys)
}

// Recognise gives messages the ids that they have now.
func (l *Ledger) Recognise(ctx context.Context, box ledger.Box, found []ledger.Recognised, former []ledger.Box) error {
	return l.write(ctx, false, func(s *ledger.Ledger) error { return s.Recognise(ctx, box, found, former) })
}

// Finish notes what was done with messages on the server.
func (l *Ledger) Finish(ctx context.Context, box ledger.Box, flag string, ids []message.ID) error {
	if len(ids) == 0 {
		return nil
	}
	return l.write(ctx, false, func(s *ledger.Ledger) error { return s.Finish(ctx, box, flag, ids) })
}

// Finished reports what was done with messages on the server.
func (l *Ledger) Finished(ctx context.Context, box ledger.Box, flag string, ids []message.ID) (done []bool, err error) {
	s, err := l.fromHead(ctx, func(h *ledger.Head) (bool, error) {
		done = make([]bool, len(ids))
		return len(ids) == 0, nil
	})
	if s == nil {
		return done, err
	}
	return s.Finished(ctx, box, flag, ids)
}

// Spent returns what the task fetched of a source's budget.
func (l *Ledger) Spent(ctx context.Context, source string, since time.Time) ([]ledger.Spent, error) {
	s, err := l.fromHead(ctx, func(*ledger.Head) (bool, error) { return len(l.journals) == 0 && len(l.manifest.objects()) == 0, nil })
	if s == nil {
		return nil, err
	}
	return s.Spent(ctx, source, since)
}

// Accounts returns where each source stands, by name.
func (l *Ledger) Accounts(ctx context.Context) (accounts []ledger.Account, err error) {
	s, err := l.fromHead(ctx, func(h *ledger.Head) (_ bool, err error) {
		accounts, _, err = h.Standing()
		return true, err
	})
	if s == nil {
		return accounts, err
	}
	return s.Accounts(ctx)
}

// Mailboxes calls f for each mailbox of a source, or of all, by source and name.
func (l *Ledger) Mailboxes(ctx context.Context, source string, f func(ledger.Mailbox) error) error {
	var all []ledger.Mailbox
	s, err := l.fromHead(ctx, func(h *ledger.Head) (_ bool, err error) {
		_, all, err = h.Standing()
		return true, err
	})
	if s != nil {
		return s.Mailboxes(ctx, source, f)
	}
	for _, m := range all {
		if err == nil && (source == "" || m.Source == source) {
			err = f(m)
		}
	}
	return err
}

// Letters calls f for each dead letter of the task.
func (l *Ledger) Letters(ctx context.Context, f func(id message.ID, sink string, letter ledger.Letter) error) error {
	s, err := l.fromHead(ctx, func(h *ledger.Head) (bool, error) {
		for _, b := range h.Boxes {
			if b.Messages {
				return false, nil
			}
		}
		return true, nil
	})
	if s == nil {
		return err
	}
	return s.Letters(ctx, f)
}

// Known calls f for each message of the task that has a fate other than a
// stage's drop.
func (l *Ledger) Known(ctx context.Context, f func(*ledger.Known) error) error {
	s, err := l.scratched(ctx)
	if err != nil {
		return err
	}
	return s.Known(ctx, f)
}

// Release makes dead letters pending again that match says true of.
func (l *Ledger) Release(ctx context.Context, match func(id message.ID, sink string, letter ledger.Letter) bool) (n int, err error) {
	err = l.write(ctx, false, func(s *ledger.Ledger) (err error) {
		n, err = s.Release(ctx, match)
		return err
	})
	return n, err
}
