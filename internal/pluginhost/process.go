package pluginhost

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	gorunner "github.com/hashicorp/go-plugin/runner"
	"github.com/mailhaul/pipeline/internal/arena"
	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/internal/wire/remote"
	"github.com/mailhaul/pipeline/pkg/fault"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

// process is one running plugin.
type process struct {
	found   Found
	client  *plugin.Client // nil when it was attached to
	runner  *runner        // the same
	cc      *grpc.ClientConn
	out     *output
	conn    *remote.Conn
	stray   *lineWriter            // printed on os.Stdout
	stopped atomic.Bool            // by us: its end is no crash
	silent  atomic.Pointer[string] // what it owed for too long, so that we killed it
}

// lastGasp is how long a process whose connection broke is given to be seen
// ending.
const lastGasp = 2 * time.Second

func (h *Host) launch(found Found) (*process, error) {
	if at, ok := h.attached[found.file()]; ok {
		return h.attach(found, at)
	}
	if err := h.verify(found); err != nil {
		return nil, err
	}
	p := &process{found: found, out: newOutput(h.o.Log.With("plugin", found.Name), &h.redact)}
	p.stray = &lineWriter{show: p.out.stray}
	shared, file, err := arena.New(wire.Places(h.o.Window))
	if err != nil {
		h.o.Log.Debug("bodies go through sockets", "plugin", found.Name, "error", err)
	}
	if file != nil {
		defer file.Close()
	}
	memory := wire.NewMemory(wire.NewPool(), shared)
	p.client = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  plugin.HandshakeConfig{MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue},
		VersionedPlugins: map[int]plugin.PluginSet{wire.Protocol: {"mailhaul": taken{}}},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		SkipHostEnv:      true,
		StartTimeout:     h.o.StartTimeout,
		Logger:           hclog.NewNullLogger(),
		SyncStdout:       p.stray,
		SyncStderr:       &lineWriter{show: p.out.error},
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: h.sockets},
		AutoMTLS:         h.o.TLS,
		GRPCDialOptions:  wire.DialOptions(wire.Options{Window: h.o.Window, Memory: memory, TLS: h.o.TLS}),
		RunnerFunc: func(_ hclog.Logger, given *exec.Cmd, _ string) (gorunner.Runner, error) {
			// No context: the process outlives the call that starts it.
			cmd := &exec.Cmd{Path: found.Path, Args: []string{found.Path}, Dir: h.o.WorkDir}
			cmd.Env = append(append([]string(nil), h.env...), given.Env...)
			if file != nil {
				cmd.ExtraFiles = []*os.File{file}
				cmd.Env = append(cmd.Env, wire.EnvShared+"=3") // the first after standard error
			}
			p.runner = newRunner(cmd, p.out)
			p.runner.tls, p.runner.stopped = h.o.TLS, &p.stopped
			return p.runner, nil
		},
	})
	cc, err := p.connect()
	if err != nil {
		err = p.startError(err)
		p.stopped.Store(true)
		p.client.Kill()
		return nil, err
	}
	p.conn = remote.New(cc, remote.Options{
		Peer: "plugin " + found.Name, Memory: memory, Gone: p.gone, Redact: h.redact.text,
		Silence: h.o.Silence, Silent: p.kill,
	})
	return p, nil
}

// protocol is the version of the contract that both sides speak.
func (p *process) protocol() int {
	if p.client == nil {
		return wire.Protocol // who attaches to a plugin under a debugger built it just now
	}
	return p.client.NegotiatedVersion()
}

func (p *process) connect() (*grpc.ClientConn, error) {
	protocol, err := p.client.Client()
	if err != nil {
		return nil, err
	}
	raw, err := protocol.Dispense("mailhaul")
	if err != nil {
		return nil, err
	}
	return raw.(*grpc.ClientConn), nil
}

// startError explains why a process that was started can't be talked to.
func (p *process) startError(err error) error {
	if p.runner != nil && p.runner.exposed.Load() {
		return fault.New(fault.Config, "start plugin %s (%s): it listens on TCP without TLS, where anybody on this machine can talk to it", p.found.Name, p.found.Path).
			WithHint("a plugin listens on a unix socket in the folder PLUGIN_UNIX_SOCKET_DIR")
	}
	said := p.out.strayWords()
	if said != "" {
		said = "; it printed on its standard output: " + said
	}
	if p.runner != nil && p.runner.cmd.Process != nil {
		select {
		case <-p.runner.ended:
			if f := fault.As(p.crash()); f != nil {
				f.Text += said
				return f.WithHint("%s", p.startHint())
			}
		case <-time.After(drain):
		}
	}
	return fault.New(fault.Config, "start plugin %s (%s): %w%s", p.found.Name, p.found.Path, err, said).
		WithHint("%s", p.startHint())
}

func (p *process) startHint() string {
	return fmt.Sprintf("is it a plugin of Mailhaul, built for this system? %q should say so", p.found.Path+" describe")
}

// exited reports whether the process has ended.
func (p *process) exited() bool {
	if p.runner == nil {
		return p.cc.GetState() == connectivity.TransientFailure
	}
	select {
	case <-p.runner.ended:
		return true
	default:
		return false
	}
}

// gone explains the loss of the connection when the process has ended, and
// gives it a moment to.
func (p *process) gone(err error) error {
	if p.runner == nil {
		return nil // it isn't ours: why it ended is its starter's to see
	}
	wait := time.Duration(0)
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled, codes.Unknown:
		wait = lastGasp
	}
	if err == io.EOF {
		wait = lastGasp
	}
	select {
	case <-p.runner.ended:
		return p.crash()
	case <-time.After(wait):
		return nil
	}
}

// kill ends a process that hangs, as if it had crashed: what it had in hand is
// tried again.
func (p *process) kill(what string, silence time.Duration) {
	text := fmt.Sprintf("didn't go on with %s for %s, and was killed by the host", what, silence)
	p.silent.Store(&text)
	_ = killGroup(p.runner.cmd.Process)
}

// crash returns what became of the process.
func (p *process) crash() error {
	if what := p.silent.Load(); what != nil {
		return fault.New(fault.Crashed, "plugin %s (process %s) %s", p.found.Name, p.runner.ID(), *what).
			WithHint("its log above may say why; what it was doing is tried again, alone, in a new process; %s says how long is waited", EnvSilence)
	}
	text := fmt.Sprintf("plugin %s (process %s) %s", p.found.Name, p.runner.ID(), howEnded(p.runner.cmd.ProcessState))
	if p.stopped.Load() {
		return fault.New(fault.Crashed, "%s: the host had stopped it", text)
	}
	if words := p.out.lastWords(); words != "" {
		text += ": " + words
	}
	return fault.New(fault.Crashed, "%s", text).WithHint("its log above has the rest; what it was doing is tried again, alone, in a new process")
}

// stop ends the process: asked first, then killed.
func (p *process) stop() {
	p.stopped.Store(true)
	if p.runner == nil {
		p.conn.Close()
		p.cc.Close()
		return
	}
	p.client.Kill()
	p.conn.Close()
	p.stray.flush()
	p.out.end()
	_ = killGroup(p.runner.cmd.Process) // what the plugin may have left behind
}

// taken is go-plugin's view of the host: it takes the connection as it is.
type taken struct{ plugin.NetRPCUnsupportedPlugin }

// GRPCServer isn't used: the plugin serves.
func (taken) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error { return nil }

// GRPCClient returns the connection.
func (taken) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, cc *grpc.ClientConn) (any, error) {
	return cc, nil
}

func level(log *slog.Logger) slog.Level {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if log.Enabled(context.Background(), l) {
			return l
		}
	}
	return slog.LevelError
}
