package demo

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"time"
)

// The files are the octets that the server serves, line ends and all.
//
//go:embed mailbox/*.eml
var files embed.FS

// Message is one message of the sample mailbox.
type Message struct {
	Mailbox      string // UTF-8, "/" between levels
	UIDValidity  uint32
	UID          uint32
	InternalDate time.Time
	Flags        []string // as on the wire: \Seen, $Forwarded, …
	Octets       []byte   // what BODY[] answers; shared, don't change them
}

// sampleMailbox is a row of the table below.
type sampleMailbox struct {
	name       string
	specialUse string // RFC 6154, with its backslash; empty for none
	noSelect   bool   // a level that holds no messages
	validity   uint32
	mails      []sampleMail
}

type sampleMail struct {
	uid   uint32
	file  string // in mailbox/, or the name of something generated
	date  string // internal date, RFC 3339
	flags string // separated by spaces
}

// generated is the one message that is too large to lie in the repository.
const generated = "sea-chart (generated)"

// sample is the whole account. UIDs have gaps, as after years of deleting;
// validities and UIDs never change, so that a second run has nothing to do. No
// name has an "&": go-imap's server writes it as "&-" even to a client that has
// enabled UTF8=ACCEPT, where it stands for itself (RFC 6855 §3).
func sample() []sampleMailbox {
	return []sampleMailbox{
		{name: "INBOX", validity: 1748844901, mails: []sampleMail{
			{3, "welcome.eml", "2025-06-02T08:15:02+02:00", `\Seen \Flagged`},
			{4, "signed.eml", "2025-06-02T09:00:07+02:00", `\Seen`},
			{9, "html-inline-image.eml", "2025-06-17T19:42:13+02:00", `\Seen \Answered`},
			{12, "rfc2231-names.eml", "2025-08-25T11:03:30+02:00", `\Seen`},
			{13, "calendar-invitation.eml", "2025-09-04T15:20:04+02:00", `\Seen $Accepted`},
			{17, "bounce.eml", "2025-09-21T06:01:44+02:00", `\Seen`},
			{18, "forwarded-message.eml", "2025-10-01T21:10:09+02:00", `$Forwarded \Seen`},
			{21, "bare-bones.eml", "2025-10-05T03:12:00+02:00", ``},
			{22, "empty-body.eml", "2025-10-10T07:00:01+02:00", `\Seen`},
			{25, "ferry-cancelled.eml", "2025-10-13T14:02:06+02:00", `\Seen`},
			{26, "ferry-cancelled.eml", "2025-10-13T14:02:06+02:00", ``},
			{30, "raw-8bit.eml", "2025-10-16T09:30:05+02:00", ``},
			{31, "utf8-header.eml", "2025-10-18T11:00:03+02:00", ``},
		}},
		{name: "Drafts", specialUse: `\Drafts`, validity: 1748844902, mails: []sampleMail{
			{41, "draft.eml", "2025-11-09T22:00:00+01:00", `\Draft \Seen`},
		}},
		{name: "Sent", specialUse: `\Sent`, validity: 1748844903, mails: []sampleMail{
			{1, "sent-reply.eml", "2025-06-17T20:15:31+02:00", `\Seen`},
			{2, "sent-uuencode.eml", "2025-09-21T05:58:00+02:00", `\Seen`},
			{5, "sent-with-attachment.eml", "2025-09-30T23:59:00+02:00", `\Seen`},
		}},
		{name: "Junk", specialUse: `\Junk`, validity: 1748844904, mails: []sampleMail{
			{7, "junk.eml", "2025-10-31T23:59:59+01:00", `$Junk`},
		}},
		{name: "Trash", specialUse: `\Trash`, validity: 1748844905, mails: []sampleMail{
			{80, "trash.eml", "2025-05-03T06:00:02+02:00", `\Seen \Deleted`},
		}},
		{name: "Archive", specialUse: `\Archive`, validity: 1748844906},
		{name: "Archive/2009", validity: 1748844907, mails: []sampleMail{
			{1, "archive-2009.eml", "2009-02-13T23:31:31Z", `\Seen`},
		}},
		{name: "Archive/2024", validity: 1748844908, mails: []sampleMail{
			{6, "archive-2024-quoted.eml", "2024-03-05T09:07:12Z", `\Seen`},
		}},
		{name: "Archive/2025", validity: 1748844909, mails: []sampleMail{
			{2, "archive-2025-appledouble.eml", "2025-02-14T10:10:12+01:00", `\Seen`},
			{8, "ferry-cancelled.eml", "2025-10-13T14:02:06+02:00", `\Seen`},
		}},
		{name: "Lists", noSelect: true},
		{name: "Lists/Tides, Gulls", validity: 1748844910, mails: []sampleMail{
			{412, "newsletter-tides.eml", "2025-11-02T05:00:09Z", `\Seen`},
			{413, "newsletter-gulls.eml", "2025-11-08T16:45:01Z", ``},
		}},
		{name: "Projects", noSelect: true},
		{name: "Projects/Skerry Light", validity: 1748844911, mails: []sampleMail{
			{1, "project-plan.eml", "2025-07-07T09:00:03+02:00", `\Seen \Flagged`},
			{2, "project-long-subject.eml", "2025-07-07T09:30:00+02:00", `\Seen`},
		}},
		{name: "Projects/Skerry Light/Charts", validity: 1748844912, mails: []sampleMail{
			{1, generated, "2025-07-08T17:00:00+02:00", `\Seen`},
		}},
		{name: "Später", validity: 1748844913},
		{name: "Resor/Göteborg", validity: 1748844914, mails: []sampleMail{
			{15, "travel-goteborg.eml", "2025-07-22T13:37:04+02:00", `\Seen`},
		}},
		{name: "手紙/灯台", validity: 1748844915, mails: []sampleMail{
			{1, "japanese.eml", "2025-11-05T18:00:02+09:00", `\Seen`},
			{2, "japanese-sjis.eml", "2025-11-07T08:30:03+09:00", ``},
		}},
	}
}

// messages reads the mails of box.
func (box sampleMailbox) messages() ([]*Message, error) {
	var out []*Message
	for _, mail := range box.mails {
		date, err := time.Parse(time.RFC3339, mail.date)
		if err != nil {
			return nil, fmt.Errorf("sample mailbox %q, uid %d: %w", box.name, mail.uid, err)
		}
		octets, err := mail.octets()
		if err != nil {
			return nil, fmt.Errorf("sample mailbox %q, uid %d: %w", box.name, mail.uid, err)
		}
		m := &Message{Mailbox: box.name, UIDValidity: box.validity, UID: mail.uid, InternalDate: date, Octets: octets}
		for _, flag := range bytes.Fields([]byte(mail.flags)) {
			m.Flags = append(m.Flags, string(flag))
		}
		out = append(out, m)
	}
	return out, nil
}

func (m sampleMail) octets() ([]byte, error) {
	if m.file == generated {
		return seaChart(), nil
	}
	return files.ReadFile("mailbox/" + m.file)
}

// seaChart builds a message with an attachment of exactly 2 MiB: depths that
// look like a sea bed, the same in every run.
func seaChart() []byte {
	const size = 2 << 20
	depths := make([]byte, size)
	x := uint32(1934)
	for i := range depths {
		x = x*1664525 + 1013904223 // Numerical Recipes' generator: fixed for ever, unlike math/rand's
		depths[i] = byte(x >> 24)
	}
	var b bytes.Buffer
	b.Grow(size/57*78 + 1024)
	b.WriteString("From: Harbour Master <harbourmaster@skerry.example>\r\n" +
		"To: Ada Brandt <ada@skerry.example>\r\n" +
		"Subject: Sea chart, all depths (2 MB, sorry)\r\n" +
		"Date: Tue, 08 Jul 2025 16:59:58 +0200\r\n" +
		"Message-ID: <chart.all@skerry.example>\r\n" +
		"MIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed; boundary=\"chart\"\r\n\r\n" +
		"--chart\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n" +
		"Print it on good paper. Bertil sat on the last one.\r\n\r\n" +
		"--chart\r\nContent-Type: application/octet-stream; name=\"depths.bin\"\r\n" +
		"Content-Disposition: attachment; filename=\"depths.bin\"\r\n" +
		"Content-Transfer-Encoding: base64\r\n\r\n")
	line := make([]byte, 76)
	for len(depths) > 0 {
		n := min(57, len(depths))
		base64.StdEncoding.Encode(line, depths[:n])
		b.Write(line[:base64.StdEncoding.EncodedLen(n)])
		b.WriteString("\r\n")
		depths = depths[n:]
	}
	b.WriteString("--chart--\r\n")
	return b.Bytes()
}
