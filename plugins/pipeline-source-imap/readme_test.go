package main

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapsource"
)

var update = flag.Bool("update", false, "rewrite the table of keys in README.md")

// TestReadme: every key of the config stands in the README, as the code has it.
func TestReadme(t *testing.T) {
	schema, err := spec.SchemaOf(imapsource.Config{})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := spec.Markdown(schema)
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- begin keys: made by readme_test.go -->\n", "<!-- end keys -->"
	before, rest, ok := strings.Cut(string(old), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("README.md has no part for the keys")
	}
	current := before + begin + keys + end + after
	if *update {
		if err := os.WriteFile("README.md", []byte(current), 0o666); err != nil {
			t.Fatal(err)
		}
	} else if current != string(old) {
		t.Error("the keys in README.md aren't current; run this test with -update")
	}
}
