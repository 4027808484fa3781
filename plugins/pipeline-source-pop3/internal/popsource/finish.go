package popsource

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"strconv"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// This file is all that changes anything on a server, and only where the file
// says so (I7). A POP3 server makes a session's changes at its QUIT, and none
// when the client hangs up (RFC 1939 §6): so a session is ended by QUIT when
// that has the effects that are wanted, and no others (I3).
//
// Deleting is done on sessions of their own, which retrieve nothing: UIDL, DELE
// for what is exported, QUIT. With advance: true a session that retrieved is
// ended by QUIT when all it retrieved is exported; what is exported and was
// retrieved on sessions that ended otherwise is retrieved once more at the end,
// for the server to take note. So is what earlier runs exported, where the
// server stops to list what it took note of: it would fill the window for good.

// takes is what a session retrieved, with advance.
type takes struct {
	open  int  // messages that aren't known to be exported
	other bool // something that nobody exports: a header by RETR
}

// fate is what is known of one message, with advance.
type fate struct {
	durable  bool
	quit     bool // a session that retrieved it ended with QUIT
	sessions []*session
}

var seed = maphash.MakeSeed()

// take notes that a message is retrieved on a session. With a server that
// lists a million, 40 octets of each are held.
func (s *Source) take(sess *session, id message.ID) {
	if !s.config.Advance {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := maphash.Comparable(seed, id)
	e := s.fates[key]
	if e == nil {
		e = new(fate)
		s.fates[key] = e
	}
	if !e.durable {
		sess.takes.open++
	}
	e.sessions = append(e.sessions, sess)
}

// Finish implements source.Finisher: it notes what is exported, and deletes
// where that is wanted.
func (s *Source) Finish(ctx context.Context, req source.FinishRequest) iter.Seq2[source.Finished, error] {
	return func(yield func(source.Finished, error) bool) {
		err := checkMailbox(req.Mailbox)
		if err == nil && (req.Action.Flag != "" || req.Action.Move != "") {
			err = fault.New(fault.Config, "a POP3 server has neither flags nor mailboxes to move to").WithHint("after: can only delete here")
		}
		if err != nil {
			yield(source.Finished{}, err)
			return
		}
		s.exported(req.IDs)
		if !req.Action.Delete {
			for _, id := range req.IDs {
				if !yield(source.Finished{ID: id}, nil) {
					return
				}
			}
			return
		}
		if err := s.remove(ctx, req.IDs, yield); err != nil && !errors.Is(err, errEnded) {
			yield(source.Finished{}, err)
		}
	}
}

// exported notes that messages are durable.
func (s *Source) exported(ids []message.ID) {
	if !s.config.Advance {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		key := maphash.Comparable(seed, id)
		e := s.fates[key]
		if e == nil {
			e = new(fate)
			s.fates[key] = e
		}
		if e.durable {
			continue
		}
		e.durable = true
		for _, sess := range e.sessions {
			sess.takes.open--
		}
	}
}

// remove deletes messages on a session that does nothing else, and answers
// each id once the server has confirmed its QUIT.
func (s *Source) remove(ctx context.Context, ids []message.ID, yield func(source.Finished, error) bool) error {
	sess, err := s.unused(ctx)
	if err != nil {
		return err
	}
	defer func() { s.pool.Put(sess) }() // closed: QUIT ended it, or nothing did
	defer sess.Close()
	errs, err := s.dele(ctx, sess, ids)
	if err == nil {
		err = sess.Quit(ctx)
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "delete %d messages: nothing of that is confirmed", len(ids))
	}
	s.mu.Lock()
	s.known, s.listing = nil, nil // no session sees this maildrop any more
	s.mu.Unlock()
	s.missed()
	for n, id := range ids {
		if !yield(source.Finished{ID: id, Err: errs[n]}, nil) {
			return errEnded
		}
	}
	return nil
}

// unused returns a session on which nothing was retrieved, and which knows
// what is in the maildrop now.
func (s *Source) unused(ctx context.Context) (*session, error) {
	for {
		sess, err := s.reach(ctx)
		if err != nil {
			return nil, err
		}
		if !sess.fetched && sess.opened.UnixNano() > s.doubt.Load() {
			return sess, nil
		}
		s.forget(ctx, sess)
		_ = sess.Close() // without QUIT nothing is deleted
		s.pool.Put(sess)
	}
}

// dele sends DELE for each message that is there, and returns what the server
// refused, by index. A message without a unique id of its own is deleted by its
// header, asked for on this very session.
func (s *Source) dele(ctx context.Context, sess *session, ids []message.ID) ([]error, error) {
	for _, id := range ids {
		if id.HeaderHash != "" && !sess.own {
			if err := s.identify(ctx, sess, true); err != nil {
				return nil, err
			}
			break
		}
	}
	release := sess.Net().CloseOn(ctx)
	defer release()
	errs := make([]error, len(ids))
	var flight []int
	answer := func() error {
		n := flight[0]
		flight = flight[1:]
		_, err := sess.Answer()
		if err != nil && !isRefused(err) {
			return err
		}
		if err != nil {
			errs[n] = fault.New(fault.Message, "delete %s: %w", ids[n], err).WithReason("server_refuses")
		}
		return nil
	}
	most := window(sess.Conn, ahead)
	for n, id := range ids {
		at := sess.drop.find(id)
		if at < 0 {
			errs[n] = fault.New(fault.Gone, "delete %s: the server has it no more", id)
			continue
		}
		if len(flight) == most {
			if err := answer(); err != nil {
				return nil, err
			}
		}
		if err := sess.Send("DELE " + strconv.Itoa(int(sess.drop.nums[at]))); err != nil {
			return nil, err
		}
		flight = append(flight, n)
	}
	for len(flight) > 0 {
		if err := answer(); err != nil {
			return nil, err
		}
	}
	return errs, nil
}

// end ends a session that rests: by hanging up, so that nothing changes on the
// server, or with QUIT where the user wants that and all that it retrieved is
// exported.
func (s *Source) end(sess *session) {
	s.mu.Lock()
	quit := s.config.Advance && sess.takes == takes{}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if !quit {
		s.forget(ctx, sess)
		_ = sess.Close()
		return
	}
	if err := sess.Quit(ctx); err != nil {
		s.log.Warn("the session's end was not confirmed", "answer", err.Error())
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.fates {
		for _, other := range e.sessions {
			e.quit = e.quit || other == sess
		}
	}
}

// forget asks the server to forget what was retrieved, before it is hung up:
// Dovecot marks it as read at a session's end, whether by QUIT or not, unless
// RSET came. A server that still knows LAST (RFC 1460) has RSET do more than
// that: Dovecot would mark all mail as unread.
func (s *Source) forget(ctx context.Context, sess *session) {
	if !sess.fetched || s.config.Advance || sess.Broken() {
		return
	}
	defer sess.Net().CloseOn(ctx)()
	if _, err := sess.Do("LAST"); isRefused(err) {
		_, _ = sess.Do("RSET") // it is hung up anyhow
	}
}

// Close ends all sessions.
func (s *Source) Close() error {
	s.pool.Close()
	if s.config.Advance {
		if err := s.catchUp(); err != nil {
			s.log.Warn("the server wasn't told of all that is exported: the next session lists it again", "cause", err.Error())
		}
	}
	return nil
}

// catchUpTime is how long the end of a run may wait for the server to take
// note of what is exported.
const catchUpTime = 8 * time.Second

// catchUp retrieves, for the server to take note, what is exported and was
// retrieved on no session that ended with QUIT: one that was cut, one of an
// earlier run that crashed. All of it is exported, so QUIT may come at any
// moment.
func (s *Source) catchUp() error {
	s.mu.Lock()
	behind := map[uint64]bool{}
	for key, e := range s.fates {
		if e.durable && !e.quit && (len(e.sessions) > 0 || s.windowed()) {
			behind[key] = true
		}
	}
	s.mu.Unlock()
	if len(behind) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), catchUpTime)
	defer cancel()
	sess, err := s.openSession(ctx)
	if err != nil {
		return err
	}
	defer sess.Close()
	if err := s.identify(ctx, sess, false); err != nil {
		return err
	}
	if sess.takes.other {
		return fmt.Errorf("the server knows no TOP: its headers can't be read without retrieving all")
	}
	until := time.Now().Add(catchUpTime / 2)
	for i := range sess.drop.nums {
		if !behind[maphash.Comparable(seed, sess.drop.id(i))] {
			continue
		}
		if time.Now().After(until) {
			break
		}
		if err := s.retrieve(ctx, sess, i); err != nil {
			return err
		}
	}
	return sess.Quit(ctx)
}

// windowed reports whether the server lists only what it took no note of yet.
// Others list all mail each time, whatever was retrieved.
func (s *Source) windowed() bool { return s.gmail() && !s.config.Recent }

// retrieve retrieves a message and throws it away.
func (s *Source) retrieve(ctx context.Context, sess *session, i int) error {
	release := sess.Net().CloseOn(ctx)
	defer release()
	if _, err := sess.Do("RETR " + strconv.Itoa(int(sess.drop.nums[i]))); isRefused(err) {
		return nil
	} else if err != nil {
		return err
	}
	return sess.Body(bodyLimit(sess.drop.sizes[i]), 0).Skip()
}
