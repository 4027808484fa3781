package popsource

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// lister runs one List.
type lister struct {
	*Source
	req  source.ListRequest
	sess *session
	slow mailnet.Backoff
	drop *drop // what is listed
}

// List yields summaries in the order of message numbers, or against it. All
// pages of a listing are cut from what the session of the first one saw.
func (s *Source) List(ctx context.Context, req source.ListRequest) iter.Seq2[message.Summary, error] {
	return func(yield func(message.Summary, error) bool) {
		l := &lister{Source: s, req: req, slow: mailnet.Backoff{Min: s.rest}}
		if err := l.run(ctx, yield); err != nil {
			yield(message.Summary{}, err)
		}
	}
}

func (l *lister) run(ctx context.Context, yield func(message.Summary, error) bool) error {
	if err := checkMailbox(l.req.Mailbox); err != nil {
		return err
	}
	defer func() {
		if l.sess != nil {
			l.pool.Put(l.sess)
		}
	}()
	if l.req.IDs != nil && len(l.req.IDs) == 0 {
		return l.stat(ctx)
	}
	if err := l.choose(ctx); err != nil {
		return err
	}
	if l.req.State != nil {
		l.req.State(l.Source.state(l.drop))
	}
	todo, err := l.indices()
	if err != nil {
		return err
	}
	if l.req.Needs.Has(message.NeedHeaders) {
		return l.withHeaders(ctx, todo, yield)
	}
	if l.sess != nil {
		l.pool.Put(l.sess) // all is known: somebody else may have it
		l.sess = nil
	}
	for i := range todo {
		if !yield(l.summary(i), nil) {
			return nil
		}
	}
	return nil
}

// stat tells the state for a listing of nothing: by STAT alone, one round trip
// whatever the maildrop.
func (l *lister) stat(ctx context.Context) (err error) {
	if l.sess, err = l.pool.Reach(ctx, nil); err != nil {
		return err
	}
	for try := 0; ; try++ {
		st, err := l.askStat(ctx)
		if err == nil {
			if l.req.State != nil {
				l.req.State(st)
			}
			return nil
		}
		if !l.sess.Broken() || try == mailnet.MaxReconnects || ctx.Err() != nil {
			return err
		}
		if l.sess, err = l.pool.Again(ctx, l.sess, err, &l.slow); err != nil {
			l.sess = nil
			return err
		}
	}
}

func (l *lister) askStat(ctx context.Context) (message.MailboxState, error) {
	release := l.sess.Net().CloseOn(ctx)
	defer release()
	if l.sess.drop == nil {
		text, err := l.sess.Do("STAT")
		if err == nil {
			if count, octets := readStat(text); count >= 0 {
				return message.MailboxState{Messages: count, Bytes: octets}, nil
			}
		} else if !isRefused(err) {
			return message.MailboxState{}, err
		}
		// A server whose STAT says nothing has told nothing yet.
		if err := l.stock(ctx, l.sess); err != nil {
			return message.MailboxState{}, err
		}
	}
	return l.Source.state(l.sess.drop), nil
}

// choose finds the maildrop to list, with every message identified: that of
// the pages before, or a session's. Only one that began after a message was
// last missed can say whether that is there.
func (l *lister) choose(ctx context.Context) error {
	l.mu.Lock()
	page := l.listing
	l.mu.Unlock()
	if l.req.After != nil && page != nil && page.find(*l.req.After) >= 0 {
		l.drop = page
		return nil
	}
	err := l.retry(ctx, func() error {
		if l.req.IDs != nil && l.sess.opened.UnixNano() <= l.doubt.Load() {
			_ = l.sess.Close()
			return fault.New(fault.Unavailable, "the session is older than the question")
		}
		return l.identify(ctx, l.sess, false)
	})
	if err != nil {
		return err
	}
	l.drop = l.sess.drop
	if l.req.IDs == nil {
		l.mu.Lock()
		l.listing = l.drop
		l.mu.Unlock()
	}
	return nil
}

// retry runs f until it succeeds, on a new session each time that one breaks.
func (l *lister) retry(ctx context.Context, f func() error) (err error) {
	if l.sess == nil {
		if l.sess, err = l.reach(ctx); err != nil {
			return err
		}
	}
	for try := 0; ; try++ {
		err := f()
		if err == nil || errors.Is(err, errEnded) || !l.sess.Broken() || try == mailnet.MaxReconnects || ctx.Err() != nil {
			return err
		}
		if l.sess, err = l.again(ctx, l.sess, err, &l.slow); err != nil {
			l.sess = nil
			return err
		}
	}
}

// indices returns what is to be listed, in order.
func (l *lister) indices() (iter.Seq[int], error) {
	n := l.drop.len()
	from, step := 0, 1
	if l.req.Newest {
		from, step = n-1, -1
	}
	if l.req.After != nil {
		at := l.drop.find(*l.req.After)
		if at < 0 {
			return nil, fault.New(fault.Unavailable, "list %s after %s: the server has it no more", inbox, l.req.After)
		}
		from = at + step
	}
	wanted := l.selects(l.drop)
	if l.req.IDs != nil {
		only := make(map[int]bool, len(l.req.IDs))
		for _, id := range l.req.IDs {
			if i := l.drop.find(id); i >= 0 {
				only[i] = true
			}
		}
		selected := wanted
		wanted = func(i int) bool { return only[i] && selected(i) }
	}
	return func(yield func(int) bool) {
		count, skip := 0, l.req.Skip
		for i := from; i >= 0 && i < n && (l.req.Limit == 0 || count < l.req.Limit); i += step {
			if !wanted(i) {
				continue
			}
			if skip > 0 {
				skip--
				continue
			}
			if count++; !yield(i) {
				return
			}
		}
	}, nil
}

func (l *lister) summary(i int) message.Summary {
	s := message.Summary{ID: l.drop.id(i)}
	if l.req.Needs.Has(message.NeedSize) && l.drop.sizes[i] >= 0 {
		s.Size, s.Have = l.drop.sizes[i], message.NeedSize
	}
	return s
}

// withHeaders yields summaries with headers. A header that the server refuses,
// or on which the connection dies each time, is left out: the message isn't.
func (l *lister) withHeaders(ctx context.Context, todo iter.Seq[int], yield func(message.Summary, error) bool) error {
	var all []int
	for i := range todo {
		all = append(all, i)
	}
	done, deaths, ended := 0, 0, false
	for done < len(all) && !ended {
		began := done
		err := l.retry(ctx, func() error {
			return l.some(ctx, all, &done, &ended, yield)
		})
		if ended {
			return nil
		}
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if done > began {
			deaths = 0
			continue
		}
		// Always the same one, or always the server?
		if deaths++; deaths > maxHeld || !fault.Is(err, fault.Unavailable) {
			return err
		}
		l.log.Warn("the header of a message can't be had", "id", l.drop.id(all[done]).String(), "cause", err.Error())
		if !yield(l.summary(all[done]), nil) {
			return nil
		}
		done++
	}
	return nil
}

// some yields from *done on until the end, an error, or the consumer's leave.
func (l *lister) some(ctx context.Context, all []int, done *int, ended *bool, yield func(message.Summary, error) bool) error {
	rest := all[*done:]
	if err := l.identify(ctx, l.sess, false); err != nil {
		return err
	}
	// Where the session's maildrop isn't the one that is listed, its numbers
	// are others.
	at := make([]int, 0, len(rest))
	for _, i := range rest {
		if l.sess.drop != l.drop {
			i = l.sess.drop.find(l.drop.id(i))
		}
		if i < 0 {
			break
		}
		at = append(at, i)
	}
	if len(at) == 0 {
		// Gone since: it was there when the listing began.
		*done++
		*ended = !yield(l.summary(rest[0]), nil)
		return nil
	}
	return l.headers(ctx, l.sess, len(at), func(n int) int { return at[n] }, func(n int, raw []byte, err error) error {
		s := l.summary(rest[n])
		if err == nil && verified(l.drop, rest[n], s.ID, raw) {
			s.Header = message.NewHeader(bytes.Clone(raw))
			s.Have |= message.NeedHeaders
		}
		*done++
		if !yield(s, nil) {
			*ended = true
			return errEnded
		}
		return nil
	})
}

// errEnded says that the consumer broke off.
var errEnded = errors.New("the consumer has enough")

// missed notes that a message isn't where it should be.
func (s *Source) missed() { s.doubt.Store(time.Now().UnixNano()) }
