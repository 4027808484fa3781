// Package authors holds the tests that the authors' guide is true.
package authors

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/internal/scaffold"
	"github.com/mailhaul/pipeline/pkg/plugintest"
)

var snippet = regexp.MustCompile("(?s)<!-- (\\w+) -->\n```go\n(.*?)```")

// program joins the snippets of the guide that make up one file.
func program(t *testing.T, name string) string {
	t.Helper()
	guide, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, m := range snippet.FindAllStringSubmatch(string(guide), -1) {
		if m[1] == name {
			parts = append(parts, m[2])
		}
	}
	if len(parts) == 0 {
		t.Fatalf("the guide has no snippets of %s", name)
	}
	return strings.Join(parts, "\n")
}

// The programs of the guide are as short as promised, formatted, build in a
// module of their own, and keep the contract.
func TestGuide(t *testing.T) {
	t.Parallel()
	mail := filepath.Join(t.TempDir(), "mail")
	if err := os.Mkdir(mail, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		text := fmt.Sprintf("Subject: %d\r\n\r\nhello\r\n", i)
		if err := os.WriteFile(filepath.Join(mail, fmt.Sprintf("%d.eml", i)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		program, executable string
		lines               int // at most
		config              map[string]any
		test                string
	}{
		{"source", "pipeline-source-emldir", 60, map[string]any{"path": mail}, ""},
		{"sink", "pipeline-sink-files", 40, map[string]any{"path": "{dir}/out"}, "test"},
	}
	for _, tt := range tests {
		t.Run(tt.program, func(t *testing.T) {
			t.Parallel()
			dir, code := t.TempDir(), program(t, tt.program)
			if n := strings.Count(code, "\n"); n > tt.lines {
				t.Errorf("%d lines, at most %d are promised", n, tt.lines)
			}
			write := func(name, text string) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			run := func(name string, args ...string) string {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), name, args...)
				cmd.Dir = dir
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
				}
				return string(out)
			}
			write("go.mod", fmt.Sprintf("module example.com/x\n\ngo 1.26.0\n\nrequire %[1]s v0.0.0\n\nreplace %[1]s => %[2]s\n",
				scaffold.Module, scaffold.Checkout(".")))
			write("main.go", code)
			if tt.test != "" {
				write("main_test.go", program(t, tt.test))
			}
			run("go", "mod", "tidy")
			if list := run("gofmt", "-l", "."); list != "" {
				t.Errorf("gofmt would change %s", list)
			}
			run("go", "vet", "./...")
			run("go", "build", "-o", tt.executable, ".")
			f := plugintest.Fixture{Config: tt.config, Patience: 300_000_000, Large: 16 << 20}
			err := plugintest.Executable(t.Context(), filepath.Join(dir, tt.executable), f, func(r plugintest.Result) {
				for _, p := range r.Problems {
					t.Errorf("%s: %s", r.Case, p)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
