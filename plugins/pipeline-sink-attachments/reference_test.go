package main

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/plugins/pipeline-sink-attachments/internal/files"
)

var update = flag.Bool("update", false, "rewrite the made part of the page")

func TestPageIsCurrent(t *testing.T) {
	t.Parallel()
	schema, err := spec.SchemaOf(files.Config{})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := spec.Markdown(schema)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- begin keys: made by reference_test.go -->\n", "<!-- end keys -->"
	before, rest, _ := strings.Cut(string(page), begin)
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatal("the page has no place for the keys")
	}
	want := before + begin + keys + end + after
	if *update {
		if err := os.WriteFile("README.md", []byte(want), 0o666); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(want, string(page)); diff != "" {
		t.Errorf("run this test with -update: %s", diff)
	}
}
