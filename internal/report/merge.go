package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/shard"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// Part is a report that was joined with others.
type Part struct {
	Shard string    `json:"shard,omitempty"` // as in "0/3"; absent: the run had all accounts of its file
	Run   int64     `json:"run"`
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	Exit  int       `json:"exit"`
}

// Read reads the JSON report at path. The error is of class Config.
func Read(path string) (*Report, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Wrap(fault.Config, err, "read the report")
	}
	r := &Report{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fault.New(fault.Config, "%s is no report: %w", path, err).WithHint("expected what `report: {json: …}` writes")
	}
	if r.SchemaVersion != schemaVersion || r.Pipeline == "" {
		return nil, fault.New(fault.Config, "%s is no report of schema_version %d", path, schemaVersion).
			WithHint("expected what `report: {json: …}` writes")
	}
	return r, nil
}

// ReadAll reads the reports at the paths. Of a directory it reads those files
// *.json that are the report of a shard. The error is of class Config.
func ReadAll(paths []string) ([]*Report, error) {
	var out []*Report
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			r, err := Read(path)
			if err != nil {
				return nil, err
			}
			out = append(out, r)
			continue
		}
		files, err := filepath.Glob(filepath.Join(path, "*.json"))
		if err != nil {
			return nil, fault.Wrap(fault.Config, err, "look for reports in %s", path)
		}
		before := len(out)
		for _, file := range files {
			if r, err := Read(file); err == nil && r.Shard != "" {
				out = append(out, r)
			}
		}
		if len(out) == before {
			return nil, fault.New(fault.Config, "%s has no report of a shard", path).
				WithHint("expected the files *.json that `report: {json: …}` writes with --shard")
		}
	}
	return out, nil
}

// gravity are the exit codes, the gravest first.
var gravity = []int{engine.ExitStopped, engine.ExitIncomplete, engine.ExitParked, engine.ExitLetters, engine.ExitDone}

// Merge joins the reports of a pipeline's shards, or of several of its runs
// over different accounts, to one. A shard without a report makes the whole
// incomplete. The error is of class Config: two have one account, or they
// aren't of one pipeline.
func Merge(reports []*Report) (*Report, error) {
	if len(reports) == 0 {
		return nil, fault.New(fault.Config, "there is no report to join")
	}
	first := reports[0]
	out := &Report{
		SchemaVersion: schemaVersion, Pipeline: first.Pipeline, File: first.File, Version: first.Version,
		Began: first.Began, Ended: first.Ended, Total: NewSum(), Accounts: []Account{}, Failures: []Failure{}, Sinks: []Sink{},
	}
	have, count := map[int]bool{}, 0
	owner := map[string]string{} // of each account
	code := len(gravity) - 1
	var troubles []string
	for i, r := range reports {
		s, err := shard.Parse(r.Shard)
		switch {
		case err != nil:
			return nil, err
		case r.Pipeline != out.Pipeline:
			return nil, fault.New(fault.Config, "the reports are of two pipelines: %s and %s", out.Pipeline, r.Pipeline)
		case i > 0 && s.Count != count:
			return nil, fault.New(fault.Config, "the reports are of runs that were divided differently: shard %q and %q", first.Shard, r.Shard)
		case s.Divides() && have[s.Index]:
			return nil, fault.New(fault.Config, "two reports are of shard %s", r.Shard).WithHint("name one of each")
		}
		have[s.Index], count = true, s.Count
		who := "report " + fmt.Sprint(i+1)
		if s.Divides() {
			who = "shard " + r.Shard
		}
		for j := range r.Accounts {
			a := r.Accounts[j]
			if by, ok := owner[a.Source]; ok {
				return nil, fault.New(fault.Config, "account %s is in %s and in %s", a.Source, by, who).
					WithHint("join reports of runs that have different accounts, as those of shards")
			}
			owner[a.Source] = who
			out.Total.Add(&a.Sum)
			out.Accounts = append(out.Accounts, a)
		}
		out.Run = max(out.Run, r.Run)
		if r.Began.Before(out.Began) {
			out.Began = r.Began
		}
		if r.Ended.After(out.Ended) {
			out.Ended = r.Ended
		}
		code = min(code, max(0, slices.Index(gravity, r.Exit)))
		if r.Error != "" {
			troubles = append(troubles, who+": "+r.Error)
			out.Hint = cmp.Or(out.Hint, r.Hint)
		}
		for _, name := range r.Stages {
			if !slices.Contains(out.Stages, name) {
				out.Stages = append(out.Stages, name)
			}
		}
		for _, s := range r.Sinks {
			if !slices.Contains(out.Sinks, s) {
				out.Sinks = append(out.Sinks, s)
			}
		}
		out.Joined = append(out.Joined, Part{r.Shard, r.Run, r.Began, r.Ended, r.Exit})
	}
	if missing := absent(have, count); missing != "" {
		troubles = append(troubles, "there is no report of shard "+missing)
		out.Hint = "run them, and join the reports again"
		code = min(code, slices.Index(gravity, engine.ExitIncomplete))
	}
	out.Exit, out.Error = gravity[code], strings.Join(troubles, "; ")
	out.Outcome = outcomes[out.Exit]
	out.Failures = joinFailures(reports)
	out.Timeline = joinTimelines(reports, out.Began)
	slices.SortStableFunc(out.Accounts, func(a, b Account) int { return cmp.Compare(a.Source, b.Source) })
	slices.SortStableFunc(out.Sinks, func(a, b Sink) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Target, b.Target)) })
	return out, nil
}

// absent names the shards that have no report.
func absent(have map[int]bool, count int) string {
	const most = 5
	var names []string
	for i := range count {
		if !have[i] {
			names = append(names, shard.Shard{Index: i, Count: count}.String())
		}
	}
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}

// joinFailures puts what failed for one reason together.
func joinFailures(reports []*Report) []Failure {
	type key struct{ kind, where, reason string }
	at := map[key]*Failure{}
	for _, r := range reports {
		for _, f := range r.Failures {
			k := key{f.Kind, f.Where, f.Reason}
			have := at[k]
			if have == nil {
				f.Examples = slices.Clone(f.Examples)
				at[k] = &f
				continue
			}
			have.Count += f.Count
			have.Examples = append(have.Examples, f.Examples[:min(len(f.Examples), mostExamples-len(have.Examples))]...)
			if !slices.Contains(strings.Split(have.Command, "; "), f.Command) {
				have.Command += "; " + f.Command
			}
		}
	}
	out := []Failure{}
	for _, f := range at {
		out = append(out, *f)
	}
	sortFailures(out)
	return out
}

// joinTimelines adds up what came in each span of time since began. The spans
// are as long as the longest of the parts', and longer where there would be too
// many of them.
func joinTimelines(reports []*Report, began time.Time) Timeline {
	out := Timeline{Seconds: firstSpan.Seconds(), Messages: []int64{}, Octets: []int64{}}
	last := 0.0
	for _, r := range reports {
		out.Seconds = max(out.Seconds, r.Timeline.Seconds)
		last = max(last, r.Began.Sub(began).Seconds()+float64(len(r.Timeline.Messages))*r.Timeline.Seconds)
	}
	for last/out.Seconds > mostSpans {
		out.Seconds *= 2
	}
	messages, octets := map[int]int64{}, map[int]int64{}
	for _, r := range reports {
		t := &r.Timeline
		for i := range min(len(t.Messages), len(t.Octets)) {
			span := int((max(0, r.Began.Sub(began).Seconds()) + float64(i)*t.Seconds) / out.Seconds)
			messages[span] += t.Messages[i]
			octets[span] += t.Octets[i]
		}
	}
	if len(messages) == 0 {
		return out
	}
	n := slices.Max(slices.Collect(maps.Keys(messages))) + 1
	out.Messages, out.Octets = make([]int64, n), make([]int64, n)
	for i := range n {
		out.Messages[i], out.Octets[i] = messages[i], octets[i]
	}
	return out
}
