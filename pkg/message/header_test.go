package message

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestHeaderFields(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, raw string
		field     string
		want      []string
		problems  int
	}{
		{"one field", "Subject: hello\r\n\r\nSubject: body\r\n", "subject", []string{"hello"}, 0},
		{"no empty line", "Subject: hello", "Subject", []string{"hello"}, 0},
		{"folded", "X: a\r\n b\r\n\tc\r\n\r\n", "X", []string{"a b\tc"}, 0},
		{"folded from the start", "X:\r\n a\r\n\r\n", "X", []string{"a"}, 0},
		{"a line of blanks goes on", "X: a\n \n b\nY: c\n\n", "X", []string{"a  b"}, 0},
		{"LF alone", "A: 1\nX: 2\nX: 3\n\nX: 4\n", "X", []string{"2", "3"}, 0},
		{"CR alone", "A: 1\rX: 2\r\rX: 4\r", "X", []string{"2"}, 0},
		{"CR, then LF", "A: 1\rX: 2\rB: 3\r\rbody\r\n", "X", []string{"2"}, 0},
		{"blank before the colon", "X : 1\n\n", "X", []string{"1"}, 0},
		{"garbage first", "what is this\nX: 1\n\n", "X", []string{"1"}, 1},
		{"garbage between", "A: 1\n!! not a field !!\n folded garbage\nX: 2\n\n", "X", []string{"2"}, 1},
		{"garbage with a colon", "A b c: 1\nX: 2\n\n", "X", []string{"2"}, 1},
		{"From of an mbox", "From bob Tue Mar  3 10:15:00 2026\nX: 1\n\n", "X", []string{"1"}, 0},
		{"quoted From of an mbox", ">From bob Tue Mar  3 10:15:00 2026\nX: 1\n\n", "X", []string{"1"}, 0},
		{"byte order mark", "\xEF\xBB\xBFX: 1\n\n", "X", []string{"1"}, 0},
		{"parameter that isn't folded", "X: a;\nb=\"c\"\nY: 1\n\n", "X", []string{`a;b="c"`}, 0},
		{"none", "A: 1\n\n", "X", nil, 0},
		{"empty", "", "X", nil, 0},
		{"empty value", "X:\nA: 1\n\n", "X", []string{""}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := NewHeader([]byte(tc.raw))
			if got := h.Values(tc.field); !slices.Equal(got, tc.want) {
				t.Errorf("Values(%q) = %q, want %q", tc.field, got, tc.want)
			}
			if got := h.Problems(); len(got) != tc.problems {
				t.Errorf("problems: %q, want %d", got, tc.problems)
			}
			if string(h.Raw()) != tc.raw {
				t.Error("Raw isn't what was given")
			}
		})
	}
}

func TestHeaderProblems(t *testing.T) {
	t.Parallel()
	h := NewHeader([]byte("garbage\nDate: some day\nSubject: =?x-klingon?Q?a?=\n\n"))
	got := strings.Join(h.Problems(), "\n")
	for _, want := range []string{`"garbage"`, `"some day"`, `"x-klingon"`} {
		if !strings.Contains(got, want) {
			t.Errorf("problems %q say nothing of %s", got, want)
		}
	}
	many := NewHeader(bytes.Repeat([]byte("garbage\n"), 1000))
	if n := len(many.Problems()); n != maxProblems {
		t.Errorf("%d problems, want %d", n, maxProblems)
	}
}

func TestHeaderLong(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	for i := range 40000 {
		fmt.Fprintf(&b, "X-Field-%d: some value that makes the header long, number %d\r\n", i, i)
	}
	b.WriteString("Subject: the last\r\n\r\n")
	if b.Len() < 2<<20 {
		t.Fatalf("only %d octets", b.Len())
	}
	if got := NewHeader(b.Bytes()).Subject(); got != "the last" {
		t.Errorf("Subject = %q", got)
	}
	b.WriteString("the body")
	root, problems, err := ReadStructure(&b)
	if err != nil || len(problems) > 0 || root.Size != 8 {
		t.Errorf("ReadStructure: %+v, %q, %v", root, problems, err)
	}
}

func TestHeaderConcurrent(t *testing.T) {
	t.Parallel()
	h := NewHeader(plainMail())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got := h.Subject(); got != "Grüße aus Wien" {
				t.Errorf("Subject = %q", got)
			}
		})
	}
	wg.Wait()
}

func TestHeaderText(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, raw, want string }{
		{"UTF-8", "Subject: Grüße\n\n", "Grüße"},
		{"windows-1252", "Subject: Gr\xfc\xdfe \x80\n\n", "Grüße €"},
		{"declared", "Subject: \xd4\xc5\xd3\xd4\nContent-Type: text/plain; charset=koi8-r\n\n", "тест"},
		{"declared, but UTF-8", "Subject: тест\nContent-Type: text/plain; charset=koi8-r\n\n", "тест"},
		{"UTF-8 with damage", "Subject: Юникод\xf1\n\n", "Юникод\uFFFD"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := NewHeader([]byte(tc.raw)).Subject(); got != tc.want {
				t.Errorf("Subject = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestMessageIDs(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, value string
		first       string
		all         []string
	}{
		{"one", "<a@b>", "<a@b>", []string{"<a@b>"}},
		{"several, folded", "<a@b>\r\n\t<c@d> <e@f>", "<a@b>", []string{"<a@b>", "<c@d>", "<e@f>"}},
		{"no blanks between", "<a@b><c@d>", "<a@b>", []string{"<a@b>", "<c@d>"}},
		{"text around", "Your message of today <a@b> (fine)", "<a@b>", []string{"<a@b>"}},
		{"no brackets", "a@b", "a@b", nil},
		{"no end", "<a@b", "<a@b", nil},
		{"two at signs", "<a@b@c>", "<a@b@c>", []string{"<a@b@c>"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := NewHeader([]byte("Message-ID: " + tc.value + "\r\nReferences: " + tc.value + "\r\n\r\n"))
			if got := h.MessageID(); got != tc.first {
				t.Errorf("MessageID = %q, want %q", got, tc.first)
			}
			if got := h.MessageIDs("References"); !slices.Equal(got, tc.all) {
				t.Errorf("MessageIDs = %q, want %q", got, tc.all)
			}
		})
	}
}

var wordCases = []struct{ name, in, want string }{
	{"none", "plain text", "plain text"},
	{"Q", "=?utf-8?Q?Gr=C3=BC=C3=9Fe_da?=", "Grüße da"},
	{"B", "=?UTF-8?B?R3LDvMOfZQ==?=", "Grüße"},
	{"B without padding", "=?UTF-8?B?R3LDvMOfZQ?=", "Grüße"},
	{"language (RFC 2231)", "=?utf-8*de?q?Gr=C3=BC?=", "Grü"},
	{"blanks between words are no text", "=?utf-8?Q?a?= \t=?utf-8?Q?b?=", "ab"},
	{"blanks between a word and text are", "x =?utf-8?Q?a?= y", "x a y"},
	{"split inside a character", "=?utf-8?Q?Gr=C3?= =?utf-8?Q?=BCn?=", "Grün"},
	{"split inside a quantum", "=?utf-8?B?R3LD?= =?utf-8?B?vG4=?=", "Grün"},
	{"Q and B of one charset", "=?utf-8?Q?Gr=C3?= =?UTF-8?B?vG4=?=", "Grün"},
	{"two charsets", "=?iso-8859-1?Q?=FC?= =?koi8-r?Q?=D4?=", "üт"},
	{"in the middle of text", "a=?utf-8?Q?b?=c", "abc"},
	{"in quotes", `"=?utf-8?Q?b?="`, `"b"`},
	{"blanks inside", "=?utf-8?Q?Gr=C3=BC=C3=9F Gott?=", "Grüß Gott"},
	{"question mark inside", "=?utf-8?Q?what?=3F?=", "what??"},
	{"ends in an escape", "=?utf-8?Q?=41=42?=", "AB"},
	{"empty", "a =?utf-8?Q??= b", "a  b"},
	{"unknown charset, UTF-8", "=?x-unheard?Q?=C3=BC?=", "ü"},
	{"unknown charset, not UTF-8", "=?x-unheard?Q?=FC?=", "ü"},
	{"empty charset", "=??Q?=FC?=", "ü"},
	{"raw UTF-8 in a word of another charset", "=?iso-8859-1?Q?Grü?=", "Grü"},
	{"iso-2022-jp", "=?iso-2022-jp?B?GyRCJCIbKEI=?=", "あ"},
	{"unknown encoding", "=?utf-8?X?abc?=", "=?utf-8?X?abc?="},
	{"no end", "=?utf-8?Q?abc", "=?utf-8?Q?abc"},
	{"bad escape", "=?utf-8?Q?a=ZZb=4?=", "a=ZZb=4"},
	{"raw and words", "\xfc =?utf-8?Q?=C3=BC?=", "ü ü"},
}

func TestDecodeWords(t *testing.T) {
	t.Parallel()
	for _, tc := range wordCases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := decodeWords(tc.in, nil); got != tc.want {
				t.Errorf("decodeWords(%q) = %q, want %q", tc.in, got, tc.want)
			}
		})
	}
}

var dateCases = []struct{ name, in, want string }{
	{"RFC 5322", "Tue, 3 Mar 2026 10:15:04 +0100", "2026-03-03T10:15:04+01:00"},
	{"no weekday", "3 Mar 2026 10:15:04 -0800", "2026-03-03T10:15:04-08:00"},
	{"no seconds", "Tue, 03 Mar 2026 10:15 GMT", "2026-03-03T10:15:00Z"},
	{"no zone", "Tue, 03 Mar 2026 10:15:04", "2026-03-03T10:15:04Z"},
	{"no time", "3 Mar 2026", "2026-03-03T00:00:00Z"},
	{"comment", "Tue, 3 Mar 2026 10:15:04 -0500 (EST)", "2026-03-03T10:15:04-05:00"},
	{"comment before the zone", "Tue, 3 Mar 2026 10:15:04 (EST (really)) -0500", "2026-03-03T10:15:04-05:00"},
	{"comment without an end", "Tue, 3 Mar 2026 10:15:04 +0100 (CET", "2026-03-03T10:15:04+01:00"},
	{"EST", "Tue, 3 Mar 2026 10:15:04 EST", "2026-03-03T10:15:04-05:00"},
	{"PDT", "Tue, 3 Mar 2026 10:15:04 PDT", "2026-03-03T10:15:04-07:00"},
	{"military letter (RFC 5322 §4.3)", "Tue, 3 Mar 2026 10:15:04 A", "2026-03-03T10:15:04Z"},
	{"unknown zone", "Tue, 3 Mar 2026 10:15:04 Moonbase", "2026-03-03T10:15:04Z"},
	{"GMT and an offset", "Tue, 3 Mar 2026 10:15:04 GMT+0200", "2026-03-03T10:15:04+02:00"},
	{"zone without a sign", "Tue, 3 Mar 2026 10:15:04 0530", "2026-03-03T10:15:04+05:30"},
	{"short zone", "Tue, 3 Mar 2026 10:15:04 +1", "2026-03-03T10:15:04+01:00"},
	{"zone with a colon", "Tue, 3 Mar 2026 10:15:04 -03:30", "2026-03-03T10:15:04-03:30"},
	{"two-digit year", "3 Mar 99 10:15:04 +0000", "1999-03-03T10:15:04Z"},
	{"two-digit year of this century", "3 Mar 26 10:15:04 +0000", "2026-03-03T10:15:04Z"},
	{"three-digit year", "3 Mar 101 10:15:04 +0000", "2001-03-03T10:15:04Z"},
	{"dashes", "03-Mar-2026 10:15:04 +0100", "2026-03-03T10:15:04+01:00"},
	{"RFC 850", "Tuesday, 03-Mar-26 10:15:04 GMT", "2026-03-03T10:15:04Z"},
	{"asctime", "Tue Mar  3 10:15:04 2026", "2026-03-03T10:15:04Z"},
	{"asctime with a zone", "Tue Mar 3 10:15:04 EST 2026", "2026-03-03T10:15:04-05:00"},
	{"full month", "Tuesday, March 3, 2026 10:15 PM", "2026-03-03T22:15:00Z"},
	{"midnight in AM", "3 Mar 2026 12:29:13 AM", "2026-03-03T00:29:13Z"},
	{"ISO 8601", "2026-03-03T10:15:04+01:00", "2026-03-03T10:15:04+01:00"},
	{"ISO 8601, Z and a fraction", "2026-03-03T10:15:04.250Z", "2026-03-03T10:15:04.25Z"},
	{"ISO with a blank", "2026-03-03 10:15:04", "2026-03-03T10:15:04Z"},
	{"slashes, month first by need", "11/25/2026 10:15", "2026-11-25T10:15:00Z"},
	{"dots", "03.03.2026 10:15:04", "2026-03-03T10:15:04Z"},
	{"time with dots", "3 Mar 2026 10.15.04 +0100", "2026-03-03T10:15:04+01:00"},
	{"leap second", "31 Dec 2016 23:59:60 +0000", "2017-01-01T00:00:00Z"},
	{"no comma, no blank", "Tue,3 Mar 2026 10:15:04+0100", "2026-03-03T10:15:04+01:00"},
	{"words", "Whenever", ""},
	{"template", "%DATE%", ""},
	{"no such day", "31 Feb 2026 10:15:04 +0000", ""},
	{"no such hour", "3 Mar 2026 77:15:04 +0000", ""},
	{"empty", "", ""},
}

// TestUsualDate: the short way reads what mail has as a rule, and gives what the
// long way does.
func TestUsualDate(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"Mon, 02 Jan 2006 15:04:05 -0700", "Mon, 2 Jan 2006 15:04:05 -0700", "2 Jan 2006 15:04:05 +0000",
		"fri, 28 FEB 1997 00:00:00 -0000", "Sun, 01 Dec 2024 23:59:59 +1245",
	} {
		usual, ok := usualDate(s)
		if long, _ := anyDate(s); !ok || usual.Format(time.RFC3339) != long.Format(time.RFC3339) {
			t.Errorf("of %q the short way makes %v, %s, the long way %s", s, ok, usual, long)
		}
	}
	for _, s := range []string{
		"", "Mon, 31 Jun 2006 15:04:05 -0700", "Mon, 02 Jan 06 15:04:05 -0700", "Mon, 02 Jan 2006 24:04:05 -0700",
		"Mon, 02 Jan 2006 15:04:60 -0700", "Mon, 02 Jan 2006 15:04:05 GMT", "May, 02 Jan 2006 15:04:05 -0700",
		"Mon, 02 Jan 2006 15:04:05 -0700 (MST)", "Mon, 02 Jan 2006 15:04:05 -9900", "Mon, 02 Xyz 2006 15:04:05 -0700",
		"Mo1, 02 Jan 2006 15:04:05 -0700", "Mon,  2 Jan 2006 15:04:05 -0700", "Mon, 02 Jan 2006 15:4:05 -00700",
	} {
		if d, ok := usualDate(s); ok {
			t.Errorf("the short way reads %q as %s: it isn't usual", s, d)
		}
	}
}

func TestParseDate(t *testing.T) {
	t.Parallel()
	for _, tc := range dateCases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if d, ok := ParseDate(tc.in); ok {
				got = d.Format(time.RFC3339Nano)
			}
			if got != tc.want {
				t.Errorf("ParseDate(%q) = %s, want %s", tc.in, got, tc.want)
			}
		})
	}
}

var addressCases = []struct {
	name, in string
	want     []Address
}{
	{"bare", "a@b.c", []Address{{"", "a@b.c"}}},
	{"name", "Bob Example <a@b.c>", []Address{{"Bob Example", "a@b.c"}}},
	{"quoted name", `"Example, Bob \"B\"" <a@b.c>`, []Address{{`Example, Bob "B"`, "a@b.c"}}},
	{"raw comma", `Example, Bob <a@b.c>, d@e.f`, []Address{{"Example, Bob", "a@b.c"}, {"", "d@e.f"}}},
	{"comment as name (RFC 822)", "a@b.c (Bob)", []Address{{"Bob", "a@b.c"}}},
	{"comment inside", "a@(what)b.c", []Address{{"what", "a@b.c"}}},
	{"list", "a@b.c, Bob <d@e.f>; g@h.i", []Address{{"", "a@b.c"}, {"Bob", "d@e.f"}, {"", "g@h.i"}}},
	{"group", "Friends: a@b.c, Bob <d@e.f>;, g@h.i", []Address{{"", "a@b.c"}, {"Bob", "d@e.f"}, {"", "g@h.i"}}},
	{"empty group", "undisclosed-recipients:;", nil},
	{"empty group, no end", "undisclosed-recipients:", nil},
	{"route", "<@x.y,@z.w:a@b.c>", []Address{{"", "a@b.c"}}},
	{"word", "=?utf-8?Q?J=C3=BCrgen?= <a@b.c>", []Address{{"Jürgen", "a@b.c"}}},
	{"word in quotes", `"=?utf-8?Q?J=C3=BCrgen?=" <a@b.c>`, []Address{{"Jürgen", "a@b.c"}}},
	{"comma in a word", "=?utf-8?Q?M,_J=C3=BCrgen?= <a@b.c>", []Address{{"M, Jürgen", "a@b.c"}}},
	{"raw 8-bit", "J\xfcrgen <a@b.c>", []Address{{"Jürgen", "a@b.c"}}},
	{"quote without an end", `"Bob <a@b.c>`, []Address{{`"Bob`, "a@b.c"}}},
	{"bracket without an end", "Bob <a@b.c", []Address{{"Bob", "a@b.c"}}},
	{"doubled bracket", "Bob <<a@b.c>>", []Address{{"Bob", "a@b.c"}}},
	{"at sign in the name", "bob@work <a@b.c>", []Address{{"bob@work", "a@b.c"}}},
	{"name without brackets", "Big Bug bb@bug.com", []Address{{"Big Bug", "bb@bug.com"}}},
	{"quoted local part", `"a b"@b.c`, []Address{{"", `"a b"@b.c`}}},
	{"blanks in brackets", "<a @ b.c>", []Address{{"", "a@b.c"}}},
	{"mailto", "<mailto:a@b.c>", []Address{{"", "a@b.c"}}},
	{"a local user", "root", []Address{{"", "root"}}},
	{"name alone", "Undisclosed Recipients", []Address{{"Undisclosed Recipients", ""}}},
	{"name in brackets", "<Undisclosed Recipients>", []Address{{"Undisclosed Recipients", ""}}},
	{"no address in brackets", "MAILER-DAEMON <>", []Address{{"MAILER-DAEMON", ""}}},
	{"comment behind a name", "Bob Example (Example Inc.) <a@b.c>", []Address{{"Bob Example", "a@b.c"}}},
	{"comment behind the brackets", "Bob <a@b.c> (work)", []Address{{"Bob", "a@b.c"}}},
	{"comment before the brackets", "(Bob) <a@b.c>", []Address{{"Bob", "a@b.c"}}},
	{"a name and a comment, no address", "Mail Delivery Subsystem (MTA)", []Address{{"Mail Delivery Subsystem", ""}}},
	{"single quotes are letters (RFC 5322 §3.2.3)", "'Bob' <a@b.c>", []Address{{"'Bob'", "a@b.c"}}},
	{"commas alone", ",, ,", nil},
	{"empty", "", nil},
}

func TestParseAddresses(t *testing.T) {
	t.Parallel()
	for _, tc := range addressCases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := ParseAddresses(tc.in); !slices.Equal(got, tc.want) {
				t.Errorf("ParseAddresses(%q) = %+q, want %+q", tc.in, got, tc.want)
			}
		})
	}
}

// TestValuesLinear reads values made to grow.
func TestValuesLinear(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"a@b.c, ", "(", `"`, `\"`, "<", "<@", "a, ", "=?utf-8?Q?a?= ", "=?a?Q?x", "x:", "((((a@b ", "a;", "a b c "} {
		list := strings.Repeat(s, 1<<18)
		start := time.Now()
		ParseAddresses(list)
		decodeWords(list, nil)
		parseParams(list)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%d octets of %q took %s", len(list), s, took)
		}
	}
}
