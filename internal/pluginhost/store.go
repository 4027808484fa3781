package pluginhost

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mailhaul/pipeline/internal/wire"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// Store is the kind of the program that keeps output in object storage. It is
// found and checked as plugins are; it speaks another protocol, and no session
// is opened in it.
const Store = wire.KindStore

// StoreName is the name of the store that there is.
const StoreName = "objects"

// store is the store of objects: a socket, and the process that answers on it,
// started anew when it dies.
type store struct {
	host     *Host
	found    Found
	socket   string
	file     *os.File // the listener, as the process gets it
	listener *net.UnixListener
	stopped  atomic.Bool
	end      chan struct{} // closed by stop
	ended    chan struct{} // closed when no process runs any more

	mu     sync.Mutex
	runner *runner
}

// Store starts the store of objects, when it doesn't run yet, and returns its
// socket. Only a pipeline with something in a bucket calls it.
func (h *Host) Store() (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return "", errClosed(StoreName)
	}
	if h.store != nil {
		return h.store.socket, nil
	}
	if runtime.GOOS == "windows" {
		return "", fault.New(fault.Config, "output in object storage isn't supported on Windows").WithKey("path")
	}
	found, err := h.Find(Store, StoreName)
	if err == nil {
		err = h.verify(found)
	}
	if err != nil {
		return "", err
	}
	s := &store{host: h, found: found, socket: filepath.Join(h.sockets, "store"), end: make(chan struct{}), ended: make(chan struct{})}
	if s.listener, err = net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: s.socket}); err != nil {
		return "", fault.New(fault.Config, "make the socket of the store of objects: %w", err)
	}
	if s.file, err = s.listener.File(); err == nil {
		err = s.start()
	}
	if err != nil {
		s.listener.Close()
		return "", fault.New(fault.Config, "start %s: %w", found.Path, err)
	}
	go s.watch()
	h.store = s
	return s.socket, nil
}

// start starts a process. Who calls meanwhile waits in the listener's queue.
func (s *store) start() error {
	cmd := &exec.Cmd{Path: s.found.Path, Args: []string{s.found.Path}, Dir: s.host.o.WorkDir, ExtraFiles: []*os.File{s.file}}
	cmd.Env = append(append([]string(nil), s.host.env...), objects.Environ()...)
	cmd.Env = append(cmd.Env, objects.EnvListener+"=1")
	r := newRunner(cmd, newOutput(s.host.o.Log.With("plugin", s.found.file()), &s.host.redact))
	if err := r.Start(context.Background()); err != nil {
		return err
	}
	s.mu.Lock()
	s.runner = r
	s.mu.Unlock()
	if s.stopped.Load() { // stop may have looked before
		_ = killGroup(cmd.Process)
	}
	return nil
}

// The pauses before a store that died is started again, and how long one runs
// that isn't just dying again and again.
const (
	firstRestart   = 100 * time.Millisecond
	longestRestart = 10 * time.Second
	settledStore   = time.Minute
)

// watch starts the store again when it dies: calls that were under way are
// made again by who made them.
func (s *store) watch() {
	defer close(s.ended)
	pause := firstRestart
	for begun := time.Now(); ; {
		s.mu.Lock()
		r := s.runner
		s.mu.Unlock()
		<-r.ended
		r.out.end()
		if s.stopped.Load() {
			return
		}
		if time.Since(begun) > settledStore {
			pause = firstRestart
		}
		text := fmt.Sprintf("the store of objects (process %s) %s", r.ID(), howEnded(r.cmd.ProcessState))
		if words := r.out.lastWords(); words != "" {
			text += ": " + words
		}
		s.host.o.Log.Warn(text + "; it is started again")
		select {
		case <-time.After(pause):
		case <-s.end:
			return
		}
		pause = min(2*pause, longestRestart)
		begun = time.Now()
		if err := s.start(); err != nil {
			s.host.o.Log.Error("the store of objects can't be started again", "error", err)
			s.listener.Close() // who calls is told at once
			return
		}
	}
}

// stop ends the process.
func (s *store) stop() {
	if s.stopped.Swap(true) {
		return
	}
	close(s.end)
	s.listener.Close()
	s.mu.Lock()
	r := s.runner
	s.mu.Unlock()
	if r.cmd.Process != nil {
		_ = killGroup(r.cmd.Process) // it has ended
	}
	<-s.ended
	s.file.Close()
}
