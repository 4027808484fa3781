package sink

import (
	"context"
	"log/slog"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/internal/wire/serve"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// Serve is the main function of a sink plugin. It serves sessions until the
// host ends the process, and doesn't return. Started by hand it says what the
// plugin is; with the argument "describe" it prints its name, version and the
// schema of its config.
//
// Log to State.Log, or to os.Stderr. What is printed on os.Stdout is shown as
// a log line too. The process ends when the host does.
func Serve[C any](p Plugin[C]) {
	log := serve.Log()
	a, err := author(p, log)
	serve.Main(a, log, err)
}

// author returns the plugin as the wire knows it.
func author[C any](p Plugin[C], log *slog.Logger) (wire.Author, error) {
	a := wire.Author{Description: wire.Description{
		Kind: wire.KindSink, Name: p.Name, Version: p.Version, Summary: p.Summary,
		// Whether a session is a Committer shows only when it is open: the
		// others answer at once.
		Capabilities: []string{wire.CapabilityCommitter},
	}}
	if p.Name == "" || p.Open == nil || p.Prepare == nil {
		return a, fault.New(fault.Bug, "sink.Plugin needs a Name, Prepare and Open")
	}
	var err error
	a.Schema, err = spec.SchemaOf(new(C))
	a.Prepare = func(config []byte) (wire.Prepared, error) {
		var c C
		if err := spec.Decode(config, &c, unasked); err != nil {
			return wire.Prepared{}, err
		}
		r, err := p.Prepare(c)
		return wire.Prepared{Target: r.Target, Lanes: r.Lanes, Needs: r.Needs, Record: r.Record, Manifest: r.Manifest, Fenced: r.Fenced}, err
	}
	a.Open = func(ctx context.Context, o wire.Opening) (*wire.Session, error) {
		var config C
		if err := spec.DecodeWith(o.Config, &config, spec.Vault{Value: o.Secret, Store: o.Store}); err != nil {
			return nil, err
		}
		fence := Fence(o.Sink.Fence)
		if err := fence.check(); err != nil {
			return nil, err
		}
		if fence != (Fence{}) {
			r, err := p.Prepare(config)
			if err != nil {
				return nil, err
			}
			if !r.Fenced {
				return nil, fault.New(fault.Config, "plugin %s can't share its target %s with other machines", p.Name, r.Target).
					WithHint("run with engine: {type: local}")
			}
		}
		s, err := p.Open(ctx, config, State{
			Name: o.Name, Pipeline: o.Sink.Pipeline, Checkpoint: o.Sink.Checkpoint,
			Known: o.Sink.Known, Adopt: o.Sink.Adopt, Rewrite: o.Sink.Rewrite,
			Log: log.With("session", o.Name), Spool: o.Spool, Store: o.Sink.Store, Fence: fence,
		})
		if err != nil {
			return nil, err
		}
		if s == nil {
			return nil, fault.New(fault.Bug, "plugin %s: Open returned neither a sink nor an error", p.Name)
		}
		return session(s), nil
	}
	return a, err
}

// unasked answers for secrets while a config is only checked.
func unasked(context.Context, string) (string, error) {
	return "", fault.New(fault.Bug, "a secret's value was asked for while the config was only being checked")
}

func session(s Sink) *wire.Session {
	w := &wire.Session{
		Close: s.Close,
		Write: func(ctx context.Context, m *message.Message) (string, int64, error) {
			r, err := s.Write(ctx, m)
			return r.Path, r.Octets, err
		},
		Flush:     func(ctx context.Context) ([]byte, error) { return s.Flush(ctx) },
		Committed: func(context.Context, []byte) error { return nil },
	}
	if c, ok := s.(Committer); ok {
		w.Committed = func(ctx context.Context, b []byte) error { return c.Committed(ctx, b) }
	}
	if k, ok := s.(Sealer); ok {
		w.Seal = k.Seal
	}
	if m, ok := s.(Merger); ok {
		w.Merge = func(ctx context.Context, tasks []wire.TaskCheckpoint) ([]byte, error) {
			list := make([]TaskCheckpoint, len(tasks))
			for i, t := range tasks {
				list[i] = TaskCheckpoint{Task: t.Task, Fence: t.Fence, Checkpoint: t.Checkpoint, Done: t.Done}
			}
			return m.Merge(ctx, list)
		}
	}
	return w
}

// check refuses what can't stand in a name.
func (f Fence) check() error {
	ok := (f.Task == "") == (f.Number == 0) && len(f.Task) <= 64
	for i := range len(f.Task) {
		c := f.Task[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return fault.New(fault.Bug, "the host opened a session with the fence %d of the task %q", f.Number, f.Task)
	}
	return nil
}
