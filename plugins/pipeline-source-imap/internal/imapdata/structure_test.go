package imapdata

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
)

// outline writes a structure in one line a part.
func outline(p *message.Part) string {
	var b strings.Builder
	p.Walk(func(p *message.Part) bool {
		fmt.Fprintf(&b, "%s|%s|%s|%s|%d\n", p.Path, p.MediaType, p.Name, p.Disposition, p.EncodedSize)
		return true
	})
	return b.String()
}

func TestStructure(t *testing.T) {
	t.Parallel()
	const plain = `("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "7BIT" 12 1 NIL NIL NIL NIL)`
	for _, tt := range []struct {
		name, raw, want string
	}{
		{"a plain text", plain, "1|text/plain|||12\n"},
		{"without extension data", `("TEXT" "PLAIN" NIL NIL NIL "7BIT" 12 1)`, "1|text/plain|||12\n"},
		{"text without lines", `("TEXT" "PLAIN" NIL NIL NIL "7BIT" 12)`, "1|text/plain|||12\n"},
		{"a multipart", `(` + plain + `("APPLICATION" "PDF" ("NAME" "a.pdf") NIL NIL "BASE64" 100 NIL ("ATTACHMENT" ("FILENAME" "b.pdf")) NIL NIL) "MIXED" ("BOUNDARY" "x") NIL NIL NIL)`,
			"|multipart/mixed|||-1\n1|text/plain|||12\n2|application/pdf|b.pdf|attachment|100\n"},
		{"nested multiparts", `((` + plain + plain + ` "ALTERNATIVE")` + plain + ` "MIXED")`,
			"|multipart/mixed|||-1\n1|multipart/alternative|||-1\n1.1|text/plain|||12\n1.2|text/plain|||12\n2|text/plain|||12\n"},
		{"an attached message", `(` + plain + `("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 500 (NIL "sub" NIL NIL NIL NIL NIL NIL NIL "<id>") (` + plain + plain + ` "MIXED") 20 NIL ("attachment" NIL)) "MIXED")`,
			"|multipart/mixed|||-1\n1|text/plain|||12\n2|message/rfc822||attachment|500\n2.TEXT|multipart/mixed|||-1\n2.1|text/plain|||12\n2.2|text/plain|||12\n"},
		{"an attached message with NIL for its envelope", `("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 500 NIL ` + plain + ` 20)`,
			"1|message/rfc822|||500\n1.1|text/plain|||12\n"},
		{"an attached message without its structure", `("MESSAGE" "RFC822" ("NAME" "m.eml") NIL NIL "7BIT" 500 NIL ("attachment" ("FILENAME" "n.eml")))`,
			"1|message/rfc822|n.eml|attachment|500\n"},
		{"a word for the disposition", `("IMAGE" "PNG" NIL NIL NIL "BASE64" 9 NIL "attachment" NIL NIL)`, "1|image/png||attachment|9\n"},
		{"a disposition with NIL parameters, MD5 left out", `("IMAGE" "PNG" NIL NIL NIL "BASE64" 9 ("inline" NIL) NIL NIL)`, "1|image/png||inline|9\n"},
		{"an empty multipart with NIL", `(NIL "MIXED" ("BOUNDARY" "x") NIL NIL NIL)`, "|multipart/mixed|||-1\n"},
		{"an empty multipart with an empty list", `(() "MIXED" ("BOUNDARY" "x") NIL NIL NIL)`, "|multipart/mixed|||-1\n"},
		{"an empty multipart with its subtype alone", `("ALTERNATIVE" ("BOUNDARY" "x") NIL NIL NIL)`, "|multipart/alternative|||-1\n"},
		{"lower case nil", `("text" "html" nil nil nil nil nil nil nil nil nil nil)`, "1|text/html|||-1\n"},
		{"a parameter that is NIL", `("TEXT" "PLAIN" ("CHARSET" NIL "NAME" "x.txt") NIL NIL "7BIT" 12 1)`, "1|text/plain|x.txt||12\n"},
		{"a parameter without a value", `("TEXT" "PLAIN" ("NAME" "x.txt" "CHARSET") NIL NIL "7BIT" 12 1)`, "1|text/plain|x.txt||12\n"},
		{"parameters in lists of their own", `("TEXT" "PLAIN" (("NAME" "x.txt") ("CHARSET" "utf-8")) NIL NIL "7BIT" 12 1)`, "1|text/plain|x.txt||12\n"},
		{"RFC 2231, continued", `("IMAGE" "PNG" NIL NIL NIL "BASE64" 9 NIL ("attachment" ("FILENAME*0*" "utf-8''na%C3%AF" "FILENAME*1*" "ve.png")) NIL NIL)`, "1|image/png|naïve.png|attachment|9\n"},
		{"RFC 2047 where it doesn't belong", `("IMAGE" "PNG" ("NAME" "=?utf-8?q?na=C3=AFve.png?=") NIL NIL "BASE64" 9)`, "1|image/png|naïve.png||9\n"},
		{"raw 8-bit", "(\"IMAGE\" \"PNG\" (\"NAME\" \"na\xefve.png\") NIL NIL \"BASE64\" 9)", "1|image/png|naïve.png||9\n"},
		{"a name as a literal, with quotes", "(\"IMAGE\" \"PNG\" (\"NAME\" {9}\r\na\"b\\c.png) NIL NIL \"BASE64\" 9)", `1|image/png|a"b\c.png||9` + "\n"},
		{"a name with a line end", "(\"IMAGE\" \"PNG\" (\"NAME\" {25}\r\nx\r\nContent-Type: text/css) NIL NIL \"BASE64\" 9)", "1|image/png|x  Content-Type: text/css||9\n"},
		{"no type at all", `(NIL)`, "|multipart/mixed|||-1\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, ok := Structure([]byte(tt.raw))
			if !ok {
				t.Fatal("it can't be read")
			}
			if got := outline(p); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
	for _, raw := range []string{"", "NIL", "()", "(", `("TEXT" "PLAIN"`, strings.Repeat("(", 1000), `x`} {
		if p, ok := Structure([]byte(raw)); ok {
			t.Errorf("%.20q is read as %s", raw, outline(p))
		}
	}
}

func TestInlineIsWithinRelated(t *testing.T) {
	t.Parallel()
	p, ok := Structure([]byte(`(("TEXT" "HTML" NIL NIL NIL "7BIT" 1 1)("IMAGE" "PNG" ("NAME" "a.png") "<cid@x>" NIL "BASE64" 9) "RELATED")`))
	if !ok || p.Children[0].Inline || !p.Children[1].Inline || p.Children[1].ContentID != "cid@x" {
		t.Errorf("%+v", p)
	}
}

func FuzzStructure(f *testing.F) {
	for _, s := range []string{
		`("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "7BIT" 12 1 NIL NIL NIL NIL)`,
		`(("TEXT" "PLAIN" NIL NIL NIL "7BIT" 1 1)("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 500 (NIL) ("A" "B" NIL NIL NIL NIL 1) 20) "MIXED" ("BOUNDARY" "x"))`,
		"(\"IMAGE\" \"PNG\" (\"NAME\" {9}\r\na\"b\\c.png) NIL NIL \"BASE64\" 9)", `(NIL "MIXED")`, `((((((`, `(() "X" () ()`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, ok := Structure(raw)
		if ok != (p != nil) {
			t.Fatalf("a part %v, and ok %v", p, ok)
		}
		paths := map[string]bool{}
		p.Walk(func(p *message.Part) bool {
			if paths[p.Path] {
				t.Errorf("two parts have the path %q", p.Path)
			}
			paths[p.Path] = true
			if p.MediaType == "" {
				t.Errorf("part %q has no type", p.Path)
			}
			return true
		})
	})
}
