package convert

import (
	"bytes"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
)

// codepages are the Windows code pages of charsets that readers of .msg know.
// HTML in any other charset is stored as UTF-8.
var codepages = map[string]int32{
	"utf-8": 65001, "us-ascii": 20127,
	"iso-8859-1": 28591, "iso-8859-2": 28592, "iso-8859-5": 28595, "iso-8859-15": 28605,
	"windows-1250": 1250, "windows-1251": 1251, "windows-1252": 1252, "windows-1253": 1253, "windows-1254": 1254,
	"windows-1255": 1255, "windows-1256": 1256, "windows-1257": 1257, "windows-1258": 1258, "windows-874": 874,
	"koi8-r": 20866, "shift_jis": 932, "iso-2022-jp": 50220, "euc-jp": 51932,
	"gbk": 936, "gb2312": 936, "gb18030": 54936, "euc-kr": 949, "big5": 950,
}

// codepageOf returns the code page of a charset as message.DecodeCharset names
// it, 0 when there is none that readers know.
func codepageOf(charset string) int32 { return codepages[charset] }

var singleByte = map[int32]*charmap.Charmap{
	1250: charmap.Windows1250, 1251: charmap.Windows1251, 1252: charmap.Windows1252, 1253: charmap.Windows1253,
	1254: charmap.Windows1254, 1255: charmap.Windows1255, 1256: charmap.Windows1256, 1257: charmap.Windows1257,
	1258: charmap.Windows1258, 874: charmap.Windows874,
}

var multiByte = map[int32]encoding.Encoding{
	932: japanese.ShiftJIS, 50220: japanese.ISO2022JP, 51932: japanese.EUCJP, 936: simplifiedchinese.GBK,
	54936: simplifiedchinese.GB18030, 949: korean.EUCKR, 950: traditionalchinese.Big5,
}

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
	return true // ISO 8859 and KOI8-R have a character for every octet
}
