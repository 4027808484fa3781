package popsource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-pop3/internal/popconn"
)

// session is a connection and the maildrop as it sees it. Numbers are of one
// session: each reads UIDL before its first RETR, and they never leave it.
type session struct {
	*popconn.Conn
	drop    *drop // nil: stock was not taken yet
	own     bool  // the weak messages were identified on this very session
	opened  time.Time
	fetched bool  // something was RETRieved: QUIT may have an effect beyond DELE
	takes   takes // with advance: what was
}

// openSession logs in. What is in the maildrop is asked for when it matters: a
// count alone needs no listing.
func (s *Source) openSession(ctx context.Context) (*session, error) {
	began := time.Now()
	c, err := popconn.Open(ctx, s.settings)
	if err != nil {
		return nil, err
	}
	return &session{Conn: c, opened: began}, nil
}

// reach returns a session that has taken stock. A server that isn't there for
// a moment is waited for.
func (s *Source) reach(ctx context.Context) (*session, error) {
	sess, err := s.pool.Reach(ctx, nil)
	return s.stocked(ctx, sess, err, new(mailnet.Backoff))
}

// again replaces a session that broke by one that has taken stock.
func (s *Source) again(ctx context.Context, sess *session, cause error, slow *mailnet.Backoff) (*session, error) {
	next, err := s.pool.Again(ctx, sess, cause, slow)
	return s.stocked(ctx, next, err, slow)
}

// stocked takes stock on a session that the pool gave, or on two others when it
// breaks at that. Waiting for longer is the host's.
func (s *Source) stocked(ctx context.Context, sess *session, err error, slow *mailnet.Backoff) (*session, error) {
	for try := 0; err == nil; try++ {
		cause := s.stock(ctx, sess)
		if cause == nil {
			return sess, nil
		}
		if !sess.Broken() || try == 2 || ctx.Err() != nil {
			s.pool.Put(sess)
			return nil, cause
		}
		sess, err = s.pool.Again(ctx, sess, cause, slow)
	}
	return nil, err
}

// stock makes sure that a session knows what is in the maildrop.
func (s *Source) stock(ctx context.Context, sess *session) error {
	if sess.drop != nil {
		return nil
	}
	release := sess.Net().CloseOn(ctx)
	defer release()
	d, err := s.takeStock(sess.Conn)
	if err != nil {
		_ = sess.Close()
		return fault.Wrap(fault.Unavailable, err, "ask what is in the maildrop")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known != nil && s.known.print == d.print && s.known.count == d.count && s.known.octets == d.octets {
		d = s.known // the same: one copy will do, and what was learnt of it
	}
	if d.identified {
		s.known = d
	}
	sess.drop = d
	return nil
}

// window returns how many commands may be under way on a connection: one,
// where the server doesn't promise to read ahead (RFC 2449 §6.6).
func window(c *popconn.Conn, most int) int {
	if c.Has("PIPELINING") {
		return most
	}
	return 1
}

// takeStock asks for STAT, LIST and UIDL: one round trip where the server
// takes commands ahead.
func (s *Source) takeStock(c *popconn.Conn) (*drop, error) {
	ahead := window(c, 3) > 1
	commands := []string{"STAT", "LIST", "UIDL"}
	for n, command := range commands {
		if ahead || n == 0 {
			if err := c.Send(command); err != nil {
				return nil, err
			}
		}
	}
	text, err := c.Answer()
	count, octets := int64(-1), int64(-1)
	if err == nil {
		count, octets = readStat(text)
	} else if !isRefused(err) {
		return nil, err
	}
	most := maxNumber
	if count >= 0 {
		most = int(min(count+1000, maxNumber)) // a listing may disagree, but not without end
	}
	l := new(listing)
	for n, read := range []func([]byte){l.readListLine, l.readUIDLLine} {
		if !ahead {
			if err := c.Send(commands[n+1]); err != nil {
				return nil, err
			}
		}
		if _, err := c.Answer(); isRefused(err) {
			continue
		} else if err != nil {
			return nil, err
		}
		if err := c.Lines(most, read); err != nil {
			return nil, err
		}
	}
	if err := s.probe(c, count, l); err != nil {
		return nil, err
	}
	return l.drop(count, octets, s.config.Identity == "headers"), nil
}

func isRefused(err error) bool {
	var refused *popconn.Refused
	return errors.As(err, &refused)
}

// readStat reads "count octets"; what can't be read, or isn't meant, is -1.
func readStat(text []byte) (count, octets int64) {
	f := bytes.Fields(text)
	number := func(n int) int64 {
		if n >= len(f) {
			return -1
		}
		v, err := strconv.ParseInt(string(f[n]), 10, 64)
		if err != nil || v < 0 {
			return -1
		}
		return v
	}
	if count = number(0); count > maxNumber {
		count = -1
	}
	return count, number(1)
}

// mostProbes bounds how many messages are asked for one by one.
const mostProbes = 1000

// probe asks for the messages that STAT counts and neither listing has: one
// that is there must not be lost (I1).
func (s *Source) probe(c *popconn.Conn, count int64, l *listing) error {
	have := make(map[uint32]bool)
	if int64(len(l.nums)) >= count && int64(len(l.uids)) >= count {
		return nil // nothing is missing: the usual case costs nothing
	}
	for _, n := range l.nums {
		have[n] = true
	}
	for _, n := range l.uids {
		have[n] = true
	}
	if int64(len(have)) >= count {
		return nil
	}
	s.log.Warn("the server's count disagrees with its listing", "STAT", count, "listed", len(have))
	tries := 0
	for n := uint32(1); int64(n) <= count && tries < mostProbes; n++ {
		if have[n] {
			continue
		}
		tries++
		text, err := c.Do(fmt.Sprintf("LIST %d", n))
		switch {
		case err == nil:
			if got, _, ok := readNumber(text); ok && got == n {
				l.readListLine(text)
			}
		case !isRefused(err):
			return err
		}
	}
	return nil
}
