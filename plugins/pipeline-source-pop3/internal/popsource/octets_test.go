package popsource

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/popscript"
)

// octetCases are messages that a client which thinks in lines gets wrong (I4).
var octetCases = []struct{ name, raw string }{
	{"dots at the beginning of lines", "Subject: a\r\n\r\n.\r\n..\r\n...\r\n.a\r\n..b\r\na.\r\n"},
	{"a dot alone on a line", "Subject: a\r\n\r\nbefore\r\n.\r\nafter\r\n"},
	{"a dot as the first octet", ".Subject: a\r\n\r\nx\r\n"},
	{"a dot alone as the last line", "Subject: a\r\n\r\n.\r\n"},
	{"lf dot lf", "Subject: a\r\n\r\nbefore\n.\n+OK 3 octets\nafter\r\n"},
	{"lf dot crlf", "Subject: a\r\n\r\nbefore\n.\r\nafter\r\n"},
	{"crlf dot lf", "Subject: a\r\n\r\nbefore\r\n.\nafter\r\n"},
	{"cr dot cr", "Subject: a\r\n\r\nbefore\r.\rafter\r\n"},
	{"crlf dot cr", "Subject: a\r\n\r\nbefore\r\n.\rafter\r\n"},
	{"cr cr lf dot", "Subject: a\r\n\r\nbefore\r\r\n.x\r\n"},
	{"bare lf", "Subject: a\n\nb\nc\n\r\n"},
	{"bare cr", "Subject: a\r\n\r\nb\rc\r\r\n"},
	{"nul", "Subject: a\x00b\r\n\r\n\x00\x00\r\n"},
	{"8-bit", "Subject: \xfc\xff\r\n\r\n\x80\x81\xfe\r\n"},
	{"empty lines", "\r\n\r\n\r\n"},
	{"one empty line", "\r\n"},
	{"lines of one octet", "Subject: a\r\n\r\n" + strings.Repeat("x\r\n", 5000)},
	{"lines of one dot", "Subject: a\r\n\r\n" + strings.Repeat(".\r\n", 70_000)},
	{"a line of 10 MB", "Subject: a\r\n\r\n" + strings.Repeat("0123456789", 1<<20) + "\r\n"},
	{"a line of 10 MB of dots", "Subject: a\r\n\r\n" + strings.Repeat(".", 10<<20) + "\r\n"},
	{"a line that fills the buffer, a dot behind", "a: b\r\n\r\n" + strings.Repeat("x", 64<<10) + "\r\n.\r\n"},
	{"only dots", "...\r\n"},
	{"a header without an end", "Subject: a\r\n"},
	{"a header of 2 MB", "Subject: a\r\n" + strings.Repeat("X-A: b\r\n", 256<<10) + "\r\nbody\r\n"},
}

// TestOctets: every message comes octet by octet as the server has it, with
// neighbours that would show a step too far or too few.
func TestOctets(t *testing.T) {
	t.Parallel()
	var messages []popscript.Message
	for _, tt := range octetCases {
		messages = append(messages, popscript.Message{UIDL: strings.ReplaceAll(tt.name, " ", "-"), Raw: tt.raw})
	}
	for _, mode := range []struct {
		name  string
		capa  []string
		needs message.Needs
	}{
		{"pipelined", nil, 0},
		{"one at a time", []string{"TOP", "UIDL"}, 0},
		{"with headers", nil, message.NeedHeaders},
	} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			server := popscript.Start(t, popscript.Script{Messages: messages, CAPA: mode.capa})
			s := openSource(t, plainConfig(server.Addr))
			sums := list(t, s, source.ListRequest{})
			a := fetch(t.Context(), t, s, mode.needs, idsOf(sums), 5)
			if a.err != nil || len(a.errs) > 0 {
				t.Fatal(a.err, a.errs)
			}
			for i, tt := range octetCases {
				if got := a.octets[sums[i].ID]; got != tt.raw {
					t.Errorf("%s: %d octets differ from the %d sent, from %d on", tt.name, len(got), len(tt.raw), differs(got, tt.raw))
				}
			}
			if server.Connections() != 1 {
				t.Errorf("%d connections, want 1", server.Connections())
			}
		})
	}
}

func differs(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestCutOctets cuts the answer into pieces of every size, so that each place
// where a reader's buffer may end is met.
func TestCutOctets(t *testing.T) {
	t.Parallel()
	raw := "Subject: a\r\n\r\n.\r\n..\r\n\r\n.\n.\r.\r\nb\r\n.\r\n"
	wire := popscript.Stuff(raw)
	server := popscript.Start(t, popscript.Script{
		Messages: slices.Repeat([]popscript.Message{{Raw: raw}}, len(wire)),
		Command: func(c *popscript.Conn, verb, args string) bool {
			if verb == "UIDL" {
				return false
			}
			if verb != "RETR" {
				return false
			}
			at := 0
			for _, d := range args {
				at = at*10 + int(d-'0')
			}
			c.Write("+OK\r\n%s", wire[:at-1])
			c.Writable()
			time.Sleep(2 * time.Millisecond)
			c.Write("%s", wire[at-1:])
			return true
		}})
	server.Change(func(s *popscript.Script) {
		for i := range s.Messages {
			s.Messages[i].UIDL = "u" + strings.Repeat("x", i)
		}
	})
	s := openSource(t, plainConfig(server.Addr))
	sums := list(t, s, source.ListRequest{})
	a := fetch(t.Context(), t, s, 0, idsOf(sums), 16)
	if a.err != nil || len(a.errs) > 0 {
		t.Fatal(a.err, a.errs)
	}
	for i, sum := range sums {
		if a.octets[sum.ID] != raw {
			t.Errorf("cut at %d: %q", i, a.octets[sum.ID])
		}
	}
}

// TestNoFinalLineEnd is POP3's one truth: a message without a final CR LF gets
// one, as the protocol has no other way to end it.
func TestNoFinalLineEnd(t *testing.T) {
	t.Parallel()
	server := popscript.Start(t, popscript.Script{Messages: []popscript.Message{{UIDL: "a", Raw: "Subject: a\r\n\r\nno end"}}})
	s := openSource(t, plainConfig(server.Addr))
	for _, got := range fetch(t.Context(), t, s, 0, idsOf(list(t, s, source.ListRequest{})), 1).octets {
		if got != "Subject: a\r\n\r\nno end\r\n" {
			t.Errorf("it came as %q", got)
		}
	}
}

// TestBareServer is one that ends every line with LF alone.
func TestBareServer(t *testing.T) {
	t.Parallel()
	raw := "Subject: a\n\nb\n.c\n"
	server := popscript.Start(t, popscript.Script{Messages: []popscript.Message{{UIDL: "a", Raw: raw}},
		Command: func(c *popscript.Conn, verb, args string) bool {
			if verb == "RETR" {
				c.Write("+OK\nSubject: a\n\nb\n..c\n.\n")
			}
			return verb == "RETR"
		}})
	s := openSource(t, plainConfig(server.Addr))
	for _, got := range fetch(t.Context(), t, s, 0, idsOf(list(t, s, source.ListRequest{})), 1).octets {
		if got != raw {
			t.Errorf("it came as %q", got)
		}
	}
}

// TestCorpus fetches real and hostile mail from Dovecot, and compares each with
// its file: as POP3 sends it, with CR LF for every line end, and
// one at the end.
func TestCorpus(t *testing.T) {
	t.Parallel()
	corpus := os.Getenv("MAILHAUL_CORPUS")
	if corpus == "" {
		t.Skip("MAILHAUL_CORPUS doesn't name a corpus")
	}
	var files []string
	for _, dir := range []string{"eml", "hostile"} {
		found, err := filepath.Glob(filepath.Join(corpus, dir, "*.eml"))
		if err != nil || len(found) == 0 {
			t.Fatalf("no mail in %s/%s: %v", corpus, dir, err)
		}
		files = append(files, found...)
	}
	d := dovecot.Start(t, dovecot.Options{})
	var names []string
	var want [][]byte
	completed := 0
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		d.Deliver("alice", "INBOX", raw, time.Unix(1_700_000_000, 0))
		octets := asCRLF(raw)
		if !bytes.HasSuffix(octets, []byte("\r\n")) && len(octets) > 0 {
			octets = append(octets, "\r\n"...)
			completed++
		}
		names, want = append(names, filepath.Base(f)), append(want, octets)
	}
	s := openSource(t, plainConfig(d.POP3))
	sums := list(t, s, source.ListRequest{Needs: message.NeedSize | message.NeedHeaders})
	if len(sums) != len(files) {
		t.Fatalf("%d messages are listed, want %d", len(sums), len(files))
	}
	a := fetch(t.Context(), t, s, message.NeedHeaders, idsOf(sums), 64)
	if a.err != nil || len(a.errs) > 0 {
		t.Error(a.err, a.errs)
	}
	for i, sum := range sums {
		if sum.Header == nil {
			t.Errorf("%s: no header", names[i])
		}
		if sha256.Sum256([]byte(a.octets[sum.ID])) != sha256.Sum256(want[i]) {
			t.Errorf("%s: %d octets came, the file has %d, they differ from %d on", names[i], len(a.octets[sum.ID]), len(want[i]), differs(a.octets[sum.ID], string(want[i])))
		}
	}
	t.Logf("%d messages, %d of them without a final line end", len(sums), completed)
}

// asCRLF returns octets with CR LF for every bare LF, as Dovecot sends a file.
func asCRLF(raw []byte) []byte {
	var out []byte
	for i, c := range raw {
		if c == '\n' && (i == 0 || raw[i-1] != '\r') {
			out = append(out, '\r')
		}
		out = append(out, c)
	}
	return out
}
