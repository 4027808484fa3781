// Command frozenplugin is a plugin that was built from the frozen copy of the
// wire contract v1, with plain protobuf and nothing of today's SDK: what a
// third party may have compiled years ago. It is a source or a sink, as its
// executable is named.
package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/mailhaul/pipeline/test/compat/v1pb"
)

func main() {
	kind := v1pb.Kind_KIND_SINK
	if strings.Contains(filepath.Base(os.Args[0]), "-source-") {
		kind = v1pb.Kind_KIND_SOURCE
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  plugin.HandshakeConfig{MagicCookieKey: "MAILHAUL_PLUGIN", MagicCookieValue: "started-by-mailhaul"},
		VersionedPlugins: map[int]plugin.PluginSet{1: {"mailhaul": &served{s: &server{kind: kind, roots: map[uint64]string{}}}}},
		GRPCServer:       plugin.DefaultGRPCServer,
		Logger:           hclog.NewNullLogger(),
	})
}

type served struct {
	plugin.NetRPCUnsupportedPlugin
	s *server
}

func (p *served) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	v1pb.RegisterPluginServer(g, p.s)
	if p.s.kind == v1pb.Kind_KIND_SOURCE {
		v1pb.RegisterSourceServer(g, p.s)
	} else {
		v1pb.RegisterSinkServer(g, p.s)
	}
	return nil
}

func (p *served) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this is the plugin")
}

type server struct {
	v1pb.UnimplementedPluginServer
	v1pb.UnimplementedSourceServer
	v1pb.UnimplementedSinkServer
	kind v1pb.Kind

	mu    sync.Mutex
	roots map[uint64]string // of sessions
}

func (s *server) Describe(context.Context, *v1pb.DescribeRequest) (*v1pb.DescribeResponse, error) {
	return &v1pb.DescribeResponse{
		Name: "frozen", Kind: s.kind, Version: "1.0.0", Summary: "as it was built when v1 was frozen", Provides: 1 | 64,
		ConfigSchema: []byte(`{"type":"object","properties":{"path":{"type":"string","description":"a directory"}},"additionalProperties":false}`),
	}, nil
}

// path takes the value of "path" out of a config of one key.
func path(config []byte) string {
	_, rest, _ := strings.Cut(string(config), `"path":"`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

func (s *server) Prepare(_ context.Context, r *v1pb.PrepareRequest) (*v1pb.PrepareResponse, error) {
	if path(r.GetConfig()) == "" {
		return &v1pb.PrepareResponse{Error: &v1pb.Error{Class: v1pb.Class_CLASS_CONFIG, Text: "path is empty", Key: "path"}}, nil
	}
	return &v1pb.PrepareResponse{Target: path(r.GetConfig()), Lanes: 2, Needs: 64}, nil
}

func (s *server) Open(_ context.Context, r *v1pb.OpenRequest) (*v1pb.OpenResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roots[r.GetSession()] = path(r.GetConfig())
	return &v1pb.OpenResponse{Lanes: 2}, nil
}

func (s *server) Close(_ context.Context, r *v1pb.CloseRequest) (*v1pb.CloseResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.roots, r.GetSession())
	return &v1pb.CloseResponse{}, nil
}

func (s *server) root(session uint64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roots[session]
}

func (s *server) Attach(stream v1pb.Plugin_AttachServer) error {
	for {
		if _, err := stream.Recv(); err != nil {
			os.Exit(0)
		}
	}
}

func (s *server) Mailboxes(_ *v1pb.MailboxesRequest, stream v1pb.Source_MailboxesServer) error {
	return stream.Send(&v1pb.MailboxBatch{Mailboxes: []*v1pb.Mailbox{{Name: "INBOX", Selectable: true, State: &v1pb.MailboxState{Messages: 3, Bytes: -1}}}})
}

const messages = 3

func (s *server) List(_ *v1pb.ListRequest, stream v1pb.Source_ListServer) error {
	b := &v1pb.SummaryBatch{State: &v1pb.MailboxState{Messages: messages, Bytes: -1, UidValidity: 1}}
	for uid := range uint32(messages) {
		b.Summaries = append(b.Summaries, &v1pb.Summary{Id: &v1pb.ID{UidValidity: 1, Uid: uid + 1}, Have: 1, Size: int64(len(body(uid + 1)))})
	}
	return stream.Send(b)
}

func body(uid uint32) []byte {
	return []byte(fmt.Sprintf("Subject: %d\r\n\r\n%s", uid, strings.Repeat("frozen\r\n", int(uid)*1000)))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s *server) Fetch(stream v1pb.Source_FetchServer) error {
	if _, err := stream.Recv(); err != nil { // the start
		return err
	}
	for {
		if err := stream.Send(&v1pb.Frame{Events: []*v1pb.Event{{Pull: 1}}}); err != nil {
			return err
		}
		r, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, id := range r.GetIds().GetIds() {
			data := body(id.GetUid())
			event := &v1pb.Event{Begin: &v1pb.Begin{Id: id, Summary: &v1pb.Summary{}, HasBody: true, BodySize: int64(len(data))}, Body: uint32(len(data)), End: true}
			if id.GetUid() > messages {
				data = nil
				event = &v1pb.Event{Begin: &v1pb.Begin{Id: id}, Error: &v1pb.Error{Class: v1pb.Class_CLASS_GONE, Text: "not there"}}
			}
			if err := stream.Send(&v1pb.Frame{Events: []*v1pb.Event{event}, Crc32C: crc32.Checksum(data, castagnoli), Data: data}); err != nil {
				return err
			}
		}
	}
}

// Write keeps each message in memory: it is a test's plugin.
func (s *server) Write(stream v1pb.Sink_WriteServer) error {
	var root string
	var id *v1pb.ID
	var octets []byte
	for {
		f, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if root == "" {
			root = s.root(f.GetSession())
		}
		if crc32.Checksum(f.GetData(), castagnoli) != f.GetCrc32C() {
			return stream.Send(&v1pb.ResultBatch{Error: &v1pb.Error{Class: v1pb.Class_CLASS_BUG, Text: "a wrong checksum"}})
		}
		batch, rest := &v1pb.ResultBatch{}, f.GetData()
		for _, e := range f.GetEvents() {
			if e.GetBegin() != nil {
				id, octets = e.GetBegin().GetId(), nil
			}
			octets, rest = append(octets, rest[:e.GetBody()]...), rest[e.GetBody():]
			switch name := fmt.Sprintf("%d.eml", id.GetUid()); {
			case e.GetError() != nil:
				batch.Results = append(batch.Results, &v1pb.Result{Error: e.GetError()})
			case e.GetEnd():
				r := &v1pb.Result{Path: name, Octets: int64(len(octets))}
				if err := os.WriteFile(filepath.Join(root, name), octets, 0o600); err != nil {
					r = &v1pb.Result{Error: &v1pb.Error{Class: v1pb.Class_CLASS_FULL, Text: err.Error()}}
				}
				batch.Results = append(batch.Results, r)
			}
		}
		if len(batch.Results) > 0 {
			if err := stream.Send(batch); err != nil {
				return err
			}
		}
	}
}

func (s *server) Flush(context.Context, *v1pb.FlushRequest) (*v1pb.FlushResponse, error) {
	return &v1pb.FlushResponse{Checkpoint: []byte("1")}, nil
}
