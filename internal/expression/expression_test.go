package expression_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/pkg/message"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// letter is a message of which everything is known.
func letter() *message.Summary {
	return &message.Summary{
		ID: message.ID{Source: "alice", Mailbox: "Projects/Über", UIDValidity: 1, UID: 7}, ObjectID: "M1",
		Have: message.AllSummary, Size: 30_000, InternalDate: time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC),
		Flags: []string{`\Answered`, `\Seen`}, Keywords: []string{"$Junk"}, Labels: []string{"Work"},
		Header: message.NewHeader([]byte("From: Ann <Ann@Example.com>\r\nTo: b@x.org, C <c@y.org>\r\nSubject: =?utf-8?q?ACME_=2312?=\r\n" +
			"Date: Sat, 31 Oct 2026 10:00:00 +0100\r\nMessage-ID: <m1@x>\r\nReferences: <r1@x> <r2@x>\r\nX-Spam: yes\r\n\r\n")),
		Structure: &message.Part{MediaType: "multipart/mixed", Children: []*message.Part{
			{Path: "1", MediaType: "text/plain", Size: -1, EncodedSize: 5},
			{Path: "2", MediaType: "application/pdf", Name: "a.pdf", Disposition: "attachment", Encoding: "base64", EncodedSize: 7800, Size: -1}}},
		Vars: map[string]string{"custodian": "Ann"},
	}
}

func TestEval(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want bool
	}{
		{`true`, true},
		{`size < 25 * MB`, true},
		{`size == 30 * KB`, true},
		{`size > 29 * KiB && size < 30 * KiB`, true},
		{`date >= date("2026-10-31")`, true},
		{`date >= now() - days(21)`, false},
		{`internal_date >= now() - days(21)`, true},
		{`internal_date < now() - hours(12.5)`, true},
		{`date < internal_date`, true},
		{`date == date("2026-10-31T09:00:00Z")`, true},
		{`subject == "ACME #12"`, true},
		{`subject matches "(?i)acme #[0-9]+"`, true},
		{`from contains "Ann <Ann@Example.com>"`, true},
		{`to == "b@x.org, C <c@y.org>"`, true},
		{`"C@Y.ORG" in to_address`, true},
		{`to_address in ["nobody@x.org", "C@y.org"]`, true},
		{`to_address not in ["nobody@x.org"]`, true},
		{`any(to_address, # endsWith "@y.org")`, true},
		{`all(from_address, # endsWith "@x.org")`, false},
		{`cc == "" && len(cc_address) == 0`, true},
		{`message_id == "<m1@x>"`, true},
		{`"<r2@x>" in references`, true},
		{`references[0] == "<r1@x>"`, true},
		{`header("X-Spam") == "yes" && header("x-nothing") == ""`, true},
		{`seen && answered && !flagged and not draft`, true},
		{`"\\Seen" in flags`, true},
		{`keywords in ["$junk"]`, true},
		{`"Work" in labels`, true},
		{`has_attachments`, true},
		{`any(attachments, .name endsWith ".pdf" && .size > 5 * KB && .media_type == "application/pdf")`, true},
		{`any(attachments, .size > 1 * MB)`, false},
		{`none(attachments, .inline)`, true},
		{`mailbox startsWith "Projects"`, true},
		{`source == "alice" && uid == 7 && uidl == "" && object_id == "M1"`, true},
		{`vars.custodian == "Ann" && vars.nobody == "" && vars["custodian"] != ""`, true},
		{`lower(subject) contains "acme" ? true : false`, true},
		{`let s = lower(subject); s startsWith "acme"`, true},
		{`subject | lower() contains "acme"`, true},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			p, err := expression.Compile(tt.text, expression.Options{})
			if err != nil {
				t.Fatal(err)
			}
			got, undecided, err := p.Eval(letter(), now)
			if got != tt.want || undecided || err != nil {
				t.Errorf("got %v, undecided %v, %v", got, undecided, err)
			}
			kept := keep(t, p, letter())
			if again, undecided, err := p.EvalValues(kept, now); again != got || undecided || err != nil {
				t.Errorf("from kept values %v: got %v, undecided %v, %v", kept, again, undecided, err)
			}
		})
	}
}

// TestAttachmentsAreThoseOfTheIndex: what the index lists is what a filter
// sees, and what is shown within the text can be told apart.
func TestAttachmentsAreThoseOfTheIndex(t *testing.T) {
	t.Parallel()
	s := letter()
	s.Structure = &message.Part{MediaType: "multipart/related", Children: []*message.Part{
		{Path: "1", MediaType: "text/html", Size: 5},
		{Path: "2", MediaType: "image/png", Name: "logo.png", ContentID: "l", Inline: true, Size: 7},
		{Path: "3", MediaType: "message/delivery-status", Size: 9},
		{Path: "4", MediaType: "message/rfc822", Size: 11, Children: []*message.Part{{Path: "4.1", MediaType: "application/pdf", Name: "within.pdf"}}}}}
	if n := len(message.Attachments(s.Structure)); n != 2 {
		t.Fatalf("the index has %d", n)
	}
	for _, text := range []string{`len(attachments) == 2`, `map(attachments, .size) == [7, 11]`, `filter(attachments, !.inline)[0].media_type == "message/rfc822"`} {
		p, err := expression.Compile(text, expression.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if is, undecided, err := p.Eval(s, now); !is || undecided || err != nil {
			t.Errorf("%s: %v, undecided %v, %v", text, is, undecided, err)
		}
	}
}

// keep passes what an expression read through JSON, as the ledger does.
func keep(t testing.TB, p *expression.Program, s *message.Summary) map[string]json.RawMessage {
	t.Helper()
	values := map[string]any{}
	for _, term := range p.Terms {
		term.Values(s, values)
	}
	b, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	var kept map[string]json.RawMessage
	if err := json.Unmarshal(b, &kept); err != nil {
		t.Fatal(err)
	}
	return kept
}

func TestAnAbsentValueSpreadsAsUndecided(t *testing.T) {
	t.Parallel()
	noDate := letter()
	noDate.Header = message.NewHeader([]byte("Subject: x\r\n\r\n"))
	noDate.InternalDate = time.Time{}
	noDate.ID.UID = 0
	const f, u, y = "false", "undecided", "true"
	for text, want := range map[string]string{
		`date > now()`:                                  u,
		`!(date > now())`:                               u,
		`date > now() || subject == "x"`:                y,
		`subject == "x" || date > now()`:                y,
		`subject == "y" || date > now()`:                u,
		`date > now() && subject == "y"`:                f,
		`!(date > now() && subject == "y")`:             y,
		`not (subject == "x" or internal_date > now())`: f,
		`uid > 3`:                u,
		`gmail_thread_id == "1"`: u,
		`references[0] == "x"`:   u, // out of range at this message
	} {
		p, err := expression.Compile(text, expression.Options{})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		got, undecided, err := p.Eval(noDate, now)
		if word := word(got, undecided); word != want || (err != nil) != strings.Contains(text, "[0]") {
			t.Errorf("%s: %s, want %s (%v)", text, word, want, err)
		}
		got, undecided, _ = p.EvalValues(keep(t, p, noDate), now)
		if word := word(got, undecided); word != want {
			t.Errorf("%s: from kept values %s, want %s", text, word, want)
		}
	}
}

func word(value, undecided bool) string {
	if undecided {
		return "undecided"
	}
	return fmt.Sprint(value)
}

func TestTermsAreSplitAndSortedByCost(t *testing.T) {
	t.Parallel()
	p, err := expression.Compile(`has_attachments && (subject contains "x" || date < now() - days(3)) && size < 25 * MB && seen`, expression.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, term := range p.Terms {
		got = append(got, fmt.Sprintf("%s: %v %v %v", term.Needs(), term.Fields(), term.ReadsNow(), term.ReadsFlags()))
	}
	want := []string{"size: [size] false false", "flags: [seen] false true", "headers: [subject date] true false", "structure: [has_attachments] false false"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !p.ReadsNow() || !p.ReadsFlags() || !p.Needs().Has(message.NeedStructure|message.NeedSize) {
		t.Error("the whole doesn't tell what its terms do")
	}
}

func TestMissingKeptValues(t *testing.T) {
	t.Parallel()
	p, err := expression.Compile(`size < 5 && subject == "x"`, expression.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = p.EvalValues(map[string]json.RawMessage{"size": []byte("1")}, now)
	var missing *expression.MissingError
	if !errors.As(err, &missing) || missing.Field != "subject" {
		t.Errorf("got %v", err)
	}
	// One term that says no is enough.
	if v, u, err := p.EvalValues(map[string]json.RawMessage{"size": []byte("9")}, now); v || u || err != nil {
		t.Errorf("got %v %v %v", v, u, err)
	}
}

func TestErrorsAreFriendlyAndAllAtOnce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want []string // "line:column: text"
	}{
		{``, []string{`1:1: the expression is empty`}},
		{`sizes < 3 && form contains "x"`, []string{`1:1: unknown field sizes; did you mean "size"?`, `1:14: unknown field form; did you mean "from"?`}},
		{"size < 3\n  && subjct == \"a\"", []string{`2:6: unknown field subjct; did you mean "subject"?`}},
		{`day(3) > 4`, []string{`1:1: unknown function day(); did you mean "days"?`}},
		{`date > "2024-01-31"`, []string{`1:6: invalid operation: > (mismatched types a time and string); write date("2024-01-31")`}},
		{`date > date("31.1.2024")`, []string{`1:13: "31.1.2024" is no date: expected one as in 2024-01-31, 2024-01-31 18:30 or 2024-01-31T18:30:00+01:00`}},
		{`size`, []string{`1:1: a condition is true or false, this is a number: compare it with something`}},
		{`size < 3 && subject`, []string{`1:13: a condition is true or false, this is a text: compare it with something`}},
		{`size < "3" && date < 4`, []string{`1:6: invalid operation: < (mismatched types int and string); a number stands without quotes, as in 25 * MB`, `1:20: invalid operation: < (mismatched types a time and int)`}},
		{`vars.custodan == "x"`, []string{`1:6: no source or stage gives the variable custodan; did you mean "custodian"?`}},
		{`header(subject) == ""`, []string{`1:1: header() takes the name of a header in quotes, as in header("X-Spam-Flag")`}},
		{`$env["size"] > 1`, []string{`1:1: unknown field $env`}},
		{`let size = 1; size > 0`, []string{`1:5: let can't give "size" a new meaning`}},
		{`keys({"a": 1})[0] == "a"`, []string{`1:1: keys() isn't available here`}},
		{`subject = "x"`, []string{`1:9: a single = compares nothing: write ==`}},
		{`subject contains`, []string{`1:16: it ends too early`}},
		{`"abc`, []string{`1:5: literal not terminated`}},
		{`size < 100 KB`, []string{`1:12: a size is a product: write it as in 100 * KB`}},
		{`size < 3 size`, []string{`1:10: unexpected "size"; text stands in quotes, conditions are joined with && and ||`}},
		{`references contains "x"`, []string{`1:12: invalid operation: contains (mismatched types a list and string); write "x" in LIST`}},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			_, err := expression.Compile(tt.text, expression.Options{Vars: []string{"custodian"}})
			if diff := cmp.Diff(tt.want, lines(t, err)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func lines(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	parts := []error{err}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		parts = many.Unwrap()
	}
	var out []string
	for _, p := range parts {
		var e *expression.Error
		if !errors.As(p, &e) {
			t.Fatalf("%v is no *Error", p)
		}
		out = append(out, fmt.Sprintf("%d:%d: %v", e.Line, e.Column, e))
	}
	return out
}

func TestTimezoneOfDates(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	s := letter()
	s.InternalDate = time.Date(2026, 6, 30, 22, 30, 0, 0, time.UTC) // half past midnight in Berlin
	for _, tt := range []struct {
		loc  *time.Location
		want bool
	}{{nil, false}, {berlin, true}} {
		p, err := expression.Compile(`internal_date >= date("2026-07-01")`, expression.Options{Location: tt.loc})
		if err != nil {
			t.Fatal(err)
		}
		if got, _, _ := p.Eval(s, now); got != tt.want {
			t.Errorf("%v: %v", tt.loc, got)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{`size < 25 * MB && date > now() - days(3)`, `!(seen || "a" in labels)`, `any(attachments, .name == "x")`, `vars.a == header("b")`,
		`let x = size; x > 1`, `from_address in ["a"]`, `date("2024-01-31") > internal_date`, `references[0] matches "a+"`, `a ? b : c`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := expression.Compile(text, expression.Options{})
		if err != nil {
			lines(t, err)
			return
		}
		s := letter()
		v, u, evalErr := p.Eval(s, now)
		kv, ku, keptErr := p.EvalValues(keep(t, p, s), now)
		if v != kv || u != ku || (evalErr == nil) != (keptErr == nil) {
			t.Errorf("%q: %v %v %v live, %v %v %v from kept values", text, v, u, evalErr, kv, ku, keptErr)
		}
	})
}

func BenchmarkEval(b *testing.B) {
	s := letter()
	for name, text := range map[string]string{"size": `size < 25 * MB`, "date": `date >= now() - days(365)`, "subject": `subject contains "ACME"`} {
		p, err := expression.Compile(text, expression.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if v, _, _ := p.Eval(s, now); !v {
					b.Fatal("wrong")
				}
			}
		})
	}
}
