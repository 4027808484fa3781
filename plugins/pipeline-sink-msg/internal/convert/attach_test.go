package convert_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/convert"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/msgtest"
)

func TestAttachments(t *testing.T) {
	t.Parallel()
	o := converted(t, named(t, "attachments"), convert.Envelope{}, convert.Options{})
	want := []struct{ long, short, ext, mime, data string }{
		{"Übersicht.pdf", "bersic~1.pdf", ".pdf", "application/pdf", "\x00\x01\x02"},
		{"a+b [1].tar.gz", "a_b_1_~1.gz", ".gz", "text/plain", "second text"},
		{"ATT00003.bin", "ATT00003.bin", ".bin", "application/octet-stream", ""},
	}
	if len(o.Attachments) != len(want) {
		t.Fatalf("%d attachments", len(o.Attachments))
	}
	for i, w := range want {
		a := o.Attachments[i]
		if a.Text(0x3707) != w.long || a.Text(0x3704) != w.short || a.Text(0x3703) != w.ext || a.Text(0x370E) != w.mime || string(a.Binary(0x3701)) != w.data {
			t.Errorf("%d: %q %q %q %q %q", i, a.Text(0x3707), a.Text(0x3704), a.Text(0x3703), a.Text(0x370E), a.Binary(0x3701))
		}
		if a.Bool(0x7FFE) || int(a.Int(0xE20)) != len(w.data) || a.Int(0x370B) != -1 {
			t.Errorf("%d: hidden %v, size %d, position %d", i, a.Bool(0x7FFE), a.Int(0xE20), a.Int(0x370B))
		}
	}
	if got := o.Attachments[0].Time(0x3007); !got.Equal(time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("made at %v", got)
	}
	if !o.Bool(0xE1B) || o.Int(0xE07)&0x10 == 0 {
		t.Error("the message doesn't say that it has attachments")
	}
}

// TestInline: only what the HTML names is hidden, and all hidden means that
// there is no paper clip.
func TestInline(t *testing.T) {
	t.Parallel()
	o := converted(t, named(t, "inline"), convert.Envelope{}, convert.Options{})
	want := []struct {
		id, location string
		hidden       bool
	}{{"pic@x", "", true}, {"p%40y", "", true}, {"", "there.png", true}, {"not@named", "", false}}
	for i, w := range want {
		a := o.Attachments[i]
		if a.Text(0x3712) != w.id || a.Text(0x3713) != w.location || a.Bool(0x7FFE) != w.hidden || (a.Int(0x3714) == 4) != w.hidden {
			t.Errorf("%d: id %q, location %q, hidden %v, flags %d", i, a.Text(0x3712), a.Text(0x3713), a.Bool(0x7FFE), a.Int(0x3714))
		}
	}
	only := strings.Replace(named(t, "inline"), "Content-ID: <not@named>", "Content-ID: <pic@x>", 1)
	if o := converted(t, only, convert.Envelope{}, convert.Options{}); o.Bool(0xE1B) || o.Int(0xE07)&0x10 != 0 {
		t.Error("a paper clip for what the text shows")
	}
}

func TestMailInMail(t *testing.T) {
	t.Parallel()
	o := converted(t, named(t, "mail in mail"), convert.Envelope{}, convert.Options{})
	if len(o.Attachments) != 3 {
		t.Fatalf("%d attachments", len(o.Attachments))
	}
	inner := o.Attachments[0].Message
	if inner == nil || inner.Text(0x37) != "Sample" || string(inner.Binary(0x1013)) != "<b>inner</b>" || inner.Text(0x1000) != "inner\r\n" {
		t.Error("the first mail isn't whole")
	}
	if m := o.Attachments[1].Message; m == nil || m.Text(0x37) != "x" || m.Text(0x1000) != "y" {
		t.Error("a mail in base64 isn't opened")
	}
}

// TestMailInUTF8: a mail with UTF-8 in its header is one all the same
// (RFC 6532).
func TestMailInUTF8(t *testing.T) {
	t.Parallel()
	o := converted(t, sampleHeader+lines("Content-Type: message/global", "", "From: Jörg <jörg@bücher.example>", "Subject: Grüße", "", "hallo"), convert.Envelope{}, convert.Options{})
	if len(o.Attachments) != 1 || o.Attachments[0].Message == nil {
		t.Fatal("it isn't a message within the message")
	}
	if m := o.Attachments[0].Message; m.Text(0x37) != "Grüße" || m.Text(0x65) != "jörg@bücher.example" || m.Text(0x1000) != "hallo\r\n" {
		t.Errorf("subject %q, from %q, text %q", m.Text(0x37), m.Text(0x65), m.Text(0x1000))
	}
}

// TestEnveloped: what is encrypted, or signed and opaque, is the one attachment
// with the octets of its CMS, and there is no text (MS-OXOSMIME §2.1.2).
func TestEnveloped(t *testing.T) {
	t.Parallel()
	for name, mail := range map[string]string{
		"named":   named(t, "enveloped"),
		"unnamed": strings.Replace(named(t, "enveloped"), "; name=smime.p7m", "; smime-type=signed-data", 1),
		"old":     strings.Replace(named(t, "enveloped"), "application/pkcs7-mime; name=smime.p7m", "application/x-pkcs7-mime", 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := converted(t, mail, convert.Envelope{}, convert.Options{})
			if len(o.Attachments) != 1 || o.Has(0x1000) || o.Has(0x1013) || o.Text(0x1A) != "IPM.Note.SMIME" {
				t.Fatalf("%d attachments, class %s, text %v", len(o.Attachments), o.Text(0x1A), o.Has(0x1000))
			}
			a := o.Attachments[0]
			if a.Text(0x3707) != "smime.p7m" || !strings.HasSuffix(a.Text(0x370E), "pkcs7-mime") || string(a.Binary(0x3701)) != "fake" || a.Bool(0x7FFE) {
				t.Errorf("%s, %s: %q", a.Text(0x3707), a.Text(0x370E), a.Binary(0x3701))
			}
		})
	}
}

// TestOtherSignatures: a signature that isn't S/MIME is an attachment of its
// own, so that its program finds it, and the text is the text.
func TestOtherSignatures(t *testing.T) {
	t.Parallel()
	mail := strings.NewReplacer("application/pkcs7-signature", "application/pgp-signature", "smime.p7s", "signature.asc").Replace(named(t, "clear-signed"))
	o := converted(t, mail, convert.Envelope{}, convert.Options{})
	if len(o.Attachments) != 1 || o.Attachments[0].Text(0x370E) != "application/pgp-signature" || string(o.Attachments[0].Binary(0x3701)) != "fake" || o.Text(0x1000) != "signed" {
		t.Errorf("%d attachments, text %q", len(o.Attachments), o.Text(0x1000))
	}
}

// TestInvitation: a calendar part is a file that Outlook opens; the message is
// no meeting, since it would need all that a meeting is made of (MSG checklist
// E8).
func TestInvitation(t *testing.T) {
	t.Parallel()
	o := converted(t, named(t, "invitation"), convert.Envelope{}, convert.Options{})
	if len(o.Attachments) != 1 || o.Text(0x1A) != "IPM.Note" || o.Text(0x1000) != "Please join" {
		t.Fatalf("%d attachments, class %s, text %q", len(o.Attachments), o.Text(0x1A), o.Text(0x1000))
	}
	a := o.Attachments[0]
	if a.Text(0x3707) != "invite.ics" || a.Text(0x370E) != "text/calendar" || string(a.Binary(0x3701)) != "BEGIN:VCALENDAR\r\nEND:VCALENDAR" {
		t.Errorf("%s, %s: %q", a.Text(0x3707), a.Text(0x370E), a.Binary(0x3701))
	}
}

func TestClearSigned(t *testing.T) {
	t.Parallel()
	mail := named(t, "clear-signed")
	o := converted(t, mail, convert.Envelope{}, convert.Options{})
	if len(o.Attachments) != 1 {
		t.Fatalf("%d attachments", len(o.Attachments))
	}
	a := o.Attachments[0]
	_, entity, _ := strings.Cut(mail, "Content-Type: multipart/signed")
	want := "Content-Type: multipart/signed" + entity
	if got := string(a.Binary(0x3701)); got != want || a.Text(0x3707) != "smime.p7m" || a.Text(0x370E) != "multipart/signed" {
		t.Errorf("%s, %s: %q, want %q", a.Text(0x3707), a.Text(0x370E), got, want)
	}
	if o.Text(0x1000) != "signed" {
		t.Errorf("text %q", o.Text(0x1000))
	}
}

func TestWinmail(t *testing.T) {
	t.Parallel()
	o := converted(t, named(t, "winmail.dat"), convert.Envelope{}, convert.Options{})
	if len(o.Attachments) != 2 || o.Attachments[0].Text(0x3707) != "café.txt" || string(o.Attachments[0].Binary(0x3701)) != "the octets" {
		t.Fatal("the file in it isn't an attachment")
	}
	inner := o.Attachments[1].Message
	if inner == nil || inner.Text(0x37) != "in the file" || inner.Text(0x42) != "Ann" || inner.Text(0x65) != "ann@e.org" || inner.Text(0x1000) != "the text in the file" || inner.Has(0x7D) {
		t.Fatal("the message in it isn't one")
	}
	if len(inner.Attachments) != 1 || string(inner.Attachments[0].Binary(0x3701)) != "the octets" {
		t.Error("the file of the message in it isn't an attachment")
	}
	if o.Text(0x37) != "Sample" || o.Text(0x65) != "ann@example.org" || !o.Time(0x39).Equal(time.Date(2024, 2, 29, 18, 29, 58, 0, time.UTC)) {
		t.Errorf("subject %q, from %q, sent %v: the fields of the mail itself count", o.Text(0x37), o.Text(0x65), o.Time(0x39))
	}
	if o.Text(0x1000) != "the text in the file" {
		t.Errorf("text %q", o.Text(0x1000))
	}
	o = converted(t, named(t, "corrupt winmail.dat"), convert.Envelope{}, convert.Options{})
	if len(o.Attachments) != 1 || o.Attachments[0].Text(0x370E) != "application/octet-stream" || string(o.Attachments[0].Binary(0x3701)) != string(winmail()[:60]) {
		t.Error("a corrupt one isn't kept as it is")
	}
}

// TestFieldParts: parts that are fields are written in one form, whatever wrote
// them; only white space changes, and what is no field stays.
func TestFieldParts(t *testing.T) {
	t.Parallel()
	long := "X-Long: smtp; 550 5.1.1 a text that is longer than the seventy-eight columns of a line; it is folded"
	for _, tc := range []struct{ name, mediaType, in, want string }{
		{"groups stand apart", "message/delivery-status", "Reporting-MTA: dns; mx\r\n\r\nAction: failed\r\n", "Reporting-MTA: dns; mx\n\n\nAction: failed\n\n"},
		{"a long field is folded", "message/delivery-status", long + "\r\n", "X-Long: smtp;\n 550 5.1.1 a text that is longer than the seventy-eight columns of a line;\n it is folded\n\n"},
		{"a blank at the end stays", "message/delivery-status", "Diagnostic-Code: smtp; \r\n", "Diagnostic-Code: smtp; \n\n"},
		{"what isn't ASCII isn't folded", "message/delivery-status", "X-Name: " + strings.Repeat("é ", 50) + "\r\n", "X-Name: " + strings.Repeat("é ", 50) + "\n\n"},
		{"one group", "message/feedback-report", "Feedback-Type: abuse\r\nVersion: 1\r\n", "Feedback-Type: abuse\nVersion: 1\n\n"},
		{"one group, an empty line behind it", "message/feedback-report", "Version: 1\r\n\r\n", "Version: 1\n\n"},
		{"one group, and a text that stays", "message/disposition-notification", "Disposition: x\r\n\r\nDisposition:  y\r\n", "Disposition: x\n\nDisposition:  y\n"},
		{"a reference", "message/external-body", "Content-ID: <a@b>\r\n\r\n", "Content-ID: <a@b>\n\n"},
		{"a fragment is no field", "message/partial", "a: b\r\n\r\n\r\nc", "a: b\r\n\r\n\r\nc"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			mail := sampleHeader + "Content-Type: " + tc.mediaType + "\r\n\r\n" + tc.in
			o := converted(t, mail, convert.Envelope{}, convert.Options{})
			if got := string(o.Attachments[0].Binary(0x3701)); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// TestLongNames: a name loses what Windows doesn't take, and nothing else.
func TestLongNames(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`what?.txt`: "what.txt", `a*b.txt`: "ab.txt", `../../etc/passwd`: "....etcpasswd", `C:\\TEMP\\x.png`: "CTEMPx.png",
		`<i>"x|y":z`: "ixyz", "tab\there": "tabhere",
	} {
		mail := sampleHeader + "Content-Type: application/pdf\r\nContent-Disposition: attachment; filename*=utf-8''" + url.PathEscape(strings.ReplaceAll(in, `\\`, `\`)) + "\r\n\r\nx"
		o := converted(t, mail, convert.Envelope{}, convert.Options{})
		if got := o.Attachments[0].Text(0x3707); got != want {
			t.Errorf("%q is called %q, want %q", in, got, want)
		}
	}
}

// attachmentNamed returns the attachment of the name, nil when there is none.
func attachmentNamed(o *msgtest.Object, name string) *msgtest.Object {
	for _, a := range o.Attachments {
		if a.Text(0x3707) == name {
			return a
		}
	}
	return nil
}
