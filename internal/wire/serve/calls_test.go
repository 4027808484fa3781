package serve

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// What the next host asks waits for the end of the last one, also where that
// one isn't heard to be gone yet: it would be asked for the next one's secrets.
func TestTheNextHostIsAskedForItsOwnSecrets(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "sv")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	author := wire.Author{
		Description: wire.Description{Kind: wire.KindSource, Name: "test"},
		Open: func(ctx context.Context, o wire.Opening) (*wire.Session, error) {
			whose, err := o.Secret(ctx, "p")
			return &wire.Session{URL: whose}, err
		},
	}
	calls, memory := newCalls(), wire.NewMemory(wire.NewPool(), nil)
	server := grpc.NewServer(append(wire.ServerOptions(wire.Options{Memory: memory}), calls.options()...)...)
	var served *wire.Server
	served = wire.NewServer(author, slog.New(slog.NewTextHandler(io.Discard, nil)), memory, func() { calls.clear(served.CloseAll) })
	served.Register(server)
	go server.Serve(&numbered{Listener: listener})
	defer server.Stop()

	last, next := newTestHost(t, path, "the last one's"), newTestHost(t, path, "the next one's")
	last.attach()
	if got := last.open(); got != "the last one's" {
		t.Fatalf("the first host's session was told: %s", got)
	}
	next.attach()
	told := make(chan string, 1)
	go func() { told <- next.open() }()
	for waiting := 0; waiting < 2 && len(told) == 0; runtime.Gosched() { // Attach and Open
		calls.mu.Lock()
		waiting = calls.waiting
		calls.mu.Unlock()
	}
	last.gone()
	if got := <-told; got != "the next one's" {
		t.Errorf("the next host's session was told: %s", got)
	}
	next.gone()
}

// testHost answers every question with what it has.
type testHost struct {
	t     *testing.T
	cc    *grpc.ClientConn
	has   string
	ended sync.WaitGroup
}

func newTestHost(t *testing.T, path, has string) *testHost {
	t.Helper()
	cc, err := grpc.NewClient("unix:"+path, append(wire.DialOptions(wire.Options{Memory: wire.NewMemory(wire.NewPool(), nil)}),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	return &testHost{t: t, cc: cc, has: has}
}

func (h *testHost) attach() {
	stream, err := pluginpb.NewPluginClient(h.cc).Attach(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	h.ended.Go(func() {
		for {
			q, err := stream.Recv()
			if err != nil {
				return
			}
			_ = stream.Send(&pluginpb.HostAnswer{Number: q.GetNumber(), Secret: h.has}) // a lost stream ends Recv
		}
	})
}

// open opens a session, and returns what it was told.
func (h *testHost) open() string {
	r, err := pluginpb.NewPluginClient(h.cc).Open(h.t.Context(), &pluginpb.OpenRequest{Session: 1})
	if err == nil {
		err = wire.ErrorFromPB(r.GetError())
	}
	if err != nil {
		return err.Error()
	}
	return r.GetUrl()
}

func (h *testHost) gone() {
	h.cc.Close()
	h.ended.Wait()
}

// A call that waits for the end of another host gives up with its own.
func TestAWaitingCallEnds(t *testing.T) {
	t.Parallel()
	c := newCalls()
	c.host = connection(1)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fault.New(fault.Unavailable, "the host is gone"))
	if err := c.enter(ctx); !fault.Is(err, fault.Unavailable) {
		t.Errorf("enter: %v", err)
	}
	if c.running != 0 || c.waiting != 0 {
		t.Errorf("%d calls run and %d wait", c.running, c.waiting)
	}
}
