// Command inprocess is a run of the pipeline for TestTax: the same file, plan,
// engine and ledger, once with its plugins as processes, as every run has them,
// and once with the connectors linked into it. Go lets nobody import what is
// internal to a plugin, so this program and the packages that it takes the
// connectors from exist only in the overlay that TestTax builds with. Nothing of
// it is in the product.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/headroom"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/profile"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/spec"
	"github.com/mailhaul/pipeline/pkg/stage"
	eml "github.com/mailhaul/pipeline/plugins/pipeline-sink-eml/linked"
	imap "github.com/mailhaul/pipeline/plugins/pipeline-source-imap/linked"
)

func main() {
	file := flag.String("c", "pipeline.yaml", "the pipeline file, in the working directory")
	how := flag.String("how", "processes", "how plugins run: processes, linked; ask: only ask them what they are, and remember it in the ledger")
	pprof := flag.String("pprof", "", "folder for profiles")
	flag.Parse()
	room := headroom.New()
	if err := run(context.Background(), *file, *how, *pprof); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	room.Keep()
}

func run(ctx context.Context, file, how, pprof string) (err error) {
	if pprof != "" {
		stop, err := profile.Start(pprof, "inprocess-"+how)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	j, err := job.Load(job.Options{File: file, Values: config.System(), Log: log, Profile: pprof})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close(ctx)) }()
	if err := j.Settle(ctx); err != nil {
		return err
	}
	l, err := j.OpenLedger(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(j.Check(ctx), j.Prepare(ctx)); err != nil || how == "ask" {
		return err
	}
	var plugins engine.Plugins = j
	if how == "linked" {
		plugins = linked{j, log}
	}
	number, err := l.BeginRun(ctx, time.Now())
	if err != nil {
		return err
	}
	result, err := engine.Run(ctx, nil, engine.Options{
		Plan: j.Plan, Ledger: l, Plugins: plugins, Log: log, Spool: j.Spool(), Stats: &engine.Stats{}, Run: number,
		Events: func(engine.Event) {},
	})
	if err == nil && result.Exit() != engine.ExitDone {
		err = fmt.Errorf("exit code %d", result.Exit())
	}
	return errors.Join(err, l.EndRun(ctx, number, time.Now(), result.Exit()))
}

// linked opens connectors in this process.
type linked struct {
	job *job.Job
	log *slog.Logger
}

func (l linked) OpenSource(ctx context.Context, s *plan.Source, _ bool) (source.Opened, error) {
	p := imap.Plugin()
	for i := range l.job.File.Sources {
		if f := &l.job.File.Sources[i]; f.Name == s.Name {
			return opened(ctx, f.Config, p.Open, source.Env{Name: s.Name, Log: l.log, Spool: l.job.Spool()})
		}
	}
	return source.Opened{}, fmt.Errorf("no source %s", s.Name)
}

func (l linked) OpenSink(ctx context.Context, s *plan.Sink, st sink.State, _ bool) (engine.SinkSession, error) {
	p := eml.Plugin()
	st.Log = l.log
	for i := range l.job.File.Sinks {
		if f := &l.job.File.Sinks[i]; f.Name == s.Name {
			k, err := opened(ctx, f.Config, p.Open, st)
			return session{k}, err
		}
	}
	return nil, fmt.Errorf("no sink %s", s.Name)
}

func (linked) OpenStage(context.Context, *stages.Stage, bool) (stage.Stage, error) {
	return nil, errors.New("no stage is linked")
}

// opened decodes a config as a plugin's Serve does, and opens a session.
func opened[C, S, O any](ctx context.Context, c *config.PluginConfig, open func(context.Context, C, S) (O, error), state S) (o O, err error) {
	schema, err := spec.SchemaOf(new(C))
	if err != nil {
		return o, err
	}
	r, err := c.Resolve(ctx, schema, config.System())
	if err != nil {
		return o, err
	}
	var decoded C
	vault := spec.Vault{Value: func(ctx context.Context, ref string) (string, error) { return r.Secrets[ref](ctx) }}
	if err := spec.DecodeWith(r.JSON, &decoded, vault); err != nil {
		return o, err
	}
	return open(ctx, decoded, state)
}

// session calls a sink straight away: a Put is a Write, in the goroutine that
// fetches. Nothing could be cheaper, so that the tax is an upper bound.
type session struct{ sink.Sink }

func (s session) Lane(context.Context) (engine.Lane, error) { return lane{s.Sink}, nil }

func (s session) Committed(ctx context.Context, c sink.Checkpoint) error {
	if k, ok := s.Sink.(sink.Committer); ok {
		return k.Committed(ctx, c)
	}
	return nil
}

// Seals and Seal are the power of sink.Sealer, where the sink has it.
func (s session) Seals() bool {
	_, ok := s.Sink.(sink.Sealer)
	return ok
}

func (s session) Seal(ctx context.Context) error { return s.Sink.(sink.Sealer).Seal(ctx) }

type lane struct{ sink sink.Sink }

func (l lane) Put(ctx context.Context, m *message.Message, done func(sink.Receipt, error)) error {
	r, err := l.sink.Write(ctx, m)
	_, _ = io.Copy(io.Discard, m.Body) // where the sink has failed
	done(r, err)
	return nil
}

func (lane) Close() error { return nil }
