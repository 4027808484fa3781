package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/plugintest"
	"github.com/mailhaul/pipeline/test/dovecot"
)

func TestConformance(t *testing.T) {
	const large = 48 << 20 // twice what the race detector makes of the windows
	plugintest.Source(t, plugin(), plugintest.Fixture{
		Large: large,
		Configure: func(t testing.TB) map[string]any {
			d := dovecot.Start(t, dovecot.Options{})
			date := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
			deliver := func(mailbox, body string, flags ...string) {
				date = date.Add(time.Hour)
				mail := fmt.Sprintf("From: ada@example.com\r\nTo: bob@example.com\r\nSubject: hour %d\r\nMessage-ID: <%d@test.example>\r\n\r\n%s",
					date.Hour(), date.Unix(), body)
				d.Deliver("alice", mailbox, []byte(mail), date, flags...)
			}
			for i := range 12 {
				body := strings.Repeat("a line\r\n", 1+i%5*300)
				if i%3 == 0 {
					deliver("INBOX", body, `\Seen`)
				} else {
					deliver("INBOX", body)
				}
			}
			deliver("Projects/Übersicht", "\x00 NUL and \xff 8-bit\n.\nbare LF")
			deliver("Projects/Übersicht", "")
			deliver("Large", strings.Repeat(strings.Repeat("x", 76)+"\r\n", large/78))
			return map[string]any{
				"address": d.IMAP, "security": "none", "username": "alice", "password": dovecot.Password, "connections": 3,
			}
		},
	})
}
