package plugintest

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the page of the cases")

// The page of the cases says what the cases say.
func TestPageIsCurrent(t *testing.T) {
	t.Parallel()
	const page = "../../docs/authors/conformance.md"
	text := `# The conformance suite

Each case tests one promise of the contract, with a plugin of its own. They run in
` + "`go test`" + ` with the package ` + "`pkg/plugintest`" + `, and against any executable with
` + "`pipeline plugin test`" + `; those marked *process* only as a process. What a case needs and
the fixture doesn't have (a secret, a record sink, a message that is large enough)
is said: it counts as not tried.

A sink's result is compared as the files below ` + "`{dir}`" + `; what begins with a dot is the
sink's own business. Of one that writes elsewhere only the receipts are compared.

This page is made by the suite's test.

| case | of | promise |
|---|---|---|
`
	for _, c := range cases() {
		who := "all"
		if len(c.kinds) > 0 {
			who = c.kinds[0].String()
		}
		if c.process {
			who += ", process"
		}
		text += fmt.Sprintf("| `%s` | %s | %s |\n", c.name, who, c.promise)
	}
	old, err := os.ReadFile(page)
	if *update {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if err != nil || string(old) != text {
		t.Errorf("%s isn't current; run this test with -update: %v", page, err)
	}
}

// Names are what people type, and what stands in reports.
func TestCasesHaveNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range cases() {
		if seen[c.name] || strings.ToLower(c.name) != c.name || strings.ContainsAny(c.name, " _") || !strings.HasSuffix(c.promise, ".") {
			t.Errorf("case %q: %q", c.name, c.promise)
		}
		seen[c.name] = true
	}
}
