// Package program builds and runs programs for tests: those of the repository,
// and those of others, servers that .ci/install-deps builds from Go modules of
// their own, below tools/.
package program

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Find returns where a program is: what the environment variable names, or
// bin/tools/EXECUTABLE of the repository. Else the error says how to have it:
// from the module in tools/MODULE. name is the program's for people.
func Find(name, executable, module, variable string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	for _, path := range []string{os.Getenv(variable), filepath.Join(root, "bin", "tools", executable)} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() > 0 { // a build that broke off leaves nothing
			return path, nil
		}
	}
	return "", fmt.Errorf("%s isn't there: .ci/install-deps builds it, from the Go module that tools/%s/go.mod names", name, module)
}

// Process is a program that runs. Its methods may be called from any goroutine.
type Process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	said  *Output
}

// Start starts a program, which tells what it has to say to said. It doesn't
// wait, and nobody ends it but Kill.
func Start(t testing.TB, said *Output, path string, args ...string) *Process {
	t.Helper()
	p := &Process{cmd: exec.Command(path, args...), ended: make(chan struct{}), said: said}
	p.cmd.Stdout, p.cmd.Stderr = said, said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // it is killed
		close(p.ended)
	}()
	return p
}

// Kill ends it as kill -9 does, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may be gone
	<-p.ended
}

// Signal sends it a signal.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Await waits until ask has no error. name is the program's for people.
func (p *Process) Await(t testing.TB, name string, ask func(context.Context) error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		if last = ask(t.Context()); last == nil {
			return
		}
		select {
		case <-p.ended:
			t.Fatalf("%s has ended: %s", name, p.said)
		case <-tick.C:
		}
	}
	t.Fatalf("%s isn't ready: %v: %s", name, last, p.said)
}

// Output is what a program said. The zero value is ready; it may be written and
// read at once.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String returns all that was said so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
