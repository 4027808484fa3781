// Package reference holds the test that the reference is true to the code.
package reference

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/browse"
	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/spec"
)

var update = flag.Bool("update", false, "rewrite the made parts of the pages")

// made are the parts of the pages that follow from the code: page, part.
func made(t *testing.T) map[string]map[string]string {
	t.Helper()
	file, err := config.Schema()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := spec.Markdown(file)
	if err != nil {
		t.Fatal(err)
	}
	stage, err := spec.SchemaOf(stages.Config{})
	if err != nil {
		t.Fatal(err)
	}
	stageKeys, err := spec.Markdown(stage)
	if err != nil {
		t.Fatal(err)
	}
	cases, err := config.CasesSchema()
	if err != nil {
		t.Fatal(err)
	}
	caseKeys, err := spec.Markdown(cases)
	if err != nil {
		t.Fatal(err)
	}
	fields := "| field | type | asks for | what it is |\n|---|---|---|---|\n"
	for _, f := range expression.Fields() {
		needs := f.Needs.String()
		if f.Needs == 0 {
			needs = "nothing"
		}
		fields += fmt.Sprintf("| `%s` | %s | %s | %s |\n", f.Name, f.Type, needs, f.Doc)
	}
	kinds := "| kind | what it does | changes octets | beside it |\n|---|---|---|---|\n"
	for _, k := range stages.Kinds() {
		takes := "–"
		if len(k.Takes) > 0 {
			takes = "`" + strings.Join(k.Takes, "`, `") + "`"
		}
		kinds += fmt.Sprintf("| `%s` | %s | %s | %s |\n", k.Kind, k.Summary, k.Octets, takes)
	}
	shown := "| field | type | asks for | what it is |\n|---|---|---|---|\n"
	for _, f := range browse.Fields("") {
		needs := f.Needs.String()
		if f.Needs == 0 {
			needs = "nothing"
		}
		shown += fmt.Sprintf("| `%s` | %s | %s | %s |\n", f.Name, f.Type, needs, f.Doc)
	}
	return map[string]map[string]string{
		"ls.md":          {"fields": shown},
		"config.md":      {"keys": keys},
		"expressions.md": {"fields": fields},
		"stages.md":      {"kinds": kinds, "keys": stageKeys},
		"test.md":        {"keys": caseKeys},
	}
}

func TestPagesAreCurrent(t *testing.T) {
	t.Parallel()
	for page, parts := range made(t) {
		old := read(t, page)
		current := old
		for name, text := range parts {
			begin, end := "<!-- begin "+name+": made by reference_test.go -->\n", "<!-- end "+name+" -->"
			before, rest, ok := strings.Cut(current, begin)
			_, after, ok2 := strings.Cut(rest, end)
			if !ok || !ok2 {
				t.Fatalf("%s has no part %s", page, name)
			}
			current = before + begin + text + end + after
		}
		if *update {
			if err := os.WriteFile(page, []byte(current), 0o666); err != nil {
				t.Fatal(err)
			}
		} else if diff := cmp.Diff(current, old); diff != "" {
			t.Errorf("%s isn't current; run this test with -update:\n%s", page, diff)
		}
	}
}

var block = regexp.MustCompile("(?s)```(yaml|expr)\n(.*?)```")

// whole adds what a fragment on the pages leaves out.
func whole(fragment string) string {
	for _, part := range []string{"version: 1\n", "sources: [{name: a, plugin: imap}]\n", "sinks: [{name: b, plugin: eml}]\n"} {
		if key, _, _ := strings.Cut(part, ":"); !strings.Contains("\n"+fragment, "\n"+key+":") {
			fragment = part + fragment
		}
	}
	return fragment
}

func TestExamplesOnThePagesAreRight(t *testing.T) {
	t.Parallel()
	seen := 0
	for page := range made(t) {
		for _, m := range block.FindAllStringSubmatch(read(t, page), -1) {
			seen++
			if m[1] == "expr" {
				for line := range strings.Lines(m[2]) {
					if _, err := expression.Compile(line, expression.Options{}); err != nil {
						t.Errorf("%s: %s: %v", page, line, err)
					}
				}
				continue
			}
			if _, err := config.ParseWith(page, []byte(whole(m[2])), table); err != nil {
				t.Errorf("%v", err)
			}
		}
	}
	if seen < 4 {
		t.Errorf("found %d examples", seen)
	}
}

// table is the CSV file of the examples.
func table(string) ([]byte, error) {
	return []byte("user,server,custodian\nann@example.com,,Ann\n"), nil
}

func read(t *testing.T, page string) string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
