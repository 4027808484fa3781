package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// built is the report of a run in which much went wrong.
func built(t *testing.T) *Report {
	t.Helper()
	l, err := ledger.Open(t.Context(), t.TempDir(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	box, err := l.Box(t.Context(), "alice", "INBOX", 1)
	if err != nil {
		t.Fatal(err)
	}
	dead := func(uid uint32, stage, reason, subject string) ledger.Settled {
		return ledger.Settled{Box: box, ID: message.ID{Source: "alice", Mailbox: "INBOX", UIDValidity: 1, UID: uid}, Octets: -1,
			Fates: []ledger.Fate{{Class: ledger.Dead, Letter: &ledger.Letter{Stage: stage, Reason: reason, Text: "it can't be had", Subject: subject, From: "b@x.test"}}}}
	}
	if err := l.Commit(t.Context(), ledger.Epoch{Settled: []ledger.Settled{
		dead(1, "", "incomplete_body", "one"), dead(2, "", "incomplete_body", "two"), dead(3, "outlook", "converter_bug", "three"),
	}}); err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 11, 21, 1, 0, 0, 0, time.UTC)
	r, err := Build(t.Context(), Input{
		File: "my file.yaml", Version: "v1", Ledger: l, Run: 3, Began: began, Ended: began.Add(90 * time.Second), Exit: engine.ExitIncomplete,
		Series: Timeline{Seconds: 0.5, Messages: []int64{1, 2}, Octets: []int64{10, 20}},
		Plan: &plan.Plan{Name: "acme", Sources: []plan.Source{{Name: "alice", Plugin: "imap"}},
			Sinks: []plan.Sink{{Name: "archive", Plugin: "eml", Prepared: sink.Prepared{Target: "/x"}}}},
		Result: &engine.Result{Accounts: []engine.Account{
			{Source: "alice", Began: true, Excluded: []string{"Trash"}, Mailboxes: []engine.Sum{
				{Mailbox: "INBOX", UIDValidity: 1, Server: 12, Listed: 10, DoneBefore: 1, Written: 3, Dropped: map[string]int64{"recent": 2}, DeadLetters: 3, Standing: 3, Pending: 1,
					Octets: 4000, State: ledger.Incomplete, BlindSpots: []string{"the server shows 10 messages"}},
				{Mailbox: "Sent", Server: -1, State: ledger.Incomplete, Problem: fault.New(fault.Gone, "EXAMINE Sent: NO")},
			}},
			{Source: "bob", Err: fault.New(fault.Auth, "=cmd: the server answered NO").WithHint("check the password")},
			{Source: "eve", Began: true, Until: began.Add(time.Hour), Err: errors.New("OVERQUOTA")},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBuild(t *testing.T) {
	t.Parallel()
	r := built(t)
	var got []string
	for _, a := range r.Accounts {
		got = append(got, a.Source+": "+a.State)
		for _, m := range a.Mailboxes {
			got = append(got, a.Source+"/"+m.Name+": "+m.State)
		}
	}
	want := []string{"alice: incomplete", "alice/INBOX: incomplete", "alice/Sent: incomplete", "alice/Trash: excluded", "bob: never listed", "eve: parked"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if s := r.Total; s.Listed != s.DoneBefore+s.Written+s.AllDropped()+s.Duplicates+s.Unrouted+s.DeadLetters+s.Vanished+s.Pending || s.Listed != 10 || *s.Server != 12 {
		t.Errorf("the sum of I1 doesn't hold: %+v", s)
	}
	got = nil
	for _, f := range r.Failures {
		got = append(got, strings.Join([]string{f.Kind, f.Where, f.Reason, f.Command, f.Examples[0].Subject}, "|"))
	}
	want = []string{
		"accounts||auth|pipeline run --config 'my file.yaml'|",
		"accounts||parked|pipeline run --config 'my file.yaml'|",
		"dead letters||incomplete_body|pipeline failed retry --reason incomplete_body --config 'my file.yaml'|one",
		"dead letters|outlook|converter_bug|pipeline failed retry --reason converter_bug --config 'my file.yaml'|three",
		"mailboxes||gone|pipeline run --config 'my file.yaml'|",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if r.Failures[2].Count != 2 {
		t.Errorf("%d incomplete bodies, want 2", r.Failures[2].Count)
	}
}

// TestSchema holds reports against the published schema.
func TestSchema(t *testing.T) {
	t.Parallel()
	schema, err := jsonschema.NewCompiler().Compile("../../docs/reference/report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	joined, err := Merge([]*Report{ofShard("0/3", engine.ExitDone, 0, "ann"), ofShard("2/3", engine.ExitLetters, 0, "bob")})
	if err != nil {
		t.Fatal(err)
	}
	shard := ofShard("0/3", engine.ExitDone, 0, "ann")
	shard.Failures = []Failure{}
	for name, r := range map[string]*Report{"built": built(t), "of many": sample(40), "of nothing": sample(0), "of a shard": shard, "joined": joined} {
		var b bytes.Buffer
		if err := JSON(&b, r); err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(&b)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := Files{JSON: filepath.Join(dir, "a/b/last.json"), HTML: filepath.Join(dir, "last.html"), CSV: filepath.Join(dir, "accounts.csv")}
	for range 2 { // the second run writes over the first's
		if err := Write(t.Context(), f, built(t)); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(f.CSV)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{csvHeader,
		{"alice", "incomplete", "2", "12", "10", "1", "3", "2", "0", "0", "3", "0", "1", "3", "4000", "1", "", "", ""},
		{"bob", "never listed", "0", "", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0", "", "'=cmd: the server answered NO", "check the password"},
		{"eve", "parked", "0", "", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0", "2026-11-21T02:00:00Z", "OVERQUOTA", ""},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Error(diff)
	}
	var back Report
	if text, err = os.ReadFile(f.JSON); err != nil || json.Unmarshal(text, &back) != nil || back.Run != 3 {
		t.Errorf("the JSON doesn't come back: %v", err)
	}
	if text, err = os.ReadFile(f.HTML); err != nil || !bytes.Contains(text, []byte("it can&#39;t be had")) {
		t.Errorf("the page lacks the failures: %v", err)
	}
	// A path that can't be written is the user's to mend.
	if err := Write(t.Context(), Files{CSV: filepath.Join(f.JSON, "x.csv")}, built(t)); !fault.Is(err, fault.Config) {
		t.Errorf("a folder that is a file: %v of class %s", err, fault.Of(err))
	}
}

// TestTimeline counts everything once, however long the run.
func TestTimeline(t *testing.T) {
	t.Parallel()
	l := track{span: firstSpan, each: 1}
	const ticks = 10_000
	for i := range ticks {
		l.tick(int64(i+1), int64(10*(i+1)))
	}
	l.close(ticks+5, 10*(ticks+5))
	var messages, octets int64
	for i := range l.messages {
		messages, octets = messages+l.messages[i], octets+l.octets[i]
	}
	if messages != ticks+5 || octets != 10*(ticks+5) {
		t.Errorf("%d messages and %d octets", messages, octets)
	}
	if len(l.messages) > mostSpans || len(l.messages) < mostSpans/3 {
		t.Errorf("%d spans", len(l.messages))
	}
	if covered := l.span * time.Duration(len(l.messages)); covered < ticks*firstSpan || covered > 2*ticks*firstSpan {
		t.Errorf("the spans cover %v of %v", covered, ticks*firstSpan)
	}
}
