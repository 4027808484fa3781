package message

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
)

// charsetAliases are names seen in real mail that neither the WHATWG's nor
// IANA's table knows.
var charsetAliases = map[string]string{
	"utf8": "utf-8", "utf_8": "utf-8", "utf-8mb4": "utf-8", "utf8mb4": "utf-8", "unicode": "utf-8",
	"x-unknown": "", "unknown": "", "unknown-8bit": "", "x-user-defined": "", "default": "", "_autodetect_all": "",
	"ansi_x3.4-1968": "us-ascii", "ascii": "us-ascii", "iso646-us": "us-ascii", "us": "us-ascii", "646": "us-ascii", "ansi": "windows-1252",
	"utf7": "utf-7", "unicode-1-1-utf-7": "utf-7", "x-unicode-2-0-utf-7": "utf-7", "unicode-2-0-utf-7": "utf-7", "csunicode11utf7": "utf-7", "cp65000": "utf-7",
	"unicode-1-1-utf-8": "utf-8", "cp65001": "utf-8", "x-unicode-2-0-utf-8": "utf-8",
	"cp932": "shift_jis", "ms932": "shift_jis", "ms_kanji": "shift_jis", "windows-932": "shift_jis", "x-ms-cp932": "shift_jis", "sjis": "shift_jis", "shift-jis": "shift_jis", "cswindows31j": "shift_jis",
	"cp936": "gbk", "ms936": "gbk", "windows-936": "gbk", "gb2312-80": "gbk", "x-gbk": "gbk", "gb_2312": "gbk", "x-gb2312": "gbk", "euc-cn": "gbk", "gb-2312": "gbk", "hz": "hz-gb-2312",
	"cp949": "euc-kr", "ms949": "euc-kr", "uhc": "euc-kr", "x-windows-949": "euc-kr", "ks_c_5601": "euc-kr", "ks_c_5601_1987": "euc-kr", "ksc_5601": "euc-kr", "ks-c-5601-1987": "euc-kr", "5601": "euc-kr",
	"cp950": "big5", "ms950": "big5", "windows-950": "big5", "x-big5": "big5", "big5hkscs": "big5-hkscs",
	"x-euc-jp": "euc-jp", "eucjp": "euc-jp", "x-euc": "euc-jp", "iso-2022-jp-1": "iso-2022-jp", "iso-2022-jp-2": "iso-2022-jp", "iso-2022-jp-ms": "iso-2022-jp", "cp50220": "iso-2022-jp", "cp50221": "iso-2022-jp", "jis": "iso-2022-jp", "x-iso-2022-jp": "iso-2022-jp",
	"x-mac-roman": "macintosh", "macroman": "macintosh", "mac-roman": "macintosh", "x-mac-cyrillic": "x-mac-cyrillic",
	"koi8": "koi8-r", "koi8_r": "koi8-r", "koi-8-r": "koi8-r", "koi8_u": "koi8-u",
	"visual": "iso-8859-8", "logical": "iso-8859-8-i", "iso-8859-8i": "iso-8859-8-i",
	"utf16": "utf-16", "ucs-2": "utf-16", "ucs2": "utf-16", "unicodefffe": "utf-16be", "utf-16-le": "utf-16le", "utf-16-be": "utf-16be",
	"ucs-4": "utf-32", "utf32": "utf-32",
	"win-1251": "windows-1251", "win1251": "windows-1251", "cp-1251": "windows-1251", "cp-1252": "windows-1252", "win-1252": "windows-1252",
	"latin-1": "iso-8859-1", "latin_1": "iso-8859-1", "iso8859": "iso-8859-1", "8859-1": "iso-8859-1", "western": "windows-1252",
}

// canonicalCharset returns the name without quotes and junk, in lower case.
func canonicalCharset(name string) string {
	name = strings.ToLower(strings.Trim(name, " \t\r\n\"'`;,.<>()="))
	if i := strings.IndexAny(name, " \t\r\n\";*"); i >= 0 {
		name = name[:i]
	}
	if to, ok := charsetAliases[name]; ok {
		return to
	}
	return strings.TrimPrefix(name, "charset=")
}

// charsetEncoding returns how octets of the charset are read; nil where they
// need more than a table (UTF-8, US-ASCII, UTF-7, none) or are unknown, which
// known tells apart.
func charsetEncoding(canonical string) (enc encoding.Encoding, known bool) {
	switch canonical {
	case "utf-8", "us-ascii", "", "utf-7", "iso-2022-kr":
		return nil, true
	case "utf-16":
		return unicode.UTF16(unicode.BigEndian, unicode.UseBOM), true
	case "utf-16be":
		return unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM), true
	case "utf-16le":
		return unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), true
	case "utf-32", "utf-32be":
		return utf32.UTF32(utf32.BigEndian, utf32.UseBOM), true
	case "utf-32le":
		return utf32.UTF32(utf32.LittleEndian, utf32.UseBOM), true
	}
	if enc := charsetIn(canonical); enc != nil {
		return enc, true
	}
	// iso8859-15, iso_8859_15, iso-latin-8859-15; cp1251 for cp-1251.
	flat := strings.NewReplacer("_", "-", " ", "-").Replace(canonical)
	flat = strings.Replace(flat, "iso8859", "iso-8859", 1)
	if i := strings.Index(flat, "8859-"); i > 0 && strings.HasPrefix(flat, "iso") {
		flat = "iso-" + flat[i:]
	}
	flat = strings.Replace(flat, "cp-", "cp", 1)
	if flat != canonical {
		if enc := charsetIn(flat); enc != nil {
			return enc, true
		}
	}
	return nil, false
}

func charsetIn(name string) encoding.Encoding {
	// The WHATWG maps these two to "replacement", which reads nothing; IANA's
	// table knows the first.
	if enc, err := htmlindex.Get(name); err == nil && enc != encoding.Replacement {
		return enc
	}
	if enc, err := ianaindex.MIME.Encoding(name); err == nil && enc != nil && enc != encoding.Replacement {
		return enc
	}
	if enc, err := ianaindex.IANA.Encoding(name); err == nil && enc != nil && enc != encoding.Replacement {
		return enc
	}
	if strings.HasPrefix(name, "cp") {
		if enc, err := ianaindex.IANA.Encoding("ibm" + name[2:]); err == nil && enc != nil {
			return enc
		}
	}
	return nil
}

// DecodeCharset returns b, which is said to be in the charset, as valid UTF-8,
// and the charset that it was read as, in lower case. A charset that is
// missing, unknown, or can't be the right one gives UTF-8 when b is that, else
// windows-1252, in which any octets can be read. known is false where the name
// was given and isn't one we can read.
func DecodeCharset(charset string, b []byte) (text, used string, known bool) {
	if len(charset) == 5 && strings.EqualFold(charset, "utf-8") { // nearly always
		text, used = guessCharset(b)
		return text, used, true
	}
	name := canonicalCharset(charset)
	enc, known := charsetEncoding(name)
	if name == "utf-7" {
		if text, ok := decodeUTF7(b); ok {
			return text, name, true
		}
		enc = nil
	}
	if name == "iso-2022-kr" {
		if text, ok := decode2022KR(b); ok {
			return text, name, true
		}
	}
	if name == "utf-16" && len(b) >= 2 && !hasBOM(b) && looksLittleEndian(b) {
		enc = unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)
	}
	if name == "iso-2022-jp" && !isASCII(b) {
		// It has seven bits only: the label lies. EUC-JP is hardly ever met by
		// chance; Shift_JIS is, so it isn't tried.
		if out, err := japanese.EUCJP.NewDecoder().Bytes(b); err == nil && !utf8.Valid(b) && !bytes.ContainsRune(out, utf8.RuneError) {
			return string(out), "euc-jp", true
		}
	}
	if enc == nil {
		text, used = guessCharset(b)
		if name == "us-ascii" && isASCII(b) {
			used = name
		}
		return text, used, known
	}
	if out, err := enc.NewDecoder().Bytes(b); err == nil {
		if name != "utf-16" && name != "utf-16le" && name != "utf-16be" && strings.Count(string(out), "\uFFFD") > 0 && !isASCII(b) && utf8.Valid(b) {
			// Octets that the charset doesn't have, and good UTF-8: the label lies.
			return string(b), "utf-8", true
		}
		return validUTF8(string(out)), name, true
	}
	text, used = guessCharset(b)
	return text, used, known
}

func hasBOM(b []byte) bool { return b[0] == 0xFE && b[1] == 0xFF || b[0] == 0xFF && b[1] == 0xFE }

// looksLittleEndian reports whether more zeros stand at odd places than at
// even ones, as in Western text. RFC 2781 §4.3 says big-endian where there is
// no mark, but Windows writes little-endian.
func looksLittleEndian(b []byte) bool {
	odd, even := 0, 0
	for i, c := range b {
		if c == 0 && i&1 == 1 {
			odd++
		} else if c == 0 {
			even++
		}
	}
	return odd > even
}

// decode2022KR reads ISO-2022-KR (RFC 1557): KS X 1001 between SO and SI. The
// tables of x/text don't have it, but EUC-KR is the same with the high bit set.
func decode2022KR(b []byte) (string, bool) {
	if !isASCII(b) {
		return "", false
	}
	euc := make([]byte, 0, len(b))
	shifted := byte(0)
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == 0x0E:
			shifted = 0x80
		case c == 0x0F:
			shifted = 0
		case c == 0x1B && bytes.HasPrefix(b[i:], []byte("\x1b$)C")):
			i += 3
		case c > ' ':
			euc = append(euc, c|shifted)
		default:
			if c == '\n' {
				shifted = 0
			}
			euc = append(euc, c)
		}
	}
	out, err := korean.EUCKR.NewDecoder().Bytes(euc)
	return string(out), err == nil
}

// guessCharset reads b as UTF-8 or windows-1252. Octets of which most are good
// UTF-8 sequences are UTF-8 with damage: other charsets hardly make them.
func guessCharset(b []byte) (text, used string) {
	if utf8.Valid(b) {
		return string(b), "utf-8"
	}
	good, bad := 0, 0
	for i := 0; i < len(b); {
		if b[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			bad++
		} else {
			good++
		}
		i += n
	}
	if good > 0 && good >= bad {
		return validUTF8(string(b)), "utf-8"
	}
	out, err := charmap.Windows1252.NewDecoder().Bytes(b)
	if err != nil {
		return validUTF8(string(b)), "utf-8"
	}
	return string(out), "windows-1252"
}

func validUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
