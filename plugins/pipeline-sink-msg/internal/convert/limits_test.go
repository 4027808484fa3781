package convert_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/convert"
)

func TestTwoThousandRecipients(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ given, rows int }{{2000, 2000}, {2048, 2048}, {2049, 2048}} {
		t.Run(fmt.Sprint(c.given), func(t *testing.T) {
			t.Parallel()
			var list []string
			for i := range c.given {
				list = append(list, fmt.Sprintf("User %d <u%d@example.net>", i, i))
			}
			mail := "From: a@b.c\r\nTo: " + strings.Join(list, ",\r\n ") + "\r\n\r\nx"
			o := converted(t, mail, convert.Envelope{}, convert.Options{})
			if len(o.Recipients) != c.rows {
				t.Fatalf("%d rows, want %d", len(o.Recipients), c.rows)
			}
			for i, r := range o.Recipients {
				if want := fmt.Sprintf("u%d@example.net", i); r.Text(0x3003) != want {
					t.Fatalf("row %d is %q, want %q", i, r.Text(0x3003), want)
				}
			}
			if got := strings.Count(o.Text(0xE04), ";") + 1; got != c.rows {
				t.Errorf("%d names to display", got)
			}
			// Those past the bound stand in the mail itself.
			if a := attachmentNamed(o, "original.eml"); (a != nil) != (c.given > c.rows) {
				t.Errorf("original attached: %v", a != nil)
			} else if a != nil && string(a.Binary(0x3701)) != mail {
				t.Error("the original isn't the mail")
			}
		})
	}
}

// TestAttachmentsAtTheBound: 2,048 fit; of more, the last is the mail itself,
// which has the rest.
func TestAttachmentsAtTheBound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		given, kept int
		original    bool
	}{{2047, 2047, false}, {2048, 2048, false}, {2049, 2047, true}} {
		t.Run(fmt.Sprint(c.given), func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			b.WriteString(sampleHeader + "Content-Type: multipart/mixed; boundary=b\r\n\r\n")
			for i := range c.given {
				fmt.Fprintf(&b, "--b\r\nContent-Type: application/x-test; name=\"f%d.bin\"\r\n\r\n%d\r\n", i, i)
			}
			b.WriteString("--b--\r\n")
			o := converted(t, b.String(), convert.Envelope{}, convert.Options{})
			want := c.kept
			if c.original {
				want++
			}
			if len(o.Attachments) != want {
				t.Fatalf("%d attachments, want %d", len(o.Attachments), want)
			}
			for i := range c.kept {
				if a := o.Attachments[i]; a.Text(0x3707) != fmt.Sprintf("f%d.bin", i) || string(a.Binary(0x3701)) != fmt.Sprint(i) {
					t.Fatalf("attachment %d is %q with %q", i, a.Text(0x3707), a.Binary(0x3701))
				}
			}
			if a := attachmentNamed(o, "original.eml"); (a != nil) != c.original {
				t.Errorf("original attached: %v, want %v", a != nil, c.original)
			}
		})
	}
}

// nested is a mail in a mail, levels deep, each with a file.
func nested(levels int) string {
	mail := "From: a@b.c\r\nSubject: the innermost\r\n\r\nhere"
	for i := levels; i > 0; i-- {
		mail = fmt.Sprintf("From: a@b.c\r\nSubject: level %d\r\nContent-Type: message/rfc822\r\n\r\n%s", i, mail)
	}
	return mail
}

func TestFortyLevels(t *testing.T) {
	t.Parallel()
	for _, levels := range []int{1, 40, 49, 60, 100, 1000} {
		t.Run(fmt.Sprint(levels), func(t *testing.T) {
			t.Parallel()
			mail := nested(levels)
			root := converted(t, mail, convert.Envelope{}, convert.Options{})
			o, depth := root, 0
			for o.Attachments != nil && o.Attachments[0].Message != nil {
				depth++
				if want := fmt.Sprintf("level %d", depth); o.Text(0x37) != want {
					t.Fatalf("at depth %d the subject is %q", depth, o.Text(0x37))
				}
				o = o.Attachments[0].Message
			}
			if levels <= 49 {
				if depth != levels || o.Text(0x1000) != "here" {
					t.Errorf("depth %d, the innermost text %q", depth, o.Text(0x1000))
				}
				if attachmentNamed(root, "original.eml") != nil {
					t.Error("the original is attached to a mail that is whole")
				}
				return
			}
			// Past the bound the rest is a file, and the mail itself is there.
			if a := attachmentNamed(root, "original.eml"); depth != 49 || a == nil || string(a.Binary(0x3701)) != mail {
				t.Errorf("depth %d, original %v", depth, a != nil)
			}
			if a := o.Attachments[0]; !bytes.Contains(a.Binary(0x3701), []byte("Subject: ")) {
				t.Errorf("the last is %q with %.40q", a.Text(0x3707), a.Binary(0x3701))
			}
		})
	}
}

// TestFortyForwards: as programs forward mails, each level is two of MIME, a
// multipart and a mail in it.
func TestFortyForwards(t *testing.T) {
	t.Parallel()
	mail := "From: a@b.c\r\nSubject: the innermost\r\n\r\nhere"
	for i := 40; i > 0; i-- {
		mail = fmt.Sprintf("From: a@b.c\r\nSubject: level %d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n"+
			"--b%d\r\n\r\nsee below\r\n--b%d\r\nContent-Type: message/rfc822\r\n\r\n%s\r\n--b%d--\r\n", i, i, i, i, mail, i)
	}
	o := converted(t, mail, convert.Envelope{}, convert.Options{})
	for i := 1; i <= 40; i++ {
		if want := fmt.Sprintf("level %d", i); o.Text(0x37) != want || o.Text(0x1000) != "see below" || len(o.Attachments) != 1 || o.Attachments[0].Message == nil {
			t.Fatalf("at level %d: subject %q, text %q, %d attachments", i, o.Text(0x37), o.Text(0x1000), len(o.Attachments))
		}
		o = o.Attachments[0].Message
	}
	if o.Text(0x1000) != "here" {
		t.Errorf("the innermost text is %q", o.Text(0x1000))
	}
}

func TestLongTexts(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("A line of a very long text.\r\n", 200_000)
	t.Run("text", func(t *testing.T) {
		t.Parallel()
		o := converted(t, sampleHeader+"Content-Type: text/plain\r\n\r\n"+long, convert.Envelope{}, convert.Options{})
		if len(o.Attachments) != 1 || o.Attachments[0].Sizes[0x37010102] != int64(len(long)) {
			t.Error("the whole text isn't attached")
		}
		if n := o.Sizes[0x1000001F] / 2; n < 2<<20 || n > 2<<20+100 {
			t.Errorf("%d characters of it are the body", n)
		}
	})
	t.Run("html", func(t *testing.T) {
		t.Parallel()
		o := converted(t, sampleHeader+"Content-Type: text/html\r\n\r\n"+long, convert.Envelope{}, convert.Options{})
		if len(o.Attachments) != 1 || o.Attachments[0].Sizes[0x37010102] != int64(len(long)) || o.Has(0x1013) {
			t.Error("the whole HTML isn't attached")
		}
	})
	t.Run("header", func(t *testing.T) {
		t.Parallel()
		mail := "From: a@b.c\r\n" + strings.Repeat("X-Long: "+strings.Repeat("x", 1000)+"\r\n", 3000) + "\r\ntext"
		o := converted(t, mail, convert.Envelope{}, convert.Options{})
		if a := attachmentNamed(o, "original.eml"); a == nil || a.Sizes[0x37010102] != int64(len(mail)) {
			t.Error("the original isn't attached")
		}
	})
}
