package convert

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/mapi"
)

// subject sets 0037, and its two halves (MS-OXCMSG §2.2.1.9): the prefix is up
// to three characters that are no digits, a colon and a blank.
func (b *builder) subject() {
	s := b.h.Subject()
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "")
	}
	prefix, rest := splitSubject(s)
	b.o.String(pidSubject, s)
	b.o.String(pidSubjectPrefix, prefix)
	b.o.String(pidNormalizedSubject, rest)
	topic := b.h.Text("Thread-Topic")
	if topic == "" {
		topic = rest
	}
	b.o.String(pidConversationTopic, topic)
	b.conversationIndex(topic)
}

func splitSubject(s string) (prefix, rest string) {
	n := 0
	for i, r := range s {
		if r == ':' && n > 0 && strings.HasPrefix(s[i:], ": ") {
			return s[:i+2], s[i+2:]
		}
		if n == 3 || unicode.IsDigit(r) || unicode.IsSpace(r) || r == utf8.RuneError {
			break
		}
		n++
	}
	return "", s
}

// conversationIndex sets 0071 (MS-OXOMSG §2.2.1.3): Outlook's own, where the
// mail has it; else one made of the thread's first message id, so that the
// mails of a thread stay together and the same mail gives the same octets.
func (b *builder) conversationIndex(topic string) {
	if v := b.h.Get("Thread-Index"); v != "" {
		v = strings.Map(func(r rune) rune {
			if r == ' ' || r == '\t' {
				return -1
			}
			return r
		}, v)
		raw, err := base64.StdEncoding.DecodeString(v)
		if err == nil && len(raw) >= 22 && (len(raw)-22)%5 == 0 && len(raw) < 4096 && raw[0] == 1 {
			b.o.Binary(pidConversationIndex, raw)
			return
		}
	}
	thread := topic
	reply := true
	if ids := b.h.MessageIDs("References"); len(ids) > 0 {
		thread = ids[0]
	} else if ids := b.h.MessageIDs("In-Reply-To"); len(ids) > 0 {
		thread = ids[0]
	} else {
		reply = false
		if id := b.h.MessageID(); id != "" {
			thread = id
		}
	}
	var index [27]byte
	index[0] = 1
	if at, ok := b.h.Date(); ok && at.Year() >= 1900 && at.Year() < 2104 {
		var when [8]byte
		binary.BigEndian.PutUint64(when[:], mapi.FileTime(at))
		copy(index[1:6], when[1:6])
	}
	guid := md5.Sum([]byte(thread))
	copy(index[6:], guid[:])
	n := 22
	if reply {
		n = 27
	}
	b.o.Binary(pidConversationIndex, b.c.file.Copy(index[:n]))
}

// dates sets when it was sent and when it came. A mail without a Date has none
// here: nothing is made up.
func (b *builder) dates() {
	sent, haveSent := b.h.Date()
	if haveSent {
		haveSent = b.o.Time(pidClientSubmitTime, sent.Truncate(time.Second))
	}
	came, ok := received(b.h)
	if !ok && b.env != nil && !b.env.InternalDate.IsZero() {
		came, ok = b.env.InternalDate, true
	}
	if ok {
		ok = b.o.Time(pidDeliveryTime, came.Truncate(time.Second))
	}
	if !ok {
		came, ok = sent, haveSent
	}
	if ok {
		b.o.Time(pidCreationTime, came.Truncate(time.Second))
		b.o.Time(pidModificationTime, came.Truncate(time.Second))
	}
}

// received returns the date of the top Received field.
func received(h *message.Header) (time.Time, bool) {
	v := h.Get("Received")
	i := strings.LastIndexByte(v, ';')
	if i < 0 {
		return time.Time{}, false
	}
	return message.ParseDate(v[i+1:])
}

// marks sets what a reader did with the mail and how its sender rated it.
func (b *builder) marks() {
	icon := int32(-1)
	read := true // without flags nothing says that it is new
	if b.env != nil && b.env.HaveFlags {
		has := func(flag string) bool {
			return slices.ContainsFunc(b.env.Flags, func(f string) bool { return strings.EqualFold(f, flag) })
		}
		read = has(`\Seen`)
		if has(`\Draft`) {
			b.flags |= flagUnsent
		}
		switch {
		case has(`\Answered`):
			icon = 0x105
			b.o.Int(pidLastVerb, 102)
		case slices.ContainsFunc(b.env.Keywords, func(k string) bool { return strings.EqualFold(k, "$Forwarded") }):
			icon = 0x106
			b.o.Int(pidLastVerb, 104)
		}
		if has(`\Flagged`) {
			b.o.Int(pidFlagStatus, 2)
			b.o.Int(pidFollowupIcon, 6)
			if id, ok := b.c.file.Named(mapi.Common, lidFlagRequest); ok {
				b.o.String(id, "Follow up")
			}
		}
	}
	if read {
		b.flags |= flagRead | flagEverRead
	}
	b.o.Int(pidIconIndex, icon)
	importance := b.importance()
	b.o.Int(pidImportance, importance)
	b.o.Int(pidPriority, importance-1)
	b.o.Int(pidSensitivity, sensitivity(b.h.Get("Sensitivity")))
}

// importance is 0 (low), 1 or 2 (high) (MS-OXCMAIL §2.1.3.2.1).
func (b *builder) importance() int32 {
	word := func(field string) string {
		v := b.h.Get(field)
		if i := strings.IndexAny(v, " ("); i > 0 {
			v = v[:i]
		}
		return strings.ToLower(v)
	}
	switch word("Importance") {
	case "high":
		return 2
	case "normal":
		return 1
	case "low":
		return 0
	}
	if v := b.h.Get("X-Priority"); v != "" {
		switch v[0] {
		case '1', '2':
			return 2
		case '3':
			return 1
		case '4', '5':
			return 0
		}
	}
	switch word("Priority") {
	case "urgent":
		return 2
	case "normal":
		return 1
	case "non-urgent":
		return 0
	}
	switch word("X-MSMail-Priority") {
	case "high":
		return 2
	case "low":
		return 0
	}
	return 1
}

func sensitivity(v string) int32 {
	switch strings.ToLower(strings.TrimSpace(v)) {
	case "personal":
		return 1
	case "private":
		return 2
	case "company-confidential":
		return 3
	}
	return 0
}

// threading sets the ids that tie mails together, each as it stands in the mail
// (MS-OXOMSG §2.2.1.12): what follows an id in its field isn't ours to judge.
func (b *builder) threading() {
	b.o.String(pidMessageID, b.h.Text("Message-ID"))
	b.o.String(pidInReplyTo, b.h.Text("In-Reply-To"))
	b.o.String(pidReferences, b.h.Text("References"))
}
