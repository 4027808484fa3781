// Package pluginhost finds plugins and runs them: one process a plugin for all
// its sessions, or one of its own for a session that may bring it down. It
// shows what they log, tells how they died, and leaves nothing behind.
package pluginhost

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/internal/faultpoint"
	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// Options say where plugins are and how they are run.
type Options struct {
	Log *slog.Logger // what plugins log, with the attribute "plugin"; nil: nowhere

	// Where plugins are looked for, in this order.
	Beside     string   // the folder of the pipeline command; may be empty
	Dirs       []string // of --plugin-dir
	PluginPath string   // the value of PIPELINE_PLUGIN_PATH: a list as PATH is
	Path       string   // the value of PATH

	WorkDir      string        // of the plugins' processes: the folder of the YAML; empty: ours
	Env          []string      // KEY=value, for the plugins, beside the few that all get
	SocketDir    string        // where the folder of sockets is made; empty: chosen, short
	Window       int32         // see wire.Options
	StartTimeout time.Duration // 0: 15 s
	Profile      string        // folder for the plugins' profiles, absolute; empty: none
	Silence      time.Duration // how long a plugin may owe an answer before it is killed; 0: for ever

	// Pins are the sha256 sums, in hex, of the executables that may be
	// started, by their names without folder and extension; nil: any.
	Pins map[string]string
	// Reattach is the value of wire.EnvReattach: plugins that run already,
	// under a debugger. They are neither started nor ended.
	Reattach string
	// TLS has both sides prove who they are, for where a plugin can't listen
	// on a private unix socket. New sets it on Windows.
	TLS bool
	// Unredacted leaves secrets in what plugins say: for the conformance
	// suite, which looks for them.
	Unredacted bool
}

// EnvSilence is the variable that says how long a plugin may owe an answer, or
// the next piece of one, before it is killed: a duration as in 30m.
const EnvSilence = "PIPELINE_PLUGIN_SILENCE"

// silence is far longer than any server or disk should keep a plugin waiting:
// what it kills does hang.
const silence = 30 * time.Minute

// FromEnvironment returns the options with which the command looks for
// plugins: beside its own executable, in dirs, and where the environment says.
func FromEnvironment(dirs []string) Options {
	o := Options{Dirs: dirs, PluginPath: os.Getenv("PIPELINE_PLUGIN_PATH"), Path: os.Getenv("PATH")}
	if self, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		o.Beside = filepath.Dir(self)
	}
	o.Reattach = os.Getenv(wire.EnvReattach)
	o.Silence = silence
	if d, err := time.ParseDuration(os.Getenv(EnvSilence)); err == nil && d > 0 {
		o.Silence = d
	}
	return o
}

// inherited is the environment that every plugin gets. Nothing else of the
// host's is passed on: what a plugin may know stands in its config (I9).
var inherited = []string{
	"PATH", "HOME", "USER", "TMPDIR", "TZ", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"SystemRoot", "GOMEMLIMIT", "GOMAXPROCS", "GOTRACEBACK", "GOCOVERDIR",
}

// Host runs plugins. All methods are safe for concurrent use.
type Host struct {
	o       Options
	places  []place
	env     []string
	redact  redactor
	sockets string
	// attached are the sockets of plugins that run already, by the names of
	// their executables.
	attached map[string]string

	mu     sync.Mutex
	shared map[string]*slot
	own    map[*process]bool // processes of isolated sessions
	closed bool
	store  *store // nil: nothing is kept in object storage
}

// slot holds the shared process of a plugin; its lock is held while one
// starts.
type slot struct {
	mu      sync.Mutex
	process *process

	found    Found
	restarts int64 // guarded by the host's lock
}

// New returns a host. It starts nothing. Close must be called.
func New(o Options) (*Host, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 15 * time.Second
	}
	o.TLS = o.TLS || runtime.GOOS == "windows"
	for _, dir := range o.Dirs {
		if err := guardedDir(dir, "--plugin-dir"); err != nil {
			return nil, err
		}
	}
	attached, err := attachments(o.Reattach)
	if err != nil {
		return nil, err
	}
	sockets, err := socketDir(o.SocketDir)
	if err != nil {
		return nil, err
	}
	h := &Host{o: o, places: places(o), sockets: sockets, attached: attached, shared: map[string]*slot{}, own: map[*process]bool{}}
	h.redact.off = o.Unredacted
	for _, name := range inherited {
		if v, ok := os.LookupEnv(name); ok {
			h.env = append(h.env, name+"="+v)
		}
	}
	h.env = append(append(h.env, o.Env...), faultpoint.Environ()...)
	h.env = append(h.env,
		wire.EnvWatch+"=1",
		wire.EnvLogLevel+"="+strings.ToLower(level(o.Log).String()),
		wire.EnvWindow+"="+strconv.Itoa(int(o.Window)))
	if o.Profile != "" {
		h.env = append(h.env, wire.EnvProfile+"="+o.Profile)
	}
	return h, nil
}

// Close ends all plugins, and removes the sockets. Sessions are flushed and
// closed before: what they hold is lost. It returns when every process has
// ended, or with ctx's error when that takes too long; they are killed then.
func (h *Host) Close(ctx context.Context) error {
	h.mu.Lock()
	h.closed = true
	objects := h.store
	h.mu.Unlock()
	all := h.processes()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for _, p := range all {
			wg.Go(p.stop)
		}
		wg.Wait()
		if objects != nil {
			objects.stop() // after those who may still write to it
		}
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		for _, p := range all {
			p.stopped.Store(true)
			if p.runner == nil {
				continue
			}
			_ = p.runner.Kill(ctx) // stop, which still runs, waits for its end
		}
		<-done
		err = context.Cause(ctx)
	}
	if rm := os.RemoveAll(h.sockets); rm != nil && err == nil {
		err = fault.Wrap(fault.Full, rm, "remove the plugins' sockets")
	}
	return err
}

// process returns a running process of the plugin: the shared one, started
// anew when it has ended, or one of the session's own.
func (h *Host) process(kind Kind, name string, isolated bool) (*process, error) {
	found, err := h.Find(kind, name)
	if err != nil {
		return nil, err
	}
	if isolated {
		p, err := h.launch(found)
		if err != nil {
			return nil, err
		}
		h.mu.Lock()
		h.own[p] = true
		closed := h.closed
		h.mu.Unlock()
		if closed {
			h.end(p)
			return nil, errClosed(name)
		}
		return p, nil
	}
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, errClosed(name)
	}
	s := h.shared[found.Path]
	if s == nil {
		s = &slot{found: found}
		h.shared[found.Path] = s
	}
	h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil && !s.process.exited() {
		return s.process, nil
	}
	again := s.process != nil && !s.process.stopped.Load() // else we ended it
	if s.process != nil {
		s.process.stop() // frees what the dead one held
		s.process = nil
	}
	p, err := h.launch(found)
	if err != nil {
		return nil, err
	}
	s.process = p
	h.mu.Lock()
	if again {
		s.restarts++
	}
	closed := h.closed
	h.mu.Unlock()
	if closed {
		s.process = nil
		p.stop()
		return nil, errClosed(name)
	}
	return p, nil
}

// Restarts calls each for every plugin that has a process which its sessions
// share, with how many times it was started again after its death.
func (h *Host) Restarts(each func(kind Kind, name string, n int64)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.shared {
		each(s.found.Kind, s.found.Name, s.restarts)
	}
}

func errClosed(name string) error {
	return fault.New(fault.Bug, "start plugin %s: the host is closed", name)
}

// end ends a process of a session's own.
func (h *Host) end(p *process) {
	h.mu.Lock()
	delete(h.own, p)
	h.mu.Unlock()
	p.stop()
}
