package stage

import (
	"context"
	"log/slog"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/internal/wire/serve"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// Plugin describes a stage to Serve. C is its config: a struct whose fields
// carry the tags of package spec.
type Plugin[C any] struct {
	Name    string // as in "redact"; the executable is pipeline-stage-NAME
	Version string // semantic version
	Summary string // one line for `plugin list` and the reference

	// Prepare says, from the config alone, what the stage reads and does. It
	// touches nothing: no file, no network.
	Prepare func(config C) (Spec, error)

	// Open opens a session with a config that has been decoded and checked.
	Open func(ctx context.Context, config C, env Env) (Stage, error)
}

// Env is what the host lends to a session.
type Env struct {
	Name  string         // the stage's name in the file
	Log   *slog.Logger   // shown under the plugin's and the stage's name
	Spool *message.Spool // for bodies that must be held
}

// Serve is the main function of a stage plugin. It serves sessions until the
// host ends the process, and doesn't return. Started by hand it says what the
// plugin is; with the argument "describe" it prints its name, version and the
// schema of its config.
//
// Log to Env.Log, or to os.Stderr. What is printed on os.Stdout is shown as a
// log line too. The process ends when the host does.
func Serve[C any](p Plugin[C]) {
	log := serve.Log()
	a, err := author(p, log)
	serve.Main(a, log, err)
}

// author returns the plugin as the wire knows it.
func author[C any](p Plugin[C], log *slog.Logger) (wire.Author, error) {
	a := wire.Author{Description: wire.Description{
		Kind: wire.KindStage, Name: p.Name, Version: p.Version, Summary: p.Summary,
	}}
	if p.Name == "" || p.Open == nil || p.Prepare == nil {
		return a, fault.New(fault.Bug, "stage.Plugin needs a Name, Prepare and Open")
	}
	var err error
	a.Schema, err = spec.SchemaOf(new(C))
	a.Prepare = func(config []byte) (wire.Prepared, error) {
		var c C
		if err := spec.Decode(config, &c, unasked); err != nil {
			return wire.Prepared{}, err
		}
		r, err := p.Prepare(c)
		return wire.Prepared{Needs: r.Needs, Changes: r.Changes, NeedsWhole: r.NeedsWhole}, err
	}
	a.Open = func(ctx context.Context, o wire.Opening) (*wire.Session, error) {
		var config C
		if err := spec.DecodeWith(o.Config, &config, spec.Vault{Value: o.Secret, Store: o.Store}); err != nil {
			return nil, err
		}
		s, err := p.Open(ctx, config, Env{Name: o.Name, Log: log.With("session", o.Name), Spool: o.Spool})
		if err != nil {
			return nil, err
		}
		if s == nil {
			return nil, fault.New(fault.Bug, "plugin %s: Open returned neither a stage nor an error", p.Name)
		}
		return &wire.Session{
			Close: s.Close,
			Apply: func(ctx context.Context, m *message.Message) (int, error) {
				v, err := s.Apply(ctx, m)
				return int(v), err
			},
		}, nil
	}
	return a, err
}

// unasked answers for secrets while a config is only checked.
func unasked(context.Context, string) (string, error) {
	return "", fault.New(fault.Bug, "a secret's value was asked for while the config was only being checked")
}
