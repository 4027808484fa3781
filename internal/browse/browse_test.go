package browse

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rivo/uniseg"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// boxes is a source of made-up mailboxes: name and number of messages. It
// notes what it was asked for.
type boxes struct {
	names  []string
	counts map[string]int
	hidden bool // it doesn't say how many there are
	asked  []source.ListRequest
	listed int
}

func (b *boxes) Mailboxes(context.Context) iter.Seq2[message.Mailbox, error] {
	return func(yield func(message.Mailbox, error) bool) {
		for _, name := range b.names {
			if !yield(message.Mailbox{Name: name, Selectable: b.counts[name] >= 0, State: b.state(name)}, nil) {
				return
			}
		}
	}
}

func (b *boxes) state(name string) message.MailboxState {
	if b.hidden {
		return unknown
	}
	return message.MailboxState{Messages: int64(b.counts[name]), Bytes: int64(100 * b.counts[name])}
}

func (b *boxes) List(_ context.Context, req source.ListRequest) iter.Seq2[message.Summary, error] {
	b.asked = append(b.asked, req)
	return func(yield func(message.Summary, error) bool) {
		n, ok := b.counts[req.Mailbox]
		if !ok {
			yield(message.Summary{}, fault.New(fault.Gone, "no such mailbox"))
			return
		}
		if req.State != nil {
			req.State(b.state(req.Mailbox))
		}
		if req.IDs != nil {
			return
		}
		for i := req.Skip; i < n && (req.Limit == 0 || i < req.Skip+req.Limit); i++ {
			uid := uint32(i + 1)
			if req.Newest {
				uid = uint32(n - i)
			}
			b.listed++
			s := message.Summary{ID: message.ID{Mailbox: req.Mailbox, UIDValidity: 1, UID: uid}, Have: req.Needs, Size: 100, SequenceNumber: uid}
			if req.Needs.Has(message.NeedHeaders) {
				s.Header = message.NewHeader(fmt.Appendf(nil, "Subject: %s %d\r\nFrom: a@x.test\r\nDate: Sat, 31 Oct 2026 10:00:00 +0000\r\n\r\n", req.Mailbox, uid))
			}
			if !yield(s, nil) {
				return
			}
		}
	}
}

func (b *boxes) Fetch(context.Context, source.FetchRequest) iter.Seq2[source.Fetched, error] {
	return nil
}
func (b *boxes) Close() error { return nil }

func three() *boxes {
	return &boxes{names: []string{"A", "A/B", "A/C", "D", "Ab"}, counts: map[string]int{"A": 5, "A/B": 0, "A/C": 7, "D": 3, "Ab": 1}}
}

// noted is a Writer that keeps what it is given.
type noted struct {
	ids  []string
	page Page
}

func (n *noted) Message(s *message.Summary) error {
	n.ids = append(n.ids, fmt.Sprintf("%s/%d", s.ID.Mailbox, s.ID.UID))
	return nil
}
func (n *noted) End(p *Page) error { n.page = *p; return nil }

func TestPagesOfOneAndOfSeveralMailboxes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		mailbox    string
		recursive  bool
		page, size int
		newest     bool
		want       string
		total      int64
		next       int
	}{
		{"all of one", "A", false, 1, 0, false, "A/1 A/2 A/3 A/4 A/5", 5, 0},
		{"first page", "A", false, 1, 2, false, "A/1 A/2", 5, 2},
		{"last page", "A", false, 3, 2, false, "A/5", 5, 0},
		{"a page that is just full", "A", false, 1, 5, false, "A/1 A/2 A/3 A/4 A/5", 5, 0},
		{"behind the last", "A", false, 4, 2, false, "", 5, 0},
		{"newest", "A", false, 2, 2, true, "A/3 A/2", 5, 3},
		{"an empty one", "A/B", false, 1, 2, false, "", 0, 0},
		{"below a level", "A", true, 1, 0, false, "A/1 A/2 A/3 A/4 A/5 A/C/1 A/C/2 A/C/3 A/C/4 A/C/5 A/C/6 A/C/7", 12, 0},
		{"a page over the border", "A", true, 2, 4, false, "A/5 A/C/1 A/C/2 A/C/3", 12, 3},
		{"the last of several", "A", true, 3, 4, false, "A/C/4 A/C/5 A/C/6 A/C/7", 12, 0},
		{"a pattern", "*", false, 1, 0, false, "A/1 A/2 A/3 A/4 A/5 D/1 D/2 D/3 Ab/1", 9, 0},
		{"everything", "", true, 2, 14, false, "D/3 Ab/1", 16, 0},
	} {
		for _, way := range []string{"the server counts", "it doesn't", "the config picks"} {
			t.Run(tt.name+", "+way, func(t *testing.T) {
				t.Parallel()
				b := three()
				b.hidden = way == "it doesn't"
				s := &Source{Name: "x", Source: b, Provides: message.AllSummary, Narrowed: way == "the config picks"}
				found, err := s.Find(t.Context(), tt.mailbox, tt.recursive)
				if err != nil {
					t.Fatal(err)
				}
				var n noted
				if err := s.Messages(t.Context(), Query{Mailboxes: found, Fields: Standard(), Page: tt.page, Size: tt.size, Newest: tt.newest}, &n); err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(n.ids, " "); got != tt.want || n.page.Total != tt.total || n.page.Next() != tt.next {
					t.Errorf("shown %q, %d in all, next %d; want %q, %d, %d", got, n.page.Total, n.page.Next(), tt.want, tt.total, tt.next)
				}
			})
		}
	}
}

// TestAPageCostsAPage: of the pages before no summary is asked for, and the
// mailboxes that aren't on the page aren't opened.
func TestAPageCostsAPage(t *testing.T) {
	t.Parallel()
	b := &boxes{names: []string{"A", "B", "C"}, counts: map[string]int{"A": 1_000_000, "B": 10, "C": 1_000_000}}
	s := &Source{Source: b, Provides: message.AllSummary}
	found, err := s.Find(t.Context(), "", true)
	if err != nil {
		t.Fatal(err)
	}
	var n noted
	if err := s.Messages(t.Context(), Query{Mailboxes: found, Fields: Standard(), Page: 100_001, Size: 10}, &n); err != nil {
		t.Fatal(err)
	}
	if b.listed != 10 || len(b.asked) != 1 || b.asked[0].Mailbox != "B" || n.page.Total != 2_000_010 {
		t.Errorf("%d summaries in %d listings of %d: want 10 in one of 2,000,010", b.listed, len(b.asked), n.page.Total)
	}
}

// TestMemoryIsFlat lists 100,000 messages on one page (I5).
func TestMemoryIsFlat(t *testing.T) {
	t.Parallel()
	b := &boxes{names: []string{"A"}, counts: map[string]int{"A": 100_000}}
	s := &Source{Source: b, Provides: message.AllSummary}
	for name, w := range map[string]Writer{
		"table": NewTable(discard{}, Standard(), 100, false), "lines": NewLines(discard{}, Standard(), false), "JSON": NewJSON(discard{}, Standard(), false),
	} {
		before, peak := heap(), uint64(0)
		watch := &watched{Writer: w, look: func() { peak = max(peak, heap()) }}
		if err := s.Messages(t.Context(), Query{Mailboxes: []message.Mailbox{{Name: "A", State: unknown}}, Fields: Standard(), Page: 1}, watch); err != nil {
			t.Fatal(err)
		}
		if peak > before+16<<20 {
			t.Errorf("%s: %d KiB more at the most", name, (peak-before)>>10)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

type watched struct {
	Writer
	look func()
	n    int
}

func (w *watched) Message(s *message.Summary) error {
	if w.n++; w.n%20_000 == 0 {
		w.look()
	}
	return w.Writer.Message(s)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestCount(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, mailbox    string
		hidden, narrowed bool
		want             Totals
	}{
		{"one", "A", false, false, Totals{5, 500}},
		{"all", "", false, false, Totals{16, 1600}},
		{"a pattern", "A/*", false, false, Totals{7, 700}},
		{"all, where the server doesn't say", "", true, false, Totals{16, 1600}},
		{"what the config picks", "A", false, true, Totals{5, 500}},
	} {
		b := three()
		b.hidden = tt.hidden
		s := &Source{Source: b, Provides: message.AllSummary, Narrowed: tt.narrowed}
		got, err := s.Count(t.Context(), tt.mailbox, false)
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, got, err, tt.want)
		}
		if tt.name == "one" && b.listed > 0 {
			t.Errorf("%d messages were listed for a count that the server has", b.listed)
		}
	}
}

func TestTheNearestMailbox(t *testing.T) {
	t.Parallel()
	s := &Source{Name: "x", Source: &boxes{names: []string{"INBOX", "Projects/2024"}, counts: map[string]int{"INBOX": 1, "Projects/2024": 1}}, Provides: message.AllSummary}
	err := s.Messages(t.Context(), Query{Mailboxes: []message.Mailbox{{Name: "Project/2024", State: unknown}}, Fields: Standard(), Page: 1}, &noted{})
	if f := fault.As(err); f == nil || f.Class != fault.Config || f.Hint != "did you mean Projects/2024?" {
		t.Errorf("%+v", err)
	}
}

func TestFieldsThatAServerHasNot(t *testing.T) {
	t.Parallel()
	s := &Source{Name: "x", Source: three(), Provides: message.NeedSize | message.NeedHeaders}
	fields, err := ParseFields("uid,attachments,seen,gmail_labels", "")
	if err != nil {
		t.Fatal(err)
	}
	err = s.Messages(t.Context(), Query{Mailboxes: []message.Mailbox{{Name: "A"}}, Fields: fields}, &noted{})
	if f := fault.As(err); f == nil || f.Class != fault.Config || !strings.Contains(f.Text, "attachments, seen: ") || f.Hint == "" {
		t.Errorf("%+v", err)
	}
}

// odd is a message as strangers write them.
func odd() message.Summary {
	return message.Summary{
		ID:   message.ID{Mailbox: "INBOX", UIDValidity: 1, UID: 7},
		Have: message.AllSummary, Size: 12_345, InternalDate: time.Date(2026, 10, 31, 10, 0, 0, 0, time.UTC), Flags: []string{`\Seen`},
		Header: message.NewHeader([]byte("From: =?utf-8?q?J=C3=BCrgen_=F0=9F=91=A8=E2=80=8D=F0=9F=91=A9=E2=80=8D=F0=9F=91=A7?= <j@x.test>\r\n" +
			"Subject: =?utf-8?b?5pel5pys6Kqe44Gu44Go44Gm44KC6ZW344GE5Lu25ZCN44Gn44GZ?= =?utf-8?q?=1B]0;title=07 =C2=9B31m=E2=80=AEgnp.exe?=\r\n" +
			"Date: Sat, 31 Oct 2026 10:00:00 +0000\r\nX-Any: a\tb\r\n\r\n")),
		Structure: &message.Part{MediaType: "multipart/mixed", Children: []*message.Part{
			{Path: "1", MediaType: "text/plain", Size: -1, EncodedSize: 10},
			{Path: "2", MediaType: "application/pdf", Name: "a\x1b[2Jb.pdf", Disposition: "attachment", Encoding: "base64", Size: -1, EncodedSize: 780},
		}},
		Extra: map[string]string{"THREADID": "(T1)"}, Vars: map[string]string{"who": "Ann"},
	}
}

const everyField = "uid,date,from,subject,size,flags,attachments,header:X-Any,extra:threadid,vars.who,uidl,gmail_thread_id,url"

func show(t *testing.T, w Writer, sums ...message.Summary) {
	t.Helper()
	for _, s := range sums {
		if err := w.Message(&s); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.End(&Page{Source: "x", Mailboxes: []string{"INBOX"}, Total: 120, Number: 2, Size: 1, Shown: len(sums), More: true}); err != nil {
		t.Fatal(err)
	}
}

// TestTableIsAsWideAsTheTerminal: no line is wider, whatever is in it, columns
// stay below each other, and nothing in it moves the cursor.
func TestTableIsAsWideAsTheTerminal(t *testing.T) {
	t.Parallel()
	for _, width := range []int{200, 100, 80, 60} {
		var b bytes.Buffer
		fields, err := ParseFields("uid,date,from,subject,size,attachments", "")
		if err != nil {
			t.Fatal(err)
		}
		plain := odd()
		plain.Header = message.NewHeader([]byte("From: a@x.test\r\nSubject: plain\r\n\r\n"))
		show(t, NewTable(&b, fields, width, false), odd(), plain)
		text := b.String()
		for line := range strings.Lines(text) {
			if w := uniseg.StringWidth(strings.TrimSuffix(line, "\n")); w > width {
				t.Errorf("a line of %d places on a terminal of %d: %q", w, width, line)
			}
		}
		if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && unsafe(r) }); i >= 0 {
			t.Errorf("%q is left in the table", text[i:i+3])
		}
		lines := strings.Split(text, "\n")
		if at := func(i int) int { return uniseg.StringWidth(strings.TrimRight(lines[i], " ")) }; at(1) != at(3) && width >= 80 {
			t.Errorf("the sizes don't stand below each other:\n%s", text)
		}
		if !strings.Contains(text, "+ a�[2Jb.pdf (application/pdf, 570 B)") || !strings.Contains(text, "INBOX: 120 messages, page 2 of 120; go on with --page 3") {
			t.Errorf("the attachment or the last line is missing:\n%s", text)
		}
		t.Logf("\n%s", text)
	}
}

func TestLinesAndJSON(t *testing.T) {
	t.Parallel()
	fields, err := ParseFields(everyField, "imaps://a@h")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	show(t, NewLines(&b, fields, false), odd())
	want := "7\t2026-10-31T10:00:00Z\tJürgen 👨\u200d👩\u200d👧 <j@x.test>\t日本語のとても長い件名です�]0;title� �31m�gnp.exe\t12345\t\\Seen\ta�[2Jb.pdf (application/pdf, 570)\ta b\t(T1)\tAnn\t\t\timaps://a@h/INBOX;UIDVALIDITY=1/;UID=7\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	b.Reset()
	show(t, NewJSON(&b, fields, false), odd(), odd())
	var doc struct {
		Messages []map[string]any `json:"messages"`
		Total    int              `json:"total"`
		Page     int              `json:"page"`
		Next     int              `json:"next"`
	}
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	if len(doc.Messages) != 2 || doc.Total != 120 || doc.Page != 2 || doc.Next != 3 {
		t.Errorf("%+v", doc)
	}
	// What it says is what the message says; how it is written is harmless.
	if got := doc.Messages[0]["subject"]; got != "日本語のとても長い件名です\x1b]0;title\a \u009b31m\u202egnp.exe" {
		t.Errorf("subject %q", got)
	}
	if _, ok := doc.Messages[0]["gmail_thread_id"]; ok {
		t.Error("a field that the message lacks is there")
	}
	for _, r := range b.String() {
		if r != '\n' && unsafe(r) {
			t.Errorf("%q stands in the JSON as it is", r)
		}
	}
}

func TestNoMessages(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		w    func(*bytes.Buffer) Writer
		want string
	}{
		"table": {func(b *bytes.Buffer) Writer { return NewTable(b, Standard(), 80, false) }, "INBOX: 0 messages\n"},
		"lines": {func(b *bytes.Buffer) Writer { return NewLines(b, Standard(), false) }, ""},
		"JSON":  {func(b *bytes.Buffer) Writer { return NewJSON(b, Standard(), false) }, "{\"messages\":[\n],\"source\":\"x\",\"mailboxes\":[\"INBOX\"],\"total\":0,\"page\":1,\"page_size\":50,\"pages\":1,\"next\":null}\n"},
	} {
		var b bytes.Buffer
		if err := tt.w(&b).End(&Page{Source: "x", Mailboxes: []string{"INBOX"}, Number: 1, Size: 50}); err != nil {
			t.Fatal(err)
		}
		if b.String() != tt.want {
			t.Errorf("%s: %q", name, b.String())
		}
	}
}

func TestUIDLStandsWhereUIDsLack(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	show(t, NewLines(&b, Standard(), false), message.Summary{ID: message.ID{UIDL: "abc"}, Have: message.NeedSize, Size: 5})
	if b.String() != "abc\t\t\t\t5\n" {
		t.Errorf("%q", b.String())
	}
}

func TestMailboxes(t *testing.T) {
	t.Parallel()
	all := []message.Mailbox{
		{Name: "INBOX", Selectable: true, State: message.MailboxState{Messages: 12_345, Bytes: 1_500_000_000}},
		{Name: "日本\x1b[2J", Selectable: true, SpecialUse: []string{"sent"}, State: message.MailboxState{Messages: 1, Bytes: 999, BlindSpots: []string{"10,000 at most"}}},
		{Name: "Level", State: unknown},
	}
	var b bytes.Buffer
	if err := TableOfMailboxes(&b, all, 80, func(m message.Mailbox) bool { return m.Name == "INBOX" }); err != nil {
		t.Fatal(err)
	}
	want := `MAILBOX     MESSAGES       SIZE
INBOX         12,345     1.5 GB
日本�[2J           1      999 B  sent, excluded by the file
    ! 10,000 at most
Level                            holds no messages

12,346 messages, 1.5 GB in 3 mailboxes, 1 of them excluded by the file
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want Address
		hint string // of the error
	}{
		{text: "imaps://alice@mail.example.com", want: Address{Plugin: "imap", Host: "mail.example.com", TLS: true, Username: "alice"}},
		{text: "imaps://alice@example.com@mail.example.com:1993/INBOX", want: Address{Plugin: "imap", Host: "mail.example.com:1993", TLS: true, Username: "alice@example.com", Mailbox: "INBOX"}},
		{text: "IMAP://a%40b;AUTH=*@h/Work%2F2025/%E6%97%A5;UIDVALIDITY=9/;UID=5", want: Address{Plugin: "imap", Host: "h", Username: "a@b", Mailbox: "Work/2025/日", UID: 5}},
		{text: "imap://a@[::1]:143/x/", want: Address{Plugin: "imap", Host: "[::1]:143", Username: "a", Mailbox: "x"}},
		{text: "pops://a@h/;UIDL=a%2Fb", want: Address{Plugin: "pop3", Host: "h", TLS: true, Username: "a", UIDL: "a/b"}},
		{text: "pop3://a@h", want: Address{Plugin: "pop3", Host: "h", Username: "a"}},
		{text: "imaps://a:pw@h/INBOX", hint: "write it as imaps://a@h, and set MAILHAUL_PASSWORD or type it when asked"},
		{text: "imaps://h", hint: "write it as imaps://user@h"},
		{text: "imaps://a@", hint: "write it as imaps://a@host"},
		{text: "imap://a@h/x;UID=0", hint: "write it as …/INBOX/;UID=5"},
		{text: "http://a@h", hint: "use imaps, imap, pops or pop"},
		{text: "imapss://a@h", hint: "did you mean imaps://?"},
		{text: "imap://a@h/%zz", hint: "write % as %25 in it"},
	} {
		got, err := ParseURL(tt.text)
		if tt.hint != "" {
			if f := fault.As(err); f == nil || f.Class != fault.Config || f.Hint != tt.hint || strings.Contains(f.Text, "pw") {
				t.Errorf("%s: %+v", tt.text, err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v", tt.text, got, err)
		}
	}
}

func TestParseFields(t *testing.T) {
	t.Parallel()
	fields, err := ParseFields(" uid , header:List-Id,extra:EMAILID,vars.who", "")
	var names []string
	for _, f := range fields {
		names = append(names, f.Name)
	}
	if err != nil || !slices.Equal(names, []string{"uid", "header:List-Id", "extra:EMAILID", "vars.who"}) || !slices.Equal(Extras(fields), []string{"EMAILID"}) {
		t.Errorf("%v, %v", names, err)
	}
	_, err = ParseFields("uid,mesage_id,,header:", "")
	if f := fault.As(err); f == nil || f.Text != `--fields: there is no field "mesage_id", "", "header:"` || f.Hint != "did you mean message_id?" {
		t.Errorf("%+v", err)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{-1: "?", 0: "0 B", 999: "999 B", 1000: "1.0 KB", 999_949: "999.9 KB", 999_950: "1.0 MB", 2_300_000_000: "2.3 GB", 9e18: "9000.0 PB"} {
		if got := Size(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

// TestHarmless: what is shown of a mail on a terminal does nothing to it, and
// is else as it was.
func TestHarmless(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := Harmless(&b)
	if _, err := w.Write([]byte("Subject: \x1b]0;x\a 日本\r\n\r\n\tü \xff\u202e \u009b31m\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if want := "Subject: �]0;x� 日本\n\n\tü �� �31m\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

// TestGmail: what Gmail alone tells is shown where it is there.
func TestGmail(t *testing.T) {
	t.Parallel()
	fields, err := ParseFields("gmail_message_id,gmail_thread_id,gmail_labels,labels,object_id", "")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	s := odd()
	s.ObjectID, s.Labels = "1278455344230334865", []string{"Arbeit", `\Inbox`}
	s.Gmail = &message.Gmail{MessageID: 1278455344230334865, ThreadID: 1266894439832287888, Labels: s.Labels}
	show(t, NewLines(&b, fields, false), s)
	if want := "1278455344230334865\t1266894439832287888\tArbeit, \\Inbox\tArbeit, \\Inbox\t1278455344230334865\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
