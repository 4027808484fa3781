//go:build !race

// The race detector makes pools forget, at random: what is allocated under it
// says nothing.

package popsource

import (
	"flag"
	"path/filepath"
	"testing"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/cost"
	"github.com/mailhaul/pipeline/test/dovecot"
)

// TestCosts counts what a message of 4 KB costs the source.
func TestCosts(t *testing.T) {
	const n = 2000
	d := dovecot.Start(t, dovecot.Options{})
	for i := range n {
		raw := []byte(sample(i))
		for len(raw) < 4<<10 {
			raw = append(raw, "Lorem ipsum dolor sit amet, consectetur adipisici elit, sed eiusmod.\r\n"...)
		}
		d.Deliver("alice", "INBOX", raw, sampleDate)
	}
	c := plainConfig(d.POP3)
	c.Connections = 1
	s := openSource(t, c)
	ids := idsOf(list(t, s, source.ListRequest{Needs: message.NeedSize}))
	listed := func(needs message.Needs) float64 {
		return cost.Allocations(n, func() { list(t, s, source.ListRequest{Needs: needs}) })
	}
	cost.Hold(t, filepath.Join("testdata", "costs.golden"), *update,
		cost.Count{Name: "allocations an id and size", Got: listed(message.NeedSize), Slack: .05, Plus: .5},
		cost.Count{Name: "allocations a header", Got: listed(message.NeedHeaders), Slack: .05, Plus: .5},
		cost.Count{Name: "allocations a message fetched", Got: cost.Allocations(n, func() { fetchAll(t, s, ids, 1) }), Slack: .05, Plus: .5})
}

var update = flag.Bool("update", false, "record what a message costs")
