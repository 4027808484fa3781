package pluginhost

import (
	"encoding/json"
	"os"
	"time"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/internal/wire/remote"
	"github.com/mailhaul/pipeline/pkg/fault"
	"google.golang.org/grpc"
)

// attachments reads the value of wire.EnvReattach, which `serve --debug`
// prints: a JSON object from names of executables to paths of sockets.
func attachments(value string) (map[string]string, error) {
	if value == "" {
		return nil, nil
	}
	var out map[string]string
	if err := json.Unmarshal([]byte(value), &out); err != nil {
		return nil, fault.New(fault.Config, "read %s: %w", wire.EnvReattach, err).
			WithHint("set it to what the plugin printed at serve --debug, or unset it")
	}
	return out, nil
}

// attach connects to a plugin that somebody else started.
func (h *Host) attach(found Found, socket string) (*process, error) {
	info, err := os.Stat(socket)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return nil, fault.New(fault.Config, "attach to plugin %s: nothing listens on %s: is it still running?", found.Name, socket).
			WithHint("start it anew with: %s serve --debug; or unset %s", found.file(), wire.EnvReattach)
	}
	memory := wire.NewMemory(wire.NewPool(), nil)
	cc, err := grpc.NewClient("unix:"+socket, wire.DialOptions(wire.Options{Window: h.o.Window, Memory: memory})...)
	if err != nil {
		return nil, fault.New(fault.Config, "attach to plugin %s at %s: %w", found.Name, socket, err)
	}
	p := &process{found: found, cc: cc}
	p.conn = remote.New(cc, remote.Options{Peer: "plugin " + found.Name, Memory: memory, Gone: p.gone, Redact: h.redact.text})
	return p, nil
}

// Pids returns the process ids of the plugins that run.
func (h *Host) Pids() []int {
	var out []int
	for _, p := range h.processes() {
		if p.runner != nil && !p.exited() {
			out = append(out, p.runner.cmd.Process.Pid)
		}
	}
	return out
}

func (h *Host) processes() []*process {
	h.mu.Lock()
	var all []*process
	for p := range h.own {
		all = append(all, p)
	}
	slots := make([]*slot, 0, len(h.shared))
	for _, s := range h.shared {
		slots = append(slots, s)
	}
	h.mu.Unlock()
	for _, s := range slots {
		s.mu.Lock()
		if s.process != nil {
			all = append(all, s.process)
		}
		s.mu.Unlock()
	}
	return all
}

// Abandon leaves the plugins as a host that is killed does: it asks nothing of
// them, their connection breaks and their standard input ends. It reports
// whether all have ended by themselves in time. For the conformance suite; of
// the host's methods only Close is called after it.
func (h *Host) Abandon(patience time.Duration) bool {
	timeout := time.After(patience)
	all := h.processes()
	for _, p := range all {
		p.conn.Close()
		if p.runner != nil {
			p.runner.stdin.Close()
		}
	}
	for _, p := range all {
		if p.runner == nil {
			continue
		}
		select {
		case <-p.runner.ended:
		case <-timeout:
			return false
		}
	}
	return true
}
