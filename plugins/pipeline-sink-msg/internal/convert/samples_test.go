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
	for _, f := range got.Findings {
		t.Error(f)
	}
	return got
}
