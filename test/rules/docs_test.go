package rules

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	namedTest = regexp.MustCompile("`([a-z][a-z0-9/-]*)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)`")
	mdLink    = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	invariant = regexp.MustCompile(`(?m)^## (I[1-9]) `)
)

// The invariants page names the tests that try to break each: they must be there.
func TestInvariantsNameRealTests(t *testing.T) {
	t.Parallel()
	dir, err := root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "docs", "invariants.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range namedTest.FindAllStringSubmatch(string(text), -1) {
		if !hasFunc(t, filepath.Join(dir, filepath.FromSlash(m[1])), m[2]) {
			t.Errorf("docs/invariants.md names %s.%s, which isn't there", m[1], m[2])
		}
	}
	sections := invariant.FindAllStringSubmatchIndex(string(text), -1)
	if len(sections) != 9 {
		t.Fatalf("docs/invariants.md has %d invariants, want 9", len(sections))
	}
	for i, at := range sections {
		end := len(text)
		if i+1 < len(sections) {
			end = sections[i+1][0]
		}
		if !namedTest.Match(text[at[0]:end]) {
			t.Errorf("docs/invariants.md: %s names no test that tries to break it", text[at[2]:at[3]])
		}
	}
}

func hasFunc(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(source), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}

// A link of the documentation leads to something in the repository.
func TestDocumentationLinksLead(t *testing.T) {
	t.Parallel()
	dir, err := root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("git", "ls-files", "-co", "--exclude-standard", "*.md")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for _, name := range strings.Fields(string(out)) {
		text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mdLink.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(dir, filepath.Dir(filepath.FromSlash(name)), filepath.FromSlash(m[1]))); err != nil {
				t.Errorf("%s links to %s, which isn't there", name, m[1])
			}
		}
	}
}
