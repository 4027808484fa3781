package job

import (
	"context"
	"fmt"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
)

// closePatience is how long a session may take to close.
const closePatience = 10 * time.Second

// OpenSource implements engine.Plugins.
func (j *Job) OpenSource(ctx context.Context, s *plan.Source, isolated bool) (source.Opened, error) {
	opened, err := j.host.OpenSource(ctx, j.sources[s.Name], isolated)
	if err != nil {
		return opened, fmt.Errorf("source %s: %w", s.Name, j.placeSource(s.Name, err))
	}
	return opened, nil
}

// OpenSink implements engine.Plugins.
func (j *Job) OpenSink(ctx context.Context, s *plan.Sink, state sink.State, isolated bool) (engine.SinkSession, error) {
	session, err := j.host.OpenSink(ctx, j.sinks[s.Name], state, isolated)
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", s.Name, j.placeSink(s.Name, err))
	}
	return sinkSession{session}, nil
}

func (j *Job) placeSource(name string, err error) error {
	for i := range j.File.Sources {
		if j.File.Sources[i].Name == name {
			return j.File.Sources[i].Config.Place(err)
		}
	}
	return err
}

func (j *Job) placeSink(name string, err error) error {
	for i := range j.File.Sinks {
		if j.File.Sinks[i].Name == name {
			return j.File.Sinks[i].Config.Place(err)
		}
	}
	return err
}

// sinkSession makes a plugin host's session the engine's.
type sinkSession struct{ *pluginhost.SinkSession }

func (s sinkSession) Lane(ctx context.Context) (engine.Lane, error) { return s.SinkSession.Lane(ctx) }

func (s sinkSession) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	return s.SinkSession.Close(ctx)
}
