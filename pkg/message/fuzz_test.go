package message

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func FuzzHeader(f *testing.F) {
	for _, s := range []string{
		"Subject: =?utf-8?Q?a=C3=A4?=\r\nDate: Tue, 3 Mar 2026 10:15:00 +0100\r\n\r\nbody",
		"garbage\r\nFrom x\nSubject:x\n y\n\n", "\xEF\xBB\xBFA: b\rC: d\rE: f\r\r", "A:\r\n \r\n\t\r\nB : c",
		"Content-Type: text/plain; charset=koi8-r\nSubject: \xd4\xc5\xd3\xd4\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		h := NewHeader(raw)
		h.Fields(func(name, value string) bool {
			if name == "" || strings.ContainsAny(value, "\n") {
				t.Errorf("field %q: %q", name, value)
			}
			if got := h.Values(name); len(got) == 0 || got[0] != h.Get(name) {
				t.Errorf("Values(%q) = %q, Get gives %q", name, got, h.Get(name))
			}
			if s := h.Text(name); !utf8.ValidString(s) {
				t.Errorf("Text(%q) = %q", name, s)
			}
			return true
		})
		for _, p := range h.Problems() {
			if !utf8.ValidString(p) {
				t.Errorf("problem %q", p)
			}
		}
		if d, ok := h.Date(); ok && d.Year() > 9999 {
			t.Errorf("date %s", d)
		}
		h.MessageID()
		h.MessageIDs("References")
	})
}

func FuzzDate(f *testing.F) {
	for _, tc := range dateCases {
		f.Add(tc.in)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if usual, ok := usualDate(s); ok {
			if any, ok := anyDate(s); !ok || any.Format(time.RFC3339) != usual.Format(time.RFC3339) {
				t.Errorf("of %q the short way makes %s, the long way %s", s, usual, any)
			}
		}
		d, ok := ParseDate(s)
		if !ok {
			return
		}
		if d.Year() < -1 || d.Year() > 10000 {
			t.Errorf("ParseDate(%q) = %s", s, d)
		}
		if d.Year() < 1000 || d.Year() > 9998 || d.Nanosecond() != 0 {
			return
		}
		again, ok := ParseDate(d.Format(time.RFC1123Z))
		if !ok || !again.Equal(d) {
			t.Errorf("%q is %s; as it is written, that is %s, %v", s, d, again, ok)
		}
	})
}

func FuzzAddresses(f *testing.F) {
	for _, tc := range addressCases {
		f.Add(tc.in)
	}
	for _, s := range []string{"a@b", "A B <a@b>, \"B, A.\" <b@c>,\tc=1@d", "\"a  b\" <c@d>", "a  b <c@d>", "a@b <a@b>", "x <a b@c>", "\"x\"y <a@b>", "a@b ,c@d", "root, <>", "a@b,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if usual, ok := usualAddresses(nil, s); ok {
			if long := anyAddresses(s); !slices.Equal(usual, long) {
				t.Errorf("of %q the short way makes %q, the long way %q", s, usual, long)
			}
		}
		list := ParseAddresses(s)
		if len(list) > len(s) {
			t.Errorf("%d addresses in %d octets", len(list), len(s))
		}
		for _, a := range list {
			if a.Name == "" && a.Address == "" || !utf8.ValidString(a.Name) || !utf8.ValidString(a.Address) {
				t.Errorf("ParseAddresses(%q) has %+q", s, a)
			}
		}
	})
}

func FuzzWords(f *testing.F) {
	for _, tc := range wordCases {
		f.Add(tc.in)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := decodeWords(s, func(charset string) {
			if !mayBeUnknown([]byte(s)) {
				t.Errorf("%q has the unknown charset %q", s, charset)
			}
		})
		if !utf8.ValidString(got) {
			t.Errorf("decodeWords(%q) = %q", s, got)
		}
		if !strings.Contains(s, "=?") && utf8.ValidString(s) && got != s {
			t.Errorf("decodeWords(%q) = %q, and there is nothing to decode", s, got)
		}
	})
}

func FuzzParams(f *testing.F) {
	for _, tc := range paramCases {
		f.Add(tc.in)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, params := parseParams(s)
		total := 0
		for k, v := range params {
			if k == "" || !utf8.ValidString(v) {
				t.Errorf("parseParams(%q) has %q: %q", s, k, v)
			}
			total += len(v)
		}
		if total > 4*len(s)+16 {
			t.Errorf("%d octets of values from %d", total, len(s))
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("aGVsbG8=\nd29ybGQ="), byte(transferBase64), byte(3))
	f.Add([]byte("a=3D=\r\nb =\n c=4"), byte(transferQuoted), byte(1))
	f.Add([]byte("begin 644 a\n#0V%T\n`\nend\n"), byte(transferUU), byte(5))
	f.Fuzz(func(t *testing.T, in []byte, kind, cut byte) {
		whole, pieces := decoder{transfer: transfer(kind % 4)}, decoder{transfer: transfer(kind % 4)}
		want := whole.finish(whole.feed(nil, in))
		var got []byte
		for rest := in; len(rest) > 0; {
			n := min(int(cut)+1, len(rest))
			got = pieces.feed(got, rest[:n])
			rest = rest[n:]
		}
		if got = pieces.finish(got); !bytes.Equal(got, want) {
			t.Errorf("whole %q, in pieces of %d %q", want, cut+1, got)
		}
		if len(want) > len(in)+80 {
			t.Errorf("%d octets from %d", len(want), len(in))
		}
	})
}

func FuzzCharset(f *testing.F) {
	f.Add("utf-7", []byte("Hi Mom -+Jjo--!"))
	f.Add("iso-2022-kr", []byte("\x1b$)C\x0eGQ19>n\x0f"))
	f.Add("\"UTF8\"", []byte("\xc3\xa4\xff"))
	f.Add("utf-16", []byte("a\x00b\x00"))
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		if s, used, _ := DecodeCharset(name, b); !utf8.ValidString(s) || used == "" {
			t.Errorf("DecodeCharset(%q, %q) = %q in %q", name, b, s, used)
		}
	})
}

func FuzzStructure(f *testing.F) {
	for _, tc := range structureCases {
		f.Add([]byte(tc.in))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		start := time.Now()
		checkMessage(t, raw)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%d octets took %s", len(raw), took)
		}
	})
}
