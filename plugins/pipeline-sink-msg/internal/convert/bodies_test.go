package convert_test

import (
	"testing"

	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/convert"
)

func TestBodies(t *testing.T) {
	t.Parallel()
	html := func(charset, body string) string {
		return "From: a@b.c\r\nContent-Type: text/html; charset=" + charset + "\r\n\r\n" + body
	}
	cases := []struct {
		name, mail, text, html string
		codepage               int32
		utf8                   bool
	}{
		{"text", "From: a@b.c\r\nContent-Type: text/plain; charset=utf-8\r\n\r\na\nb\r\nž", "a\r\nb\r\nž", "", 65001, false},
		{"text in latin 1", "From: a@b.c\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\ncaf\xe9", "café", "", 28591, false},
		{"html in its own octets", html("iso-8859-2", "<p>\xbelu</p>"), "žlu\r\n", "<p>\xbelu</p>", 28592, false},
		{"html in UTF-8 when asked", html("iso-8859-2", "<meta charset=iso-8859-2><p>\xbelu</p>"), "žlu\r\n", "<meta charset=utf-8><p>žlu</p>", 65001, true},
		{"html in a charset nobody knows", html("x-none", "<meta charset=x-none><p>caf\xe9</p>"), "café\r\n", "<meta charset=x-none><p>caf\xe9</p>", 1252, false},
		{"html that isn't what it says", html("utf-8", "<p>\xc3\xa9\xc3\xa9\xff</p>"), "éé\ufffd\r\n", "<p>éé\ufffd</p>", 65001, false},
		{"html with a hole of its code page", html("windows-1252", "<p>\x81</p>"), "\ufffd\r\n", "<p>\ufffd</p>", 65001, false},
		{"html in a code page that few know", html("iso-8859-7", "<meta charset='iso-8859-7'><p>\xe1</p>"), "α\r\n", "<meta charset='utf-8'><p>α</p>", 65001, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := converted(t, c.mail, convert.Envelope{}, convert.Options{UTF8: c.utf8})
			if o.Text(0x1000) != c.text || string(o.Binary(0x1013)) != c.html || o.Int(0x3FDE) != c.codepage {
				t.Errorf("text %q, html %q, code page %d", o.Text(0x1000), o.Binary(0x1013), o.Int(0x3FDE))
			}
			native := int32(1)
			if c.html != "" {
				native = 3
			}
			if o.Int(0x1016) != native || o.Bool(0xE1F) {
				t.Errorf("native body %d, RTF in sync %v", o.Int(0x1016), o.Bool(0xE1F))
			}
		})
	}
}

func TestTextOfHTML(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, html, want string }{
		{"blanks", "<p>a\r\n  b&nbsp;c</p>", "a b c"},
		{"paragraphs", "<p>a</p><p>b</p>c<br>d", "a\r\n\r\nb\r\n\r\nc\r\nd"},
		{"hidden", "<head><title>t</title><style>x{}</style></head>a<script>y</script>", "a"},
		{"list", "<ul><li>a<li>b</ul>", "* a\r\n* b"},
		{"table", "<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\r\nc"},
		{"link", "<a href='http://x.org'>text</a> and <a href=http://y.org>http://y.org</a>", "text <http://x.org> and http://y.org"},
		{"pre", "<pre>a\n  b</pre>", "a\r\n  b"},
		{"entities", "&lt;&#382;&euro;&gt;", "<ž€>"},
		{"unclosed", "<p>a<b", "a"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := converted(t, "From: a@b.c\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"+c.html, convert.Envelope{}, convert.Options{})
			if got := o.Text(0x1000); got != c.want+"\r\n" {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
