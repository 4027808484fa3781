//go:build !race

// The race detector makes pools forget, at random: what is allocated under it
// says nothing.

package eml

import (
	"bytes"
	"flag"
	"path/filepath"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/test/cost"
)

// TestCosts counts what a message of 4 KiB costs the sink.
func TestCosts(t *testing.T) {
	const n = 500
	s := open(t, t.TempDir(), state(nil))
	defer shut(t, s)
	body := append(octets(0), bytes.Repeat([]byte("x"), 4096-len(octets(0)))...)
	m := mail(0)
	got := cost.Allocations(n, func() {
		for range n {
			m.ID.UID++
			m.Body = message.BodyOf(body)
			write(t, s, m)
		}
		flush(t, s)
	})
	cost.Hold(t, filepath.Join("testdata", "costs.golden"), *update, cost.Count{Name: "allocations a message", Got: got, Slack: .03, Plus: .5})
}

var update = flag.Bool("update", false, "record what a message costs")
