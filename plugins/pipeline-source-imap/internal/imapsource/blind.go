package imapsource

import (
	"fmt"
	"strings"

	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
)

// What a server hides can't be exported. It stands in the report beside the
// counts, so that nobody takes the export for more than it is. What is said
// here was seen, or is known of this very provider: a round number alone
// proves nothing.

// yahooCap is how many messages of a mailbox Yahoo shows, and on the host
// that is for exports.
const (
	yahooCap       = 10_000
	yahooExportCap = 100_000
)

// gmailCaps are what a user of Gmail can limit mailboxes to.
var gmailCaps = []int64{1_000, 2_000, 5_000, 10_000}

// blindSpots says what the server doesn't show of the mailbox that is open.
func (l *lister) blindSpots(st *imapconn.Opened) (spots []string) {
	say := func(format string, args ...any) { spots = append(spots, fmt.Sprintf(format, args...)) }
	if l.disagrees(st) {
		say("the server counts %d messages and lists %d", st.Messages, l.found.all.Count())
	}
	if l.found.capped {
		say("the server lists a part of its messages at a time ([MESSAGELIMIT]), and didn't go on below UID %d", lowest(&l.found))
	}
	switch host := strings.ToLower(l.settings.Dialer.Host()); {
	case host == "export.imap.mail.yahoo.com" || host == "export.imap.aol.com":
		if st.Messages >= yahooExportCap {
			say("Yahoo shows the newest %s messages of a mailbox at most: older ones can't be seen", thousands(yahooExportCap))
		}
	case l.config.Provider == "yahoo" || strings.HasSuffix(host, ".mail.yahoo.com") || strings.HasSuffix(host, ".aol.com"):
		if st.Messages >= yahooCap {
			say("Yahoo shows the newest %s messages of a mailbox at most on this host: export.imap.mail.yahoo.com shows %s", thousands(yahooCap), thousands(yahooExportCap))
		}
	case l.gmail:
		for _, n := range gmailCaps {
			if st.Messages == n {
				say("exactly %s messages, which Gmail's setting \"Limit IMAP folders\" makes of a larger mailbox: check it under Forwarding and POP/IMAP", thousands(n))
			}
		}
	}
	if l.req.Mailbox == "INBOX" {
		l.mu.Lock()
		if l.hidesAll {
			spots = append(spots, hiddenAllMail)
		}
		l.mu.Unlock()
	}
	return spots
}

// disagrees reports whether the server's count and its listing differ.
func (l *lister) disagrees(st *imapconn.Opened) bool {
	return l.found.searched == "ALL" && l.found.all.Count() != st.Messages
}

const hiddenAllMail = "All Mail is hidden from IMAP: mail without a label can't be seen; show it in Gmail's settings under Labels"

// lowest returns the smallest UID found.
func lowest(f *findings) uint32 {
	if len(f.all) == 0 {
		return 0
	}
	return f.all[0].First
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
