package message

import (
	"net/url"
	"strings"
	"testing"
)

func TestURL(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, base string
		id         ID
		want       string
	}{
		{"a plain mailbox", "imap://u@h", ID{Mailbox: "INBOX", UIDValidity: 1, UID: 5}, "imap://u@h/INBOX;UIDVALIDITY=1/;UID=5"},
		{"levels", "imap://u@h/", ID{Mailbox: "Archive/2024", UIDValidity: 1, UID: 5}, "imap://u@h/Archive/2024;UIDVALIDITY=1/;UID=5"},
		{"what has a meaning", "imap://u@h", ID{Mailbox: "a;b/c d?%", UIDValidity: 1, UID: 5}, "imap://u@h/a%3Bb/c%20d%3F%25;UIDVALIDITY=1/;UID=5"},
		{"letters of others", "imap://u@h", ID{Mailbox: "Größe", UIDValidity: 4294967295, UID: 4294967295}, "imap://u@h/Gr%C3%B6%C3%9Fe;UIDVALIDITY=4294967295/;UID=4294967295"},
		{"a UIDL", "pop://u@h", ID{UIDL: "a/b c"}, "pop://u@h/;UIDL=a%2Fb%20c"},
		{"a UIDL in a mailbox", "file://", ID{Mailbox: "x y", UIDL: "1"}, "file://x%20y/;UIDL=1"},
	}
	for _, tt := range tests {
		if got := tt.id.URL(tt.base); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	for c := range 256 { // what passes for plain is what is not escaped
		if name := string([]byte{'x', byte(c)}); isPlain(name) && c != '/' && (url.PathEscape(name) != name || strings.Contains(name, ";")) {
			t.Errorf("%q is escaped", name)
		}
	}
}
