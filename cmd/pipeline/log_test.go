package main

import (
	"bytes"
	"log/slog"
	"testing"
)

func TestWarnings(t *testing.T) {
	t.Parallel()
	var first, second bytes.Buffer
	s := &screen{w: &first}
	log := slog.New(&warnings{w: s}).With("plugin", "imap")
	log.Info("not shown")
	log.Warn("the count and the listing differ", "mailbox", "INBOX", "count", 3)
	s.through(&second)
	log.With("session", "alice").Error("no answer")
	slog.New(&warnings{w: s}).Warn("from the host")
	if want := "warning: plugin imap: the count and the listing differ (mailbox INBOX, count 3)\n"; first.String() != want {
		t.Errorf("got %q, want %q", first.String(), want)
	}
	if want := "warning: plugin imap: no answer (session alice)\nwarning: from the host\n"; second.String() != want {
		t.Errorf("got %q, want %q", second.String(), want)
	}
}
