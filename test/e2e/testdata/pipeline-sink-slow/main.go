// Command pipeline-sink-slow is a sink for tests that reads each body at a
// pace of its own and keeps no more of it than a file a message.
package main

import (
	"context"
	"io"
	"path/filepath"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/pkg/target"
)

type config struct {
	Path string    `json:"path" required:"true" doc:"directory to write to"`
	Rate spec.Rate `json:"rate" required:"true" doc:"how fast to read a body" example:"40MB/s"`
}

type slow struct {
	*target.Dir
	rate float64
}

func main() {
	sink.Serve(sink.Plugin[config]{Name: "slow", Version: "0.1.0", Prepare: prepare, Open: open})
}

func prepare(c config) (sink.Prepared, error) {
	path, err := filepath.Abs(c.Path)
	return sink.Prepared{Target: path, Lanes: 1, Needs: message.NeedBody}, err
}

func open(ctx context.Context, c config, st sink.State) (sink.Sink, error) {
	dir, err := target.OpenDir(ctx, c.Path, target.Owner{
		Sink: st.Name, Pipeline: st.Pipeline, Known: st.Known, Adopt: st.Adopt, Rewrite: st.Rewrite}, st.Checkpoint)
	return &slow{dir, c.Rate.PerSecond}, err
}

func (s *slow) Flush(ctx context.Context) (sink.Checkpoint, error) { return s.Dir.Flush(ctx) }

func (s *slow) Write(_ context.Context, m *message.Message) (sink.Receipt, error) {
	f, err := s.Create()
	if err != nil {
		return sink.Receipt{}, err
	}
	const piece = 1 << 20
	for {
		n, err := io.CopyN(f, m.Body, piece)
		if err != nil && err != io.EOF {
			f.Discard()
			return sink.Receipt{}, err
		}
		time.Sleep(time.Duration(float64(n) / s.rate * float64(time.Second)))
		if err == io.EOF {
			break
		}
	}
	name := m.ID.Hash() + ".eml"
	return sink.Receipt{Path: name, Octets: f.Size()}, f.Place(m.ID, name, time.Time{})
}
