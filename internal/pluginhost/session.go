package pluginhost

import (
	"context"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/internal/wire/remote"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// Description is what a plugin says of itself.
type Description = wire.Description

// Prepared is what follows from a session's config alone.
type Prepared = wire.Prepared

// Secrets answers what a session asks of the host.
type Secrets = remote.Secrets

// SessionSpec is what a session is opened with.
type SessionSpec struct {
	Name    string         // the session's name in the file
	Plugin  string         // the plugin's name
	Config  []byte         // JSON; a secret stands as {"$secret": "ref"}
	Secrets Secrets        // its secrets; values that are handed out are kept out of logs and errors
	Spool   *message.Spool // where bodies may wait, on both sides
}

// SinkSession is an open sink: Lane, Flush, Committed and Close.
type SinkSession struct {
	*remote.Sink
	release func()
}

// Close ends the session. All lanes are closed before.
func (s *SinkSession) Close(ctx context.Context) error {
	defer s.release()
	return s.Sink.Close(ctx)
}

type sourceSession struct {
	*remote.Source
	release func()
}

// Close ends the session.
func (s *sourceSession) Close() error {
	defer s.release()
	return s.Source.Close()
}

type finisherSession struct {
	*remote.Finisher
	release func()
}

// Close ends the session.
func (s *finisherSession) Close() error {
	defer s.release()
	return s.Finisher.Close()
}

type stageSession struct {
	*remote.Stage
	release func()
}

// Close ends the session.
func (s *stageSession) Close() error {
	defer s.release()
	return s.Stage.Close()
}

// Describe asks a plugin what it is. See Identity for how long the answer
// holds.
func (h *Host) Describe(ctx context.Context, kind Kind, name string) (Description, error) {
	p, err := h.process(kind, name, false)
	if err != nil {
		return Description{}, err
	}
	d, err := p.conn.Describe(ctx)
	if err != nil {
		return Description{}, err
	}
	if d.Kind != kind || d.Name != name {
		return Description{}, fault.New(fault.Config, "%s says that it is the %s plugin %q", p.found.Path, d.Kind, d.Name).
			WithHint("rename it to %s", executable(d.Kind, d.Name))
	}
	d.Protocol = p.protocol()
	return d, nil
}

// Prepare asks what follows from a config alone: of a sink its target, of a
// stage what it reads. Secrets aren't asked for.
func (h *Host) Prepare(ctx context.Context, kind Kind, spec SessionSpec) (Prepared, error) {
	p, err := h.process(kind, spec.Plugin, false)
	if err != nil {
		return Prepared{}, err
	}
	return p.conn.Prepare(ctx, spec.Name, spec.Config)
}

// OpenSource opens a session of a source: in the plugin's shared process,
// which is started when it doesn't run, or isolated in one of its own, which
// ends with the session.
func (h *Host) OpenSource(ctx context.Context, spec SessionSpec, isolated bool) (source.Opened, error) {
	p, release, err := h.enter(Source, spec, isolated)
	if err != nil {
		return source.Opened{}, err
	}
	o, err := p.conn.OpenSource(ctx, h.remote(spec))
	if err != nil {
		release()
		return source.Opened{}, err
	}
	switch s := o.Source.(type) {
	case *remote.Finisher:
		o.Source = &finisherSession{Finisher: s, release: release}
	case *remote.Source:
		o.Source = &sourceSession{Source: s, release: release}
	}
	return o, nil
}

// OpenSink opens a session of a sink, as OpenSource does. Of state only what
// the ledger knows is used.
func (h *Host) OpenSink(ctx context.Context, spec SessionSpec, state sink.State, isolated bool) (*SinkSession, error) {
	p, release, err := h.enter(Sink, spec, isolated)
	if err != nil {
		return nil, err
	}
	s, err := p.conn.OpenSink(ctx, h.remote(spec), state)
	if err != nil {
		release()
		return nil, err
	}
	return &SinkSession{Sink: s, release: release}, nil
}

// OpenStage opens a session of a stage, as OpenSource does. prepared is what
// Prepare said of the same config.
func (h *Host) OpenStage(ctx context.Context, spec SessionSpec, prepared Prepared, isolated bool) (stage.Stage, error) {
	p, release, err := h.enter(Stage, spec, isolated)
	if err != nil {
		return nil, err
	}
	s, err := p.conn.OpenStage(ctx, h.remote(spec), prepared)
	if err != nil {
		release()
		return nil, err
	}
	return &stageSession{Stage: s, release: release}, nil
}

func (h *Host) enter(kind Kind, spec SessionSpec, isolated bool) (*process, func(), error) {
	if _, ok := h.attached[Found{Kind: kind, Name: spec.Plugin}.file()]; ok {
		isolated = false // there is one process, and it isn't ours
	}
	p, err := h.process(kind, spec.Plugin, isolated)
	if err != nil {
		return nil, nil, err
	}
	if isolated {
		return p, func() { h.end(p) }, nil
	}
	return p, func() {}, nil
}

// remote returns the spec as a connection takes it, with secrets that the
// redactor learns before the plugin does.
func (h *Host) remote(spec SessionSpec) remote.Spec {
	r := remote.Spec{Name: spec.Name, Config: spec.Config, Spool: spec.Spool}
	if value := spec.Secrets.Value; value != nil {
		r.Secrets.Value = func(ctx context.Context, ref string) (string, error) {
			v, err := value(ctx, ref)
			h.redact.add(v)
			return v, err
		}
	}
	if store := spec.Secrets.Store; store != nil {
		r.Secrets.Store = func(ctx context.Context, ref, value string) error {
			h.redact.add(value)
			return store(ctx, ref, value)
		}
	}
	return r
}
