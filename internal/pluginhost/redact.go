package pluginhost

import (
	"encoding/base64"
	"net/url"
	"strings"
	"sync"
)

// shortest is the length below which a secret isn't looked for in logs: the
// digit of a PIN would blot out every number.
const shortest = 3

// redactor replaces the secrets that were handed out, wherever they appear
// (I9). It is safe for concurrent use.
type redactor struct {
	off bool // nothing is replaced; set before the first use

	mu       sync.RWMutex
	known    map[string]bool
	replacer *strings.Replacer
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
	for s := range r.known {
		for _, form := range []string{s, url.QueryEscape(s), base64.StdEncoding.EncodeToString([]byte(s))} {
			pairs = append(pairs, form, "(secret)")
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
	return r.replacer.Replace(s)
}
