package pluginhost

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strings"
	"testing"
)

// A secret is hidden wherever it stands; a short one that is part of our own
// words doesn't tear holes into them, which would tell what it is (found by a
// user whose password was "pass").
func TestRedactor(t *testing.T) {
	t.Parallel()
	var r redactor
	for _, secret := range []string{"pass", "a b", "hunter2-and-more", "42"} {
		r.add(secret)
	}
	for said, want := range map[string]string{
		"check username and password":        "check username and password",
		"LOGIN alice pass: refused":          "LOGIN alice (secret): refused",
		"pass":                               "(secret)",
		"imap://alice:pass@host, pass, pass": "imap://alice:(secret)@host, (secret), (secret)",
		"passpass is another word":           "passpass is another word",
		"\"a b\" and a+b in a URL":           "\"(secret)\" and (secret) in a URL",
		"AGFsaWNlAHBhc3M= and cGFzcw==":      "AGFsaWNlAHBhc3M= and (secret)",
		"xhunter2-and-morex":                 "x(secret)x",
		"port 42 is no secret":               "port 42 is no secret",
	} {
		if got := r.text(said); got != want {
			t.Errorf("%q became %q, want %q", said, got, want)
		}
	}
}

// A secret is found in every way that errors and logs write it, also in the
// middle of a SASL response, which a server may send back.
func TestRedactorKnowsSpellings(t *testing.T) {
	t.Parallel()
	const secret = "pä\"ss\\wör d%41&=<Ω>'+/z"
	var r redactor
	r.add(secret)
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(secret)
	inJSON, err := json.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{
		"plain": secret, "%q": fmt.Sprintf("%q", secret), "%+q": fmt.Sprintf("%+q", secret), "%q of %q": fmt.Sprintf("%q", fmt.Sprintf("it says %q", secret)), "%x": fmt.Sprintf("%x", secret), "%X": fmt.Sprintf("%X", secret),
		"IMAP": `a LOGIN alice "` + quoted + `"`, "JSON": string(inJSON), "HTML": html.EscapeString(secret),
		"query": url.QueryEscape(secret), "path": url.PathEscape(secret), "lower case": strings.ToLower(url.QueryEscape("Ω" + secret)[6:]),
		"base64": base64.StdEncoding.EncodeToString([]byte(secret)), "for URLs": base64.URLEncoding.EncodeToString([]byte(secret)),
	}
	for _, user := range []string{"a", "al", "ali"} {
		said["PLAIN for "+user] = base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + secret))
		said["XOAUTH2 for "+user] = base64.StdEncoding.EncodeToString([]byte("user=" + user + "\x01auth=Bearer " + secret + "\x01\x01"))
	}
	for name, text := range said {
		got := r.text("it says " + text + " again")
		if !strings.Contains(got, "(secret)") {
			t.Errorf("%s: %q became %q", name, text, got)
		}
		for _, piece := range []string{"wör", "w\\u00f6r", "%C3%B6", "%c3%b6", "c3b6", "C3B6"} {
			if strings.Contains(got, piece) {
				t.Errorf("%s: %q became %q, which has %q", name, text, got, piece)
			}
		}
		if len(got) > len("it says  again")+len(text)-len(secret)+20 {
			t.Errorf("%s: %q became %q: more is left than what stood around it", name, text, got)
		}
	}
}
