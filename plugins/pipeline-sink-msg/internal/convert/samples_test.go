package convert_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/convert"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/msgtest"
)

// lines joins lines with CRLF, as mail has them.
func lines(l ...string) string { return strings.Join(l, "\r\n") + "\r\n" }

const sampleHeader = "From: Ann Sender <ann@example.org>\r\nTo: Bob <bob@example.net>\r\nSubject: Sample\r\n" +
	"Date: Thu, 29 Feb 2024 23:59:58 +0530\r\nMessage-ID: <sample@example.org>\r\nMIME-Version: 1.0\r\n"

// random returns n octets that are the same every time.
func random(n int) []byte {
	r, b := rand.NewChaCha8([32]byte{1}), make([]byte, n)
	_, _ = r.Read(b) // it never fails
	return b
}

// wrapped returns base64 in lines of 76.
func wrapped(b []byte) string {
	s := base64.StdEncoding.EncodeToString(b)
	var out strings.Builder
	out.Grow(len(s) + len(s)/38)
	for len(s) > 76 {
		out.WriteString(s[:76] + "\r\n")
		s = s[76:]
	}
	out.WriteString(s + "\r\n")
	return out.String()
}

// ordinary is a mail of about 9 KB as they come: trace fields, a text and the
// same as HTML.
func ordinary() []byte {
	var b bytes.Buffer
	for i := range 4 {
		fmt.Fprintf(&b, "Received: from mx%d.example.org (mx%d.example.org [192.0.2.%d])\r\n\tby in%d.example.net (Postfix) with ESMTPS id 4F3C2D%d\r\n\tfor <bob@example.net>; Thu, 29 Feb 2024 18:30:0%d +0000 (UTC)\r\n", i, i, i, i, i, i)
	}
	b.WriteString("DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=20230601;\r\n\tt=1709231405; x=1709836205; h=to:subject:message-id:date:from:mime-version;\r\n\tb=" + strings.Repeat("Yz9", 80) + "\r\n")
	b.WriteString("X-Mailer: Example Mailer 1.0\r\nX-Spam-Status: No, score=-1.9\r\nList-Unsubscribe: <mailto:leave@example.org>\r\n")
	b.WriteString(sampleHeader)
	b.WriteString("References: <a@example.org> <b@example.org>\r\nContent-Type: multipart/alternative; boundary=\"b1\"\r\n\r\n--b1\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
	for b.Len() < 4400 {
		b.WriteString("A line of text as people write them, with caf=C3=A9 and =E2=82=AC 20 in it.\r\n")
	}
	b.WriteString("\r\n--b1\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<html><body>\r\n")
	for b.Len() < 8900 {
		b.WriteString("<p style=3D\"margin:0\">A line of text, with caf=C3=A9 and &amp; =E2=82=AC 20.</p>\r\n")
	}
	b.WriteString("</body></html>\r\n--b1--\r\n")
	return b.Bytes()
}

// attached is a mail with a text and one attachment of n octets.
func attached(n int) []byte {
	return []byte(sampleHeader + lines("Content-Type: multipart/mixed; boundary=b", "",
		"--b", "Content-Type: text/plain", "", "see the file", "--b",
		"Content-Type: application/octet-stream", "Content-Disposition: attachment; filename=\"data.bin\"",
		"Content-Transfer-Encoding: base64", "") + wrapped(random(n)) + "--b--\r\n")
}

// converted returns the .msg of a mail, read back; breaches of the format are
// errors of the test.
func converted(t *testing.T, mail string, env convert.Envelope, o convert.Options) *msgtest.Object {
	t.Helper()
	msg, err := write(convert.New(o), []byte(mail), env)
	if err != nil {
		t.Fatal(err)
	}
	got, err := msgtest.Read(bytes.NewReader(msg))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(got.Findings, msgtest.Mail(got)...) {
		t.Error(f)
	}
	return got
}

type sample struct{ name, mail string }

// samples are small mails that touch each part of the mapping.
func samples() []sample {
	text := []string{"Content-Type: text/plain; charset=utf-8", "", "hello"}
	mixed := func(parts ...string) string {
		out := sampleHeader + "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
		for _, p := range parts {
			out += "--b\r\n" + p
		}
		return out + "--b--\r\n"
	}
	return []sample{
		{"plain", sampleHeader + lines(text...)},
		{"no header at all", "\r\nonly a body\r\n"},
		{"nothing", ""},
		{"odd people", lines("From: \"Boss\" <boss@example.org>", "Sender: Assistant <asst@example.org>",
			"To: Team: a@example.net, \"B b\" <b@example.net>;", "Cc: undisclosed-recipients:;", "Reply-To: r@example.org, \"R; two\" <r2@example.org>",
			"Disposition-Notification-To: boss@example.org", "Bcc: MAILER-DAEMON <>", "Keywords: alpha, beta", "Importance: high",
			"Sensitivity: Private", "X-One: 1", "X-One: 2", "Subject: RE: =?utf-8?b?xb1sdcWlb3XEjWvDvSDwn5iAIA==?=", "", "text")},
		{"raw 8-bit", "From: Jos\xe9 <jose@example.org>\r\nSubject: caf\xe9\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\ncaf\xe9\r\n"},
		{"html in latin 2", sampleHeader + lines("Content-Type: text/html; charset=iso-8859-2", "Content-Transfer-Encoding: quoted-printable", "",
			"<meta charset=3Diso-8859-2><p>=AElu=BBou=E8k=FD</p>")},
		{"html in an unknown charset", sampleHeader + "Content-Type: text/html; charset=x-none\r\n\r\n<meta charset=\"x-none\"><p>caf\xe9 &amp; <a href=\"http://e.org\">link</a></p>\r\n"},
		{"inline", sampleHeader + lines("Content-Type: multipart/related; boundary=r", "", "--r", "Content-Type: text/html", "",
			"<img src=\"cid:pic@x\"><img src=\"cid:p%40y\"><img src=\"there.png\">", "--r", "Content-Type: image/png; name=pic.png", "Content-ID: <pic@x>", "Content-Transfer-Encoding: base64", "", "AAECAw==",
			"--r", "Content-Type: image/png", "Content-ID: <p@y>", "", "x", "--r", "Content-Type: image/png", "Content-Location: there.png", "", "x",
			"--r", "Content-Type: image/gif", "Content-ID: <not@named>", "", "x", "--r--")},
		{"attachments", mixed(lines(text...),
			lines("Content-Type: application/pdf", "Content-Disposition: attachment; filename*=utf-8''%C3%9Cber%2Fsicht.pdf; creation-date=\"Thu, 29 Feb 2024 12:00:00 +0000\"", "Content-Transfer-Encoding: base64", "", "AAEC"),
			lines("Content-Type: text/plain; charset=utf-8; name=\"a+b [1].tar.gz\"", "", "second text"), lines("Content-Type: application/octet-stream", "", ""))},
		{"mail in mail", mixed(lines(text...), "Content-Type: message/rfc822\r\n\r\n"+sampleHeader+lines("Content-Type: text/html", "", "<b>inner</b>"),
			lines("Content-Type: message/rfc822", "Content-Transfer-Encoding: base64", "", "U3ViamVjdDogeA0KDQp5"), lines("Content-Type: message/rfc822", "", ""))},
		{"delivery report", sampleHeader + lines("Content-Type: multipart/report; report-type=delivery-status; boundary=b", "", "--b", "Content-Type: text/plain", "", "It failed.",
			"--b", "Content-Type: message/delivery-status", "", "Reporting-MTA: dns; mx.example.net", "", "Final-Recipient: rfc822; nobody@example.net", "Action: failed", "Status: 5.1.1",
			"Diagnostic-Code: smtp; 550 5.1.1 a text that is longer than the seventy-eight columns that a line should have", "", "--b", "Content-Type: message/rfc822", "", "Subject: original", "", "x", "--b--")},
		{"read report", sampleHeader + lines("Content-Type: multipart/report; report-type=disposition-notification; boundary=b", "", "--b", "", "read",
			"--b", "Content-Type: message/disposition-notification", "", "Disposition: manual-action/MDN-sent-manually; deleted", "", "--b--")},
		{"clear-signed", sampleHeader + lines("Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\";", "\tboundary=s", "", "--s", "Content-Type: text/plain", "", "signed",
			"--s", "Content-Type: application/pkcs7-signature; name=smime.p7s", "Content-Transfer-Encoding: base64", "", "ZmFrZQ==", "--s--")},
		{"enveloped", sampleHeader + lines("Content-Type: application/pkcs7-mime; name=smime.p7m", "Content-Transfer-Encoding: base64", "", "ZmFrZQ==")},
		{"invitation", sampleHeader + lines("Content-Type: multipart/alternative; boundary=b", "", "--b", "Content-Type: text/plain", "", "Please join",
			"--b", "Content-Type: text/calendar; method=REQUEST", "", "BEGIN:VCALENDAR", "END:VCALENDAR", "--b--")},
		{"winmail.dat", mixed(lines("Content-Type: application/ms-tnef; name=winmail.dat", "Content-Transfer-Encoding: base64", "", wrapped(winmail())))},
		{"corrupt winmail.dat", mixed(lines("Content-Type: application/ms-tnef; name=winmail.dat", "Content-Transfer-Encoding: base64", "", wrapped(winmail()[:60])))},
		{"multipart without parts", sampleHeader + lines("Content-Type: multipart/mixed", "", "what is here?")},
		{"empty text beside html", sampleHeader + lines("Content-Type: multipart/alternative; boundary=b", "", "--b", "Content-Type: text/plain", "", "", "--b", "Content-Type: text/html", "", "<p>x", "--b--")},
	}
}

// winmail is a TNEF stream with a text, one file, and a message with another.
func winmail() []byte { return stream(stream(nil)) }

// stream is a TNEF stream with a text, a file, and a message in it, if any.
func stream(within []byte) []byte {
	var b bytes.Buffer
	le := func(v uint32, n int) {
		for range n {
			b.WriteByte(byte(v))
			v >>= 8
		}
	}
	attribute := func(level byte, id uint32, data string) {
		b.WriteByte(level)
		le(id, 4)
		le(uint32(len(data)), 4)
		b.WriteString(data)
		sum := uint32(0)
		for i := range len(data) {
			sum += uint32(data[i])
		}
		le(sum, 2)
	}
	le(0x223E9F78, 4)
	le(1, 2)
	attribute(1, 0x0002800C, "the text in the file\x00")
	attribute(2, 0x00069002, "\x01\x00\x00\x00")
	attribute(2, 0x00018010, "caf\xe9.txt\x00")
	attribute(2, 0x0006800F, "the octets")
	attribute(1, 0x00018004, "in the file\x00")
	attribute(1, 0x00008000, "\x04\x00\x00\x00\x04\x00\x0f\x00Ann\x00SMTP:ann@e.org\x00\x00")
	if within != nil {
		attribute(2, 0x00069002, "\x01\x00\x00\x00")
		value := string(make([]byte, 16)) + string(within)
		head := "\x01\x00\x00\x00" + "\x0d\x00\x01\x37" + "\x01\x00\x00\x00"
		size := []byte{byte(len(value)), byte(len(value) >> 8), 0, 0}
		attribute(2, 0x00069005, head+string(size)+value)
	}
	return b.Bytes()
}
