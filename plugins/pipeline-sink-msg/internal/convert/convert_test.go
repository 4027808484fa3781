package convert_test

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/plugins/pipeline-sink-msg/internal/convert"
)

// named returns the sample of that name.
func named(t *testing.T, name string) string {
	t.Helper()
	for _, s := range samples() {
		if s.name == name {
			return s.mail
		}
	}
	t.Fatalf("no sample %q", name)
	return ""
}

// TestSamplesKeepTheRules converts all samples, in every way to convert.
func TestSamplesKeepTheRules(t *testing.T) {
	t.Parallel()
	for _, s := range samples() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for _, o := range []convert.Options{{}, {RTF: true}, {UTF8: true}} {
				converted(t, s.mail, convert.Envelope{}, o)
			}
		})
	}
}

// TestSameMailSameOctets: no clock, no chance, no trace of earlier mails.
func TestSameMailSameOctets(t *testing.T) {
	t.Parallel()
	used := convert.New(convert.Options{RTF: true})
	for range 2 {
		for _, s := range samples() {
			a, err := write(used, []byte(s.mail), convert.Envelope{})
			if err != nil {
				t.Fatal(err)
			}
			b, err := write(convert.New(convert.Options{RTF: true}), []byte(s.mail), convert.Envelope{})
			if err != nil || !bytes.Equal(a, b) {
				t.Errorf("%s: another file from a used converter (%v)", s.name, err)
			}
		}
	}
}

func TestSubject(t *testing.T) {
	t.Parallel()
	cases := []struct{ field, subject, prefix, rest string }{
		{"plain", "plain", "", "plain"},
		{"RE: x", "RE: x", "RE: ", "x"},
		{"Fwd: x", "Fwd: x", "Fwd: ", "x"},
		{"Aw: Re: x", "Aw: Re: x", "Aw: ", "Re: x"},
		{"long: x", "long: x", "", "long: x"},
		{"R2: x", "R2: x", "", "R2: x"},
		{"Re:x", "Re:x", "", "Re:x"},
		{": x", ": x", "", ": x"},
		{"=?utf-8?q?=C5=BE=C5=BE?=: =?utf-8?b?8J+YgA==?=", "žž: 😀", "žž: ", "😀"},
		{"a\x00b", "ab", "", "ab"},
	}
	for _, c := range cases {
		t.Run(c.field, func(t *testing.T) {
			t.Parallel()
			o := converted(t, "From: a@b.c\r\nSubject: "+c.field+"\r\n\r\nx", convert.Envelope{}, convert.Options{})
			if o.Text(0x37) != c.subject || o.Text(0x3D) != c.prefix || o.Text(0xE1D) != c.rest || o.Text(0x70) != c.rest {
				t.Errorf("%q = %q + %q, topic %q", o.Text(0x37), o.Text(0x3D), o.Text(0xE1D), o.Text(0x70))
			}
		})
	}
}

func TestPeople(t *testing.T) {
	t.Parallel()
	o := converted(t, named(t, "odd people"), convert.Envelope{}, convert.Options{})
	if o.Text(0xC1A) != "Assistant" || o.Text(0xC1F) != "asst@example.org" {
		t.Errorf("sender %q <%s>", o.Text(0xC1A), o.Text(0xC1F))
	}
	if o.Text(0x42) != "Boss" || o.Text(0x65) != "boss@example.org" {
		t.Errorf("representing %q <%s>", o.Text(0x42), o.Text(0x65))
	}
	var got []string
	for _, r := range o.Recipients {
		got = append(got, string('0'+r.Int(0xC15))+" "+r.Text(0x3001)+" <"+r.Text(0x3003)+">")
	}
	want := []string{"1 a@example.net <a@example.net>", "1 B b <b@example.net>", "3 MAILER-DAEMON <MAILER-DAEMON>"}
	if !slices.Equal(got, want) {
		t.Errorf("recipients %q, want %q", got, want)
	}
	if o.Text(0xE04) != "a@example.net; B b" {
		t.Errorf("display to %q", o.Text(0xE04))
	}
	if o.Text(0x50) != "r@example.org; R; two" {
		t.Errorf("reply to %q", o.Text(0x50))
	}
	if e := o.Binary(0x4F); len(e) < 16 || e[0] != 2 {
		t.Errorf("reply to entries % x", e)
	}
	if !o.Bool(0x29) || o.Text(0x402A) != "boss@example.org" {
		t.Errorf("receipt wanted %v by %q", o.Bool(0x29), o.Text(0x402A))
	}
	if e := hex.EncodeToString(o.Binary(0x41)[:24]); e != "00000000812b1fa4bea310199d6e00dd010f540200000180" {
		t.Errorf("entry id begins %s", e)
	}
	t.Run("nobody is told", func(t *testing.T) {
		t.Parallel()
		for _, to := range []string{"undisclosed-recipients:;", "undisclosed-recipients;;", "Undisclosed recipients", "<undisclosed-recipients:>"} {
			o := converted(t, "From: a@b.c\r\nTo: "+to+"\r\n\r\n", convert.Envelope{}, convert.Options{})
			if len(o.Recipients) != 0 || o.Has(0xE04) {
				t.Errorf("%s: %d recipients, %q", to, len(o.Recipients), o.Text(0xE04))
			}
		}
	})
	t.Run("no originator is a draft", func(t *testing.T) {
		t.Parallel()
		o := converted(t, "Subject: x\r\n\r\n", convert.Envelope{}, convert.Options{})
		if o.Int(0xE07)&8 == 0 || o.Has(0x65) || o.Has(0xC1F) {
			t.Errorf("flags %X, sender %v", o.Int(0xE07), o.Has(0xC1F))
		}
	})
	t.Run("a name alone is a sender", func(t *testing.T) {
		t.Parallel()
		o := converted(t, "From: MAILER-DAEMON <>\r\n\r\n", convert.Envelope{}, convert.Options{})
		if o.Int(0xE07)&8 != 0 || o.Text(0x42) != "MAILER-DAEMON" {
			t.Errorf("flags %X, sender %q", o.Int(0xE07), o.Text(0x42))
		}
	})
}

func TestDates(t *testing.T) {
	t.Parallel()
	sent := time.Date(2024, 2, 29, 18, 29, 58, 0, time.UTC)
	server := time.Date(2024, 3, 1, 1, 2, 3, 0, time.UTC)
	came := time.Date(2024, 2, 29, 18, 30, 5, 0, time.UTC)
	cases := []struct {
		name, fields     string
		env              convert.Envelope
		wantSent, wantIn time.Time
	}{
		{"date only", "Date: Thu, 29 Feb 2024 23:59:58 +0530\r\n", convert.Envelope{}, sent, time.Time{}},
		{"received wins", "Received: by x; Thu, 29 Feb 2024 18:30:05 +0000\r\nReceived: by y; Mon, 1 Jan 2024 00:00:00 +0000\r\n", convert.Envelope{InternalDate: server}, time.Time{}, came},
		{"internal date", "Date: Thu, 29 Feb 2024 23:59:58 +0530\r\n", convert.Envelope{InternalDate: server}, sent, server},
		{"nothing is made up", "", convert.Envelope{}, time.Time{}, time.Time{}},
		{"beyond what readers take", "Date: Tue, 28 May 3024 11:02:15 +0000\r\n", convert.Envelope{}, time.Time{}, time.Time{}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := converted(t, "From: a@b.c\r\n"+c.fields+"\r\n", c.env, convert.Options{})
			if got := o.Time(0x39); !got.Equal(c.wantSent) {
				t.Errorf("sent %v, want %v", got, c.wantSent)
			}
			if got := o.Time(0xE06); !got.Equal(c.wantIn) {
				t.Errorf("came %v, want %v", got, c.wantIn)
			}
		})
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	flags := func(f ...string) convert.Envelope { return convert.Envelope{HaveFlags: true, Flags: f} }
	forwarded := convert.Envelope{HaveFlags: true, Keywords: []string{"$Forwarded"}}
	cases := []struct {
		name             string
		env              convert.Envelope
		flags, icon, act int32
	}{
		{"unknown", convert.Envelope{}, 0x403, -1, 0},
		{"new", flags(), 2, -1, 0},
		{"seen", flags(`\Seen`), 0x403, -1, 0},
		{"answered", flags(`\Seen`, `\Answered`), 0x403, 0x105, 102},
		{"forwarded", forwarded, 2, 0x106, 104},
		{"draft", flags(`\Draft`), 0xA, -1, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := converted(t, named(t, "plain"), c.env, convert.Options{})
			if o.Int(0xE07) != c.flags || o.Int(0x1080) != c.icon || o.Int(0x1081) != c.act {
				t.Errorf("flags %X, icon %X, verb %d", o.Int(0xE07), o.Int(0x1080), o.Int(0x1081))
			}
		})
	}
	t.Run("flagged", func(t *testing.T) {
		t.Parallel()
		o := converted(t, named(t, "plain"), flags(`\Flagged`), convert.Options{})
		id := o.Names["0820060000000000c000000000000046/8530"]
		if o.Int(0x1090) != 2 || o.Int(0x1095) != 6 || o.Text(id) != "Follow up" {
			t.Errorf("status %d, icon %d, request %q", o.Int(0x1090), o.Int(0x1095), o.Text(id))
		}
	})
}

func TestImportance(t *testing.T) {
	t.Parallel()
	cases := map[string]int32{
		"": 1, "Importance: high": 2, "Importance: Low": 0, "X-Priority: 1 (Highest)": 2, "X-Priority: 5": 0, "X-Priority: 3": 1,
		"Priority: urgent": 2, "Priority: non-urgent": 0, "X-MSMail-Priority: High": 2, "Importance: low\r\nX-Priority: 1": 0,
	}
	for field, want := range cases {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			o := converted(t, "From: a@b.c\r\n"+field+"\r\n\r\nx", convert.Envelope{}, convert.Options{})
			if o.Int(0x17) != want || o.Int(0x26) != want-1 {
				t.Errorf("importance %d, priority %d, want %d", o.Int(0x17), o.Int(0x26), want)
			}
		})
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	o := converted(t, lines("From: a@b.c", "References: <1@x>", " <2@x>", "In-Reply-To: <2@x>", "Message-ID: <3@x>; kept",
		"List-Unsubscribe: <mailto:u@x>", "List-Help: <mailto:h@x>", "List-Subscribe: <mailto:s@x>", "Keywords: alpha, beta; gamma",
		"X-Custom: =?utf-8?q?caf=C3=A9?=", "X-MS-Exchange-Organization-Secret: no", "\tfolded", "X-MS-Exchange-Organization-SCL: 5",
		"X-Raw: caf\xe9", "", "x"), convert.Envelope{}, convert.Options{})
	for id, want := range map[uint16]string{0x1035: "<3@x>; kept", 0x1042: "<2@x>", 0x1039: "<1@x> <2@x>", 0x1045: "<mailto:u@x>", 0x1043: "<mailto:h@x>", 0x1044: "<mailto:s@x>"} {
		if got := o.Text(id); got != want {
			t.Errorf("%04X is %q, want %q", id, got, want)
		}
	}
	if got := o.Lists[uint32(o.Names["public/Keywords"])<<16|0x101F]; !slices.Equal(got, []string{"alpha", "beta", "gamma"}) {
		t.Errorf("keywords %q", got)
	}
	const headers = "8603020000000000c000000000000046/"
	if got := o.Text(o.Names[headers+"x-custom"]); got != "café" {
		t.Errorf("X-Custom is %q", got)
	}
	if _, ok := o.Names[headers+"x-ms-exchange-organization-secret"]; ok {
		t.Error("a field of Exchange's own crossed over")
	}
	block := o.Text(0x7D)
	if !strings.Contains(block, "References: <1@x>\r\n <2@x>\r\n") || !strings.Contains(block, "X-Raw: café\r\n") || !strings.Contains(block, "SCL: 5") {
		t.Errorf("header block %q", block)
	}
	if strings.Contains(block, "Secret") || strings.Contains(block, "folded") {
		t.Errorf("a field of Exchange's own stands in the header block %q", block)
	}
}

// TestConversation: the mails of a thread share their first 22 octets but for
// the time; Outlook's own index is kept.
func TestConversation(t *testing.T) {
	t.Parallel()
	index := func(fields string) []byte {
		return converted(t, "From: a@b.c\r\n"+fields+"\r\n\r\n", convert.Envelope{}, convert.Options{}).Binary(0x71)
	}
	root := index("Message-ID: <root@x>")
	reply := index("Message-ID: <r@x>\r\nIn-Reply-To: <root@x>")
	late := index("Message-ID: <s@x>\r\nReferences: <root@x> <r@x>\r\nIn-Reply-To: <r@x>")
	if len(root) != 22 || len(reply) != 27 || len(late) != 27 || !bytes.Equal(root[6:22], reply[6:22]) || !bytes.Equal(root[6:22], late[6:22]) {
		t.Errorf("% x\n% x\n% x", root, reply, late)
	}
	own := append([]byte{1}, bytes.Repeat([]byte{7}, 21)...)
	if got := index("Thread-Index: AQcHBwcHBwcHBwcHBwcHBwcHBwcHBw=="); !bytes.Equal(got, own) {
		t.Errorf("Outlook's own index became % x", got)
	}
}

func TestClasses(t *testing.T) {
	t.Parallel()
	report := func(action string) string {
		return strings.Replace(named(t, "delivery report"), "Action: failed", "Action: "+action, 1)
	}
	cases := map[string]struct{ mail, class string }{
		"plain":        {named(t, "plain"), "IPM.Note"},
		"clear-signed": {named(t, "clear-signed"), "IPM.Note.SMIME.MultipartSigned"},
		"enveloped":    {named(t, "enveloped"), "IPM.Note.SMIME"},
		"failed":       {report("failed"), "REPORT.IPM.Note.NDR"},
		"delayed":      {report("delayed"), "REPORT.IPM.Note.Delayed.DR"},
		"delivered":    {report("delivered"), "REPORT.IPM.Note.DR"},
		"relayed":      {report("relayed"), "REPORT.IPM.Note.Relayed.DR"},
		"expanded":     {report("expanded (to many)"), "REPORT.IPM.Note.Expanded.DR"},
		"unreadable":   {report("?"), "REPORT.IPM.Note.NDR"},
		"read":         {strings.Replace(named(t, "read report"), "deleted", "displayed", 1), "REPORT.IPM.Note.IPNRN"},
		"not read":     {named(t, "read report"), "REPORT.IPM.Note.IPNNRN"},
		"invitation":   {named(t, "invitation"), "IPM.Note"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := converted(t, c.mail, convert.Envelope{}, convert.Options{}).Text(0x1A); got != c.class {
				t.Errorf("class %s, want %s", got, c.class)
			}
		})
	}
}

func TestDeliveryReport(t *testing.T) {
	t.Parallel()
	o := converted(t, named(t, "delivery report"), convert.Envelope{}, convert.Options{})
	if len(o.Recipients) != 2 {
		t.Fatalf("%d recipients", len(o.Recipients))
	}
	r := o.Recipients[1]
	if r.Int(0xC15) != 0 || r.Text(0x3003) != "nobody@example.net" || r.Int(0xC20) != 511 || !strings.HasPrefix(r.Text(0x1001), "smtp; 550") {
		t.Errorf("row of the failed one: kind %d, %q, status %d, %q", r.Int(0xC15), r.Text(0x3003), r.Int(0xC20), r.Text(0x1001))
	}
	if o.Text(0xE04) != "Bob" {
		t.Errorf("display to %q", o.Text(0xE04))
	}
	want := "Reporting-MTA: dns; mx.example.net\n\n\nFinal-Recipient: rfc822; nobody@example.net\nAction: failed\nStatus: 5.1.1\n" +
		"Diagnostic-Code: smtp;\n 550 5.1.1 a text that is longer than the seventy-eight columns that a line\n should have\n\n"
	if got := string(o.Attachments[0].Binary(0x3701)); got != want {
		t.Errorf("status %q, want %q", got, want)
	}
	if m := o.Attachments[1].Message; m == nil || m.Text(0x37) != "original" {
		t.Error("the original isn't there")
	}
}
