package popsource

import (
	"bytes"
	"context"
	"crypto/sha256"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Messages whose unique id is missing, doubled or invalid are known by (unique
// id, sha256 of the header, ordinal): among the same the first in the maildrop
// is 0.

// ownFields are header fields that some servers write themselves, and change
// when a message is read. They are no part of a message's identity.
var ownFields = [][]byte{[]byte("status:"), []byte("x-status:"), []byte("x-uidl:")}

// headerHash returns the sha256 of a header: its lines without their ends, so
// that TOP and RETR give the same whatever they make of the last line.
func headerHash(raw []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	own := false
	for len(raw) > 0 {
		line := raw
		if i := bytes.IndexByte(raw, '\n'); i >= 0 {
			line, raw = raw[:i], raw[i+1:]
		} else {
			raw = nil
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			break
		}
		if line[0] != ' ' && line[0] != '\t' {
			own = false
			for _, f := range ownFields {
				own = own || len(line) >= len(f) && bytes.EqualFold(line[:len(f)], f)
			}
		}
		if !own {
			h.Write(line)
			h.Write([]byte{'\n'})
		}
	}
	h.Sum(sum[:0])
	return sum
}

// identify makes sure that every message of the session's maildrop has an
// identity: that of a session before that saw the very same, or by asking for
// the headers of those that have no unique id. Only with anew is the server
// asked whatever was known before.
func (s *Source) identify(ctx context.Context, sess *session, anew bool) error {
	if err := s.stock(ctx, sess); err != nil {
		return err
	}
	if sess.drop.identified && !anew {
		return nil
	}
	d := *sess.drop
	d.weak = make(map[int]mark, len(d.weakOnes))
	d.byMark = make(map[weakKey]int, len(d.weakOnes))
	next := map[weakKey]uint32{} // by uidl and hash
	err := s.headers(ctx, sess, len(d.weakOnes), func(n int) int { return int(d.weakOnes[n]) }, func(n int, raw []byte, err error) error {
		i := int(d.weakOnes[n])
		if err != nil {
			// Known by nothing: it is listed, and a fetch will say why it
			// can't be had (I6).
			s.log.Warn("a message without a unique id has no header", "number", d.nums[i], "answer", err.Error())
		}
		k := weakKey{uidl: d.uidl(i), mark: mark{hash: headerHash(raw)}}
		m := mark{hash: k.hash, ordinal: next[k]}
		next[k]++
		d.weak[i], d.byMark[weakKey{uidl: k.uidl, mark: m}] = m, i
		return nil
	})
	if err != nil {
		return err
	}
	d.identified = true
	sess.drop, sess.own = &d, true
	s.mu.Lock()
	s.known = &d
	s.mu.Unlock()
	return nil
}

// verified reports whether a header is that of the message that is meant. Ids
// that are the server's own need no proof: the session has read UIDL itself.
func verified(d *drop, i int, id message.ID, raw []byte) bool {
	if id.HeaderHash == "" {
		return true
	}
	m, ok := d.weak[i]
	return ok && headerHash(raw) == m.hash
}
