package pluginhost

import (
	"encoding/base64"
	"net/url"
	"slices"
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

// add makes the redactor know a secret, plain, as it stands in a URL, and in
// base64.
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
	var pairs []string
	r.words = nil
	for s := range r.known {
		for _, form := range []string{s, url.QueryEscape(s), base64.StdEncoding.EncodeToString([]byte(s))} {
			if len(form) > word {
				pairs = append(pairs, form, "(secret)")
			} else if !slices.Contains(r.words, form) {
				r.words = append(r.words, form)
			}
		}
	}
	r.replacer = strings.NewReplacer(pairs...)
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
