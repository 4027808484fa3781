// Package workers runs the real command as users of several machines do: one
// `pipeline run` that divides the work, and `pipeline worker` processes that do
// it, with a real mail server, NATS, a bucket, and the sinks.
package workers

import (
	"os"
	"testing"

	"github.com/mailhaul/pipeline/test/program"
)

// binaries is the folder of the command and its plugins.
var binaries string

func TestMain(m *testing.M) { os.Exit(program.Main(m, "mhwk-", build)) }

// build builds what a user would. The store of objects is built as the tests of
// its own package are: compiling the clouds' SDKs a second time, without cgo,
// takes longer than these tests.
func build(dir string) error {
	binaries = dir
	err := program.Build{To: dir}.Run("./cmd/pipeline", "./plugins/pipeline-source-imap",
		"./plugins/pipeline-sink-eml", "./plugins/pipeline-sink-json", "./plugins/pipeline-sink-msg")
	if err != nil {
		return err
	}
	return program.Build{To: dir, Cgo: true}.Run("./plugins/pipeline-store-objects")
}
