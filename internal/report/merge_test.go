package report

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// ofShard is the report of a shard, which began so many seconds after one o'clock.
func ofShard(shard string, exit, after int, accounts ...string) *Report {
	began := time.Date(2026, 11, 21, 1, 0, after, 0, time.UTC)
	r := &Report{
		SchemaVersion: schemaVersion, Pipeline: "acme", Shard: shard, Run: 3, File: "pipeline.yaml", Version: "v1",
		Began: began, Ended: began.Add(time.Minute), Exit: exit, Outcome: outcomes[exit], Total: NewSum(),
		Timeline: Timeline{Seconds: 1, Messages: []int64{1, 2}, Octets: []int64{10, 20}},
		Sinks:    []Sink{{Name: "archive", Plugin: "eml", Target: "/x/" + strings.ReplaceAll(shard, "/", "-of-")}},
	}
	for _, name := range accounts {
		sum := NewSum()
		sum.Listed, sum.Written, sum.Dropped["old"] = 3, 2, 1
		r.Total.Add(&sum)
		r.Accounts = append(r.Accounts, Account{Source: name, State: "complete", Sum: sum, Mailboxes: []Mailbox{}})
	}
	return r
}

func TestMerge(t *testing.T) {
	t.Parallel()
	a, b := ofShard("0/2", engine.ExitLetters, 0, "cyd", "ann"), ofShard("1/2", engine.ExitIncomplete, 5, "bob")
	a.Failures = []Failure{{Kind: "dead letters", Reason: "too_large", Count: 2, Command: "retry --shard 0/2", Examples: []Example{{Source: "ann"}}}}
	b.Failures = []Failure{
		{Kind: "accounts", Reason: "auth", Count: 1, Command: "run --shard 1/2", Examples: []Example{{Source: "bob"}}},
		{Kind: "dead letters", Reason: "too_large", Count: 1, Command: "retry --shard 1/2", Examples: []Example{{Source: "bob"}}},
	}
	r, err := Merge([]*Report{b, a})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range r.Accounts {
		names = append(names, a.Source)
	}
	if diff := cmp.Diff([]string{"ann", "bob", "cyd"}, names); diff != "" {
		t.Error(diff)
	}
	if r.Total.Listed != 9 || r.Total.Written != 6 || r.Total.Dropped["old"] != 3 {
		t.Errorf("total: %+v", r.Total)
	}
	if r.Exit != engine.ExitIncomplete || r.Outcome != "incomplete" || r.Error != "" {
		t.Errorf("exit %d, %s, %s", r.Exit, r.Outcome, r.Error)
	}
	if !r.Began.Equal(a.Began) || !r.Ended.Equal(b.Ended) || len(r.Joined) != 2 || r.Shard != "" || len(r.Sinks) != 2 {
		t.Errorf("%+v", r)
	}
	failures := []Failure{
		{Kind: "accounts", Reason: "auth", Count: 1, Command: "run --shard 1/2", Examples: []Example{{Source: "bob"}}},
		{Kind: "dead letters", Reason: "too_large", Count: 3, Command: "retry --shard 1/2; retry --shard 0/2", Examples: []Example{{Source: "bob"}, {Source: "ann"}}},
	}
	if diff := cmp.Diff(failures, r.Failures); diff != "" {
		t.Error(diff)
	}
	timeline := Timeline{Seconds: 1, Messages: []int64{1, 2, 0, 0, 0, 1, 2}, Octets: []int64{10, 20, 0, 0, 0, 10, 20}}
	if diff := cmp.Diff(timeline, r.Timeline); diff != "" {
		t.Error(diff)
	}
	// What was joined is a report as any other.
	var page, raw bytes.Buffer
	if err := HTML(&page, r); err != nil {
		t.Error(err)
	}
	if !strings.Contains(page.String(), "2 reports joined") || strings.Contains(page.String(), "Run 3") {
		t.Error("the page doesn't say what it is of")
	}
	if err := JSON(&raw, r); err != nil {
		t.Fatal(err)
	}
	var again Report
	if err := json.Unmarshal(raw.Bytes(), &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, &again, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

// TestMergeIsLong has parts hours apart: the timeline stays bounded, and
// nothing of it is lost.
func TestMergeIsLong(t *testing.T) {
	t.Parallel()
	r, err := Merge([]*Report{ofShard("0/2", 0, 0, "ann"), ofShard("1/2", 0, 7*3600, "bob")})
	if err != nil {
		t.Fatal(err)
	}
	messages := int64(0)
	for _, n := range r.Timeline.Messages {
		messages += n
	}
	if n := len(r.Timeline.Messages); n > mostSpans || messages != 6 {
		t.Errorf("%d spans, %d messages", n, messages)
	}
}

func TestMergeTellsWhatIsMissing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		reports []*Report
		exit    int
		want    string
	}{
		{"one", []*Report{ofShard("0/2", 0, 0), ofShard("1/2", 0, 0)}, engine.ExitDone, ""},
		{"a shard is missing", []*Report{ofShard("0/3", 0, 0), ofShard("2/3", 0, 0)}, engine.ExitIncomplete, "there is no report of shard 1/3"},
		{"many are missing", []*Report{ofShard("0/9", 0, 0)}, engine.ExitIncomplete, "1/9, 2/9, 3/9, 4/9, 5/9 and 3 more"},
		{"and one stopped", []*Report{ofShard("0/3", engine.ExitStopped, 0)}, engine.ExitStopped, "1/3, 2/3"},
		{"parked is graver than letters", []*Report{ofShard("0/2", engine.ExitLetters, 0), ofShard("1/2", engine.ExitParked, 0)}, engine.ExitParked, ""},
		{"without shards", []*Report{ofShard("", 0, 0, "ann"), ofShard("", 0, 0, "bob")}, engine.ExitDone, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, err := Merge(c.reports)
			if err != nil || r.Exit != c.exit || r.Outcome != outcomes[c.exit] || !strings.Contains(r.Error, c.want) || (c.want == "") != (r.Error == "") {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

func TestMergeRefuses(t *testing.T) {
	t.Parallel()
	other := ofShard("1/2", 0, 0)
	other.Pipeline = "other"
	for want, reports := range map[string][]*Report{
		"no report to join":              nil,
		"of two pipelines":               {ofShard("0/2", 0, 0), other},
		"two reports are of shard 0/2":   {ofShard("0/2", 0, 0), ofShard("0/2", 0, 0)},
		"divided differently":            {ofShard("0/2", 0, 0), ofShard("1/3", 0, 0)},
		"account ann is in report 1 and": {ofShard("", 0, 0, "ann"), ofShard("", 0, 0, "ann")},
		"as in 0/3":                      {ofShard("x", 0, 0)},
	} {
		_, err := Merge(reports)
		if !fault.Is(err, fault.Config) || !strings.Contains(err.Error()+fault.As(err).Hint, want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestReadAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, r *Report) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := Write(t.Context(), Files{JSON: path}, r); err != nil {
			t.Fatal(err)
		}
		return path
	}
	whole := write("all.json", ofShard("", 0, 0, "ann"))
	write("a.json", ofShard("0/2", 0, 0, "ann"))
	write("b.json", ofShard("1/2", 0, 0, "bob"))
	if err := os.WriteFile(filepath.Join(dir, "c.json"), []byte("[1]"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Of a folder those of shards, not what was joined of them.
	all, err := ReadAll([]string{dir})
	if err != nil || len(all) != 2 || all[0].Shard != "0/2" || all[1].Shard != "1/2" {
		t.Errorf("%d reports, %v", len(all), err)
	}
	if all, err := ReadAll([]string{whole}); err != nil || len(all) != 1 {
		t.Errorf("%d reports, %v", len(all), err)
	}
	for want, path := range map[string]string{
		"no such file":            filepath.Join(dir, "none.json"),
		"is no report":            filepath.Join(dir, "c.json"),
		"has no report of a shar": t.TempDir(),
	} {
		if _, err := ReadAll([]string{path}); !fault.Is(err, fault.Config) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "d.json"), []byte(`{"schema_version":2,"pipeline":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(filepath.Join(dir, "d.json")); !fault.Is(err, fault.Config) || !strings.Contains(err.Error(), "schema_version 1") {
		t.Error(err)
	}
}
