package imapsource

import (
	"context"
	"errors"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// This file is what happens when a message doesn't come: which is asked for
// again, how, and what is said of it in the end. Every id that was pulled is
// answered, and one bad message is one bad message (I6).

// complete deals with the end of a command. What of it is still pending was
// left out by the server: it is asked for again by halves.
func (f *fetcher) complete(ctx context.Context, r *imapconn.Response) error {
	at := -1
	for i, c := range f.flight {
		if c.tag == r.Tag {
			at = i
		}
	}
	if at < 0 {
		return nil
	}
	c := f.flight[at]
	f.flight = append(f.flight[:at], f.flight[at+1:]...)
	refused := r.Err("fetch messages of " + f.req.Mailbox)
	if f.conn.Throttled || fault.Is(refused, fault.Throttled) {
		if err := f.slowDown(ctx, refused); err != nil {
			return err
		}
	}
	left := f.left(c.set)
	if len(left) == 0 {
		return nil
	}
	if fault.Is(refused, fault.Throttled) || f.conn.Broken() {
		f.work = append(f.work, left) // no message's fault
		return nil
	}
	if left.Count() == 1 && c.alone {
		return f.verdict(ctx, left[0].First, refused)
	}
	// The messages may be gone: then nothing is wrong.
	if len(f.flight) == 0 {
		if err := f.gone(ctx, left); err != nil {
			return err
		}
		left = f.left(left)
	}
	f.again(left)
	return nil
}

// slowDown waits because the server said so, in an error or in an OK.
func (f *fetcher) slowDown(ctx context.Context, refused error) error {
	f.conn.Throttled = false
	e := fault.As(refused)
	if refused != nil && (e.RetryAfter > mailnet.MaxPatience || f.slow.Tries() >= mailnet.MaxReconnects) {
		return refused
	}
	d := f.slow.Next()
	if e != nil && e.RetryAfter > 0 {
		d = e.RetryAfter
	}
	f.log.Warn("the server asks to slow down", "wait", d, "answer", errText(refused))
	return mailnet.Sleep(ctx, d)
}

// left returns those of a set that are still pending.
func (f *fetcher) left(set imapdata.Set) (out imapdata.Set) {
	set.All(func(u uint32) bool {
		if _, ok := f.pending[u]; ok {
			out.Add(u, u)
		}
		return true
	})
	return out
}

// again puts a set into the work, by halves when it was whole before.
func (f *fetcher) again(set imapdata.Set) {
	n := set.Count()
	switch {
	case n == 0:
	case n == 1:
		f.work = append(f.work, set)
	default:
		lo := set.First(n / 2)
		f.work = append(f.work, set.Above(lo[len(lo)-1].Last), lo)
	}
}

func (f *fetcher) nextWork() imapdata.Set {
	set := f.left(f.work[len(f.work)-1])
	f.work = f.work[:len(f.work)-1]
	return set
}

// gone answers the ids that the server has no more, by a fresh search.
func (f *fetcher) gone(ctx context.Context, set imapdata.Set) error {
	for _, c := range set.Chunks(setLimit) {
		there, _, err := searchUIDs(ctx, f.conn, "UID "+c.Text)
		if err != nil {
			if f.conn.Broken() {
				return err
			}
			return nil // a server that can't say: the messages will
		}
		c.Set.All(func(u uint32) bool {
			if id, ok := f.pending[u]; ok && !there.Has(u) {
				f.refuse(id, fault.New(fault.Gone, "fetch %s: the server has it no more", id))
			}
			return !f.ended
		})
	}
	return nil
}

// verdict is reached when a message didn't come though nothing else was asked
// for: gone, refused, or listed and empty.
func (f *fetcher) verdict(ctx context.Context, uid uint32, refused error) error {
	if err := f.gone(ctx, imapdata.Set{{First: uid, Last: uid}}); err != nil {
		return err
	}
	id, ok := f.pending[uid]
	if !ok {
		return nil
	}
	if f.empty[uid]++; f.empty[uid] < 2 {
		f.work = append(f.work, imapdata.Set{{First: uid, Last: uid}})
		return nil
	}
	if done, err := f.assemble(ctx, uid); done || err != nil {
		return err
	}
	switch {
	case f.made[uid] != nil:
		f.refuse(id, fault.New(fault.Message, "fetch %s: the server sends a mail that it made up instead: it can't convert this one", id).
			WithReason("server_placeholder").WithHint("open it in the provider's own client, or export it from there"))
	case refused != nil:
		f.refuse(id, fault.New(fault.Message, "fetch %s: %s", id, refused.Error()).WithReason("server_refuses"))
	default:
		f.refuse(id, fault.New(fault.Message, "fetch %s: %w", id, errNoData).WithReason("no_data"))
	}
	return nil
}

// lose notes that the connection died, and on which message: servers answer
// in the order of UIDs, so it is the first that is missing. When nothing came
// at all it may be any, and halves find it.
func (f *fetcher) lose(cause error) {
	flight := f.flight
	f.flight = nil
	f.lost = cause
	blame := fault.Is(cause, fault.Unavailable)
	for i := len(flight) - 1; i >= 0; i-- {
		c := flight[i]
		left := f.left(c.set)
		switch {
		case len(left) == 0:
		case i > 0 || !blame:
			f.work = append(f.work, left)
		case left.Count() == 1 && c.alone:
			uid := left[0].First
			f.deaths[uid]++
			if f.deaths[uid] < maxDeaths {
				f.work = append(f.work, left)
				continue
			}
			reason := "ends_connection"
			if errors.Is(cause, imapconn.ErrMismatch) {
				reason = "length_mismatch"
			}
			id := f.pending[uid]
			delete(f.pending, uid)
			f.held = append(f.held, source.Fetched{ID: id,
				Err: fault.New(fault.Message, "fetch %s: each time that it is asked for: %s", id, cause.Error()).WithReason(reason)})
		case c.answered > 0:
			first := left.First(1)
			if rest := left.Above(first[0].Last); len(rest) > 0 {
				f.work = append(f.work, rest)
			}
			f.work = append(f.work, first)
		default:
			f.again(left)
		}
	}
	// Ids that were pulled and never sent.
	f.unsent()
}

// release answers the ids on which the connection died: another message came
// since, or all others did, so that it was theirs alone.
func (f *fetcher) release() {
	held := f.held
	f.held = nil
	for _, h := range held {
		if !f.ended && !f.yield(h, nil) {
			f.ended = true
		}
	}
}

// unsent puts what is pending and waits nowhere into the work.
func (f *fetcher) unsent() {
	var uids []uint32
	for u := range f.pending {
		uids = append(uids, u)
	}
	all := imapdata.Of(uids).Minus(f.queue)
	for _, w := range f.work {
		all = all.Minus(w)
	}
	if len(all) > 0 {
		f.work = append([]imapdata.Set{all}, f.work...)
	}
}

// recover opens the mailbox on a new connection.
func (f *fetcher) recover(ctx context.Context) error {
	cause := f.lost
	if cause == nil {
		cause = f.conn.Err()
	}
	if fault.Is(cause, fault.Auth) {
		// Its token ran out. One that lets us in and no further isn't asked
		// for ever.
		if f.expired++; f.expired > maxExpired {
			return cause
		}
	}
	f.lost = nil
	for try := 0; ; try++ {
		f.log.Info("a connection was lost, going on with another", "mailbox", f.req.Mailbox, "cause", errText(cause))
		c, err := f.pool.Again(ctx, f.conn, cause, &f.slow)
		f.conn = c
		if err != nil {
			return err
		}
		err = f.open(ctx)
		if err == nil {
			f.renumbered()
			return nil
		}
		if !f.conn.Broken() || try == mailnet.MaxReconnects {
			return err
		}
		cause = err
	}
}

// renumbered answers what is pending under another UIDVALIDITY: such ids mean
// nothing any more.
func (f *fetcher) renumbered() {
	for _, id := range f.pending {
		if id.UIDValidity != f.validity && !f.ended {
			f.refuse(id, fault.New(fault.Gone, "fetch %s: the mailbox's UIDVALIDITY is now %d: the server has numbered its messages anew", id, f.validity))
		}
	}
	for i := range f.work {
		f.work[i] = f.left(f.work[i])
	}
	f.queue = f.left(f.queue)
}
