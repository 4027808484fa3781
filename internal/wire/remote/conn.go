// Package remote is the host's side of the wire: a connection to a plugin, and
// the sessions on it as source.Source, sink lanes and stage.Stage.
package remote

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/fault"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Options are what a connection needs besides gRPC's.
type Options struct {
	// Peer names the plugin in errors, as in "plugin imap".
	Peer string
	// Memory is what the connection was dialled with (wire.Options.Memory).
	Memory *wire.Memory
	// Gone says why the plugin can't be reached, when it is the plugin's
	// process that ended; nil when it lives. It may wait a moment for the
	// process to end. nil: any loss of the connection is a fault.Crashed.
	Gone func(err error) error
	// Redact takes secrets out of what the plugin says in errors; may be nil.
	Redact func(string) string
	// Silence is how long the plugin may owe an answer, or the next piece of
	// one, before Silent is called, once, with what is owed: a plugin that hangs
	// would hold the host for ever. Silent is to end the process. 0: for ever.
	Silence time.Duration
	Silent  func(what string, silence time.Duration)
}

// Secrets answers a session's questions. Both may be called from several
// goroutines.
type Secrets struct {
	Value func(ctx context.Context, ref string) (string, error)
	Store func(ctx context.Context, ref, value string) error // nil: nothing can be stored
}

// Conn is a connection to one plugin process, for any number of sessions. All
// methods are safe for concurrent use.
type Conn struct {
	o      Options
	plugin pluginpb.PluginClient
	source pluginpb.SourceClient
	sink   pluginpb.SinkClient
	stage  pluginpb.StageClient
	stop   context.CancelFunc
	served sync.WaitGroup
	number atomic.Uint64

	mu      sync.Mutex
	secrets map[uint64]Secrets
	watches map[*watch]bool
}

// New returns a connection over cc, which was made with wire.DialOptions.
// Close must be called; it leaves cc open.
func New(cc grpc.ClientConnInterface, o Options) *Conn {
	ctx, stop := context.WithCancel(context.Background())
	c := &Conn{
		o: o, stop: stop,
		plugin: pluginpb.NewPluginClient(cc), source: pluginpb.NewSourceClient(cc),
		sink: pluginpb.NewSinkClient(cc), stage: pluginpb.NewStageClient(cc),
		secrets: map[uint64]Secrets{}, watches: map[*watch]bool{},
	}
	if c.o.Memory == nil {
		c.o.Memory = wire.NewMemory(wire.NewPool(), nil)
	}
	c.served.Add(1)
	go c.attend(ctx)
	if o.Silence > 0 {
		c.served.Add(1)
		go c.lookOut(ctx)
	}
	return c
}

// Close stops answering the plugin's questions, by which it knows that the
// host is done with it.
func (c *Conn) Close() {
	c.stop()
	c.served.Wait()
}

// attend answers the plugin's questions.
func (c *Conn) attend(ctx context.Context) {
	defer c.served.Done()
	stream, err := c.plugin.Attach(ctx)
	if err != nil {
		return // whoever calls next sees why
	}
	var sending sync.Mutex
	for {
		q, err := stream.Recv()
		if err != nil {
			return
		}
		c.served.Add(1)
		go func() {
			defer c.served.Done()
			a := c.answer(ctx, q)
			sending.Lock()
			defer sending.Unlock()
			_ = stream.Send(a) // a lost stream ends Recv
		}()
	}
}

func (c *Conn) answer(ctx context.Context, q *pluginpb.HostQuestion) *pluginpb.HostAnswer {
	c.mu.Lock()
	s, ok := c.secrets[q.GetSession()]
	c.mu.Unlock()
	a := &pluginpb.HostAnswer{Number: q.GetNumber()}
	var err error
	switch ask := q.GetAsk().(type) {
	case *pluginpb.HostQuestion_Secret:
		if !ok || s.Value == nil {
			err = fault.New(fault.Config, "the session has no secret %q", q.GetRef())
			break
		}
		a.Secret, err = s.Value(ctx, q.GetRef())
	case *pluginpb.HostQuestion_StoreSecret:
		if !ok || s.Store == nil {
			err = fault.New(fault.Config, "secret %q can't be stored", q.GetRef())
			break
		}
		err = s.Store(ctx, q.GetRef(), ask.StoreSecret)
	default:
		err = fault.New(fault.Bug, "the plugin asks something that this host doesn't know")
	}
	a.Error = wire.ErrorToPB(err)
	return a
}

// lost explains an error of gRPC. Errors that have a class already, and a
// cancelled ctx, stay what they are.
func (c *Conn) lost(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if fault.As(err) != nil {
		return err
	}
	if c.o.Gone != nil {
		if gone := c.o.Gone(err); gone != nil {
			return gone
		}
	}
	class := fault.Bug
	if status.Code(err) == codes.Unavailable {
		class = fault.Crashed
	}
	return fault.New(class, "%s: %s", c.o.Peer, status.Convert(err).Message())
}

// error converts an error of the plugin.
func (c *Conn) error(p *pluginpb.Error) error { return wire.Redacted(wire.ErrorFromPB(p), c.o.Redact) }

// Describe asks the plugin what it is.
func (c *Conn) Describe(ctx context.Context) (wire.Description, error) {
	defer c.quickly("Describe")()
	d, err := c.plugin.Describe(ctx, &pluginpb.DescribeRequest{})
	if err != nil {
		return wire.Description{}, c.lost(ctx, err)
	}
	return wire.Description{
		Kind: wire.Kind(d.GetKind()), Name: d.GetName(), Version: d.GetVersion(), Summary: d.GetSummary(),
		Schema: d.GetConfigSchema(), Provides: needs(d.GetProvides()), Capabilities: d.GetCapabilities(),
	}, nil
}

// Prepare asks what follows from a config alone. name is that of the session
// in the file.
func (c *Conn) Prepare(ctx context.Context, name string, config []byte) (wire.Prepared, error) {
	defer c.quickly("Prepare")()
	p, err := c.plugin.Prepare(ctx, &pluginpb.PrepareRequest{Name: name, Config: config})
	if err != nil {
		return wire.Prepared{}, c.lost(ctx, err)
	}
	if p.GetError() != nil {
		return wire.Prepared{}, c.error(p.GetError())
	}
	return wire.Prepared{
		Target: p.GetTarget(), Lanes: max(1, int(p.GetLanes())), Needs: needs(p.GetNeeds()), Record: p.GetRecord(),
		Changes: p.GetChanges(), NeedsWhole: p.GetNeedsWhole(), Manifest: p.GetManifest(), Fenced: p.GetFenced(),
	}, nil
}
