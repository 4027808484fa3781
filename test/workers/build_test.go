// Package workers runs the real command as users of several machines do: one
// `pipeline run` that divides the work, and `pipeline worker` processes that do
// it, with a real mail server, NATS, a bucket, and the sinks.
package workers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binaries is the folder of the command and its plugins.
var binaries string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "mhwk-")
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

// build builds what a user would. The store of objects is built as the tests of
// its own package are: compiling the clouds' SDKs a second time, without cgo,
// takes longer than these tests.
func build(dir string) error {
	to := dir + string(filepath.Separator)
	for _, c := range []struct {
		env  string
		what []string
	}{
		{"CGO_ENABLED=0", []string{
			"../../cmd/pipeline", "../../plugins/pipeline-source-imap",
			"../../plugins/pipeline-sink-eml", "../../plugins/pipeline-sink-json", "../../plugins/pipeline-sink-msg",
		}},
		{"", []string{"../../plugins/pipeline-store-objects"}},
	} {
		cmd := exec.Command("go", append([]string{"build", "-trimpath", "-buildvcs=false", "-o", to}, c.what...)...)
		cmd.Env = os.Environ()
		if c.env != "" {
			cmd.Env = append(cmd.Env, c.env)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build the command and its plugins: %w\n%s", err, out)
		}
	}
	return nil
}
