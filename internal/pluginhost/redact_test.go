package pluginhost

import "testing"

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
