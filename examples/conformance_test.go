package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/plugintest"
)

// TestPython has a sink that was written in Python from the public contract
// keep it.
func TestPython(t *testing.T) {
	t.Parallel()
	if out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", "import grpc, google.protobuf, crcmod").CombinedOutput(); err != nil {
		t.Fatalf("this test needs Python with grpcio: apt-get install python3-grpcio python3-protobuf python3-crcmod: %v\n%s", err, out)
	}
	dir := t.TempDir()
	generated := filepath.Join(dir, "generated")
	if err := os.Mkdir(generated, 0o755); err != nil {
		t.Fatal(err)
	}
	protos, err := filepath.Glob("../proto/mailhaul/plugin/v1/*.proto")
	if err != nil {
		t.Fatal(err)
	}
	protoc := exec.CommandContext(t.Context(), "protoc", append([]string{"-I", "../proto", "--python_out", generated}, protos...)...)
	if out, err := protoc.CombinedOutput(); err != nil {
		t.Fatalf("protoc: apt-get install protobuf-compiler: %v\n%s", err, out)
	}
	script, err := os.ReadFile("python/pipeline-sink-pyfiles")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "pipeline-sink-pyfiles")
	if err := os.WriteFile(path, script, 0o755); err != nil {
		t.Fatal(err)
	}
	tried := 0
	err = plugintest.Executable(t.Context(), path, plugintest.Fixture{Patience: 300 * time.Millisecond}, func(r plugintest.Result) {
		for _, p := range r.Problems {
			t.Errorf("%s: %s", r.Case, p)
		}
		if r.NotTried == "" {
			tried++
		}
	})
	if err != nil || tried < 15 {
		t.Errorf("%d cases were tried: %v", tried, err)
	}
}

// TestConformance holds the examples against the suite.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]map[string]any{
		"pipeline-sink-maildir": {"path": "{dir}/out"},
		"pipeline-stage-redact": {"words": []string{"line", "mail 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), name)
			build := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".")
			build.Dir = name
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("build: %v\n%s", err, out)
			}
			f := plugintest.Fixture{Config: config, Patience: 300 * time.Millisecond}
			if err := plugintest.Executable(t.Context(), path, f, func(r plugintest.Result) {
				for _, p := range r.Problems {
					t.Errorf("%s: %s", r.Case, p)
				}
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}
