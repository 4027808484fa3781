package attachments_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/stages/attachments"
	"github.com/mailhaul/pipeline/pkg/attachment"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// stone is what stands in the place of an attachment.
func stone(br, name, mediaType, octets string) string {
	return strings.ReplaceAll(fmt.Sprintf("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\nContent-Disposition: inline\n\n"+
		"An attachment was taken out of this message.\nName: %s\nType: %s\nSize: %d octets\nSHA-256: %x", name, mediaType, len(octets), sha256.Sum256([]byte(octets))), "\n", br)
}

func strip(t *testing.T, filter, mail string) (string, bool) {
	t.Helper()
	var c attachments.Config
	if err := json.Unmarshal([]byte(filter), &c); err != nil {
		t.Fatal(err)
	}
	body := message.BodyOf([]byte(mail))
	whole, err := body.Whole(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, size, changed, err := attachments.Strip(t.Context(), c.Strip, whole)
	if err != nil {
		t.Fatal(err)
	}
	if !changed {
		return mail, false
	}
	got, err := io.ReadAll(r)
	if err != nil || int64(len(got)) != size {
		t.Errorf("%d octets, %d were announced: %v", len(got), size, err)
	}
	return string(got), true
}

func TestStrip(t *testing.T) {
	t.Parallel()
	pdf := "--b\r\nContent-Type: application/pdf; name=\"a b.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nSGVsbG8s\r\nIHdvcmxk\r\n"
	logo := "--b\r\nContent-Type: image/png\r\nContent-ID: <logo>\r\n\r\nPNG\r\n"
	mixed := func(parts ...string) string {
		return "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\n\r\ntext\r\n" + strings.Join(parts, "") + "--b--\r\nepilogue\r\n"
	}
	gone := "--b\r\n" + stone("\r\n", "a b.pdf", "application/pdf", "Hello, world") + "\r\n"
	related := "Content-Type: multipart/related; boundary=b\n\n--b\nContent-Type: text/html\n\n<img>\n--b\nContent-Type: image/png\nContent-ID: <logo>\n\nPNG\n--b--\n"
	signed := "Content-Type: multipart/signed; boundary=b; protocol=\"application/pgp-signature\"\r\n\r\n" + pdf + "--b\r\nContent-Type: application/pgp-signature; name=s.asc\r\n\r\nsignature\r\n--b--\r\n"
	tests := []struct {
		name, filter, mail, want string
	}{
		{"all", `"strip"`, mixed(pdf), mixed(gone)},
		{"two", `"strip"`, mixed(pdf, pdf), mixed(gone, gone)},
		{"none there", `"strip"`, mixed(), ""},
		{"by media type", `{"strip":{"media_types":["image/*"]}}`, mixed(pdf), ""},
		{"by name", `{"strip":{"names":["*.PDF"]}}`, mixed(pdf), mixed(gone)},
		{"by size: too small", `{"strip":{"min_size":13}}`, mixed(pdf), ""},
		{"by size: large enough", `{"strip":{"min_size":12,"max_size":"1KB"}}`, mixed(pdf), mixed(gone)},
		{"what is shown in the text stays", `"strip"`, related, ""},
		{"unless it is asked for", `{"strip":{"inline":true}}`, related, strings.Replace(related, "Content-Type: image/png\nContent-ID: <logo>\n\nPNG", stone("\n", "(no name)", "image/png", "PNG"), 1)},
		{"an image beside the text is an attachment", `"strip"`, mixed(logo), mixed("--b\r\n" + stone("\r\n", "(no name)", "image/png", "PNG") + "\r\n")},
		{"what is signed stays whole", `"strip"`, signed, ""},
		{"encrypted by S/MIME", `"strip"`, "Content-Type: application/pkcs7-mime; name=smime.p7m\r\n\r\nxyz\r\n", ""},
		{"the message is the attachment", `"strip"`, "Subject: x\r\nContent-Type: application/pdf;\r\n name=a.pdf\r\nX-Y: z\r\ncontent-transfer-encoding: 7bit\r\n\r\nPDF",
			"Subject: x\r\nX-Y: z\r\n" + stone("\r\n", "a.pdf", "application/pdf", "PDF") + "\r\n"},
		{"an attached message goes whole", `"strip"`, mixed("--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ntext\r\n"),
			mixed("--b\r\n" + stone("\r\n", "(no name)", "message/rfc822", "Subject: inner\r\n\r\ntext") + "\r\n")},
		{"a name can't be a boundary", `"strip"`, mixed("--b\r\nContent-Type: image/png; name=\"=?utf-8?q?x=0D=0A--b?=\"\r\n\r\nPNG\r\n"),
			mixed("--b\r\n" + stone("\r\n", "x--b", "image/png", "PNG") + "\r\n")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := tt.want
			if want == "" {
				want = tt.mail
			}
			got, changed := strip(t, tt.filter, tt.mail)
			if diff := cmp.Diff(want, got); diff != "" || changed != (tt.want != "") {
				t.Errorf("changed %v: %s", changed, diff)
			}
			// What was taken out is no attachment any more.
			if again, changed := strip(t, tt.filter, got); changed {
				t.Errorf("a second time: %q", again)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{`"stripp"`, `1`, `{}`, `{"strip":{"size":1}}`, `{"strip":{"media_types":["pdf"]}}`, `{"strip":{"names":["["]}}`, `{"strip":{"min_size":2,"max_size":1}}`} {
		var c attachments.Config
		if err := json.Unmarshal([]byte(raw), &c); !fault.Is(err, fault.Config) {
			t.Errorf("%s: %v", raw, err)
		}
	}
	f := attachment.Filter{Names: []string{"*"}}
	if !f.Match(&message.Part{Name: "a/b.txt"}) {
		t.Error("* doesn't match a name with a slash in it")
	}
}

// FuzzStrip: whatever a message is, all that is stripped can be read again,
// and what was stripped isn't stripped twice.
func FuzzStrip(f *testing.F) {
	f.Add("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: a/b\r\n\r\nx\r\n--b--")
	f.Add("Content-Type: a/b\n\nx")
	f.Add("Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: x\n\ny\n--b\n")
	f.Fuzz(func(t *testing.T, mail string) {
		got, _ := strip(t, `{"strip":{"inline":true}}`, mail)
		if _, _, err := message.ReadStructure(strings.NewReader(got)); err != nil {
			t.Error(err)
		}
	})
}
