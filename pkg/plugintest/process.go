package plugintest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/internal/pluginhost"
	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// outside is an executable under test.
type outside struct {
	kind   wire.Kind
	name   string
	folder string
}

// startedByHost reports whether this process is the plugin.
func startedByHost() bool { return os.Getenv(wire.CookieKey) == wire.CookieValue }

// executable returns the plugin at path.
func executable(path string) (*outside, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	kind, name, ok := pluginhost.Parse(filepath.Base(path))
	if !ok {
		return nil, fmt.Errorf("%s isn't named as a plugin: pipeline-source-NAME, pipeline-sink-NAME or pipeline-stage-NAME", path)
	}
	return &outside{kind: kind, name: name, folder: filepath.Dir(path)}, nil
}

// itself makes an executable of this test: it starts the test anew, which
// finds itself started by a host and serves.
func itself(test string, kind wire.Kind, name string) (*outside, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "plugintest-")
	if err != nil {
		return nil, err
	}
	levels := strings.Split(test, "/")
	for i, l := range levels {
		levels[i] = "^" + regexp.QuoteMeta(l) + "$"
	}
	script := fmt.Sprintf("#!/bin/sh\nexec '%s' '-test.run=%s'\n", self, strings.Join(levels, "/"))
	if runtime.GOOS == "windows" {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("the suite starts plugins on unix only")
	}
	path := filepath.Join(dir, "pipeline-"+kind.String()+"-"+name)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil { //nolint:gosec // it must be executable
		os.RemoveAll(dir)
		return nil, err
	}
	return &outside{kind: kind, name: name, folder: dir}, nil
}

func (o *outside) direction() *direction {
	return &direction{kind: o.kind, name: o.name, process: true, begin: o.begin}
}

// window is that of each stream: small, so that what is measured is the
// plugin.
const window = 1 << 20

func (o *outside) begin(string) (subject, error) {
	p := &process{outside: o}
	sockets, err := os.MkdirTemp("/tmp", "pt")
	if err != nil {
		return nil, err
	}
	p.sockets = sockets
	p.host, err = pluginhost.New(pluginhost.Options{
		Log:  slog.New(slog.NewJSONHandler(&p.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Dirs: []string{o.folder}, SocketDir: sockets, Window: window, Unredacted: true,
		// With GOGC set Serve leaves no room for garbage, which would count as
		// what the plugin itself holds of a large message.
		Env: []string{"GOCOVERDIR=" + os.Getenv("GOCOVERDIR"), "GOGC=100"}, StartTimeout: time.Minute,
	})
	if err != nil {
		os.RemoveAll(sockets)
		return nil, err
	}
	return p, nil
}

// process is a plugin as the host runs it.
type process struct {
	*outside
	stages  []*processStage
	host    *pluginhost.Host
	log     lines
	sockets string

	mu    sync.Mutex
	ended bool
}

func (p *process) spec(c settings) pluginhost.SessionSpec {
	return pluginhost.SessionSpec{
		Name: "suite", Plugin: p.name, Config: c.json, Spool: &message.Spool{},
		Secrets: pluginhost.Secrets{Value: c.value, Store: c.store},
	}
}

func (p *process) describe(ctx context.Context) (wire.Description, error) {
	return p.host.Describe(ctx, p.kind, p.name)
}

func (p *process) prepare(ctx context.Context, c settings) (wire.Prepared, error) {
	return p.host.Prepare(ctx, p.kind, p.spec(c))
}

func (p *process) source(ctx context.Context, c settings) (source.Opened, error) {
	return p.host.OpenSource(ctx, p.spec(c), false)
}

func (p *process) sink(ctx context.Context, c settings, st sink.State) (sinkSession, error) {
	s, err := p.host.OpenSink(ctx, p.spec(c), st, false)
	if err != nil {
		return nil, err
	}
	return &processSink{s}, nil
}

func (p *process) stage(ctx context.Context, c settings, prepared wire.Prepared) (stage.Stage, error) {
	s, err := p.host.OpenStage(ctx, p.spec(c), prepared, false)
	if err != nil {
		return nil, err
	}
	opened := &processStage{Stage: s}
	p.stages = append(p.stages, opened)
	return opened, nil
}

// processStage knows whether it was closed.
type processStage struct {
	stage.Stage
	closed bool
}

func (s *processStage) Close() error {
	s.closed = true
	return s.Stage.Close()
}

// closeStages closes those that a case which broke off left open: the process
// is gone, the ends of their streams in this one aren't.
func (p *process) closeStages() {
	for _, s := range p.stages {
		if !s.closed {
			_ = s.Close()
		}
	}
}

func (p *process) pid() int {
	if pids := p.host.Pids(); len(pids) > 0 {
		return pids[0]
	}
	return 0
}

func (p *process) kill() error {
	running, err := os.FindProcess(p.pid())
	if err != nil {
		return err
	}
	return running.Kill()
}

func (p *process) said() (all, stdout []string) {
	log := p.log.all()
	return log, from(log, "stdout")
}

func (p *process) end() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil
	}
	p.ended = true
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	err := p.host.Close(ctx)
	os.RemoveAll(p.sockets)
	return err
}

// processSink gives every Write a lane of its own.
type processSink struct{ *pluginhost.SinkSession }

func (s *processSink) Write(ctx context.Context, m *message.Message) (sink.Receipt, error) {
	lane, err := s.Lane(ctx)
	if err != nil {
		return sink.Receipt{}, err
	}
	var receipt sink.Receipt
	var failed error
	done := make(chan struct{})
	err = lane.Put(ctx, m, func(r sink.Receipt, err error) {
		receipt, failed = r, err
		close(done)
	})
	if err == nil {
		<-done
		err = failed
	}
	if closed := lane.Close(); err == nil {
		err = closed
	}
	return receipt, err
}

func (s *processSink) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return s.SinkSession.Close(ctx)
}
