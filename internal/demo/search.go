package demo

import (
	"bufio"
	"bytes"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	gomessage "github.com/emersion/go-message"
	"github.com/emersion/go-message/mail"
	"github.com/emersion/go-message/textproto"
)

func (s *session) Search(kind imapserver.NumKind, criteria *imap.SearchCriteria, _ *imap.SearchOptions) (*imap.SearchData, error) {
	var (
		data imap.SearchData
		seqs imap.SeqSet
		uids imap.UIDSet
	)
	for i, msg := range s.selected.messages {
		seq := uint32(i) + 1
		if !s.selected.found(seq, msg, criteria) {
			continue
		}
		num := seq
		if kind == imapserver.NumKindUID {
			num = msg.UID
		}
		seqs.AddNum(seq)
		uids.AddNum(imap.UID(msg.UID))
		if data.Count == 0 {
			data.Min = num
		}
		data.Max = num
		data.Count++
	}
	data.All = seqs
	if kind == imapserver.NumKindUID {
		data.All = uids
	}
	return &data, nil
}

// found reports whether all of criteria hold (RFC 3501 §6.4.4). TEXT and BODY
// look at the octets as they stand: nothing is decoded.
func (m *mailbox) found(seq uint32, msg *Message, c *imap.SearchCriteria) bool {
	for _, set := range c.SeqNum {
		if !m.matches(set, seq, msg) {
			return false
		}
	}
	for _, set := range c.UID {
		if !m.matches(set, seq, msg) {
			return false
		}
	}
	for _, flag := range c.Flag {
		if !msg.hasFlag(flag) {
			return false
		}
	}
	for _, flag := range c.NotFlag {
		if msg.hasFlag(flag) {
			return false
		}
	}
	size := int64(len(msg.Octets))
	if c.Larger != 0 && size <= c.Larger || c.Smaller != 0 && size >= c.Smaller || !within(msg.InternalDate, c.Since, c.Before) {
		return false
	}
	if !msg.foundText(c) {
		return false
	}
	for i := range c.Not {
		if m.found(seq, msg, &c.Not[i]) {
			return false
		}
	}
	for i := range c.Or {
		if !m.found(seq, msg, &c.Or[i][0]) && !m.found(seq, msg, &c.Or[i][1]) {
			return false
		}
	}
	return true
}

func (msg *Message) foundText(c *imap.SearchCriteria) bool {
	if len(c.Header) > 0 || !c.SentSince.IsZero() || !c.SentBefore.IsZero() {
		// A header that can't be read whole is searched as far as it could be.
		fields, _ := textproto.ReadHeader(bufio.NewReader(bytes.NewReader(msg.Octets)))
		header := mail.Header{Header: gomessage.Header{Header: fields}}
		for _, want := range c.Header {
			if !hasField(header, want) {
				return false
			}
		}
		if !c.SentSince.IsZero() || !c.SentBefore.IsZero() {
			if date, err := header.Date(); err != nil || !within(date, c.SentSince, c.SentBefore) {
				return false
			}
		}
	}
	for _, text := range c.Text {
		if !containsFold(msg.Octets, text) {
			return false
		}
	}
	for _, text := range c.Body {
		if !containsFold(msg.Octets[len(msg.header()):], text) {
			return false
		}
	}
	return true
}

func hasField(header mail.Header, want imap.SearchCriteriaHeaderField) bool {
	fields := header.FieldsByKey(want.Key)
	for fields.Next() {
		// What can't be decoded is searched as it stands.
		text, err := fields.Text()
		if err != nil {
			text = fields.Value()
		}
		if containsFold([]byte(text), want.Value) {
			return true
		}
	}
	return false
}

func containsFold(octets []byte, text string) bool {
	return bytes.Contains(bytes.ToLower(octets), []byte(strings.ToLower(text)))
}

// within compares days and disregards the zone, as RFC 3501 §6.4.4 says.
func within(t, since, before time.Time) bool {
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	return (since.IsZero() || !day.Before(since)) && (before.IsZero() || day.Before(before))
}
