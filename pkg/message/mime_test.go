package message

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

var paramCases = []struct {
	name, in string
	main     string
	want     map[string]string
}{
	{"none", "text/plain", "text/plain", nil},
	{"case", "Text/HTML; CharSet=UTF-8", "text/html", map[string]string{"charset": "UTF-8"}},
	{"quoted", `attachment; filename="a b.txt"`, "attachment", map[string]string{"filename": "a b.txt"}},
	{"semicolon in quotes", `attachment; filename="a;b=c.txt"; size=3`, "attachment", map[string]string{"filename": "a;b=c.txt", "size": "3"}},
	{"blanks without quotes", "attachment; filename=my file.txt; size=3", "attachment", map[string]string{"filename": "my file.txt", "size": "3"}},
	{"path of Windows", `attachment; filename="C:\tmp\a.txt"`, "attachment", map[string]string{"filename": `C:\tmp\a.txt`}},
	{"escapes", `attachment; filename="a\"b\\c"`, "attachment", map[string]string{"filename": `a"b\c`}},
	{"quotes inside", `attachment; filename="the "best" one.txt"`, "attachment", map[string]string{"filename": `the "best" one.txt`}},
	{"quote without an end", `attachment; filename="a.txt`, "attachment", map[string]string{"filename": "a.txt"}},
	{"quote without an end, more behind", `attachment; filename="a.txt; size=3`, "attachment", map[string]string{"filename": "a.txt", "size": "3"}},
	{"no semicolon", `attachment filename="a.txt"`, "attachment", map[string]string{"filename": "a.txt"}},
	{"no semicolon between", `attachment; filename="a.txt" size=3`, "attachment", map[string]string{"filename": "a.txt", "size": "3"}},
	{"no first word", `filename="a.txt"`, "", map[string]string{"filename": "a.txt"}},
	{"doubled semicolons", `attachment;; ; filename=a.txt;`, "attachment", map[string]string{"filename": "a.txt"}},
	{"comment", "text/plain (text); charset=us-ascii (plain)", "text/plain", map[string]string{"charset": "us-ascii"}},
	{"blanks around the equals sign", "text/plain; charset = utf-8", "text/plain", map[string]string{"charset": "utf-8"}},
	{"first of two", "multipart/mixed; boundary=a; boundary=b", "multipart/mixed", map[string]string{"boundary": "a"}},
	{"equals sign in a value", "multipart/mixed; boundary=----=_Part_1.2", "multipart/mixed", map[string]string{"boundary": "----=_Part_1.2"}},
	{"RFC 2231", "attachment; filename*=utf-8'de'Gr%C3%BC%C3%9Fe.txt", "attachment", map[string]string{"filename": "Grüße.txt"}},
	{"RFC 2231 in another charset", "attachment; filename*=iso-8859-1''Gr%FC.txt", "attachment", map[string]string{"filename": "Grü.txt"}},
	{"RFC 2231 in quotes", `attachment; filename*="utf-8''Gr%C3%BC.txt"`, "attachment", map[string]string{"filename": "Grü.txt"}},
	{"RFC 2231 without a charset", "attachment; filename*=Gr%C3%BC.txt", "attachment", map[string]string{"filename": "Grü.txt"}},
	{"extended before plain (RFC 6266)", "attachment; filename=\"Gr_.txt\"; filename*=utf-8''Gr%C3%BC.txt", "attachment", map[string]string{"filename": "Grü.txt"}},
	{"pieces", `attachment; filename*0="a"; filename*1="b"; filename*2=".txt"`, "attachment", map[string]string{"filename": "ab.txt"}},
	{"pieces in disorder", `attachment; filename*1="b.txt"; filename*0="a"`, "attachment", map[string]string{"filename": "ab.txt"}},
	{"extended pieces, split inside a character", "attachment; filename*0*=utf-8''Gr%C3; filename*1*=%BC; filename*2=\".txt\"", "attachment", map[string]string{"filename": "Grü.txt"}},
	{"encoded word", `attachment; filename="=?utf-8?Q?Gr=C3=BC.txt?="`, "attachment", map[string]string{"filename": "Grü.txt"}},
	{"encoded word without quotes", `attachment; filename==?utf-8?Q?Gr=C3=BC.txt?=`, "attachment", map[string]string{"filename": "Grü.txt"}},
	{"encoded words in pieces", `attachment; filename*0="=?utf-8?Q?Gr=C3"; filename*1="=BC.txt?="`, "attachment", map[string]string{"filename": "Grü.txt"}},
	{"raw UTF-8", `attachment; filename="Grü.txt"`, "attachment", map[string]string{"filename": "Grü.txt"}},
	{"raw 8-bit", "attachment; filename=\"Gr\xfc.txt\"", "attachment", map[string]string{"filename": "Grü.txt"}},
	{"empty", "", "", nil},
}

func TestParseParams(t *testing.T) {
	t.Parallel()
	for _, tc := range paramCases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			main, params := parseParams(tc.in)
			if main != tc.main || !maps.Equal(params, tc.want) {
				t.Errorf("parseParams(%q) = %q, %q; want %q, %q", tc.in, main, params, tc.main, tc.want)
			}
		})
	}
}

func TestDecoders(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		transfer transfer
		in, want string
	}{
		{"base64", transferBase64, "aGVsbG8gd29y\r\nbGQ=\r\n", "hello world"},
		{"base64 cut short", transferBase64, "aGVsbG8gd29ybGQ", "hello world"},
		{"base64 with junk", transferBase64, "aGVs*bG8\x00gd2!9ybGQ=", "hello world"},
		{"base64 piece by piece", transferBase64, "aGVsbG8=\r\nIHdvcmxk\r\n", "hello world"},
		{"base64 with a footer", transferBase64, "aGVsbG8=\r\n____\r\nMailing list\r\nabcd\r\n", "hello"},
		{"base64 with a checksum", transferBase64, "aGVsbG8=\r\n=zH6Q\r\n", "hello"},
		{"base64 in odd lines", transferBase64, "aGV\nsbG8\ngd29ybG\nQ=", "hello world"},
		{"quoted-printable", transferQuoted, "Gr=C3=BC=c3=9fe =\r\nda=3D", "Grüße da="},
		{"quoted-printable, blanks behind the soft break", transferQuoted, "a= \t\r\nb", "ab"},
		{"quoted-printable, CR alone", transferQuoted, "a=\rb", "ab"},
		{"quoted-printable, no escape", transferQuoted, "a=ZZ b=4x =", "a=ZZ b=4x "},
		{"quoted-printable, blanks at the end are kept", transferQuoted, "-- \r\nBob", "-- \r\nBob"},
		{"uuencode", transferUU, "begin 644 a.txt\r\n+:&5L;&\\@=V]R;&0\r\n`\r\nend\r\n", "hello world"},
		{"uuencode without its frame", transferUU, "+:&5L;&\\@=V]R;&0 \n", "hello world"},
		{"not uuencoded", transferUU, "plain text\nand more\n", "plain text\nand more\n"},
		{"8bit", identity, "Gr\xfc\r\n", "Gr\xfc\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, cut := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader} {
				got, err := io.ReadAll(newDecodingReader(cut(strings.NewReader(tc.in)), tc.transfer))
				if err != nil || string(got) != tc.want {
					t.Errorf("%q decodes to %q, %v; want %q", tc.in, got, err, tc.want)
				}
			}
		})
	}
}

func TestDecodeCharset(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		charset, in string
		want, used  string
		known       bool
	}{
		{"utf-8", "Grü", "Grü", "utf-8", true},
		{"utf8", "Grü", "Grü", "utf-8", true},
		{`"UTF-8"`, "Grü", "Grü", "utf-8", true},
		{"us-ascii", "abc", "abc", "us-ascii", true},
		{"us-ascii", "Grü", "Grü", "utf-8", true},
		{"us-ascii", "Gr\xfc", "Grü", "windows-1252", true},
		{"", "Gr\xfc", "Grü", "windows-1252", true},
		{"utf-8", "Gr\xfc", "Grü", "windows-1252", true},
		{"iso-8859-1", "\x80", "€", "iso-8859-1", true},
		{"iso-8859-15", "\xa4", "€", "iso-8859-15", true},
		{"iso8859-2", "\xb1", "ą", "iso8859-2", true},
		{"windows-1251", "\xf2", "т", "windows-1251", true},
		{"cp1251", "\xf2", "т", "cp1251", true},
		{"koi8-r", "\xd4", "т", "koi8-r", true},
		{"cp850", "\x81", "ü", "cp850", true},
		{"cp437", "\x81", "ü", "cp437", true},
		{"iso-8859-8-i", "\xe0", "א", "iso-8859-8-i", true},
		{"windows-874", "\xb7", "ท", "windows-874", true},
		{"shift_jis", "\x82\xa0", "あ", "shift_jis", true},
		{"cp932", "\x82\xa0", "あ", "shift_jis", true},
		{"iso-2022-jp", "\xa4\xa2\xa4\xa4", "あい", "euc-jp", true},
		{"iso-2022-jp", "\u3042", "あ", "utf-8", true},
		{"iso-2022-jp", "\x1b$B$\"\x1b(B", "あ", "iso-2022-jp", true},
		{"euc-jp", "\xa4\xa2", "あ", "euc-jp", true},
		{"ks_c_5601-1987", "\xc7\xd1", "한", "ks_c_5601-1987", true},
		{"iso-2022-kr", "\x1b$)C\x0eGQ\x0f!", "한!", "iso-2022-kr", true},
		{"gb2312", "\xd6\xd0", "中", "gb2312", true},
		{"x-gbk", "\xd6\xd0", "中", "gbk", true},
		{"gb18030", "\xd6\xd0", "中", "gb18030", true},
		{"hz-gb-2312", "~{VP~}", "中", "hz-gb-2312", true},
		{"big5", "\xa4\xa4", "中", "big5", true},
		{"utf-16", "\xfe\xff\x00a", "a", "utf-16", true},
		{"utf-16", "a\x00b\x00", "ab", "utf-16", true},
		{"utf-16le", "a\x00", "a", "utf-16le", true},
		{"utf-7", "Hi Mom -+Jjo--!", "Hi Mom -☺-!", "utf-7", true},
		{"unicode-1-1-utf-7", "A+ImIDkQ.+-", "A≢Α.+", "utf-7", true},
		{"utf-7", "Grü", "Grü", "utf-8", true},
		{"x-klingon", "abc", "abc", "utf-8", false},
		{"x-klingon", "\xfc", "ü", "windows-1252", false},
	} {
		t.Run(tc.charset+" "+tc.want, func(t *testing.T) {
			t.Parallel()
			got, used, known := DecodeCharset(tc.charset, []byte(tc.in))
			if got != tc.want || used != tc.used || known != tc.known {
				t.Errorf("DecodeCharset(%q, %q) = %q in %q, %v; want %q in %q, %v", tc.charset, tc.in, got, used, known, tc.want, tc.used, tc.known)
			}
		})
	}
}

// outline writes a tree on one line: path, type, name, decoded size.
func outline(p *Part) string {
	s := fmt.Sprintf("%s:%s", p.Path, p.MediaType)
	if p.Name != "" {
		s += fmt.Sprintf("%q", p.Name)
	}
	if len(p.Children) == 0 {
		return s + fmt.Sprintf("=%d", p.Size)
	}
	var in []string
	for _, c := range p.Children {
		in = append(in, outline(c))
	}
	return s + "(" + strings.Join(in, " ") + ")"
}

var structureCases = []struct {
	name, in string
	want     string
	problem  string // part of the one problem; empty for none
}{
	{"plain", "Subject: a\r\n\r\nhello\r\n", "1:text/plain=7", ""},
	{"empty", "", "1:text/plain=0", ""},
	{"header alone", "Subject: a\r\n", "1:text/plain=0", ""},
	{"body alone", "\r\nhello", "1:text/plain=5", ""},
	{"no header at all", "hello\nworld\n\nmore", "1:text/plain=17", ""},
	{"two parts", "Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: text/html\r\n\r\ntwo\r\n--b--\r\nepilogue\r\n--b\r\n",
		":multipart/mixed(1:text/plain=3 2:text/html=3)", ""},
	{"the line break belongs to the boundary", "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n\n--b\n\n\n--b--", ":multipart/mixed(1:text/plain=4 2:text/plain=0)", ""},
	{"blanks behind the boundary", "Content-Type: multipart/mixed; boundary=\"b \"\n\n--b \t\n\none\n--b-- \n", ":multipart/mixed(1:text/plain=3)", ""},
	{"a longer boundary is another", "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--bb\n-- b\n--b--\n", ":multipart/mixed(1:text/plain=13)", ""},
	{"nested", "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/alternative; boundary=c\n\n--c\n\none\n--c\nContent-Type: text/html\n\ntwo\n--c--\n--b\nContent-Type: image/png; name=x.png\nContent-Transfer-Encoding: base64\n\naGVsbG8=\n--b--\n",
		`:multipart/mixed(1:multipart/alternative(1.1:text/plain=3 1.2:text/html=3) 2:image/png"x.png"=5)`, ""},
	{"inner never closed", "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/alternative; boundary=c\n\n--c\n\none\n--b\n\ntwo\n--b--\n",
		":multipart/mixed(1:multipart/alternative(1.1:text/plain=3) 2:text/plain=3)", ""},
	{"outer never closed", "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n", ":multipart/mixed(1:text/plain=4)", "last boundary is missing"},
	{"same boundary inside", "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/alternative; boundary=b\n\n--b\n\none\n--b--\n--b\n\ntwo\n--b--\n",
		":multipart/mixed(1:multipart/alternative(1.1:text/plain=3) 2:text/plain=3)", ""},
	{"boundary never found", "Content-Type: multipart/mixed; boundary=b\n\nhello\n", ":multipart/mixed=6", "no boundary"},
	{"no boundary parameter", "Content-Type: multipart/mixed\n\n--b\n\nhello\n", "1:multipart/mixed=11", "without a boundary"},
	{"no empty line before the boundary", "Content-Type: multipart/mixed; boundary=b\n--b\n\none\n--b--\n", ":multipart/mixed(1:text/plain=3)", ""},
	{"part without a header", "Content-Type: multipart/mixed; boundary=b\n\n--b\nhello there\n--b--\n", ":multipart/mixed(1:text/plain=11)", ""},
	{"part of nothing but a header", "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n--b--\n", ":multipart/mixed(1:text/html=0)", ""},
	{"no empty line before base64", "Content-Type: image/png; name=x\nContent-Transfer-Encoding: base64\naGVsbG8=\n", `1:image/png"x"=5`, ""},
	{"garbage at the header's end is no base64", "Content-Type: image/png; name=x\nContent-Transfer-Encoding: base64\nwhat is this\n\naGVsbG8=\n", `1:image/png"x"=5`, ""},
	{"message", "Content-Type: message/rfc822\n\nSubject: in\n\nhello", "1:message/rfc822(1.1:text/plain=5)", ""},
	{"message with parts", "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\none\n--c\n\ntwo\n--c--\n--b\n\nx\n--b--\n",
		":multipart/mixed(1:message/rfc822(1.TEXT:multipart/mixed(1.1:text/plain=3 1.2:text/plain=3)) 2:text/plain=1)", ""},
	{"encoded message isn't entered", "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogYQ==", "1:message/rfc822=10", ""},
	{"line breaks that belong to outer boundaries", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\none\r\n--c--\r\n--b\r\nContent-Type: image/png\r\n\r\n--b--\r\n",
		":multipart/mixed(1:message/rfc822(1.TEXT:multipart/mixed(1.1:text/plain=3)) 2:image/png=0)", ""},
	{"digest", "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: in\n\nhello\n--b--\n", ":multipart/digest(1:message/rfc822(1.1:text/plain=5))", ""},
	{"broken type", "Content-Type: text\n\nhello", "1:text/plain=5", ""},
	{"broken disposition keeps the name", "Content-Type: image/png\nContent-Disposition: attachment filename=a b.png\n\nhello", `1:image/png"a b.png"=5`, ""},
	{"name of Content-Type", "Content-Type: image/png; name=\"=?utf-8?Q?=C3=BC?=.png\"\nContent-Disposition: attachment\n\nhello", `1:image/png"ü.png"=5`, ""},
	{"parameter that isn't folded", "Content-Type: multipart/mixed;\nboundary=b\n\n--b\n\none\n--b--\n", ":multipart/mixed(1:text/plain=3)", ""},
	{"CR alone", "Content-Type: multipart/mixed; boundary=b\r\r--b\r\rone\r--b--\r", ":multipart/mixed(1:text/plain=3)", ""},
	{"junk in base64", "Content-Type: image/png\nContent-Transfer-Encoding: base64\n\naGV*sbG8=\n", "1:image/png=5", "no base64"},
	{"From of an mbox", "From bob\nContent-Type: text/html\n\nhello", "1:text/html=5", ""},
}

func TestReadStructure(t *testing.T) {
	t.Parallel()
	for _, tc := range structureCases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			root := checkMessage(t, []byte(tc.in))
			if got := outline(root); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			byOne, problems, err := ReadStructure(iotest.OneByteReader(strings.NewReader(tc.in)))
			if err != nil {
				t.Fatal(err)
			}
			samePart(t, root, byOne, true)
			if all := strings.Join(problems, "; "); tc.problem == "" && all != "" || !strings.Contains(all, tc.problem) {
				t.Errorf("problems %q, want %q", all, tc.problem)
			}
		})
	}
}

// TestBoundaryAcrossBuffers moves a boundary over the end of the buffer.
func TestBoundaryAcrossBuffers(t *testing.T) {
	t.Parallel()
	const head = "Content-Type: multipart/mixed; boundary=frontier\r\n\r\n--frontier\r\n\r\n"
	for shift := -40; shift <= 40; shift++ {
		n := scanBuffer - len(head) + shift
		raw := head + strings.Repeat("x", n) + "\r\n--frontier\r\n\r\ntwo\r\n--frontier--\r\n"
		root := checkMessage(t, []byte(raw))
		if want := fmt.Sprintf(":multipart/mixed(1:text/plain=%d 2:text/plain=3)", n); outline(root) != want {
			t.Fatalf("shifted by %d: %s, want %s", shift, outline(root), want)
		}
	}
}

func TestPartFields(t *testing.T) {
	t.Parallel()
	root := checkMessage(t, []byte("Content-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html; charset=utf-8\r\nContent-ID: <root@x>\r\n\r\n<img src=\"cid:i@x\">\r\n"+
		"--b\r\nContent-Type: image/png; name=old.png\r\nContent-ID: <i@x>\r\nContent-Location: http://x/i.png\r\nContent-Disposition: INLINE; filename=new.png\r\nContent-Transfer-Encoding: BASE64 \r\n\r\naGVsbG8=\r\n--b--\r\n"))
	html, img := root.Children[0], root.Children[1]
	if html.Inline || html.Params["charset"] != "utf-8" || html.ContentID != "root@x" {
		t.Errorf("html: %+v", html)
	}
	if !img.Inline || img.Name != "new.png" || img.ContentID != "i@x" || img.ContentLocation != "http://x/i.png" ||
		img.Disposition != "inline" || img.Encoding != "base64" || img.EncodedSize != 8 || img.Size != 5 ||
		img.SHA256 != "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" {
		t.Errorf("image: %+v", img)
	}
}

func TestAttachments(t *testing.T) {
	t.Parallel()
	part := func(header string) string { return "--b\n" + header + "\n\nx\n" }
	raw := "Content-Type: multipart/mixed; boundary=b\n\n" +
		part("Content-Type: text/plain") + part("Content-Type: text/html; name=page.html") +
		part("Content-Type: text/plain\nContent-Disposition: attachment") + part("Content-Type: application/pdf") +
		part("Content-Type: message/delivery-status") + part("Content-Type: message/rfc822") + "--b--\n"
	var got []string
	for _, p := range Attachments(checkMessage(t, []byte(raw))) {
		got = append(got, p.Path)
	}
	if want := "2 3 4 6"; strings.Join(got, " ") != want {
		t.Errorf("attachments %v, want %s", got, want)
	}
}

func TestEntity(t *testing.T) {
	t.Parallel()
	const inner = "Subject: =?utf-8?Q?in=C3=BC?=\r\nContent-Type: text/plain; charset=koi8-r\r\n\r\n\xd4\xc5\xd3\xd4"
	const signed = "Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<meta charset=3D\"iso-8859-15\">=A4"
	raw := "Subject: out\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + signed + "\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n" + inner + "\r\n--b--\r\n"
	root, problems, err := Read(strings.NewReader(raw), int64(len(raw)))
	if err != nil || len(problems) > 0 || len(root.Children) != 2 {
		t.Fatalf("Read: %+v, %q, %v", root, problems, err)
	}
	checkMessage(t, []byte(raw))
	got, err := io.ReadAll(root.Children[0].Raw())
	if err != nil || string(got) != signed {
		t.Errorf("Raw gives %q, %v", got, err)
	}
	text, charset, err := root.Children[0].Text(-1)
	if err != nil || charset != "iso-8859-15" || !strings.HasSuffix(text, "€") {
		t.Errorf("Text = %q in %q, %v", text, charset, err)
	}
	message := root.Children[1]
	if got, _ := io.ReadAll(message.Open()); string(got) != inner {
		t.Errorf("the message reads %q", got)
	}
	h, err := message.Children[0].Header()
	if err != nil || h.Subject() != "inü" {
		t.Errorf("its subject is %q, %v", h.Subject(), err)
	}
	if text, _, _ := message.Children[0].Text(3); text != "тес" {
		t.Errorf("its text begins %q", text)
	}
}

// TestRawEndsBeforeItsBoundary holds what signatures are made over: the line
// break behind an inner multipart's last boundary belongs to the outer one
// (RFC 2046 §5.1.1).
func TestRawEndsBeforeItsBoundary(t *testing.T) {
	t.Parallel()
	const inner = "Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\none\r\n--c--"
	raw := "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n" + inner + "\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\nx\r\n--b--\r\n"
	root, _, err := Read(strings.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(root.Children[0].Raw()); string(got) != inner {
		t.Errorf("Raw gives %q, want %q", got, inner)
	}
	if got := root.Children[0].Part.EncodedSize; got != int64(len(inner)-len("Content-Type: multipart/mixed; boundary=c\r\n\r\n")) {
		t.Errorf("EncodedSize = %d", got)
	}
}

func TestReadErrors(t *testing.T) {
	t.Parallel()
	cause := errors.New("the line broke")
	r := io.MultiReader(strings.NewReader("Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntw"), iotest.ErrReader(cause))
	root, _, err := ReadStructure(r)
	if !errors.Is(err, cause) {
		t.Errorf("error %v, want the reader's own", err)
	}
	if got := outline(root); got != ":multipart/mixed(1:text/plain=3 2:text/plain=2)" {
		t.Errorf("the structure so far: %s", got)
	}
}

// TestBounds holds messages that are made to grow: each is read in time and
// little memory, and says where it stopped (I5).
func TestBounds(t *testing.T) {
	nest := func(n int, close bool) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
		}
		b.WriteString("\nhello\n")
		for i := n - 1; close && i >= 0; i-- {
			fmt.Fprintf(&b, "--b%d--\n", i)
		}
		return b.String()
	}
	messages := strings.Repeat("Content-Type: message/rfc822\n\n", 20000) + strings.Repeat("--x\nhello\n", 200000)
	for _, tc := range []struct {
		name, raw, problem string
	}{
		{"deep", nest(1000, true), "nested deeper than 160"},
		{"deep and unclosed", nest(20000, false), "nested deeper than 160"},
		{"deep messages", messages, "nested deeper than 160"},
		{"many parts", "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\n", 500000), "more than 10000 parts"},
		{"boundaries that are none", nest(159, false) + strings.Repeat("--b1 x\n", 1<<20), "last boundary is missing"},
		{"a header without an end", strings.Repeat("X: y\n", 8<<20), "longer than"},
		{"lines like boundaries in the header", "Content-Type: multipart/mixed; boundary=b\n" + strings.Repeat("--x y\nA: b\n", 1<<20) + "\nhello\n", "no boundary"},
		{"a line without an end", "X: " + strings.Repeat("y", 32<<20), "longer than"},
		{"many fields kept", "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\nContent-Type: text/plain; name=\""+strings.Repeat("n", 1<<20)+"\"\n\n", 70), "MIME fields are longer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, problems, err := ReadStructure(strings.NewReader(tc.raw))
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if err != nil || !strings.Contains(strings.Join(problems, "\n"), tc.problem) {
				t.Errorf("problems %q, %v; want %q", problems, err, tc.problem)
			}
			// A second or less, on a machine that does nothing else; what isn't
			// linear takes hours.
			if took > time.Minute {
				t.Errorf("%d octets took %s", len(tc.raw), took)
			}
			t.Logf("%d octets: %s, %d MB allocated in all", len(tc.raw), took, (after.TotalAlloc-before.TotalAlloc)>>20)
		})
	}
}

// TestStreams holds that a large attachment costs no memory (I5).
func TestStreams(t *testing.T) {
	const size = 64 << 20
	line := base64.StdEncoding.EncodeToString(make([]byte, 57)) + "\r\n"
	block := strings.Repeat(line, 1000)
	var parts []io.Reader
	parts = append(parts, strings.NewReader("Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"))
	n := int64(0)
	for ; n < size; n += 57 * 1000 {
		parts = append(parts, strings.NewReader(block))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	root, _, err := ReadStructure(io.MultiReader(parts...))
	runtime.ReadMemStats(&after)
	if err != nil || root.Size != n {
		t.Fatalf("size %d, %v; want %d", root.Size, err, n)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("allocated %d octets for a part of %d", got, n)
	}
}
