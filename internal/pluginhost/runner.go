package pluginhost

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// drain is how long the pipes of a process that has ended may stay open, held
// by a child of it.
const drain = 200 * time.Millisecond

// handshake is go-plugin's line; anything before it on the same line was
// printed without a newline.
var handshake = regexp.MustCompile(`^(.*?)(1\|\d+\|(unix|tcp)\|[^|]+\|grpc.*)$`)

// runner starts a plugin's process for go-plugin (runner.Runner). Unlike
// go-plugin's own it sees the process end at once, though a child of the
// plugin may hold its pipes, and lets only the handshake through on stdout.
type runner struct {
	cmd    *exec.Cmd
	out    *output
	stdin  *os.File // our end: its closing tells the plugin that we are gone
	shaken *io.PipeReader
	ended  chan struct{} // closed when the process has ended and its output is read

	exposed atomic.Bool  // it listens on TCP, and was refused
	tls     bool         // what listens on TCP is refused unless it is so
	stopped *atomic.Bool // the process was asked to end; nil: it never is
}

func newRunner(cmd *exec.Cmd, out *output) *runner {
	return &runner{cmd: cmd, out: out, ended: make(chan struct{})}
}

// Start implements runner.Runner.
func (r *runner) Start(context.Context) error {
	var pipes [3][2]*os.File
	for i := range pipes {
		read, write, err := os.Pipe()
		if err != nil {
			for _, p := range pipes[:i] {
				p[0].Close()
				p[1].Close()
			}
			return err
		}
		pipes[i] = [2]*os.File{read, write}
	}
	in, out, errs := pipes[0], pipes[1], pipes[2]
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = in[0], out[1], errs[1]
	r.cmd.SysProcAttr = ownGroup()
	err := r.cmd.Start()
	in[0].Close()
	out[1].Close()
	errs[1].Close()
	if err != nil {
		in[1].Close()
		out[0].Close()
		errs[0].Close()
		return err
	}
	r.stdin = in[1]
	shaken, hands := io.Pipe()
	r.shaken = shaken
	read := make(chan struct{}, 2)
	go func() {
		r.stdout(out[0], hands)
		read <- struct{}{}
	}()
	go func() {
		r.out.stderr(errs[0])
		read <- struct{}{}
	}()
	go func() {
		_ = r.cmd.Wait() // how it ended stands in ProcessState
		if r.stopped != nil && r.stopped.Load() && r.cmd.ProcessState.Exited() {
			r.left()
		}
		timeout := time.After(drain)
		for range 2 {
			select {
			case <-read:
			case <-timeout:
			}
		}
		out[0].Close()
		errs[0].Close()
		r.stdin.Close()
		close(r.ended)
	}()
	return nil
}

// stdout hands the handshake to go-plugin and shows the rest.
func (r *runner) stdout(from io.Reader, hands *io.PipeWriter) {
	defer hands.Close()
	done := false
	lines(from, func(line []byte) {
		if m := handshake.FindSubmatch(line); m != nil && !done {
			done = true
			if len(m[1]) > 0 {
				r.out.stray(string(m[1]))
			}
			if bytes.Equal(m[3], []byte("tcp")) && !r.tls {
				// Anybody on this machine could talk to it.
				r.exposed.Store(true)
				hands.Close()
				return
			}
			_, _ = hands.Write(append(bytes.Clone(m[2]), '\n')) // go-plugin has given up
			return
		}
		r.out.stray(string(line))
	})
}

// left shows what a plugin that ended when it was asked to has left behind: a
// child in its process group, which is killed then, or its socket.
func (r *runner) left() {
	for _, child := range others(r.cmd.Process.Pid) {
		r.out.plain(slog.LevelDebug, "it left a child process behind: "+child, "host")
	}
	for _, v := range r.cmd.Env {
		dir, ok := strings.CutPrefix(v, "PLUGIN_UNIX_SOCKET_DIR=")
		if !ok {
			continue
		}
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			if err == nil && e.Type()&os.ModeSocket != 0 {
				r.out.plain(slog.LevelDebug, "it left its socket behind: "+e.Name(), "host")
			}
		}
	}
}

// Diagnose implements runner.Runner.
func (r *runner) Diagnose(context.Context) string { return "" }

// Stdout implements runner.Runner.
func (r *runner) Stdout() io.ReadCloser { return r.shaken }

// Stderr implements runner.Runner: it is read here and ends at once.
func (r *runner) Stderr() io.ReadCloser { return io.NopCloser(bytes.NewReader(nil)) }

// Name implements runner.Runner.
func (r *runner) Name() string { return r.cmd.Path }

// Wait implements runner.Runner.
func (r *runner) Wait(context.Context) error {
	<-r.ended
	return nil
}

// Kill implements runner.Runner.
func (r *runner) Kill(context.Context) error {
	if r.cmd.Process == nil {
		return nil
	}
	return killGroup(r.cmd.Process)
}

// ID implements runner.Runner.
func (r *runner) ID() string {
	if r.cmd.Process == nil {
		return ""
	}
	return strconv.Itoa(r.cmd.Process.Pid)
}

// PluginToHost implements runner.AddrTranslator.
func (r *runner) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin implements runner.AddrTranslator.
func (r *runner) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}
