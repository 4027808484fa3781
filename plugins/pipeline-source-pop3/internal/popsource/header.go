package popsource

import (
	"bytes"
	"context"
	"errors"
	"strconv"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-pop3/internal/popconn"
)

const (
	// headLimit is how much of a header is kept.
	headLimit = 8 << 20
	// topLimit bounds the answer to a TOP: some servers send the whole
	// message whatever is asked for.
	topLimit = 4 << 30
	// topsAhead is how many headers are asked for before the first has come.
	topsAhead = 200
)

// headers asks for n headers, of the messages with the indices that at gives,
// and calls f for each in order: with the octets, which are f's for the call
// only, or with the server's refusal. Any other error ends it; the connection
// is broken then.
func (s *Source) headers(ctx context.Context, sess *session, n int, at func(n int) int, f func(n int, raw []byte, err error) error) error {
	release := sess.Net().CloseOn(ctx)
	defer release()
	// Without TOP the whole message is asked for, and its header kept. It
	// stays unread on the server: nothing changes without QUIT.
	verb, tail := "TOP ", " 0"
	if s.topless.Load() {
		verb, tail = "RETR ", ""
	}
	most := window(sess.Conn, topsAhead)
	var buf []byte
	sent := 0
	for done := 0; done < n; done++ {
		if sent-done <= most/2 {
			if verb == "RETR " {
				sess.fetched, sess.takes.other = true, true
			}
			for ; sent < n && sent-done < most; sent++ {
				if err := sess.Send(verb + strconv.Itoa(int(sess.drop.nums[at(sent)])) + tail); err != nil {
					return err
				}
			}
		}
		_, err := sess.Answer()
		if isRefused(err) {
			if verb == "TOP " && s.withoutTop(sess, err) {
				// All that is under way will be refused, too.
				for range sent - done - 1 {
					if _, err := sess.Answer(); err != nil && !isRefused(err) {
						return err
					} else if err == nil {
						_ = sess.Body(topLimit, 0)
					}
				}
				verb, tail, sent = "RETR ", "", done
				done--
				continue
			}
			if err := f(done, nil, popconn.Err(fault.Message, err, "ask for a header")); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		body := sess.Body(topLimit, 0)
		var whole bool
		if buf, whole, err = readHead(body, buf[:0]); err != nil {
			return err
		}
		if !whole {
			if err := body.Skip(); err != nil {
				return err
			}
		}
		if err := f(done, head(buf), nil); err != nil {
			_ = sess.Close() // answers are under way that nobody will read
			return err
		}
	}
	return nil
}

// withoutTop reports whether a refusal says that the server knows no TOP, which
// is optional (RFC 1939 §7), and remembers it.
func (s *Source) withoutTop(sess *session, err error) bool {
	if sess.Has("TOP") {
		return false
	}
	var refused *popconn.Refused
	if !errors.As(err, &refused) {
		return false
	}
	low := bytes.ToLower([]byte(refused.Text))
	for _, word := range []string{"unknown", "unimplemented", "not implemented", "unsupported", "not supported", "unrecognized", "invalid command", "command not", "bad command", "what"} {
		if bytes.Contains(low, []byte(word)) {
			s.topless.Store(true)
			return true
		}
	}
	return false
}

// readHead reads until there is a whole header, the answer's end, or more than
// a header may have.
func readHead(body *popconn.Body, buf []byte) (_ []byte, whole bool, err error) {
	for limit := 16 << 10; ; limit = min(2*limit, headLimit) {
		if buf, whole, err = body.AppendTo(buf, limit); err != nil || whole {
			return buf, whole, err
		}
		if endOfHead(buf) > 0 || limit == headLimit {
			return buf, false, nil
		}
	}
}

// head returns the header at the beginning of a message: up to and with the
// empty line, or all of it where there is none.
func head(b []byte) []byte {
	if n := endOfHead(b); n > 0 {
		return b[:n]
	}
	return b
}

// endOfHead returns how long the header is, 0 when it doesn't end.
func endOfHead(b []byte) int {
	for at := 0; at < len(b); {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0
		}
		at += i + 1
		if at < len(b) && b[at] == '\n' {
			return at + 1
		}
		if at+1 < len(b) && b[at] == '\r' && b[at+1] == '\n' {
			return at + 2
		}
	}
	return 0
}
