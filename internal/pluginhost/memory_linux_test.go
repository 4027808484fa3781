package pluginhost_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/internal/pluginhost"
)

// A plugin of the SDK maps the memory that its host shares, closes the
// descriptor, and hands neither on.
func TestPluginMapsTheMemory(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, pluginhost.Options{Dirs: []string{link(t, "pipeline-source-test")}})
	env := strings.Join(openSource(t, h, `{"do": "environment"}`, false).Notes, "\n")
	if strings.Contains(env, "MAILHAUL_SHARED_MEMORY") {
		t.Errorf("what a child of the plugin would get is\n%s", env)
	}
	for _, pid := range h.Pids() {
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(maps), "memfd:mailhaul") {
			t.Errorf("process %d doesn't map the memory", pid)
		}
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil || len(files) == 0 {
			t.Fatalf("%d descriptors, %v", len(files), err)
		}
		for _, f := range files {
			if to, err := os.Readlink(f); err == nil && strings.Contains(to, "memfd:mailhaul") {
				t.Errorf("process %d keeps the descriptor", pid)
			}
		}
	}
	if len(h.Pids()) == 0 {
		t.Error("no plugin runs")
	}
}
