package dovecot

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDeliver(t *testing.T) {
	t.Parallel()
	for _, sep := range []string{"/", "."} {
		t.Run("separator "+sep, func(t *testing.T) {
			t.Parallel()
			s := Start(t, Options{Separator: sep})
			date := time.Date(2020, 2, 29, 12, 0, 0, 0, time.UTC)
			for i := range 3 {
				s.Deliver("alice", "INBOX", fmt.Appendf(nil, "Subject: %d\r\n\r\nbody\r\n", i), date, `\Seen`, "$Forwarded")
			}
			s.Deliver("alice", "Projekte/Übung", []byte("Subject: deep\n\nbody\n"), date)
			got := s.Octets("alice", "INBOX")
			for i := range uint32(3) {
				if want := fmt.Appendf(nil, "Subject: %d\r\n\r\nbody\r\n", i); !bytes.Equal(got[i+1], want) {
					t.Errorf("UID %d is %q, want %q", i+1, got[i+1], want)
				}
			}
			deep := s.Octets("alice", "Projekte"+sep+"&ANw-bung")
			if want := "Subject: deep\r\n\r\nbody\r\n"; string(deep[1]) != want {
				t.Errorf("the nested mailbox has %q, want %q", deep[1], want)
			}
			flags := s.Doveadm("fetch", "-u", "alice", "flags date.received", "mailbox", "INBOX", "uid", "1")
			if !strings.Contains(flags, `\Seen`) || !strings.Contains(flags, "$Forwarded") || !strings.Contains(flags, "2020-02-29") {
				t.Errorf("doveadm says of the first message:\n%s", flags)
			}
		})
	}
}

// TestNothingIsLeft is the promise of the clean-up: no process, no file.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	var dir string
	t.Run("server", func(t *testing.T) { dir = Start(t, Options{}).Dir })
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if b, err := os.ReadFile(l); err == nil && bytes.Contains(b, []byte(dir)) {
			t.Errorf("%s: %q still runs", l, b)
		}
	}
}
