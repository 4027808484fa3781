package naming_test

import (
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/naming"
)

// FuzzName feeds names that a hostile server could send into templates that a
// user could write. Whatever comes out is portable, inside the target,
// normal, and the same when it is made again.
func FuzzName(f *testing.F) {
	f.Add(naming.Default, 0, "INBOX", "Subject: Hello\r\n")
	f.Add("{mailbox}/{from}-{subject}-{message_id}", 64, "../..//CON/nul.txt/ . ", "Subject: =?utf-8?q?=CC=81?=\r\nFrom: x\r\n")
	f.Add("{subject}.{hash}", 70, "a", "Subject: NUL\r\n")
	f.Add("{hash}{vars.v}{uidl}", 64, ".mailhaul", "\xff\xfe")
	f.Add("ᄀ{mailbox}{mailbox}/{year}{internal_date}", 64, "\u1161\u11a8", "")
	f.Fuzz(func(t *testing.T, template string, maxPath int, mailbox, header string) {
		tmpl, err := naming.Parse(template, naming.Options{MaxPath: maxPath})
		if err != nil {
			return
		}
		m := &message.Summary{
			ID:     message.ID{Source: mailbox, Mailbox: mailbox, UIDL: header},
			Header: message.NewHeader([]byte(header)),
			Vars:   map[string]string{"v": mailbox + header},
		}
		name := tmpl.Name(m)
		if why := wrong(name, maxPath, m.ID.Hash()); why != "" {
			t.Errorf("%q: %s", name, why)
		}
		if !utf8.ValidString(name) {
			t.Errorf("%q isn't UTF-8", name)
		}
		if norm.NFC.IsNormalString(template) && !norm.NFC.IsNormalString(name) {
			t.Errorf("%q isn't normal", name)
		}
		if again := tmpl.Name(m); again != name {
			t.Errorf("%q, then %q", name, again)
		}
	})
}

func BenchmarkName(b *testing.B) {
	tmpl := mustParse(b, naming.Default, naming.Options{Extension: ".eml"})
	m := sample("Projects/2025/Ünïcode", "Date: Fri, 31 Jan 2025 23:30:00 -0800", "Subject: Re: the minutes of Tuesday's meeting")
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = tmpl.Append(buf[:0], m)
	}
}
