package soak

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/test/dovecot"
)

// The accounts: alice is read by IMAP, bob by POP3.
const (
	alice = "alice"
	bob   = "bob"
)

// most is how many messages a mailbox has at most: what is listed stays small
// however long it goes on.
const most = 150

// world is what happens on the server.
type world struct {
	t      *testing.T
	server *dovecot.Server
	r      *rand.Rand
	serial int
	boxes  []string // alice's, INBOX first

	arrived, renamed, removed, renumbered, expunged int
}

func newWorld(t *testing.T, server *dovecot.Server, r *rand.Rand) *world {
	w := &world{t: t, server: server, r: r, boxes: []string{"INBOX"}}
	for _, box := range []string{"Work", "Work/2026", "Ärger", "Lists"} {
		server.MakeMailbox(alice, box)
		w.boxes = append(w.boxes, box)
	}
	for range 20 {
		w.arrive()
	}
	return w
}

func (w *world) String() string {
	return fmt.Sprintf("%d mails arrived, %d mailboxes were renamed, %d removed and made anew, %d had another UIDVALIDITY, %d times mail was deleted",
		w.arrived, w.renamed, w.removed, w.renumbered, w.expunged)
}

// arrive delivers a mail, to either account, that there was never before. One
// in ten is large.
func (w *world) arrive() {
	w.serial++
	w.arrived++
	size := 200 + w.r.IntN(6000)
	if w.serial%10 == 0 {
		size = 300_000
	}
	raw := fmt.Appendf(nil, "From: a@example.com\r\nTo: b@example.com\r\nDate: Mon, 2 Nov 2026 09:%02d:00 +0000\r\nMessage-ID: <%d@soak.test>\r\n"+
		"Subject: number %d\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\ntext %d\r\n--x\r\n"+
		"Content-Type: application/octet-stream; name=a.bin\r\nContent-Disposition: attachment\r\n\r\n", w.serial%60, w.serial, w.serial, w.serial)
	raw = append(raw, bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef\r\n"), size/50)...)
	raw = append(raw, "\r\n--x--\r\n"...)
	user, box := alice, w.boxes[w.r.IntN(len(w.boxes))]
	if w.r.IntN(3) == 0 {
		user, box = bob, "INBOX"
	}
	w.server.Deliver(user, box, raw, time.Unix(1_700_000_000+int64(w.serial), 0))
}

// change does a few of the things that users and servers do.
func (w *world) change() {
	w.t.Helper()
	for range w.r.IntN(6) {
		w.arrive()
	}
	box := 1 + w.r.IntN(len(w.boxes)-1) // never INBOX
	switch w.r.IntN(8) {
	case 0:
		w.renamed++
		to := "Renamed " + strconv.Itoa(w.renamed)
		w.server.Rename(alice, w.boxes[box], to)
		if prefix := w.boxes[box] + "/"; w.boxes[box] != to {
			for i, name := range w.boxes {
				if below, ok := strings.CutPrefix(name, prefix); ok {
					w.boxes[i] = to + "/" + below
				}
			}
		}
		w.boxes[box] = to
	case 1:
		// One with mailboxes below it stays: they would go with it or not,
		// as the server likes.
		if slices.ContainsFunc(w.boxes, func(name string) bool { return strings.HasPrefix(name, w.boxes[box]+"/") }) {
			return
		}
		w.removed++
		w.server.Remove(alice, w.boxes[box])
		w.server.MakeMailbox(alice, w.boxes[box])
	case 2:
		w.renumbered++
		w.server.Doveadm("mailbox", "update", "-u", alice, "--uid-validity", strconv.Itoa(2_000_000_000+w.renumbered), w.boxes[w.r.IntN(len(w.boxes))])
	case 3:
		w.expunge(bob, "INBOX", 1+w.r.IntN(3))
	case 4:
		w.expunge(alice, w.boxes[w.r.IntN(len(w.boxes))], 1+w.r.IntN(5))
	}
	for _, name := range w.boxes {
		w.thin(alice, name)
	}
	w.thin(bob, "INBOX")
}

// expunge deletes the first messages of a mailbox.
func (w *world) expunge(user, box string, n int) {
	w.expunged++
	w.server.Doveadm("expunge", "-u", user, "mailbox", box, strconv.Itoa(1)+":"+strconv.Itoa(n))
}

// thin deletes the older half of a mailbox that has become large.
func (w *world) thin(user, box string) {
	text := w.server.Doveadm("mailbox", "status", "-u", user, "messages", box)
	n, err := strconv.Atoi(strings.TrimSpace(text[strings.LastIndexByte(text, '=')+1:]))
	if err != nil {
		w.t.Fatalf("doveadm says %q of %s: %v", text, box, err)
	}
	if n > most {
		w.expunge(user, box, n/2)
	}
}

// has returns the sha256 of each message that an account has now, by mailbox.
func (w *world) has(user string) map[string][]string {
	boxes := w.boxes
	if user == bob {
		boxes = boxes[:1]
	}
	out := map[string][]string{}
	for _, box := range boxes {
		for _, raw := range w.server.Octets(user, wire(box)) {
			out[box] = append(out[box], fmt.Sprintf("%x", sha256.Sum256(raw)))
		}
	}
	return out
}

// wire is a mailbox's name as the server spells it (RFC 3501 §5.1.3).
func wire(box string) string { return strings.ReplaceAll(box, "Ä", "&AMQ-") }
