package job

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/output"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// addressOf returns the address of the place in object storage that a sink
// writes to, from the key that sinks call it by; empty for one that writes
// elsewhere.
func addressOf(config []byte) string {
	var c struct{ Path any }
	if json.Unmarshal(config, &c) != nil {
		return "" // a plugin of another shape
	}
	if path, ok := c.Path.(string); ok && objects.IsAddress(path) {
		return path
	}
	return ""
}

// checkAddress finds an address of a place in object storage that can't be
// read, as far as it stands in the file itself.
func checkAddress(c *config.PluginConfig) error {
	path, ok := c.Constant("path")
	if !ok || !objects.IsAddress(path) {
		return nil
	}
	if _, err := objects.Parse(path); err != nil {
		return c.Place(err)
	}
	return nil
}

// Marked is what the marker of a sink's target says.
type Marked struct{ Pipeline, Sink string }

// Reach looks at the target of a sink in object storage: whether the bucket is
// there and may be listed, and whose the place is; empty: nobody's. It writes
// nothing.
func (j *Job) Reach(ctx context.Context, s *plan.Sink) (m Marked, err error) {
	var at interface {
		Marked(ctx context.Context) (pipeline, sink string, err error)
		Close()
	}
	if s.Prepared.Record {
		at, err = output.OpenIndex(ctx, s.Address, j.Store)
	} else {
		at, err = output.Open(ctx, s.Prepared.Target, s.Address, j.Store)
	}
	if err != nil {
		return m, fmt.Errorf("sink %s: %w", s.Name, j.placeSink(s.Name, err))
	}
	defer at.Close()
	m.Pipeline, m.Sink, err = at.Marked(ctx)
	return m, err
}
