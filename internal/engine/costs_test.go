//go:build !race

// The race detector makes pools forget, at random: what is allocated under it
// says nothing.

package engine_test

import (
	"flag"
	"path/filepath"
	"testing"

	"github.com/mailhaul/pipeline/test/cost"
)

// TestCosts counts what a message costs in the engine and the ledger, with the
// synthetic source and sink.
func TestCosts(t *testing.T) {
	const n = 8192
	none := func() {}
	cost.Hold(t, filepath.Join("testdata", "costs.golden"), *update,
		cost.Count{Name: "allocations a message", Got: cost.Allocations(n, func() { runOver(t, n, none) }), Slack: .03, Plus: 1},
		cost.Count{Name: "allocations a message, with a filter on headers",
			Got: cost.Allocations(n, func() { runOver(t, n, none, `subject contains "INBOX"`) }), Slack: .03, Plus: 1})
}

var update = flag.Bool("update", false, "record what a message costs")
