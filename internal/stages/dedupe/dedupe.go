// Package dedupe is the stage dedupe: by what two messages are told to be one.
// Which of them goes on, the engine and the ledger decide.
package dedupe

import (
	"crypto/sha256"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Mode is what messages are compared by.
type Mode string

// The modes.
const (
	MessageID Mode = "message_id" // the Message-ID, with Date, From and Subject
	Content   Mode = "content"    // all octets
)

// Key is what the copies of a message share.
type Key struct {
	// Digest is the same for all copies. In mode content messages with one
	// Digest share their header only: their octets are compared when they come.
	Digest [16]byte
	// Kin is the same for all messages that share the Message-ID, copies or
	// not.
	Kin [16]byte
}

// KeyOf returns the key of a message by its header. ok is false for a message
// that can have no copies: without a Message-ID nothing tells.
func (m Mode) KeyOf(h *message.Header) (k Key, ok bool) {
	if h == nil {
		return k, false
	}
	id := strings.TrimSpace(h.MessageID())
	k.Kin = digest("kin", id)
	if m == Content {
		k.Digest = digest("header", string(h.Raw()))
		return k, true
	}
	if id == "" {
		return k, false
	}
	date := h.Get("Date")
	if at, ok := h.Date(); ok {
		date = at.UTC().Format(time.RFC3339) // servers write zones in their own ways
	}
	var from []string
	for _, a := range h.Addresses("From") {
		from = append(from, strings.ToLower(a.Address))
	}
	k.Digest = digest("message_id", id, date, strings.Join(from, ","), strings.Join(strings.Fields(h.Subject()), " "))
	return k, true
}

// Of returns the digest of those messages with this one whose octets have the
// sum.
func Of(header [16]byte, sum []byte) [16]byte {
	return digest("octets", string(header[:]), string(sum))
}

func digest(parts ...string) (d [16]byte) {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	copy(d[:], h.Sum(nil))
	return d
}
