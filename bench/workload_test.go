package bench

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Workload is the mail of one user. The same workload is the same octets
// every time.
type Workload struct {
	Name      string
	Mailboxes []Mailbox
	Size      func(*rand.Rand) int // octets of the next message, about
}

// Mailbox is a mailbox of a workload and how many messages it has.
type Mailbox struct {
	Name     string
	Messages int
}

// Workloads returns the three mailboxes that all programs are run on, each
// with a part of its messages: 1 for all.
func Workloads(part float64) []Workload {
	n := func(messages int) int { return max(1, int(float64(messages)*part)) }
	return []Workload{
		{"small", []Mailbox{{"INBOX", n(20_000)}}, func(r *rand.Rand) int { return 3_000 + r.IntN(2_000) }},
		{"mixed", []Mailbox{
			{"INBOX", n(4_000)}, {"Archive/2023", n(2_500)}, {"Archive/2024/Q1", n(1_500)},
			{"Projekte/Bücher & Aufträge", n(1_000)}, {"Sent", n(1_000)},
		}, func(r *rand.Rand) int { return min(5_000_000, int(8_000*math.Exp(2.1*r.NormFloat64()))) }},
		{"big", []Mailbox{{"INBOX", n(60)}}, func(*rand.Rand) int { return 25_000_000 }},
	}
}

// Deliver hands every message to put, in order.
func (w Workload) Deliver(put func(mailbox string, raw []byte, date time.Time)) {
	r := rand.New(rand.NewPCG(1, uint64(len(w.Name)))) //nolint:gosec // the same mail each time is the point
	for _, m := range w.Mailboxes {
		for i := range m.Messages {
			date := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * 7 * time.Minute)
			put(m.Name, letter(r, fmt.Sprintf("%s.%d.%s", w.Name, i, m.Name[:3]), w.Size(r), date), date)
		}
	}
}

var words = [...]string{
	"account", "after", "again", "agreed", "attached", "before", "board", "budget", "customer", "delivery", "draft",
	"figures", "following", "invoice", "kindly", "meeting", "minutes", "office", "please", "project", "quarter",
	"received", "regards", "report", "schedule", "subject", "thanks", "tomorrow", "update", "which", "with", "yesterday",
}

// letter is one message of about so many octets: text, and above 16 KiB an
// attachment.
func letter(r *rand.Rand, id string, size int, date time.Time) []byte {
	var b bytes.Buffer
	b.Grow(size + 1024)
	word := func() string { return words[r.IntN(len(words))] }
	fmt.Fprintf(&b, "Return-Path: <%s@example.com>\nReceived: from mx.example.com by mail.example.org with ESMTP id %08x;\n\t%s\n",
		word(), r.Uint32(), date.Format(time.RFC1123Z))
	fmt.Fprintf(&b, "Date: %s\nFrom: %s %s <%s@example.com>\nTo: Alice <alice@example.org>\nSubject: %s %s %s %d\nMessage-ID: <%s@example.com>\nMIME-Version: 1.0\n",
		date.Format(time.RFC1123Z), word(), word(), word(), word(), word(), word(), r.IntN(1000), id)
	text := func(octets int) {
		for line := 0; octets > 0; octets-- {
			w := word()
			line += len(w) + 1
			octets -= len(w)
			b.WriteString(w)
			if line > 66 {
				b.WriteByte('\n')
				line = 0
			} else {
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	if size < 16<<10 {
		b.WriteString("Content-Type: text/plain; charset=utf-8\n\n")
		text(size - b.Len())
		return b.Bytes()
	}
	b.WriteString("Content-Type: multipart/mixed; boundary=\"=_b\"\n\n--=_b\nContent-Type: text/plain; charset=utf-8\n\n")
	text(1_500)
	fmt.Fprintf(&b, "--=_b\nContent-Type: application/pdf; name=\"%s.pdf\"\nContent-Disposition: attachment; filename=\"%s.pdf\"\nContent-Transfer-Encoding: base64\n\n", word(), word())
	var raw [57]byte
	var line [77]byte
	line[76] = '\n'
	for b.Len() < size {
		for i := 0; i < len(raw); i += 8 {
			v := r.Uint64()
			for j := i; j < min(i+8, len(raw)); j++ {
				raw[j] = byte(v)
				v >>= 8
			}
		}
		base64.StdEncoding.Encode(line[:76], raw[:])
		b.Write(line[:])
	}
	b.WriteString("--=_b--\n")
	return b.Bytes()
}
