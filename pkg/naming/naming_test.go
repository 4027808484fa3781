package naming_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/naming"
)

// sample is a message of a source "alice" with the header given.
func sample(mailbox string, header ...string) *message.Summary {
	raw := strings.Join(header, "\r\n") + "\r\n\r\n"
	return &message.Summary{
		ID:           message.ID{Source: "alice", Mailbox: mailbox, UIDValidity: 3, UID: 17},
		Header:       message.NewHeader([]byte(raw)),
		InternalDate: time.Date(2025, 2, 3, 23, 59, 0, 0, time.FixedZone("", -3600)),
		Vars:         map[string]string{"team": "north/east"},
	}
}

func mustParse(t testing.TB, text string, opts naming.Options) *naming.Template {
	t.Helper()
	tmpl, err := naming.Parse(text, opts)
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return tmpl
}

func TestName(t *testing.T) {
	t.Parallel()
	const date = "Date: Fri, 31 Jan 2025 23:30:00 -0800"
	tests := []struct {
		name, template, want string
		message              *message.Summary
	}{
		{"the default", naming.Default, "alice/INBOX/2025-01-31-17-Re_ lunch_-HASH.eml", sample("INBOX", date, "Subject: Re: lunch?")},
		{"levels of a mailbox are directories", "{mailbox}/{uid}-{hash}", "Projects/Ünïcode/2024/17-HASH.eml", sample("Projects/Ünïcode/2024")},
		{"text around a mailbox", "m-{mailbox}-x/{hash}", "m-a/b-x/HASH.eml", sample("a/b")},
		{"a mailbox in the last element makes no directory", "{mailbox}-{hash}", "a_b-HASH.eml", sample("a/b")},
		{"the hash is appended where it is left out", "{uid}", "17-HASH.eml", sample("")},
		{"before the extension that is written", "{uid}.txt", "17.txt-HASH.eml", sample("")},
		{"a hash in a directory doesn't do", "{hash}/{uid}", "HASH/17-HASH.eml", sample("")},
		{"braces", "{{{uid}}}", "{17}-HASH.eml", sample("")},
		{"all fields", "{source}_{uidl}_{year}{month}{day}_{internal_date}_{from}_{message_id}_{vars.team}_{hash}",
			"alice_none_20250131_2025-02-04_bob@example.org_1@x_north_east_HASH.eml",
			sample("", date, "From: Bob <bob@example.org>", "Message-ID: <1@x>")},
		{"nothing is known", "{mailbox}/{date}-{year}-{month}-{day}-{internal_date}-{subject}-{from}-{message_id}-{vars.x}-{uidl}-{uid}-{hash}",
			"INBOX/undated-0000-00-00-undated-no subject-unknown-none-none-none-0-HASH.eml", &message.Summary{}},
		{"uidl", "{uidl}-{hash}", "a_b-HASH.eml", &message.Summary{ID: message.ID{Source: "p", UIDL: "a/b"}}},
		{"no way out of the target", "{mailbox}/{subject}-{hash}", "_/_/_/etc/.._.._x-HASH.eml", sample("../../../etc", "Subject: ../../x")},
		{"dots only", "{mailbox}/{hash}", "_/_/HASH.eml", sample("./...")},
		{"an absolute mailbox", "{mailbox}/{hash}", "_/etc/_/HASH.eml", sample("/etc/")},
		{"dots and spaces at the end", "{mailbox}/{hash}", "Sent/HASH.eml", sample("Sent. . ")},
		{"devices of Windows", "{mailbox}/{subject}.{hash}", "_con/_NUL.txt/_Com1/COM10/_aux .x/_LPT¹/_NUL.HASH.eml",
			sample("con/NUL.txt/Com1/COM10/aux .x/LPT¹", "Subject: NUL")},
		{"the folder of the sinks' books", "{mailbox}/{hash}", "_.Mailhaul/_.mailhaul/HASH.eml", sample(".Mailhaul/.mailhaul.")},
		{"forbidden characters", "{mailbox}/{hash}", "a_b_c_d_e_f_g_h_i/HASH.eml", sample(`a<b>c:d"e\f|g?h*i`)},
		{"controls", "{mailbox}/{hash}", "ab c d/HASH.eml", sample("a\x00\x1b\x7f\u0085b\tc\r\n d")},
		{"bidirectional and invisible characters", "{mailbox}/{hash}", "annexe.fdp/HASH.eml", sample("anne\u202exe\u200b\ufeff\u2066.fdp")},
		{"a joined emoji stays whole", "{mailbox}/{hash}", "👩‍👩‍👧/HASH.eml", sample("👩‍👩‍👧")},
		{"one spelling of a letter", "{mailbox}/{hash}", "é/HASH.eml", sample("e\u0301")},
		{"a mark doesn't change what stands before it", "a{mailbox}/{hash}", "a_\u0301/HASH.eml", sample("\u0301")},
		{"broken UTF-8", "{mailbox}/{hash}", "a_b/HASH.eml", sample("a\xffb")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tmpl := mustParse(t, tt.template, naming.Options{Extension: ".eml"})
			want := strings.ReplaceAll(tt.want, "HASH", tt.message.ID.Hash())
			if got := tmpl.Name(tt.message); got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestNameIsCut(t *testing.T) {
	t.Parallel()
	deep := strings.TrimSuffix(strings.Repeat("level of some length/", 40), "/")
	tests := []struct {
		name    string
		max     int
		message *message.Summary
	}{
		{"a long subject", 0, sample("INBOX", "Subject: "+strings.Repeat("word ", 900))},
		{"a long subject of wide characters", 0, sample("INBOX", "Subject: "+strings.Repeat("件名", 400))},
		{"of pairs of UTF-16 units", 0, sample("INBOX", "Subject: "+strings.Repeat("👩‍👩‍👧", 200))},
		{"a tower of marks", 0, sample("INBOX", "Subject: a"+strings.Repeat("\u0301\u0302", 900))},
		{"a long mailbox", 0, sample(strings.Repeat("m", 900), "Subject: x")},
		{"many levels", 0, sample(deep, "Subject: "+strings.Repeat("s", 90))},
		{"a device of Windows with a long extension", 0, sample("NUL."+strings.Repeat("n", 400), "Subject: x")},
		{"the least path", naming.MinMaxPath, sample(deep, "Subject: "+strings.Repeat("s", 90))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tmpl := mustParse(t, naming.Default, naming.Options{Extension: ".eml", MaxPath: tt.max})
			got := tmpl.Name(tt.message)
			if why := wrong(got, tt.max, tt.message.ID.Hash()); why != "" {
				t.Errorf("%q: %s", got, why)
			}
			if !strings.HasSuffix(got, "-"+tt.message.ID.Hash()+".eml") {
				t.Errorf("%q: the hash isn't whole", got)
			}
		})
	}
}

func TestCutKeepsTheSubjectReadable(t *testing.T) {
	t.Parallel()
	m := sample("INBOX", "Date: Fri, 31 Jan 2025 23:30:00 -0800", "Subject: "+strings.Repeat("日本", 200))
	got := mustParse(t, naming.Default, naming.Options{Extension: ".eml"}).Name(m)
	// 200 bytes: 10 + 1 + 2 + 1 + 57 × 3 + 1 + 10 + 4 = 200 would not leave
	// room for the underscore of a device's name, so one character less.
	want := "alice/INBOX/2025-01-31-17-" + strings.Repeat("日本", 28) + "-" + m.ID.Hash() + ".eml"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	tests := []struct{ template, want string }{
		{"", "character 1: it is empty"},
		{"{uid}-{sujbect}", "character 7: unknown field {sujbect}; did you mean {subject}?"},
		{"ü{x}", "character 2: unknown field {x}; known are {source}"},
		{"{vars.}", "unknown field {vars.}"},
		{"{uid", `character 1: "{" without "}"`},
		{"a}b", `character 2: "}" without "{"`},
		{"/{uid}", `character 1: "/" stands between`},
		{"a//{uid}", `character 2: "/" stands between`},
		{"{uid}/", `character 6: "/" stands between`},
		{"../{uid}", `".." is no name of a directory`},
		{`a\{uid}`, `character 2: "\\" can't stand`},
		{"a:{uid}", `character 2: ":" can't stand`},
		{"a\xff", `character 2: "\xff" can't stand`},
		{strings.Repeat("x", 60), "61 bytes of fixed text"},
		{strings.Repeat("{uid}", 20), "21 fields in the last element"},
	}
	for _, tt := range tests {
		_, err := naming.Parse(tt.template, naming.Options{})
		if !fault.Is(err, fault.Config) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Parse(%q): %v, want a config error with %q", tt.template, err, tt.want)
		}
	}
	if _, err := naming.Parse("{uid}", naming.Options{MaxPath: 20}); !fault.Is(err, fault.Config) {
		t.Errorf("max path of 20: %v, want a config error", err)
	}
}

func TestNeeds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		template string
		want     message.Needs
	}{
		{"{source}/{mailbox}/{uid}-{uidl}-{vars.x}", 0},
		{"{subject}", message.NeedHeaders},
		{"{internal_date}", message.NeedInternalDate},
		{naming.Default, message.NeedHeaders},
	}
	for _, tt := range tests {
		if got := mustParse(t, tt.template, naming.Options{}).Needs(); got != tt.want {
			t.Errorf("%q needs %v, want %v", tt.template, got, tt.want)
		}
	}
}

// TestNamesDifferWhereCaseFolds has messages whose names would be the same
// but for the hash, also on a file system that knows no case.
func TestNamesDifferWhereCaseFolds(t *testing.T) {
	t.Parallel()
	tmpl := mustParse(t, "{mailbox}/{subject}", naming.Options{Extension: ".eml", MaxPath: naming.MinMaxPath})
	seen := map[string]message.ID{}
	for i := range 20_000 {
		m := sample([]string{"Box", "BOX", "box.", "B\u200box"}[i%4], "Subject: "+[]string{"same", "SAME"}[i%2])
		m.ID.UID = uint32(i + 1)
		name := strings.ToLower(tmpl.Name(m))
		if other, ok := seen[name]; ok {
			t.Fatalf("%v and %v are both %q", other, m.ID, name)
		}
		seen[name] = m.ID
	}
}

// wrong says what is wrong with a name, as a careful file system would.
func wrong(name string, maxPath int, hash string) string {
	if maxPath == 0 {
		maxPath = naming.DefaultMaxPath
	}
	if n := len(utf16.Encode([]rune(name))); n > maxPath {
		return "it is too long"
	}
	for e := range strings.SplitSeq(name, "/") {
		switch {
		case e == "":
			return "an element is empty"
		case len(e) > naming.MaxElement:
			return "an element is too long: " + e
		case strings.Trim(e, ".") == "", strings.HasSuffix(e, "."), strings.HasSuffix(e, " "), strings.HasPrefix(e, " "):
			return "dots or spaces at the end: " + e
		case strings.EqualFold(e, ".mailhaul"):
			return "the sinks' own folder"
		case strings.ContainsAny(e, "<>:\"\\|?*\x7f\u202e\u2066\u200b\ufeff") || strings.ContainsFunc(e, func(r rune) bool { return r < ' ' }):
			return "a forbidden character"
		}
		stem, _, _ := strings.Cut(strings.ToUpper(e), ".")
		switch strings.TrimRight(stem, " ") {
		case "CON", "PRN", "AUX", "NUL", "COM1", "LPT9":
			return "a device of Windows: " + e
		}
	}
	if last := name[strings.LastIndexByte(name, '/')+1:]; !strings.Contains(last, hash) {
		return "the hash isn't in the last element"
	}
	return ""
}

// Ten thousand messages of one subject get ten thousand names, also where upper
// and lower case don't differ.
func TestManyMessagesOfOneSubject(t *testing.T) {
	t.Parallel()
	tmpl := mustParse(t, naming.Default, naming.Options{})
	seen := map[string]bool{}
	m := sample("INBOX", "Date: Fri, 31 Jan 2025 23:30:00 -0800", "Subject: "+strings.Repeat("Weekly Report ", 40))
	for uid := range uint32(10_000) {
		m.ID.UID = uid + 1
		name := strings.ToLower(tmpl.Name(m))
		if seen[name] {
			t.Fatalf("the name %s was given before", name)
		}
		seen[name] = true
	}
}
