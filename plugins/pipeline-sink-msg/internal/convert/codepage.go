package convert

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
)

// codepages are the code pages in which HTML is stored as it came: those that
// most readers of .msg know. HTML in any other charset is stored as UTF-8,
// which all of them do.
var codepages = map[string]int32{
	"utf-8": 65001, "us-ascii": 20127, "iso-8859-1": 28591, "iso-8859-2": 28592,
	"windows-1250": 1250, "windows-1251": 1251, "windows-1252": 1252, "shift_jis": 932, "iso-2022-jp": 50220,
}

// codepageOf returns the code page of a charset as message.DecodeCharset names
// it, 0 when there is none that readers know.
func codepageOf(charset string) int32 { return codepages[charset] }

// charsetOf returns the charset of a Windows code page; empty when it isn't one
// that mail uses.
func charsetOf(codepage int32) string {
	switch cp := codepage; {
	case cp >= 1250 && cp <= 1258, cp == 874:
		return fmt.Sprintf("windows-%d", cp)
	case cp >= 28591 && cp <= 28606:
		return fmt.Sprintf("iso-8859-%d", cp-28590)
	case cp >= 50220 && cp <= 50222:
		return "iso-2022-jp"
	}
	return map[int32]string{
		65001: "utf-8", 20127: "us-ascii", 932: "shift_jis", 936: "gbk", 949: "euc-kr", 950: "big5",
		20866: "koi8-r", 21866: "koi8-u", 51932: "euc-jp", 54936: "gb18030", 10000: "macintosh",
	}[codepage]
}

var singleByte = map[int32]*charmap.Charmap{
	1250: charmap.Windows1250, 1251: charmap.Windows1251, 1252: charmap.Windows1252,
}

var multiByte = map[int32]encoding.Encoding{932: japanese.ShiftJIS, 50220: japanese.ISO2022JP}

// decodes reports whether b can be read in the code page by strict readers.
// The tables at hand are the WHATWG's, which fill the holes of Windows' code
// pages with controls; so such controls count as holes.
func decodes(codepage int32, b []byte) bool {
	switch codepage {
	case 65001:
		return utf8.Valid(b)
	case 20127:
		return ascii(b)
	}
	if m := singleByte[codepage]; m != nil {
		for _, c := range b {
			if c >= 0x80 {
				if r := m.DecodeByte(c); r == utf8.RuneError || r == rune(c) && c < 0xA0 {
					return false
				}
			}
		}
		return true
	}
	if enc := multiByte[codepage]; enc != nil {
		out, err := enc.NewDecoder().Bytes(b)
		if err != nil || bytes.ContainsRune(out, utf8.RuneError) {
			return false
		}
		// And back: what comes out differently is no character of it.
		again, err := enc.NewEncoder().Bytes(out)
		return err == nil && bytes.Equal(again, b)
	}
	return true // ISO 8859 has a character for every octet
}
