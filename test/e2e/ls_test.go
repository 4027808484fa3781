package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/test/popscript"
)

// TestLookingIsBounded looks at all of a maildrop of 300,000 messages, and at a
// page of it: no process grows with it (I5), and a page asks for no more headers
// than it shows.
func TestLookingIsBounded(t *testing.T) {
	const n = 300_000
	messages := make([]popscript.Message, n)
	for i := range messages {
		messages[i] = popscript.Message{UIDL: fmt.Sprintf("u%07d", i+1), Raw: "Subject: x\r\n\r\n", Size: 1000}
	}
	server := popscript.Start(t, popscript.Script{Messages: messages})
	j := newJob(t, file{address: server.Addr, plugin: "pop3"}.String())

	o := j.run(0, "ls", "alice", "INBOX", "--fields", "uidl,size")
	if lines := strings.Count(o.out, "\n"); lines != n || !strings.HasSuffix(o.out, "u0300000\t1000\n") {
		t.Errorf("%d lines, want %d", lines, n)
	}
	bounded(t, o, "pipeline", "pipeline-source-pop3")
	t.Logf("%d messages in %s", n, o.took)

	began := len(server.Commands())
	o = j.run(0, "ls", "alice", "INBOX", "--page", "5000", "--page-size", "20", "--json")
	needs(t, o.out, `"uidl":"u0099981"`, `"uidl":"u0100000"`, `"total":300000,"page":5000,"page_size":20,"pages":15000,"next":5001}`)
	tops := 0
	for _, c := range server.Commands()[began:] {
		if strings.HasPrefix(c, "TOP ") {
			tops++
		}
	}
	if tops != 20 {
		t.Errorf("a page of 20 messages took %d headers", tops)
	}
	bounded(t, o, "pipeline", "pipeline-source-pop3")
	t.Logf("a page in %s", o.took)
}
