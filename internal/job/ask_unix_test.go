//go:build unix

package job

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPluginsAreAskedTogether: each of two plugins waits for the other one's
// start before it says that it can't, and neither is started twice.
func TestPluginsAreAskedTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, other := range map[string]string{"pipeline-source-one": "pipeline-sink-two", "pipeline-sink-two": "pipeline-source-one"} {
		script := fmt.Sprintf("#!/bin/sh\necho started >>%q\ni=0\nwhile [ ! -e %q ]; do i=$((i+1)); [ $i = 200 ] && echo alone >>%q; [ $i -ge 200 ] && exit 3; sleep 0.05; done\nexit 3\n",
			filepath.Join(dir, name+".log"), filepath.Join(dir, other+".log"), filepath.Join(dir, name+".log"))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "pipeline.yaml")
	yaml := "version: 1\nname: x\nstate: state\nsources: [{name: a, plugin: one, config: {}}]\nsinks: [{name: b, plugin: two, config: {}}]\n"
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := Load(Options{File: file, Plugins: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	err = j.Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "sources[0].plugin") || !strings.Contains(err.Error(), "sinks[0].plugin") {
		t.Errorf("Check says: %v", err)
	}
	if err := j.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"pipeline-source-one", "pipeline-sink-two"} {
		text, err := os.ReadFile(filepath.Join(dir, name+".log"))
		if err != nil || string(text) != "started\n" {
			t.Errorf("%s noted %q, %v; want one start, with the other one's", name, text, err)
		}
	}
}
