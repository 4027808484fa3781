package source

import (
	"context"
	"errors"
	"iter"
	"log/slog"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/internal/wire/serve"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/spec"
)

// Serve is the main function of a source plugin. It serves sessions until the
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
		Kind: wire.KindSource, Name: p.Name, Version: p.Version, Summary: p.Summary, Provides: p.Provides,
	}}
	if p.Name == "" || p.Open == nil {
		return a, fault.New(fault.Bug, "source.Plugin needs a Name and Open")
	}
	var err error
	a.Schema, err = spec.SchemaOf(new(C))
	a.Prepare = func(config []byte) (wire.Prepared, error) {
		return wire.Prepared{}, spec.Decode(config, new(C), unasked)
	}
	a.Open = func(ctx context.Context, o wire.Opening) (*wire.Session, error) {
		var config C
		if err := spec.DecodeWith(o.Config, &config, spec.Vault{Value: o.Secret, Store: o.Store}); err != nil {
			return nil, err
		}
		opened, err := p.Open(ctx, config, Env{Name: o.Name, Log: log.With("session", o.Name), Spool: o.Spool})
		if err != nil {
			return nil, err
		}
		if opened.Source == nil {
			return nil, fault.New(fault.Bug, "plugin %s: Open returned neither a source nor an error", p.Name)
		}
		if _, ok := opened.Source.(Finisher); opened.Finishes && !ok {
			return nil, errors.Join(fault.New(fault.Bug, "plugin %s: Opened.Finishes is set, and the source is no Finisher", p.Name), opened.Source.Close())
		}
		return session(opened), nil
	}
	return a, err
}

// unasked answers for secrets while a config is only checked.
func unasked(context.Context, string) (string, error) {
	return "", fault.New(fault.Bug, "a secret's value was asked for while the config was only being checked")
}

func session(o Opened) *wire.Session {
	s := &wire.Session{
		Lanes: o.Lanes, Provides: o.Provides, URL: o.URL, Notes: o.Notes, Close: o.Source.Close,
		Budget: wire.Budget(o.Budget), Finishes: o.Finishes, Facts: o.Facts,
		Mailboxes: o.Source.Mailboxes,
		List: func(ctx context.Context, r wire.ListRequest) iter.Seq2[message.Summary, error] {
			return o.Source.List(ctx, ListRequest{
				Mailbox: r.Mailbox, Needs: r.Needs, IDs: r.IDs, After: r.After, Limit: r.Limit, Newest: r.Newest,
				Skip: r.Skip, Where: conditions(r.Where), Among: r.Among, State: r.State, GoesOn: r.GoesOn, Next: r.Next,
			})
		},
		Fetch: func(ctx context.Context, r wire.FetchRequest, answer func(wire.Fetched) error) error {
			for f, err := range o.Source.Fetch(ctx, FetchRequest(r)) {
				if err != nil {
					return err
				}
				if err := answer(wire.Fetched(f)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	if l, ok := o.Source.(Laner); ok {
		s.LanesNow = l.Lanes
	}
	if f, ok := o.Source.(Finisher); ok {
		s.Finish = func(ctx context.Context, r wire.FinishRequest, answer func(wire.Finished) error) error {
			for done, err := range f.Finish(ctx, FinishRequest{Mailbox: r.Mailbox, IDs: r.IDs, Action: Action(r.Action)}) {
				if err != nil {
					return err
				}
				if err := answer(wire.Finished(done)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return s
}

func conditions(in []wire.Condition) []Condition {
	var out []Condition
	for _, c := range in {
		out = append(out, Condition(c))
	}
	return out
}
