package crash

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/test/dovecot"
)

// mixedFile is the pipeline of all that there is: both protocols of a real
// server, to three sinks, with messages that are dropped, over the limit,
// copies of others, and dead letters.
const mixedFile = `version: 1
name: crash
state: var/state
sources:
  - name: alice
    plugin: imap
    config: {address: %q, security: none, username: alice, password: "${env:PASSWORD}", connections: 3}
  - name: bob
    plugin: pop3
    config: {address: %q, security: none, username: bob, password: "${env:PASSWORD}"}
stages:
  - name: dated
    filter: date >= date("2000-01-01")
    unknown: dead_letter
  - name: kind
    drop: subject contains "kind 3"
  - name: first
    limit: {messages: 40, per: mailbox}
  - name: once
    dedupe: message_id
sinks:
  - name: archive
    plugin: eml
    config: {path: out/eml}
` + mixedMSG + `  - name: index
    plugin: json
    config: {path: out/index.jsonl, detail: structure}
`

// mixedMSG is the sink that some pipelines get later than the others.
const mixedMSG = `  - name: outlook
    plugin: msg
    config: {path: out/msg}
`

// shares are alice's mailboxes and bob's maildrop, and how much is in each.
var shares = map[string]int{"alice/INBOX": 60, "alice/Work/Project 1": 30, "alice/Archiv/Jahr 2 – Ärger": 25, "bob/INBOX": 60}

// mixed starts a server with mail for mixedFile. Every second mail of bob's is
// one that alice has too. Which of two goes on is decided by the order of the
// file and of the listing (docs/adr/0006-dedupe.md), so that the same ones are
// written, and the same ones are duplicates, after any crash: they are compared
// like all else.
func mixed(t *testing.T) *scenario {
	t.Helper()
	server := dovecot.Start(t, dovecot.Options{Users: []string{"alice", "bob"}})
	for place, n := range shares {
		user, mailbox, _ := strings.Cut(place, "/")
		for i := range n {
			of := place
			if user == "bob" && i%2 == 0 {
				of = "alice/INBOX"
			}
			server.Deliver(user, mailbox, mixedMail(of, i), time.Date(2024, 5, 1+i%28, 12, i%60, 0, 0, time.UTC))
		}
	}
	boxes := serverIDs(t, server)
	return &scenario{
		file:    fmt.Sprintf(mixedFile, server.IMAP, server.POP3),
		sinks:   map[string]string{"archive": "out/eml", "outlook": "out/msg", "index": "out/index.jsonl"},
		state:   "var/state",
		listed:  func(mailbox string) int { return shares[mailbox] },
		undated: "/bob/",
		ids:     func(*pipeline) []box { return boxes },
	}
}

// mixedMail is the ith mail of a mailbox: some have no date, some an
// attachment, and one is big enough to travel as a stream.
func mixedMail(place string, i int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "From: sender%d@example.com\r\nTo: all@example.org\r\nSubject: Message %d, kind %d\r\nMessage-ID: <%d.%x@example.com>\r\n", i%7, i, i%10, i, place)
	if i%29 != 7 {
		fmt.Fprintf(&b, "Date: Wed, %02d May 2024 12:%02d:00 +0000\r\n", 1+i%28, i%60)
	}
	if i%5 != 1 {
		fmt.Fprintf(&b, "\r\n%s\r\n", strings.Repeat(fmt.Sprintf("line of the mail %d\r\n", i), 1+i*7%90))
		return []byte(b.String())
	}
	size := 9_000 + i*101
	if i == 31 {
		size = 1 << 20
	}
	octets := make([]byte, size)
	for j := range octets {
		octets[j] = byte(j*j + i)
	}
	b.WriteString("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>See the file.\r\n" +
		"--b\r\nContent-Type: application/pdf; name=offer.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	for text := base64.StdEncoding.EncodeToString(octets); text != ""; {
		n := min(76, len(text))
		b.WriteString(text[:n] + "\r\n")
		text = text[n:]
	}
	b.WriteString("--b--\r\n")
	return []byte(b.String())
}

// serverIDs asks the server itself which messages it has.
func serverIDs(t *testing.T, server *dovecot.Server) (out []box) {
	t.Helper()
	for place, n := range shares {
		source, mailbox, _ := strings.Cut(place, "/")
		b := box{source: source, mailbox: mailbox}
		if source == "bob" {
			for _, uidl := range uidls(t, server.POP3, source) {
				b.ids = append(b.ids, message.ID{Source: source, Mailbox: mailbox, UIDL: uidl})
			}
		} else {
			status := server.Doveadm("-f", "flow", "mailbox", "status", "-u", source, "uidvalidity", mailbox)
			m := regexp.MustCompile(`uidvalidity=(\d+)`).FindStringSubmatch(status)
			if m == nil {
				t.Fatalf("no uidvalidity in %q", status)
			}
			validity, err := strconv.ParseUint(m[1], 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			b.validity = uint32(validity)
			for uid := range uint32(n) {
				b.ids = append(b.ids, message.ID{Source: source, Mailbox: mailbox, UIDValidity: b.validity, UID: uid + 1})
			}
		}
		if len(b.ids) != n {
			t.Fatalf("%s has %d messages, want %d", place, len(b.ids), n)
		}
		out = append(out, b)
	}
	return out
}

// uidls returns the unique ids of a maildrop.
func uidls(t *testing.T, address, user string) (out []string) {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	r := textproto.NewReader(bufio.NewReader(nc))
	if _, err := fmt.Fprintf(nc, "USER %s\r\nPASS %s\r\nUIDL\r\n", user, dovecot.Password); err != nil {
		t.Fatal(err)
	}
	for range 4 { // the greeting, and an answer to each
		if line, err := r.ReadLine(); err != nil || !strings.HasPrefix(line, "+OK") {
			t.Fatalf("the server says %q, %v", line, err)
		}
	}
	lines, err := r.ReadDotLines()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		_, uidl, _ := strings.Cut(line, " ")
		out = append(out, uidl)
	}
	return out
}
