package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// closePatience is how long a session may take to close.
const closePatience = 10 * time.Second

// mergePatience is how long a session with a target in a bucket may take: an
// index there is merged at its end, which reads and writes it once. A server
// that doesn't answer ends it within minutes (internal/objects).
const mergePatience = 2 * time.Hour

// Restarts calls each for every plugin that has run, with how many times its
// process was started again after its death.
func (j *Job) Restarts(each func(kind, plugin string, n int64)) {
	j.host.Restarts(func(kind pluginhost.Kind, name string, n int64) { each(kind.String(), name, n) })
}

// Store starts the store of objects, when it doesn't run yet, and returns its
// socket.
func (j *Job) Store() (string, error) { return j.host.Store() }

// OpenSource implements engine.Plugins.
func (j *Job) OpenSource(ctx context.Context, s *plan.Source, isolated bool) (source.Opened, error) {
	session, ok := j.sources[s.Name]
	if !ok {
		var err error
		if session, err = j.late(ctx, s.Name); err != nil {
			return source.Opened{}, err
		}
	}
	opened, err := j.host.OpenSource(ctx, session, isolated)
	if err != nil {
		return opened, j.placeSource(s.Name, err)
	}
	return opened, nil
}

// OpenSink implements engine.Plugins.
func (j *Job) OpenSink(ctx context.Context, s *plan.Sink, state sink.State, isolated bool) (engine.SinkSession, error) {
	if s.Address != "" {
		var err error
		if state.Store, err = j.host.Store(); err != nil {
			return nil, j.placeSink(s.Name, err)
		}
	}
	session, err := j.host.OpenSink(ctx, j.sinks[s.Name], state, isolated)
	if err != nil {
		return nil, j.placeSink(s.Name, err)
	}
	patience := closePatience
	if s.Address != "" && state.Fence == (sink.Fence{}) {
		patience = mergePatience
	}
	return sinkSession{session, patience}, nil
}

// MergeSink makes one of what tasks left in a sink's target (sink.Merger).
// state has the checkpoint that keep was given the last time, and no fence. keep
// makes the new one durable; what only the old one needed is removed after. Of a
// sink that has nothing to merge nothing is kept.
func (j *Job) MergeSink(ctx context.Context, s *plan.Sink, state sink.State, tasks []sink.TaskCheckpoint, keep func(context.Context, sink.Checkpoint) error) (err error) {
	opened, err := j.OpenSink(ctx, s, state, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	m, ok := opened.(sinkSession)
	if !ok || !m.Merges() {
		return nil
	}
	cp, err := m.Merge(ctx, tasks)
	if err != nil {
		return fmt.Errorf("sink %s: merge what %d tasks left: %w", s.Name, len(tasks), err)
	}
	if err := keep(ctx, cp); err != nil {
		return err
	}
	return opened.Committed(ctx, cp)
}

// OpenStage implements engine.Plugins.
func (j *Job) OpenStage(ctx context.Context, s *stages.Stage, isolated bool) (stage.Stage, error) {
	prepared := pluginhost.Prepared{Needs: s.Needs(), Changes: s.Spec.Changes, NeedsWhole: s.Spec.NeedsWhole}
	session, err := j.host.OpenStage(ctx, j.stages[s.Name], prepared, isolated)
	if err != nil {
		for i, c := range j.File.Plugins {
			if c != nil && j.File.Stages[i].Name == s.Name {
				return nil, place(c, err)
			}
		}
		return nil, err
	}
	return session, nil
}

// late evaluates a config that runs commands. A command's answer may change
// between two openings, so nothing is kept.
func (j *Job) late(ctx context.Context, name string) (pluginhost.SessionSpec, error) {
	s := j.source(name)
	if s == nil {
		return pluginhost.SessionSpec{}, fault.New(fault.Bug, "source %s was planned and isn't in the file", name)
	}
	sc, err := j.schema(ctx, pluginhost.Source, s.Plugin)
	if err != nil {
		return pluginhost.SessionSpec{}, err
	}
	resolved, err := s.Config.ResolveWith(ctx, sc, j.values)
	if err != nil {
		return pluginhost.SessionSpec{}, err
	}
	return j.session(name, s.Plugin, resolved), nil
}

func (j *Job) source(name string) *config.Source {
	for i := range j.File.Sources {
		if j.File.Sources[i].Name == name {
			return &j.File.Sources[i]
		}
	}
	return nil
}

func (j *Job) placeSource(name string, err error) error {
	if s := j.source(name); s != nil {
		return place(s.Config, err)
	}
	return err
}

func (j *Job) placeSink(name string, err error) error {
	for i := range j.File.Sinks {
		if j.File.Sinks[i].Name == name {
			return place(j.File.Sinks[i].Config, err)
		}
	}
	return err
}

// place puts what a plugin says of its config at its place in the file. The
// hint stays a hint: Config.Place makes it part of the text, as a list of many
// mistakes has it.
func place(c *config.PluginConfig, err error) error {
	f, ok := err.(*fault.Error)
	if !ok || f.Class != fault.Config {
		return c.Place(err)
	}
	bare := *f
	bare.Hint = ""
	placed := c.Place(&bare)
	return &fault.Error{Class: fault.Config, Text: placed.Error(), Hint: f.Hint, Key: f.Key, Err: placed}
}

// sinkSession makes a plugin host's session the engine's.
type sinkSession struct {
	*pluginhost.SinkSession
	patience time.Duration // for Close
}

func (s sinkSession) Lane(ctx context.Context) (engine.Lane, error) { return s.SinkSession.Lane(ctx) }

func (s sinkSession) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.patience)
	defer cancel()
	return s.SinkSession.Close(ctx)
}
