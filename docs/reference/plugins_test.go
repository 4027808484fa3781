package reference

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/pkg/spec"
)

// The page of the plugins says what each of them says of itself.
func TestPluginsPageIsCurrent(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", bin+"/", "./plugins/...")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the plugins: %v\n%s", err, out)
	}
	found, err := filepath.Glob(bin + "/pipeline-*")
	if err != nil || len(found) < 5 {
		t.Fatalf("plugins: %v, %v", found, err)
	}
	text := "# The plugins\n\nWhat each plugin says of itself (`pipeline plugin info NAME`). A key of the type\n" +
		"*secret* may be written as `${env:…}`, `${file:…}` or `${exec:…}`: see [config.md](config.md).\n\n" +
		"This page is made by plugins_test.go.\n"
	for _, path := range found {
		if strings.HasPrefix(filepath.Base(path), "pipeline-store-") {
			continue // it has no config, and describes nothing
		}
		out, err := exec.CommandContext(t.Context(), path, "describe").Output()
		if err != nil {
			t.Fatalf("%s describe: %v", path, err)
		}
		var d struct {
			Name, Kind, Summary, Provides string
			Schema                        json.RawMessage `json:"config_schema"`
		}
		if err := json.Unmarshal(out, &d); err != nil {
			t.Fatal(err)
		}
		keys, err := spec.Markdown(d.Schema)
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("\n## %s %s\n\n%s.\n", d.Kind, d.Name, d.Summary)
		if d.Provides != "" {
			text += fmt.Sprintf("It can tell of a message: %s.\n", d.Provides)
		}
		text += "\n" + keys
	}
	const page = "plugins.md"
	old, err := os.ReadFile(page)
	if *update {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(text, string(old)); err != nil || diff != "" {
		t.Errorf("%s isn't current; run this test with -update: %v\n%s", page, err, diff)
	}
}
