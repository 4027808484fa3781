package target_test

import (
	"os"
	"testing"

	"github.com/mailhaul/pipeline/test/leak"
)

// TestMain has the tests leave no goroutine behind.
func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }
