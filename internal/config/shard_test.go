package config

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/shard"
)

const divided = `version: 1
name: acme
sources:
  - {name: alice, plugin: imap}
  - {name: user0, plugin: imap}
  - {name: "${row:user}", foreach: {csv: accounts.csv}, plugin: imap}
sinks:
  - {name: archive, plugin: eml, config: {path: "export/${shard}/eml"}}
report: {json: last.json, html: page.html}
custody: {path: custody}
`

func parseDivided(t *testing.T, yaml string) *File {
	t.Helper()
	f, err := ParseWith("pipeline.yaml", []byte(yaml), func(string) ([]byte, error) { return []byte("user,x\nbob,1\nuser1,1\n,\nbad\n"), nil })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestDivide has each source and each bad row in just one shard.
func TestDivide(t *testing.T) {
	t.Parallel()
	names := func(f *File) (out []string) {
		for _, s := range f.Sources {
			out = append(out, s.Name)
		}
		return out
	}
	whole := parseDivided(t, divided)
	if others := whole.Divide(shard.Shard{}); others != nil || len(whole.Sources) != 4 || len(whole.BadRows) != 1 || whole.Report.JSON != "last.json" {
		t.Errorf("without shards something is left out: %v, %v", names(whole), others)
	}
	bad := 0
	for i, want := range [][]string{{"user0", "user1"}, nil, {"alice", "bob"}} {
		f := parseDivided(t, divided)
		others := f.Divide(shard.Shard{Index: i, Count: 3})
		if diff := cmp.Diff(want, names(f)); diff != "" || len(others)+len(want) != 4 {
			t.Errorf("shard %d: %s, others %v", i, diff, others)
		}
		bad += len(f.BadRows)
	}
	if bad != 1 {
		t.Errorf("the bad row is in %d shards", bad)
	}
	f := parseDivided(t, divided)
	f.Divide(shard.Shard{Index: 0, Count: 3})
	if got := inFile(shard.Shard{Index: 1, Count: 3}, "s3://b/last.json?region=eu-central-1"); got != "s3://b/last.1-of-3.json?region=eu-central-1" {
		t.Errorf("the report of a shard in a bucket is %s", got)
	}
	if diff := cmp.Diff([]string{"last.0-of-3.json", "page.0-of-3.html", "", "custody.0-of-3"}, []string{f.Report.JSON, f.Report.HTML, f.Report.CSV, f.Custody.Path}); diff != "" {
		t.Error(diff)
	}
}

func TestCheckDivided(t *testing.T) {
	t.Parallel()
	if err := parseDivided(t, divided).CheckDivided(); err != nil {
		t.Error(err)
	}
	err := parseDivided(t, strings.Replace(divided, "${shard}", "${env:SHARD}", 1)+"stages:\n  - {name: few, limit: 3}\n  - {name: once, dedupe: content}\n").CheckDivided()
	want := "pipeline.yaml:13:26: stages[1].dedupe: copies are looked for among the messages of all accounts, and a shard has only some of them\n" +
		"pipeline.yaml:8:42: sinks[0].config: all shards would write to one place"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func TestShardReference(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, whole, part string }{
		{"export/${shard}/eml", "export//eml", "export/0-of-3/eml"},
		{"export/${shard:-all}/eml", "export/all/eml", "export/0-of-3/eml"},
		{"${shard:-${env:X}}", "x", "0-of-3"},
		{"$${shard}", "${shard}", "${shard}"},
	} {
		template, err := parseTemplate(c.text)
		if err != nil {
			t.Fatal(err)
		}
		env := func(string) (string, bool) { return "x", true }
		whole, err1 := template.eval(context.Background(), Values{LookupEnv: env})
		part, err2 := template.eval(context.Background(), Values{LookupEnv: env, Shard: "0-of-3"})
		if whole != c.whole || part != c.part || err1 != nil || err2 != nil {
			t.Errorf("%s is %q and %q, %v, %v", c.text, whole, part, err1, err2)
		}
	}
	for text, want := range map[string]string{
		"${shard:x}": "a default is written ${shard:-default}",
		"${shards}":  "is no reference",
		"${shard":    "is missing",
	} {
		if _, err := parseTemplate(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for _, yaml := range []string{
		strings.Replace(divided, "name: alice, plugin: imap", `name: alice, plugin: imap, config: {a: "${shard}"}`, 1),
		strings.Replace(divided, "name: acme", `name: acme
state: "state/${shard}"`, 1),
	} {
		_, err := ParseWith("pipeline.yaml", []byte(yaml), func(string) ([]byte, error) { return []byte("user\nbob\n"), nil })
		if err == nil || !strings.Contains(err.Error(), "${shard} is for the config of a sink") {
			t.Error(err)
		}
	}
}
