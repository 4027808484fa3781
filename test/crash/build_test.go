// Package crash kills the host and the plugins, at each fault point and at
// random moments, and holds what the next whole run leaves against what an
// undisturbed one left (I1, I2).
package crash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binaries is the folder of the executables under test, with their fault
// points armed.
var binaries string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "crash")
	if err == nil {
		defer os.RemoveAll(dir)
		binaries, err = dir, build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(dir string) error {
	cmd := exec.Command("go", "build", "-tags", "faultpoint", "-o", dir+string(filepath.Separator),
		"../../cmd/pipeline", "../../plugins/pipeline-sink-eml", "../../plugins/pipeline-sink-msg", "../../plugins/pipeline-sink-json",
		"../../plugins/pipeline-source-imap", "../../plugins/pipeline-source-pop3", "./pipeline-source-synthetic")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build what is to be killed: %w\n%s", err, out)
	}
	return nil
}
