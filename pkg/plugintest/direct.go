package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// plugged is a plugin of one kind as functions, its config's type hidden.
type plugged struct {
	wire.Description
	invalid   error
	onPrepare func(config []byte) (wire.Prepared, error)
	onSource  func(ctx context.Context, c settings, env source.Env) (source.Opened, error)
	onSink    func(ctx context.Context, c settings, st sink.State) (sink.Sink, error)
	onStage   func(ctx context.Context, c settings, env stage.Env) (stage.Stage, error)
}

func unasked(context.Context, string) (string, error) {
	return "", fault.New(fault.Bug, "a secret's value was asked for while the config was only being checked")
}

func sourceOf[C any](p source.Plugin[C]) plugged {
	out := plugged{Description: wire.Description{Kind: wire.KindSource, Name: p.Name, Version: p.Version, Summary: p.Summary, Provides: p.Provides}}
	out.Schema, out.invalid = spec.SchemaOf(new(C))
	out.onPrepare = func(config []byte) (wire.Prepared, error) {
		return wire.Prepared{}, spec.Decode(config, new(C), unasked)
	}
	out.onSource = func(ctx context.Context, c settings, env source.Env) (source.Opened, error) {
		config, err := decoded[C](c)
		if err != nil {
			return source.Opened{}, err
		}
		o, err := p.Open(ctx, config, env)
		if err == nil && o.Source == nil {
			err = fault.New(fault.Bug, "Open returned neither a source nor an error")
		}
		return o, err
	}
	return out
}

func sinkOf[C any](p sink.Plugin[C]) plugged {
	out := plugged{Description: wire.Description{Kind: wire.KindSink, Name: p.Name, Version: p.Version, Summary: p.Summary}}
	out.Schema, out.invalid = spec.SchemaOf(new(C))
	out.onPrepare = func(config []byte) (wire.Prepared, error) {
		var c C
		if err := spec.Decode(config, &c, unasked); err != nil {
			return wire.Prepared{}, err
		}
		r, err := p.Prepare(c)
		return wire.Prepared{Target: r.Target, Lanes: max(1, r.Lanes), Needs: r.Needs, Record: r.Record, Manifest: r.Manifest, Fenced: r.Fenced}, err
	}
	out.onSink = func(ctx context.Context, c settings, st sink.State) (sink.Sink, error) {
		config, err := decoded[C](c)
		if err != nil {
			return nil, err
		}
		s, err := p.Open(ctx, config, st)
		if err == nil && s == nil {
			err = fault.New(fault.Bug, "Open returned neither a sink nor an error")
		}
		return s, err
	}
	return out
}

func stageOf[C any](p stage.Plugin[C]) plugged {
	out := plugged{Description: wire.Description{Kind: wire.KindStage, Name: p.Name, Version: p.Version, Summary: p.Summary}}
	out.Schema, out.invalid = spec.SchemaOf(new(C))
	out.onPrepare = func(config []byte) (wire.Prepared, error) {
		var c C
		if err := spec.Decode(config, &c, unasked); err != nil {
			return wire.Prepared{}, err
		}
		r, err := p.Prepare(c)
		return wire.Prepared{Needs: r.Needs, Changes: r.Changes, NeedsWhole: r.NeedsWhole}, err
	}
	out.onStage = func(ctx context.Context, c settings, env stage.Env) (stage.Stage, error) {
		config, err := decoded[C](c)
		if err != nil {
			return nil, err
		}
		s, err := p.Open(ctx, config, env)
		if err == nil && s == nil {
			err = fault.New(fault.Bug, "Open returned neither a stage nor an error")
		}
		return s, err
	}
	return out
}

func decoded[C any](c settings) (C, error) {
	var config C
	err := spec.DecodeWith(c.json, &config, spec.Vault{Value: c.value, Store: c.store})
	return config, err
}

// direct returns the way to a plugin in this process.
func direct(p plugged) *direction {
	return &direction{kind: p.Kind, name: p.Name, begin: func(string) (subject, error) {
		return &inProcess{plugged: p}, p.invalid
	}}
}

// inProcess is a plugin that is called directly: under the race detector, in
// a debugger, with its coverage counted.
type inProcess struct {
	plugged
	log lines
}

func (s *inProcess) describe(context.Context) (wire.Description, error) { return s.Description, nil }

func (s *inProcess) prepare(_ context.Context, c settings) (wire.Prepared, error) {
	return s.onPrepare(c.json)
}

func (s *inProcess) source(ctx context.Context, c settings) (source.Opened, error) {
	o, err := s.onSource(ctx, c, source.Env{Name: "suite", Log: s.logger(), Spool: &message.Spool{}})
	o.Lanes = max(1, o.Lanes)
	return o, err
}

func (s *inProcess) sink(ctx context.Context, c settings, st sink.State) (sinkSession, error) {
	st.Log, st.Spool = s.logger(), &message.Spool{}
	k, err := s.onSink(ctx, c, st)
	if err != nil {
		return nil, err
	}
	return directSink{k}, nil
}

func (s *inProcess) stage(ctx context.Context, c settings, _ wire.Prepared) (stage.Stage, error) {
	return s.onStage(ctx, c, stage.Env{Name: "suite", Log: s.logger(), Spool: &message.Spool{}})
}

func (s *inProcess) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (*inProcess) pid() int    { return 0 }
func (*inProcess) kill() error { return errors.New("this process can't be killed") }
func (*inProcess) end() error  { return nil }

func (s *inProcess) said() (all, stdout []string) { return s.log.all(), nil }

// directSink makes Committed a method of every sink.
type directSink struct{ sink.Sink }

func (s directSink) Committed(ctx context.Context, c sink.Checkpoint) error {
	if k, ok := s.Sink.(sink.Committer); ok {
		return k.Committed(ctx, c)
	}
	return nil
}

// Seals reports whether it is a sink.Sealer.
func (s directSink) Seals() bool {
	_, ok := s.Sink.(sink.Sealer)
	return ok
}

func (s directSink) Seal(ctx context.Context) error { return s.Sink.(sink.Sealer).Seal(ctx) }

// Merges reports whether it is a sink.Merger.
func (s directSink) Merges() bool {
	_, ok := s.Sink.(sink.Merger)
	return ok
}

func (s directSink) Merge(ctx context.Context, tasks []sink.TaskCheckpoint) (sink.Checkpoint, error) {
	return s.Sink.(sink.Merger).Merge(ctx, tasks)
}

// lines keeps what is written to it, a line each.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSuffix(l.text.String(), "\n"), "\n")
}

// from returns the lines of a log of JSON that have this value of "from".
func from(log []string, origin string) []string {
	var out []string
	for _, line := range log {
		var rec struct{ Msg, From string }
		if json.Unmarshal([]byte(line), &rec) == nil && rec.From == origin {
			out = append(out, rec.Msg)
		}
	}
	return out
}
