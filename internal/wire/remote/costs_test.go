//go:build !race

// The race detector makes pools forget, at random: what is allocated under it
// says nothing.

package remote_test

import (
	"flag"
	"path/filepath"
	"testing"

	"github.com/mailhaul/pipeline/test/cost"
)

// TestCosts counts what a message of 4 KiB costs on the wire, both ends of it.
func TestCosts(t *testing.T) {
	const n = 10_000
	body := bodyOf(4<<10, true)
	fetch := fetcher(t, body)
	put, end := putter(t, 4<<10, body)
	counts := []cost.Count{
		{Name: "allocations a message fetched", Got: cost.Allocations(n, func() { fetch(n) }), Slack: .03, Plus: .5},
		{Name: "allocations a message put", Got: cost.Allocations(n, func() { put(n) }), Slack: .03, Plus: .5},
	}
	end()
	cost.Hold(t, filepath.Join("testdata", "costs.golden"), *update, counts...)
}

var update = flag.Bool("update", false, "record what a message costs")
