// Command pipeline-source-hostile is a plugin for tests that does what its
// config says, and that is mostly what no plugin may do. It speaks the wire
// itself, since the SDK would keep it from the worst. It is a source or a sink,
// as its executable is named.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/mailhaul/pipeline/test/compat/v1pb"
)

func main() {
	s := &server{kind: v1pb.Kind_KIND_SINK, name: "hostile", sessions: map[uint64]settings{}}
	base := filepath.Base(os.Args[0])
	if strings.Contains(base, "-source-") {
		s.kind = v1pb.Kind_KIND_SOURCE
		s.name = strings.TrimPrefix(base, "pipeline-source-")
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  plugin.HandshakeConfig{MagicCookieKey: "MAILHAUL_PLUGIN", MagicCookieValue: "started-by-mailhaul"},
		VersionedPlugins: map[int]plugin.PluginSet{1: {"mailhaul": &served{s: s}}},
		GRPCServer: func(o []grpc.ServerOption) *grpc.Server {
			return plugin.DefaultGRPCServer(append(o, grpc.MaxRecvMsgSize(math.MaxInt32)))
		},
		Logger: hclog.NewNullLogger(),
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

// settings are a session's config.
type settings struct {
	Do   string `json:"do"`   // what to do wrong: CALL:WHAT
	Path string `json:"path"` // a sink's directory; a source's, of files that are its messages
}

type server struct {
	v1pb.UnimplementedPluginServer
	v1pb.UnimplementedSourceServer
	v1pb.UnimplementedSinkServer
	kind v1pb.Kind
	name string

	mu       sync.Mutex
	sessions map[uint64]settings
}

// at misbehaves if the config says so of this call.
func (c settings) at(call string) {
	switch c.Do {
	case call + ":die":
		os.Exit(3)
	case call + ":hang":
		select {} // whatever the context says
	}
}

const schema = `{"type":"object","properties":{
	"do":{"type":"string","description":"what to do wrong"},
	"path":{"type":"string","description":"a directory"}},"additionalProperties":false}`

func (s *server) Describe(context.Context, *v1pb.DescribeRequest) (*v1pb.DescribeResponse, error) {
	return &v1pb.DescribeResponse{Name: s.name, Kind: s.kind, Version: "1.0.0", Summary: "does what it shouldn't", Provides: 1 | 16 | 64, ConfigSchema: []byte(schema)}, nil
}

func (s *server) Prepare(_ context.Context, r *v1pb.PrepareRequest) (*v1pb.PrepareResponse, error) {
	var c settings
	if err := json.Unmarshal(r.GetConfig(), &c); err != nil {
		return nil, err
	}
	c.at("prepare")
	return &v1pb.PrepareResponse{Target: c.Path, Lanes: 2, Needs: 64}, nil
}

func (s *server) Open(_ context.Context, r *v1pb.OpenRequest) (*v1pb.OpenResponse, error) {
	var c settings
	if err := json.Unmarshal(r.GetConfig(), &c); err != nil {
		return nil, err
	}
	c.at("open")
	if c.Do == "flood" {
		// Those that go-plugin put in their place, and the real ones.
		for _, to := range []*os.File{os.Stdout, os.Stderr, os.NewFile(1, "1"), os.NewFile(2, "2")} {
			go flood(to, "going round in circles\n")
			go flood(to, strings.Repeat("no end of this line ", 1000))
			go flood(to, `{"level":"ERROR","msg":"`+strings.Repeat("a", 30_000)+`"}`+"\n")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[r.GetSession()] = c
	return &v1pb.OpenResponse{Lanes: 2, Finisher: true}, nil
}

func flood(to *os.File, text string) {
	b := bytes.Repeat([]byte(text), max(1, 64<<10/len(text)))
	for {
		if _, err := to.Write(b); err != nil {
			return
		}
	}
}

func (s *server) of(session uint64) settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[session]
}

func (s *server) Close(_ context.Context, r *v1pb.CloseRequest) (*v1pb.CloseResponse, error) {
	s.of(r.GetSession()).at("close")
	return &v1pb.CloseResponse{}, nil
}

func (s *server) Attach(stream v1pb.Plugin_AttachServer) error {
	for {
		if _, err := stream.Recv(); err != nil {
			os.Exit(0)
		}
	}
}

func (s *server) Mailboxes(r *v1pb.MailboxesRequest, stream v1pb.Source_MailboxesServer) error {
	c := s.of(r.GetSession())
	c.at("mailboxes")
	state := &v1pb.MailboxState{Messages: int64(len(c.files())), Bytes: -1, UidValidity: 1}
	switch c.Do {
	case "mailboxes:endless":
		for n := 0; ; n++ {
			b := &v1pb.MailboxBatch{}
			for i := range 1000 {
				b.Mailboxes = append(b.Mailboxes, &v1pb.Mailbox{Name: fmt.Sprintf("box %d/%d", n, i), Selectable: true, State: state})
			}
			if err := stream.Send(b); err != nil {
				return err
			}
		}
	case "claims":
		state.Messages, state.Bytes = math.MaxInt64, math.MaxInt64
	}
	return stream.Send(&v1pb.MailboxBatch{Mailboxes: []*v1pb.Mailbox{{Name: "INBOX", Selectable: true, State: state}}})
}

// files are the messages, by UID - 1.
func (c settings) files() []string {
	names, _ := filepath.Glob(filepath.Join(c.Path, "*"))
	sort.Strings(names)
	return names
}

func (c settings) body(uid uint32) []byte {
	files := c.files()
	if uid == 0 || int(uid) > len(files) {
		return nil
	}
	b, err := os.ReadFile(files[uid-1])
	if err != nil {
		panic(err)
	}
	return b
}

func header(b []byte) []byte {
	for _, empty := range []string{"\r\n\r\n", "\n\n"} {
		if i := bytes.Index(b, []byte(empty)); i >= 0 {
			return b[:i+len(empty)]
		}
	}
	return b
}

func (s *server) List(r *v1pb.ListRequest, stream v1pb.Source_ListServer) error {
	c := s.of(r.GetSession())
	c.at("list")
	count := uint32(len(c.files()))
	b := &v1pb.SummaryBatch{State: &v1pb.MailboxState{Messages: int64(count), Bytes: -1, UidValidity: 1}}
	first := r.GetAfter().GetUid() + 1
	last := count
	if n := r.GetLimit(); n > 0 {
		last = min(last, first+uint32(n)-1)
	}
	switch c.Do {
	case "claims":
		b.State.Messages, b.State.Bytes = math.MaxInt64, math.MaxInt64
	case "list:again":
		first, last = 1, uint32(r.GetLimit()) // the same page, whatever came before
	case "list:same":
		first, last = 1, 1
		b.Summaries = append(b.Summaries, s.summary(c, r, 1))
	case "list:endless":
		last = math.MaxUint32 // whatever the limit
	case "list:headers":
		first, last = r.GetAfter().GetUid()+1, 200
	}
	if r.GetIds() != nil {
		first, last = 1, 0
		for _, id := range r.GetIds().GetIds() {
			b.Summaries = append(b.Summaries, s.summary(c, r, id.GetUid()))
		}
	}
	for uid := first; uid <= last; uid++ {
		b.Summaries = append(b.Summaries, s.summary(c, r, uid))
		if len(b.Summaries) >= 100 || c.Do == "list:headers" {
			if err := stream.Send(b); err != nil {
				return err
			}
			b = &v1pb.SummaryBatch{}
		}
	}
	return stream.Send(b)
}

func (s *server) summary(c settings, r *v1pb.ListRequest, uid uint32) *v1pb.Summary {
	sum := &v1pb.Summary{Id: &v1pb.ID{UidValidity: 1, Uid: uid}, Have: 1}
	if c.Do == "list:headers" {
		sum.Have |= 16
		sum.Header = []byte("Subject: " + strings.Repeat(strings.Repeat("x", 70)+"\r\n ", 14_000) + "\r\n\r\n") // 1 MB
		return sum
	}
	body := c.body(uid)
	sum.Size = int64(len(body))
	if r.GetNeeds()&16 != 0 {
		sum.Have |= 16
		sum.Header = header(body)
	}
	if c.Do == "claims" {
		sum.Size = math.MaxInt64
	}
	return sum
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s *server) Fetch(stream v1pb.Source_FetchServer) error {
	r, err := stream.Recv()
	if err != nil {
		return err
	}
	c := s.of(r.GetStart().GetSession())
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
		c.at("fetch")
		for _, id := range r.GetIds().GetIds() {
			if err := c.send(stream, id); err != nil {
				return err
			}
		}
	}
}

// bad is the UID of the message at which a Fetch or Write goes wrong.
const bad = 7

func (c settings) send(stream v1pb.Source_FetchServer, id *v1pb.ID) error {
	data := c.body(id.GetUid())
	begin := &v1pb.Begin{Id: id, Summary: &v1pb.Summary{}, HasBody: true, BodySize: int64(len(data))}
	event := &v1pb.Event{Begin: begin, Body: uint32(len(data)), End: true}
	frame := &v1pb.Frame{Events: []*v1pb.Event{event}, Crc32C: crc32.Checksum(data, castagnoli), Data: data}
	if id.GetUid() == bad {
		switch c.Do {
		case "message:die":
			os.Exit(3)
		case "message:hang":
			select {}
		case "body:hang": // half of it, and then nothing
			begin.BodySize = 1 << 30
			event.End = false
			if err := stream.Send(frame); err != nil {
				return err
			}
			select {}
		case "body:longer":
			begin.BodySize--
		case "claims":
			begin.BodySize = math.MaxInt64
		case "frame:checksum":
			frame.Crc32C++
		case "frame:lengths":
			event.Body = math.MaxUint32
		case "frame:nobody":
			frame.Events = []*v1pb.Event{{Body: uint32(len(data)), End: true}}
		case "frame:garbage":
			frame.Data, frame.Crc32C = bytes.Repeat([]byte{0xff, 0x80}, 1<<20), 0
			frame.Events = append(frame.Events, make([]*v1pb.Event, 50_000)...)
			for i := range frame.Events {
				frame.Events[i] = &v1pb.Event{Lanes: math.MaxUint32, Pull: math.MaxUint32}
			}
		case "id:stranger":
			begin.Id = &v1pb.ID{UidValidity: 1, Uid: 4_000_000_000}
		case "id:twice":
			if err := stream.Send(frame); err != nil {
				return err
			}
		}
	}
	if c.Do == "trickle" {
		return c.trickle(stream, begin, data)
	}
	return stream.Send(frame)
}

// trickle sends an octet a frame.
func (c settings) trickle(stream v1pb.Source_FetchServer, begin *v1pb.Begin, data []byte) error {
	for i := range data {
		e := &v1pb.Event{Body: 1, End: i == len(data)-1}
		if i == 0 {
			e.Begin = begin
		}
		time.Sleep(100 * time.Microsecond) // a slow server
		if err := stream.Send(&v1pb.Frame{Events: []*v1pb.Event{e}, Crc32C: crc32.Checksum(data[i:i+1], castagnoli), Data: data[i : i+1]}); err != nil {
			return err
		}
	}
	return nil
}

// Write keeps nothing.
func (s *server) Write(stream v1pb.Sink_WriteServer) error {
	var c settings
	var id *v1pb.ID
	for {
		f, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if c.Path == "" {
			c = s.of(f.GetSession())
		}
		batch := &v1pb.ResultBatch{}
		for _, e := range f.GetEvents() {
			if e.GetBegin() != nil {
				id = e.GetBegin().GetId()
				if id.GetUid() == bad {
					c.at("write")
				}
			}
			if !e.GetEnd() && e.GetError() == nil {
				continue
			}
			r := &v1pb.Result{Path: fmt.Sprintf("%d.eml", id.GetUid()), Error: e.GetError()}
			if id.GetUid() == bad {
				switch c.Do {
				case "answer:path":
					r.Path = "../../../../../../../etc/passwd"
				case "answer:octets":
					r.Octets = math.MaxInt64
				case "answer:more":
					batch.Results = append(batch.Results, make([]*v1pb.Result, 1000)...)
					for i := range batch.Results {
						batch.Results[i] = &v1pb.Result{Path: "x"}
					}
				}
			}
			batch.Results = append(batch.Results, r)
		}
		if len(batch.Results) > 0 {
			if err := stream.Send(batch); err != nil {
				return err
			}
		}
	}
}

func (s *server) Flush(_ context.Context, r *v1pb.FlushRequest) (*v1pb.FlushResponse, error) {
	c := s.of(r.GetSession())
	c.at("flush")
	if c.Do == "flush:checkpoint" {
		return &v1pb.FlushResponse{Checkpoint: make([]byte, 128<<20)}, nil
	}
	return &v1pb.FlushResponse{Checkpoint: []byte("1")}, nil
}

func (s *server) Finish(r *v1pb.FinishRequest, stream v1pb.Source_FinishServer) error {
	c := s.of(r.GetSession())
	c.at("finish")
	if c.Do == "finish:stranger" {
		return stream.Send(&v1pb.FinishedBatch{Finished: []*v1pb.Finished{{Id: &v1pb.ID{UidValidity: 1, Uid: 4_000_000_000}}}})
	}
	return nil // what became of them, nobody learns
}
