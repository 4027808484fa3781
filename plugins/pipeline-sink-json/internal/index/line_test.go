package index

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/mailhaul/pipeline/pkg/message"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const schemaPath = "../../../../docs/reference/index.schema.json"

func schema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile(schemaPath)
	if err != nil {
		t.Fatalf("the published schema: %v", err)
	}
	return s
}

// conforms checks a line against the published schema.
func conforms(t testing.TB, s *jsonschema.Schema, l []byte) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(l))
	if err != nil {
		t.Fatalf("%s: %v", l, err)
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("%s: %v", l, err)
	}
}

// full is a message of which everything is known.
func full() *message.Message {
	header := strings.Join([]string{
		"From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>",
		"To: a@example.org, \"B, C\" <b@example.org>",
		"Cc: c@example.org", "Bcc: d@example.org", "Reply-To: e@example.org",
		"Subject: <Hello> & =?utf-8?q?gr=C3=BC=C3=9Fe?=",
		"Date: Fri, 31 Jan 2025 23:30:00 -0800",
		"Message-ID: <1@example.org>", "In-Reply-To: <0@example.org>", "References: <a@x> <0@example.org>",
		"List-Unsubscribe: <mailto:u@example.org>,\r\n <https://example.org/u>",
	}, "\r\n") + "\r\n\r\n"
	return &message.Message{
		Summary: message.Summary{
			ID:       message.ID{Source: "alice", Mailbox: "Arbeit/Größe", UIDValidity: 7, UID: 4294967295},
			ObjectID: "M123", SequenceNumber: 12, Have: message.AllSummary,
			Size:         2000,
			InternalDate: time.Date(2025, 2, 1, 9, 30, 1, 0, time.FixedZone("", 7200)),
			Flags:        []string{`\Answered`, `\Seen`}, Keywords: []string{"$Junk"}, Labels: []string{"Später"},
			Gmail:  &message.Gmail{MessageID: 18446744073709551615, ThreadID: 9007199254740993, Labels: []string{`\Inbox`}},
			Header: message.NewHeader([]byte(header)),
			Structure: &message.Part{MediaType: "multipart/mixed", Children: []*message.Part{
				{Path: "1", MediaType: "text/plain", Size: 5, EncodedSize: 5},
				{Path: "2", MediaType: "application/pdf", Name: "Rechnung.pdf", Disposition: "attachment", Size: 900, EncodedSize: 1234, SHA256: strings.Repeat("ab", 32)},
				{Path: "3", MediaType: "image/png", Disposition: "inline", ContentID: "logo@x", Inline: true, Size: -1, EncodedSize: 400},
			}},
			Vars: map[string]string{"team": "north", "customer": "acme"},
		},
		Record: &message.Record{
			Octets: 1999, SHA256: strings.Repeat("0f", 32),
			Files:    map[string]string{"outlook": "a/b.msg", "archive": "a/b.eml"},
			Problems: []string{"part 3: no closing boundary"},
		},
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		structure bool
		message   *message.Message
	}{
		{"everything is known", true, full()},
		{"detail headers leaves attachments out", false, full()},
		{"nothing is known", true, &message.Message{Summary: message.Summary{ID: message.ID{Source: "s", UIDL: "1"}}, Record: &message.Record{Octets: -1}}},
		{"known to be empty", true, &message.Message{
			Summary: message.Summary{
				ID: message.ID{Source: "s", Mailbox: "m", UID: 1, UIDValidity: 1}, Have: message.AllSummary,
				Header: message.NewHeader([]byte("Subject:\r\n\r\n")), Structure: &message.Part{Path: "1", MediaType: "text/plain"},
			},
			Record: &message.Record{},
		}},
		{"an id of strings that is doubled", false, &message.Message{
			Summary: message.Summary{ID: message.ID{Source: "p", UIDL: "a/b;\xff", HeaderHash: strings.Repeat("c", 64), Ordinal: 2}},
			Record:  &message.Record{Octets: 3, SHA256: strings.Repeat("0", 64)},
		}},
	}
	published := schema(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := newEncoder(tt.structure)
			got := bytes.Clone(e.encode(tt.message))
			conforms(t, published, got)
			if again := e.encode(tt.message); !bytes.Equal(again, got) {
				t.Errorf("encoded again: %s", again)
			}
			golden := filepath.Join("testdata", strings.ReplaceAll(tt.name, " ", "_")+".json")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatalf("%v: run with -update", err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got  %swant %s", got, want)
			}
		})
	}
}

func TestDatesThatRFC3339CannotWrite(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   time.Time
		want string
	}{
		{"none", time.Time{}, ""},
		{"a year of five digits", time.Date(12025, 1, 1, 0, 0, 0, 0, time.UTC), ""},
		{"a zone of days", time.Date(2025, 1, 1, 0, 0, 0, 0, time.FixedZone("", 99*3600)), "2024-12-27T21:00:00Z"},
		{"a zone with seconds", time.Date(2025, 1, 1, 0, 0, 0, 0, time.FixedZone("", 61)), "2024-12-31T23:58:59Z"},
		{"the sender's zone", time.Date(2025, 1, 1, 0, 0, 0, 0, time.FixedZone("", -5400)), "2025-01-01T00:00:00-01:30"},
	}
	for _, tt := range tests {
		if got := message.RFC3339(tt.in); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzLine(f *testing.F) {
	published := schema(f)
	f.Add("INBOX", "", []byte("Subject: x\r\nFrom: a <b@c>, \"\r\nDate: 1 Jan 1 00:00 +9999\r\n\r\n"))
	f.Add("a\"\\\xff/b", "u\xff", []byte("Message-ID: \x00\r\nReferences: <a\r\nSubject: \xff\xfe"))
	f.Fuzz(func(t *testing.T, mailbox, uidl string, header []byte) {
		m := &message.Message{Record: &message.Record{Octets: 1}}
		m.ID = message.ID{Source: mailbox, Mailbox: mailbox, UIDL: uidl}
		m.Header = message.NewHeader(header)
		l := newEncoder(true).encode(m)
		if bytes.IndexByte(l, '\n') != len(l)-1 {
			t.Fatalf("%q isn't one line", l)
		}
		if lineKey(l) == nil {
			t.Fatalf("no id is found in %q", l)
		}
		conforms(t, published, l)
	})
}
