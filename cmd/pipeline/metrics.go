package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/internal/metrics"
)

// measured is a run that answers at the address of --metrics. Its methods do
// nothing where nobody asked for that.
type measured struct {
	metrics *metrics.Metrics
	server  *metrics.Server
}

// measure begins to answer. An address that is taken is worth knowing before
// anything else begins.
func (c *command) measure(ctx context.Context, address string) (*measured, error) {
	if address == "" {
		return &measured{}, nil
	}
	m := metrics.New()
	s, err := metrics.Serve(ctx, address, m)
	if err != nil {
		return nil, err
	}
	if _, port, err := net.SplitHostPort(address); err == nil && port == "0" {
		fmt.Fprintf(c.err, "metrics at http://%s/metrics\n", s.Addr())
	}
	return &measured{m, s}, nil
}

// begin measures the run of a job that is about to begin.
func (m *measured) begin(j *job.Job, stats *engine.Stats, began time.Time) {
	if m.metrics == nil {
		return
	}
	m.metrics.Begin(metrics.Run{
		Pipeline: j.File.Name, Shard: j.Shard().String(), Version: version(), Began: began, Accounts: j.Sources(), Stats: stats, Restarts: j.Restarts,
	})
}

// event is for the engine's events.
func (m *measured) event(e engine.Event) {
	if m.metrics != nil {
		m.metrics.Event(e)
	}
}

// close ends the answers.
func (m *measured) close() {
	if m.server != nil {
		_ = m.server.Close() // the run is what counts
	}
}
