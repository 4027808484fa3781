package wire

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"

	"github.com/mailhaul/pipeline/internal/faultpoint"
	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"google.golang.org/grpc"
)

// Server is a plugin's side of the wire. One server serves any number of
// sessions; all methods are safe for concurrent use.
type Server struct {
	pluginpb.UnimplementedPluginServer
	pluginpb.UnimplementedSourceServer
	pluginpb.UnimplementedSinkServer
	pluginpb.UnimplementedStageServer

	author Author
	log    *slog.Logger
	memory *Memory
	host   *host

	mu       sync.Mutex
	sessions map[uint64]*Session
}

// NewServer returns a server for an author's plugin. What panics in the
// author's code is logged to log with its stack. gone is called when the host
// has gone away; may be nil.
func NewServer(author Author, log *slog.Logger, memory *Memory, gone func()) *Server {
	return &Server{author: author, log: log, memory: memory, host: newHost(gone), sessions: map[uint64]*Session{}}
}

// Register adds the services of the author's kind to r.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	pluginpb.RegisterPluginServer(r, s)
	switch s.author.Kind {
	case KindSource:
		pluginpb.RegisterSourceServer(r, s)
	case KindSink:
		pluginpb.RegisterSinkServer(r, s)
	case KindStage:
		pluginpb.RegisterStageServer(r, s)
	}
}

// guard turns a panic of the author's code into an error: it costs one call
// and not the process with all its sessions.
func (s *Server) guard(call string, err *error) {
	if p := recover(); p != nil {
		s.log.Error("panic in "+call, "panic", p, "stack", string(debug.Stack()))
		*err = fault.New(fault.Bug, "plugin %s panicked in %s: %v", s.author.Name, call, p).
			WithHint("report it to the plugin's author with the stack in its log")
	}
}

// Describe implements pluginpb.PluginServer.
func (s *Server) Describe(context.Context, *pluginpb.DescribeRequest) (*pluginpb.DescribeResponse, error) {
	faultpoint.Hit("plugin.describe")
	d := s.author.Description
	return &pluginpb.DescribeResponse{
		Name: d.Name, Kind: pluginpb.Kind(d.Kind), Version: d.Version, Summary: d.Summary,
		ConfigSchema: d.Schema, Provides: uint32(d.Provides), Capabilities: d.Capabilities,
	}, nil
}

// Prepare implements pluginpb.PluginServer.
func (s *Server) Prepare(_ context.Context, req *pluginpb.PrepareRequest) (*pluginpb.PrepareResponse, error) {
	faultpoint.Hit("plugin.prepare")
	p, err := s.prepare(req.GetConfig())
	if err != nil {
		return &pluginpb.PrepareResponse{Error: ErrorToPB(err)}, nil
	}
	return &pluginpb.PrepareResponse{
		Target: p.Target, Lanes: uint32(max(1, p.Lanes)), Needs: uint32(p.Needs),
		Record: p.Record, Changes: p.Changes, NeedsWhole: p.NeedsWhole, Manifest: p.Manifest, Fenced: p.Fenced,
	}, nil
}

func (s *Server) prepare(config []byte) (p Prepared, err error) {
	defer s.guard("Prepare", &err)
	if s.author.Prepare == nil {
		return Prepared{}, nil
	}
	return s.author.Prepare(config)
}

// Open implements pluginpb.PluginServer.
func (s *Server) Open(ctx context.Context, req *pluginpb.OpenRequest) (*pluginpb.OpenResponse, error) {
	number := req.GetSession()
	o := Opening{
		Name: req.GetName(), Config: req.GetConfig(),
		Spool: &message.Spool{Dir: req.GetSpoolDir(), Budget: req.GetSpoolBudget()},
		Secret: func(ctx context.Context, ref string) (string, error) {
			return s.host.secret(ctx, number, ref)
		},
		Store: func(ctx context.Context, ref, value string) error {
			return s.host.store(ctx, number, ref, value)
		},
	}
	if k := req.GetSink(); k != nil {
		o.Sink = SinkState{
			Pipeline: k.GetPipeline(), Checkpoint: k.Checkpoint,
			Known: k.GetKnown(), Adopt: k.GetAdopt(), Rewrite: k.GetRewrite(),
			Store: k.GetStore(), Fence: Fence{k.GetFence().GetTask(), k.GetFence().GetNumber()},
		}
	}
	faultpoint.Hit("session.open")
	session, err := s.open(ctx, o)
	faultpoint.Hit("session.opened")
	if err == nil {
		session.spool = o.Spool
		if err = s.add(number, session); err != nil {
			_ = s.close(session)
		}
	}
	if err == nil && ctx.Err() != nil {
		// The host is gone, and CloseAll may have been before this call: nobody
		// else would ever close the session.
		_, _ = s.Close(ctx, &pluginpb.CloseRequest{Session: number})
		err = fault.Wrap(fault.Unavailable, context.Cause(ctx), "open session %d", number)
	}
	if err != nil {
		return &pluginpb.OpenResponse{Error: ErrorToPB(err)}, nil
	}
	return &pluginpb.OpenResponse{
		Lanes: uint32(max(1, session.Lanes)), Provides: uint32(session.Provides),
		Url: session.URL, Notes: valids(session.Notes),
		BudgetOctets: session.Budget.Bytes, BudgetPeriodNs: int64(session.Budget.Per),
		Finisher: session.Finish != nil, Finishes: session.Finishes, Facts: validMap(session.Facts),
		Merger: session.Merge != nil, Sealer: session.Seal != nil, Shares: s.memory.Shares(),
	}, nil
}

func (s *Server) open(ctx context.Context, o Opening) (session *Session, err error) {
	defer s.guard("Open", &err)
	return s.author.Open(ctx, o)
}

func (s *Server) add(number uint64, session *Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.sessions[number]; taken || number == 0 {
		return fault.New(fault.Bug, "the host opened session %d twice, or without a number", number)
	}
	s.sessions[number] = session
	return nil
}

func (s *Server) session(number uint64) (*Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if session := s.sessions[number]; session != nil {
		return session, nil
	}
	return nil, fault.New(fault.Bug, "plugin %s has no session %d", s.author.Name, number)
}

// Close implements pluginpb.PluginServer.
func (s *Server) Close(_ context.Context, req *pluginpb.CloseRequest) (*pluginpb.CloseResponse, error) {
	session, err := s.session(req.GetSession())
	if err == nil {
		s.mu.Lock()
		delete(s.sessions, req.GetSession())
		s.mu.Unlock()
		faultpoint.Hit("session.close")
		err = s.close(session)
		faultpoint.Hit("session.closed")
	}
	return &pluginpb.CloseResponse{Error: ErrorToPB(err)}, nil
}

func (s *Server) close(session *Session) (err error) {
	defer s.guard("Close", &err)
	if session.Close == nil {
		return nil
	}
	return session.Close()
}

// CloseAll closes the sessions that a host left open when it was killed. No
// call may be running, and none may begin meanwhile.
func (s *Server) CloseAll() {
	s.mu.Lock()
	left := s.sessions
	s.sessions = map[uint64]*Session{}
	s.mu.Unlock()
	for number, session := range left {
		if err := s.close(session); err != nil {
			s.log.Warn("close a session whose host is gone", "session", number, "error", err)
		}
	}
}

// Attach implements pluginpb.PluginServer.
func (s *Server) Attach(stream pluginpb.Plugin_AttachServer) error { return s.host.attach(stream) }
