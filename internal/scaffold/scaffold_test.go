package scaffold_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/internal/scaffold"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// The scaffold of each kind builds outside of the repository, is formatted and
// passes its own test, as it does for who has just written it.
func TestModulesBuildAndPass(t *testing.T) {
	t.Parallel()
	repo := scaffold.Checkout(".")
	if repo == "" {
		t.Fatal("this isn't a checkout")
	}
	for kind, some := range map[string]string{
		"source": "lists-stably|says-what-is-gone|leaves-nothing", "sink": "writes|resumes-at-checkpoint", "stage": "judges-the-same|prints-nothing",
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "x")
			p := scaffold.Plugin{Kind: kind, Name: "my-own", Version: "v0.0.0", Replace: repo}
			files, err := scaffold.Write(dir, p)
			if err != nil || len(files) != 6 {
				t.Fatalf("%v, %v", files, err)
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
			run("go", "mod", "tidy")
			if list := run("gofmt", "-l", "."); list != "" {
				t.Errorf("gofmt would change %s", list)
			}
			run("go", "vet", "./...")
			out := run("go", "test", "-v", "-run", "TestConformance/.*/^("+some+")$", ".")
			if !strings.Contains(out, "process/"+strings.Split(some, "|")[0]) {
				t.Errorf("its test ran nothing:\n%s", out)
			}
			if _, err := scaffold.Write(dir, p); !fault.Is(err, fault.Config) {
				t.Errorf("written over another: %v", err)
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	tests := map[string]scaffold.Plugin{
		"no kind of plugin":          {Kind: "filter", Name: "x"},
		`"My Sink" can't be`:         {Kind: "sink", Name: "My Sink"},
		`"../x" can't be`:            {Kind: "sink", Name: "../x"},
		`"" can't be`:                {Kind: "sink"},
		`"pipeline_sink_x" can't be`: {Kind: "sink", Name: "pipeline_sink_x"},
	}
	for want, p := range tests {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "x")
			_, err := scaffold.Write(dir, p)
			if !fault.Is(err, fault.Config) || !strings.Contains(err.Error(), want) || fault.As(err).Hint == "" {
				t.Errorf("%v, want Config with a hint, and %q", err, want)
			}
			if _, err := os.Stat(dir); err == nil {
				t.Error("something was written all the same")
			}
		})
	}
}

func TestCheckout(t *testing.T) {
	t.Parallel()
	if dir := scaffold.Checkout(t.TempDir()); dir != "" {
		t.Errorf("found %s", dir)
	}
	if dir := scaffold.Checkout(t.TempDir(), "template"); dir != scaffold.Checkout(".") {
		t.Errorf("found %s", dir)
	}
}
