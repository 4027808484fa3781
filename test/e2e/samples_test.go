package e2e

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// samples are mails with what a reader should find in them. Each has a trap.
func samples(t *testing.T) []mail {
	t.Helper()
	var out []mail
	add := func(name, subject, id, unsubscribe string, attachments []string, lines ...string) {
		m := mail{raw: []byte(strings.Join(lines, "\r\n"))}
		m.File, m.ParseOK = name, true
		for _, f := range []struct {
			to    **string
			value string
		}{{&m.Subject, subject}, {&m.MessageID, id}, {&m.ListUnsubscribe, unsubscribe}} {
			if f.value != "" {
				*f.to = &f.value
			}
		}
		for _, a := range attachments {
			m.Attachments = append(m.Attachments, struct{ Name *string }{&a})
		}
		out = append(out, m)
	}
	b64 := base64.StdEncoding.EncodeToString
	part := func(head, body string) string { return "--b\r\n" + head + "\r\n\r\n" + body }

	add("plain", "plain", "<1@x.test>", "", nil, "From: a@x.test", "Subject: plain", "Message-ID: <1@x.test>", "", "hello", "")
	add("no body", "headers only", "", "", nil, "Subject: headers only", "", "")
	add("no header", "", "", "", nil, "", "all of this is body", "")
	add("no line end at the end", "cut", "", "", nil, "Subject: cut", "", "no line end")
	add("dots and From", "dots", "", "", nil, "Subject: dots", "", ".", "..", "From here on", ">From there", "")
	add("long line", "long", "", "", nil, "Subject: long", "", strings.Repeat("0123456789", 20_000), "")
	add("encoded words", "Übung macht müde", "", "", nil, "Subject: =?utf-8?q?=C3=9Cbung_macht?=", " =?utf-8?b?"+b64([]byte(" müde"))+"?=", "", "x", "")
	add("latin 1 word", "déjà vu", "", "", nil, "Subject: =?iso-8859-1?q?d=E9j=E0_vu?=", "", "x", "")
	add("raw UTF-8", "grüße 日本", "", "", nil, "Subject: grüße 日本", "Content-Type: text/plain; charset=utf-8", "", "ä", "")
	add("folded id", "folded id", "<long-2@x.test>", "", nil, "Subject: folded id", "Message-ID:", " <long-2@x.test>", "", "x", "")
	add("newsletter", "news", "<3@x.test>", "<mailto:out@x.test>, <https://x.test/out?u=1>", nil,
		"Subject: news", "Message-ID: <3@x.test>", "List-Unsubscribe: <mailto:out@x.test>,", "\t<https://x.test/out?u=1>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click", "", "x", "")
	add("garbage in the header", "garbage", "", "", nil, "From: a@x.test", "this is no field", "Subject: garbage", "", "x", "")
	add("8-bit octets", "octets", "", "", nil, "Subject: octets", "", "\x80\xff\xfe", "")

	multipart := func(subject string) []string {
		return []string{"Subject: " + subject, "MIME-Version: 1.0", `Content-Type: multipart/mixed; boundary="b"`, ""}
	}
	add("attachment", "one attachment", "", "", []string{"note.pdf"}, append(multipart("one attachment"),
		part("Content-Type: text/plain", "see it"),
		part("Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"note.pdf\"\r\nContent-Transfer-Encoding: base64", b64([]byte("%PDF"))), "--b--", "")...)
	add("RFC 2231 name", "name in pieces", "", "", []string{"Grüße an alle.txt"}, append(multipart("name in pieces"),
		part("Content-Type: text/plain\r\nContent-Disposition: attachment;\r\n filename*0*=utf-8''Gr%C3%BC%C3%9Fe;\r\n filename*1=\" an alle.txt\"", "x"), "--b--", "")...)
	add("encoded word name", "name as a word", "", "", []string{"résumé.doc"}, append(multipart("name as a word"),
		part("Content-Type: application/msword; name=\"=?iso-8859-1?q?r=E9sum=E9.doc?=\"\r\nContent-Transfer-Encoding: base64", b64([]byte("doc"))), "--b--", "")...)
	add("name with a path", "evil name", "", "", []string{"../../etc/passwd"}, append(multipart("evil name"),
		part("Content-Type: text/plain\r\nContent-Disposition: attachment; filename=\"../../etc/passwd\"", "x"), "--b--", "")...)
	add("no closing boundary", "unclosed", "", "", []string{"a.bin"}, append(multipart("unclosed"),
		part("Content-Type: application/octet-stream; name=a.bin", "x"), "")...)
	add("subject with slashes", `a/b\c:d?e* <|> ..`, "", "", nil, `Subject: a/b\c:d?e* <|> ..`, "", "x", "")
	add("large body", "300 KB", "", "", nil, "Subject: 300 KB", "", strings.Repeat("a line of the large body, and nothing else\r\n", 7000))
	for i := range 20 {
		add(fmt.Sprint("twin ", i), "twins", "<twin@x.test>", "", nil, "Subject: twins", "Message-ID: <twin@x.test>", "", "the same octets", "")
	}
	return out
}
