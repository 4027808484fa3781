// Package crash kills the host and the plugins, at each fault point and at
// random moments, and holds what the next whole run leaves against what an
// undisturbed one left (I1, I2).
package crash

import (
	"os"
	"testing"

	"github.com/mailhaul/pipeline/test/program"
)

// binaries is the folder of the executables under test, with their fault
// points armed.
var binaries string

func TestMain(m *testing.M) { os.Exit(program.Main(m, "crash", build)) }

func build(dir string) error {
	binaries = dir
	return program.Build{To: dir, Flags: []string{"-tags", "faultpoint"}}.Run(
		"./cmd/pipeline", "./plugins/pipeline-sink-eml", "./plugins/pipeline-sink-msg", "./plugins/pipeline-sink-json",
		"./plugins/pipeline-source-imap", "./plugins/pipeline-source-pop3", "./test/crash/pipeline-source-synthetic")
}
