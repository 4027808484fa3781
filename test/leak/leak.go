// Package leak fails a package's tests that leave goroutines behind: what isn't
// over when all tests are is what a long run would have ever more of.
package leak

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines that were told to end are given: a busy
// machine may need it.
const patience = time.Minute

// Main is a TestMain: it runs the tests, then looks for goroutines, and
// returns the exit code.
func Main(m *testing.M, except ...goleak.Option) int {
	code := m.Run()
	if code != 0 || fuzzing() {
		return code
	}
	err := goleak.Find(except...)
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); {
		err = goleak.Find(except...)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "goroutines are left when all tests are over:", err)
		return 1
	}
	return 0
}

// fuzzing reports whether inputs are being made up: testing itself has
// goroutines then.
func fuzzing() bool {
	for _, name := range []string{"test.fuzz", "test.fuzzworker"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" && f.Value.String() != "false" {
			return true
		}
	}
	return false
}
