package msg_test

import (
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/test/cost"
)

// TestMIMEIsReadOnce: however many parts of a mail become properties, texts and
// attachments, its MIME is read once, an attached mail with it; only one that
// stands in base64 is first seen when that is decoded.
func TestMIMEIsReadOnce(t *testing.T) {
	multi := func(parts ...string) string {
		return "From: a@b.c\r\nSubject: parts\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + strings.Join(parts, "\r\n--b\r\n") + "\r\n--b--\r\n"
	}
	text := "Content-Type: text/html\r\n\r\n<p>text</p>"
	file := "Content-Type: application/pdf; name=a.pdf\r\n\r\n" + strings.Repeat("0123456789\r\n", 1000)
	for _, tc := range []struct {
		name, mail string
		want       int64
	}{
		{"plain", mail, 1},
		{"text and files", multi(text, file, file), 1},
		{"an attached mail", multi(text, "Content-Type: message/rfc822\r\n\r\n"+multi(text, file)), 1},
		{"an attached mail in base64", multi(text, "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"+
			"RnJvbTogYUBiLmMNClN1YmplY3Q6IGlubmVyDQoNCnRleHQNCg=="), 2},
		{"large", multi(text, "Content-Type: application/pdf; name=a.pdf\r\n\r\n"+strings.Repeat("0123456789abcdef0123456789abcdef\r\n", 1<<16)), 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := open(t, t.TempDir(), nil)
			got := cost.Parses(func() {
				for uid := range uint32(3) {
					m := of(uid+1, message.NewBody(strings.NewReader(tc.mail), int64(len(tc.mail)), nil))
					if _, err := s.Write(t.Context(), m); err != nil {
						t.Fatal(err)
					}
					m.Body.Release()
				}
			})
			if want := 3 * tc.want; got != want {
				t.Errorf("the MIME of 3 mails was read %d times, want %d", got, want)
			}
		})
	}
}
