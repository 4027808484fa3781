package pluginhost

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// shortest is the length below which a secret isn't looked for in logs: the
// digit of a PIN would blot out every number.
const shortest = 3

// word is the length up to which a secret is replaced only where it stands for
// itself. A password like "pass" is part of our own words: with a hole in
// "password" a line would tell what it is to hide.
const word = 7

// redactor replaces the secrets that were handed out, wherever they appear
// (I9). It is safe for concurrent use.
type redactor struct {
	off bool // nothing is replaced; set before the first use

	mu       sync.RWMutex
	known    map[string]bool
	replacer *strings.Replacer
	words    []string // the short forms
}

// add makes the redactor know a secret, in all its forms.
func (r *redactor) add(secret string) {
	if len(secret) < shortest || r.off {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known[secret] {
		return
	}
	if r.known == nil {
		r.known = map[string]bool{}
	}
	r.known[secret] = true
	r.words = nil
	var long []string
	for s := range r.known {
		// A log is a line at a time: of a secret of several each is one.
		parts := strings.FieldsFunc(s, func(c rune) bool { return c == '\n' || c == '\r' })
		for i, part := range parts {
			parts[i] = strings.TrimSpace(part)
		}
		for _, form := range slices.Concat(spellings(s), parts) {
			if len(form) < shortest {
				continue
			}
			switch {
			case len(form) > word:
				long = append(long, form)
			case !slices.Contains(r.words, form):
				r.words = append(r.words, form)
			}
		}
		long = append(long, inBase64(s)...)
	}
	// Of several forms that begin at one place the longest is meant.
	slices.SortFunc(long, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	pairs := make([]string, 0, 2*len(long))
	for _, form := range slices.Compact(long) {
		pairs = append(pairs, form, "(secret)")
	}
	r.replacer = strings.NewReplacer(pairs...)
}

// spellings returns the ways in which a secret is written out: as it is, in
// quotes of Go, JSON, IMAP (RFC 9051 §4.3) and HTML, in a URL, and in hex.
func spellings(s string) []string {
	unquoted := func(s string) string { return s[1 : len(s)-1] }
	out := []string{
		s, unquoted(strconv.Quote(s)), unquoted(strconv.QuoteToASCII(s)),
		strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s),
		html.EscapeString(s), hex.EncodeToString([]byte(s)), strings.ToUpper(hex.EncodeToString([]byte(s))),
	}
	if text, err := json.Marshal(s); err == nil {
		out = append(out, unquoted(string(text)))
	}
	for _, u := range []string{url.QueryEscape(s), url.PathEscape(s), strings.ReplaceAll(url.QueryEscape(s), "+", "%20")} {
		out = append(out, u, percent.ReplaceAllStringFunc(u, strings.ToLower))
	}
	// A server's answer that has it in quotes is quoted once more in errors.
	for _, form := range out {
		out = append(out, unquoted(strconv.Quote(form)))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

var percent = regexp.MustCompile("%[0-9A-F]{2}")

// inBase64 returns what stands in base64 for a secret, alone or in the middle
// of something else, as in a SASL response: there it begins at any of three
// places of a group, and its first and last octet share characters with their
// neighbours. What is too short to be told from a word is left out.
func inBase64(s string) []string {
	var out []string
	for _, code := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			all := code.EncodeToString([]byte(strings.Repeat("\x00", before) + s))
			form := all[(8*before+5)/6 : 8*(before+len(s))/6]
			if len(form) >= shortest+2 {
				out = append(out, form)
			}
		}
	}
	// Alone it is replaced with its padding.
	return append(out, base64.StdEncoding.EncodeToString([]byte(s)), base64.URLEncoding.EncodeToString([]byte(s)))
}

// text returns s without the secrets.
func (r *redactor) text(s string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.replacer == nil {
		return s
	}
	s = r.replacer.Replace(s)
	for _, w := range r.words {
		s = replaceWord(s, w)
	}
	return s
}

// replaceWord replaces a secret where no letter or digit stands beside it.
func replaceWord(s, secret string) string {
	var out strings.Builder
	for rest := s; ; {
		i := strings.Index(rest, secret)
		if i < 0 {
			if out.Len() == 0 {
				return s
			}
			out.WriteString(rest)
			return out.String()
		}
		end := i + len(secret)
		before, _ := utf8.DecodeLastRuneInString(s[:len(s)-len(rest)+i])
		after, _ := utf8.DecodeRuneInString(rest[end:])
		out.WriteString(rest[:i])
		if partOfWord(before) || partOfWord(after) {
			out.WriteString(secret)
		} else {
			out.WriteString("(secret)")
		}
		rest = rest[end:]
	}
}

func partOfWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
