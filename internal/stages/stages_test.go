package stages_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/internal/stages/filter"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/spec"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// chain builds a chain from a JSON object for each stage.
func chain(t testing.TB, configs ...string) *stages.Chain {
	t.Helper()
	var list []*stages.Stage
	for _, raw := range configs {
		var c stages.Config
		if err := spec.Decode([]byte(raw), &c, nil); err != nil {
			t.Fatal(err)
		}
		s, err := stages.Build(c, filter.Options{})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return stages.NewChain(list)
}

func letter(uid uint32, size int64, header string) *message.Summary {
	return &message.Summary{ID: message.ID{Source: "s", Mailbox: "INBOX", UIDValidity: 1, UID: uid}, Have: message.NeedSize | message.NeedHeaders,
		Size: size, Header: message.NewHeader([]byte(header + "\r\n\r\n"))}
}

// say puts an outcome in a line.
func say(o stages.Outcome) string {
	words := map[stages.Verdict]string{stages.Kept: "kept", stages.Dropped: "dropped", stages.DeadLettered: "dead letter", stages.NeedMore: "need", stages.AtBarrier: "at", stages.CannotJudge: "cannot judge"}
	out := words[o.Verdict]
	if o.Stage != nil {
		out += " " + o.Stage.Name
	}
	if o.Verdict == stages.NeedMore {
		out += " " + o.Needs.String()
	}
	if o.Reason != "" {
		out += " (" + o.Reason + ")"
	}
	for _, s := range o.Undecided {
		out += ", " + s.Name + " undecided"
	}
	if o.Values != nil {
		out += " " + string(o.Values)
	}
	return out
}

func TestJudge(t *testing.T) {
	t.Parallel()
	bySubject := `{"name":"subject","filter":"subject contains \"x\""}`
	bySize := `{"name":"size","filter":"size < 100"}`
	notOld := `{"name":"old","drop":"date < date(\"2020-01-01\") || size == 7"`
	tests := []struct {
		name   string
		chain  []string
		letter *message.Summary
		want   string
	}{
		{"no stages", nil, letter(1, 1, ""), "kept"},
		{"kept", []string{bySubject, bySize}, letter(1, 1, "Subject: x"), "kept"},
		{"the cheaper gets the credit", []string{bySubject, bySize}, letter(1, 200, "Subject: y"), `dropped size {"size":200}`},
		{"the dearer keeps both values", []string{bySubject, bySize}, letter(1, 1, "Subject: y"), `dropped subject {"size":1,"subject":"y"}`},
		{"asks for the next", []string{bySubject, bySize}, &message.Summary{Have: message.NeedSize}, "need headers"},
		{"asks for the cheapest", []string{bySubject, bySize}, &message.Summary{}, "need size"},
		{"drops before it asks", []string{bySubject, bySize}, &message.Summary{Have: message.NeedSize, Size: 200}, `dropped size {"size":200}`},
		{"drop splits at ||", []string{notOld + "}"}, &message.Summary{Have: message.NeedSize, Size: 7}, `dropped old {"size":7}`},
		{"drop", []string{notOld + "}"}, letter(1, 1, "Date: Sat, 31 Oct 2015 10:00:00 +0100"), `dropped old {"date":"2015-10-31T10:00:00+01:00","size":1}`},
		{"undecided is kept and counted", []string{notOld + "}"}, letter(1, 1, "Date: never"), "kept, old undecided"},
		{"unknown: drop", []string{notOld + `,"unknown":"drop"}`}, letter(1, 1, "Date: never"), `dropped old {"date":null,"size":1}`},
		{"unknown: dead_letter", []string{notOld + `,"unknown":"dead_letter"}`}, letter(1, 1, ""), `dead letter old (a value is absent or can't be read, of: date) {"date":null,"size":1}`},
		{"a no goes before a dead letter", []string{notOld + `,"unknown":"dead_letter"}`, bySubject}, letter(1, 1, ""), `dropped subject {"date":null,"size":1,"subject":""}`},
		{"stops at a barrier", []string{bySize, `{"name":"few","limit":1}`, bySubject}, letter(1, 1, "Subject: y"), "at few"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := chain(t, tt.chain...)
			o := c.NewRun(now, nil).Judge(0, tt.letter)
			if diff := cmp.Diff(tt.want, say(o)); diff != "" {
				t.Error(diff)
			}
			if o.Values != nil {
				if again := say(c.JudgeValues(o.Values, now)); again != tt.want {
					t.Errorf("from the kept values: %s", again)
				}
			}
		})
	}
}

func TestLimitCountsInOrderOfTheListing(t *testing.T) {
	t.Parallel()
	for per, want := range map[string][]string{
		"source":  {"A1 kept", "A2 dropped subject", "A3 dropped few", "B1 dropped few", "B2 dropped few"},
		"mailbox": {"A1 kept", "A2 dropped subject", "A3 dropped few", "B1 kept", "B2 dropped subject"},
	} {
		c := chain(t, `{"name":"size","filter":"size < 100"}`, `{"name":"few","limit":{"messages":2,"per":"`+per+`"}}`, `{"name":"subject","filter":"subject == \"odd\""}`)
		for range 2 { // every run lets the same pass
			run := c.NewRun(now, nil)
			var got []string
			for _, box := range []string{"A", "B"} {
				for uid := uint32(1); uid <= 4; uid++ {
					if box == "B" && uid > 2 {
						break
					}
					s := letter(uid, int64(uid)*30, "Subject: "+[]string{"even", "odd"}[uid%2])
					s.ID.Mailbox = box
					o := run.Judge(0, s)
					if o.Verdict == stages.Dropped && o.Stage.Name == "size" {
						continue // 120 octets
					}
					if full := run.Full(o.At, "s", box); full != strings.HasSuffix(fmt.Sprint(want[len(got)]), "few") {
						t.Errorf("%s%d: full is %v", box, uid, full)
					}
					o = run.Admit(o.At, s)
					o.Values = nil
					got = append(got, fmt.Sprintf("%s%d %s", box, uid, say(o)))
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("per %s: %s", per, diff)
			}
		}
	}
}

func TestJudgeValuesOfAChangedChain(t *testing.T) {
	t.Parallel()
	size := func(n int) string { return fmt.Sprintf(`{"name":"size","filter":"size < %d"}`, n) }
	dropped := chain(t, size(100)).NewRun(now, nil).Judge(0, letter(1, 150, "Subject: y")).Values
	tests := []struct {
		name  string
		chain []string
		want  string
	}{
		{"still dropped", []string{size(120)}, `dropped size {"size":150}`},
		{"kept now", []string{size(200)}, "kept"},
		{"another value is needed", []string{size(200), `{"name":"s","filter":"subject == \"y\""}`}, "cannot judge"},
		{"one no is enough", []string{`{"name":"d","filter":"internal_date > now()"}`, size(120)}, `dropped size {"size":150}`},
		{"a limit must count", []string{`{"name":"few","limit":3}`, size(120)}, "at few"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := say(chain(t, tt.chain...).JudgeValues(dropped, now)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	if o := chain(t, size(1)).JudgeValues([]byte("{"), now); o.Verdict != stages.CannotJudge {
		t.Errorf("broken values: %s", say(o))
	}
}

func TestLongValuesAreNotKept(t *testing.T) {
	t.Parallel()
	o := chain(t, `{"name":"s","filter":"subject == \"y\" && size < 5"}`).NewRun(now, nil).Judge(0, letter(1, 1, "Subject: "+strings.Repeat("x", 5000)))
	if got := say(o); got != `dropped s {"size":1}` {
		t.Error(got)
	}
}

func TestLevelsAndNeeds(t *testing.T) {
	t.Parallel()
	c := chain(t, `{"name":"a","filter":"size < 5 && has_attachments"}`, `{"name":"b","drop":"seen || date < now()"}`)
	var got []string
	for _, n := range c.Levels() {
		got = append(got, n.String())
	}
	if diff := cmp.Diff([]string{"size, flags", "headers", "structure"}, got); diff != "" {
		t.Error(diff)
	}
	if c.NeededForList() != message.NeedSize|message.NeedFlags || !c.ReadsNow() || !c.ReadsFlags() || chain(t).NeededForList() != 0 {
		t.Error("needs")
	}
}

func TestFingerprints(t *testing.T) {
	t.Parallel()
	a, b, few := `{"name":"a","filter":"size < 5"}`, `{"name":"b","filter":"seen"}`, `{"name":"few","limit":3}`
	base := chain(t, a, few, b)
	if base.Fingerprint() != chain(t, a, few, b).Fingerprint() {
		t.Error("the same chain has two fingerprints")
	}
	seen := map[string]string{base.Fingerprint(): "base"}
	for name, c := range map[string]*stages.Chain{
		"order": chain(t, b, few, a), "shorter": chain(t, a, few), "limit": chain(t, a, `{"name":"few","limit":4}`, b),
		"drop": chain(t, `{"name":"a","drop":"size < 5"}`, few, b), "unknown": chain(t, `{"name":"a","filter":"size < 5","unknown":"drop"}`, few, b),
		"per": chain(t, a, `{"name":"few","limit":{"messages":3,"per":"mailbox"}}`, b), "name": chain(t, `{"name":"x","filter":"size < 5"}`, few, b),
	} {
		if other := seen[c.Fingerprint()]; other != "" {
			t.Errorf("%s has the fingerprint of %s", name, other)
		}
		seen[c.Fingerprint()] = name
	}
	// What comes after the next barrier has no part in a drop.
	if base.FingerprintUpTo("a") != chain(t, a, few).FingerprintUpTo("a") || base.FingerprintUpTo("a") == chain(t, a, b).FingerprintUpTo("a") {
		t.Error("the fingerprint up to a stage covers something else than its run of pure stages")
	}
	if base.FingerprintUpTo("none") != "" {
		t.Error("a stage that isn't there has a fingerprint")
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"name":"a"}`:                                   "a stage has a name and exactly one of filter, drop, limit",
		`{"name":"a","filter":"seen","limit":1}`:         "a stage has a name and exactly one of filter, drop, limit",
		`{"name":"a","limit":1,"unknown":"drop"}`:        "unknown: unknown stands beside filter, drop, header, mailbox, attachments, tag, plugin only, not beside limit",
		`{"name":"a","limit":0}`:                         "limit: expected a whole number of 1 or more, or {messages: N, per: mailbox}",
		`{"name":"a","limit":{"per":"box"}}`:             "limit.messages: missing: expected a whole number",
		`{"name":"A b","limit":1}`:                       `name: "A b" isn't allowed: expected what matches [a-z0-9][a-z0-9._-]*`,
		`{"name":"a","filter":"seen","unknown":"droop"}`: `unknown: "droop" isn't allowed: expected one of keep, drop, dead_letter; did you mean "drop"?`,
	} {
		var c stages.Config
		err := spec.Decode([]byte(raw), &c, nil)
		if err == nil || !fault.Is(err, fault.Config) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", raw, err, want)
		}
	}
	text := "sizee < 5 && subjekt == 1"
	_, err := stages.Build(stages.Config{Name: "a", Drop: &text}, filter.Options{})
	var e *expression.Error
	if f := fault.As(err); f == nil || f.Key != "drop" || !errors.As(err, &e) || e.Nearest != "size" || strings.Count(err.Error(), "unknown field") != 2 {
		t.Errorf("got %v", err)
	}
	if _, err := spec.SchemaOf(stages.Config{}); err != nil {
		t.Error(err)
	}
}

func BenchmarkJudge(b *testing.B) {
	c := chain(b, `{"name":"a","filter":"size < 25 * MB && date >= now() - days(36500)"}`, `{"name":"b","drop":"subject contains \"spam\""}`)
	run, s := c.NewRun(now, nil), letter(1, 1, "Subject: x\r\nDate: Sat, 31 Oct 2026 10:00:00 +0100")
	b.ReportAllocs()
	for b.Loop() {
		if o := run.Judge(0, s); o.Verdict != stages.Kept {
			b.Fatal(say(o))
		}
	}
}
