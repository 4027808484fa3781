package plugintest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
)

// mail is a message that the suite makes.
type mail struct {
	what   string
	id     message.ID
	octets []byte
	flags  []string
}

var epoch = time.Date(2024, 2, 29, 12, 30, 0, 0, time.UTC)

func mailID(mailbox string, uid uint32) message.ID {
	return message.ID{Source: "suite", Mailbox: mailbox, UIDValidity: 7, UID: uid}
}

// ordinary returns n mails of two mailboxes, always the same.
func ordinary(n int) []mail {
	out := make([]mail, n)
	for i := range out {
		uid := uint32(i + 1)
		body := strings.Repeat(fmt.Sprintf("line of mail %d\r\n", uid), 1+i%7*20)
		text := fmt.Sprintf("From: Ada <ada@example.com>\r\nTo: Bob <bob@example.com>\r\nSubject: mail %d\r\n"+
			"Date: Thu, 29 Feb 2024 12:%02d:00 +0000\r\nMessage-ID: <%d@suite.example>\r\n\r\n%s", uid, i%60, uid, body)
		out[i] = mail{
			what: fmt.Sprintf("mail %d", uid), octets: []byte(text),
			id: mailID([]string{"INBOX", "Work/2024"}[i%2], uid), flags: [][]string{nil, {`\Seen`}, {`\Answered`, `\Seen`}}[i%3],
		}
	}
	return out
}

// odd returns mails whose octets are no ordinary mail.
func odd() []mail {
	out := []mail{
		{what: "an empty mail"},
		{what: "only a newline", octets: []byte("\r\n")},
		{what: "NULs", octets: []byte("Subject: \x00\r\nFrom: a\x00b@example.com\r\n\r\n\x00\x00body\x00")},
		{what: "bare LF and bare CR", octets: []byte("Subject: x\nFrom: a@example.com\n\nbare\rline\n")},
		{what: "8-bit octets that are no UTF-8", octets: []byte("Subject: \xff\xfe\x80\r\n\r\n\xff\xfe")},
		{what: "no header", octets: []byte("\r\njust text")},
		{what: "no end of the header", octets: []byte("Subject: never ends")},
		{what: "a line of 100 KB", octets: []byte("Subject: x\r\n\r\n" + strings.Repeat("x", 100_000))},
		{what: "a header of 300 KB", octets: []byte("Subject: x\r\n" + strings.Repeat("X-Long: "+strings.Repeat("y", 900)+"\r\n", 340) + "\r\nbody")},
		{what: "lines of a single dot", octets: []byte("Subject: x\r\n\r\n.\r\n..\r\n.\r\n")},
		{what: "a multipart that never ends", octets: []byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n")},
		{what: "random octets", octets: noise(5000)},
	}
	for i := range out {
		out[i].id = mailID("INBOX", uint32(1000+i))
	}
	return out
}

// hostile returns mails with names that mean something to a file system, a
// shell or a browser.
func hostile() []mail {
	var out []mail
	for i, name := range []string{
		"../../escape", "..", ".", "a/../../b", "/etc/mailhaul", `C:\Windows\x`, `..\..\escape`, "CON", "aux.txt", "a:b", "a//b", "/",
		"trailing dot.", "trailing space ", " ", "-rf", "~root", "$(reboot)", "<script>", "nul\x00inside", "new\nline", "\x1b[31mred",
		"caf\u00e9", "cafe\u0301", "CAFÉ", "\u202Egnp.exe", "日本語/メール", "😀", strings.Repeat("long", 100), strings.Repeat("深い/", 40) + "x", "",
	} {
		uid := uint32(2000 + i)
		out = append(out, mail{
			what: fmt.Sprintf("mailbox %q", name), id: mailID(name, uid),
			octets: []byte(fmt.Sprintf("From: \"%s\" <x@example.com>\r\nSubject: %s\r\nMessage-ID: <%d/../../x@y>\r\n\r\nbody %d", oneLine(name), oneLine(name), uid, uid)),
		})
	}
	return out
}

func oneLine(s string) string {
	return strings.NewReplacer("\n", "?", "\x00", "?", `"`, "?").Replace(s)
}

// noise is octets without a pattern, always the same.
func noise(n int) []byte {
	out := make([]byte, 0, n+32)
	for sum := sha256.Sum256([]byte("mailhaul")); len(out) < n; sum = sha256.Sum256(sum[:]) {
		out = append(out, sum[:]...)
	}
	return out[:n]
}

// message makes the mail as the host would hand it over to someone who needs
// these things of it. body may be nil: the mail's own octets.
func (m mail) message(needs message.Needs, record bool, body *message.Body) *message.Message {
	out := &message.Message{}
	out.ID, out.Have = m.id, needs&message.AllSummary
	if needs.Has(message.NeedSize) {
		out.Size = int64(len(m.octets))
	}
	if needs.Has(message.NeedInternalDate) {
		out.InternalDate = epoch.Add(time.Duration(m.id.UID) * time.Minute)
	}
	if needs.Has(message.NeedFlags) {
		out.Flags = m.flags
	}
	if needs.Has(message.NeedHeaders) {
		out.Header = message.NewHeader(headerOf(m.octets))
	}
	if needs.Has(message.NeedStructure) {
		out.Structure, _, _ = message.ReadStructure(bytes.NewReader(m.octets)) // never fails on memory
	}
	switch {
	case record:
		sum := sha256.Sum256(m.octets)
		out.Record = &message.Record{Octets: int64(len(m.octets)), SHA256: hex.EncodeToString(sum[:]), Files: map[string]string{"archive": m.id.Hash() + ".eml"}}
	case needs.Has(message.NeedBody):
		if out.Body = body; body == nil {
			out.Body = message.NewBody(bytes.NewReader(m.octets), int64(len(m.octets)), nil)
		}
		out.Have |= message.NeedBody
	}
	return out
}

func headerOf(b []byte) []byte {
	for _, end := range []string{"\r\n\r\n", "\n\n"} {
		if i := bytes.Index(b, []byte(end)); i >= 0 {
			return b[:i+len(end)]
		}
	}
	return b
}

// dribble gives octets a little at a time, so that all of them take about as
// long as it is told.
type dribble struct {
	r     io.Reader
	pause time.Duration
	piece int
}

func slowly(octets []byte, long time.Duration) io.Reader {
	const pieces = 10
	return &dribble{bytes.NewReader(octets), long / pieces, len(octets)/pieces + 1}
}

func (d *dribble) Read(p []byte) (int, error) {
	time.Sleep(d.pause)
	return d.r.Read(p[:min(len(p), d.piece)])
}

// stalled gives some octets, and then nothing until ctx ends, which is its
// error.
type stalled struct {
	ctx   context.Context
	r     io.Reader
	stuck chan struct{} // closed when it gives nothing more
	told  bool
}

func (s *stalled) Read(p []byte) (int, error) {
	if n, err := s.r.Read(p); err == nil {
		return n, nil
	}
	if !s.told {
		s.told = true
		close(s.stuck)
	}
	<-s.ctx.Done()
	return 0, context.Cause(s.ctx)
}

// large is a mail of n octets that is made as it is read.
func large(n int64) io.Reader {
	head := "From: a@example.com\r\nSubject: large\r\n\r\n"
	line := []byte(strings.Repeat("0123456789abcdef", 4) + "\r\n")
	return io.LimitReader(io.MultiReader(strings.NewReader(head), &repeated{line: line}), n)
}

type repeated struct {
	line []byte
	at   int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		k := copy(p[n:], r.line[r.at:])
		n += k
		r.at = (r.at + k) % len(r.line)
	}
	return n, nil
}
