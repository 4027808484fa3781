// Package natsserver runs real NATS servers with JetStream for tests: one, or
// a cluster of three, whose nodes can be killed, started again and stopped.
package natsserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Server is a NATS server, or a cluster of them. Its methods may be called
// from any goroutine.
type Server struct {
	URL   string // of all nodes, with commas between
	Nodes []*Node
}

// Node is one process of a Server.
type Node struct {
	URL string // of this node alone

	program, conf string

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{}
	said  *output
}

// Executable returns where the server's program is, or an error that says how
// to have it.
func Executable() (string, error) {
	root, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for { // up to the repository
		if _, err := os.Stat(filepath.Join(root, "tools", "nats", "go.mod")); err == nil || root == filepath.Dir(root) {
			break
		}
		root = filepath.Dir(root)
	}
	for _, path := range []string{os.Getenv("MAILHAUL_NATSSERVER"), filepath.Join(root, "bin", "tools", "nats-server")} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() > 0 { // a build that broke off leaves nothing
			return path, nil
		}
	}
	return "", fmt.Errorf("nats-server isn't there: .ci/install-deps builds it, from the Go module that tools/nats/go.mod names")
}

// Start starts one node, until the test ends. lines are added to its
// configuration file, for users and the like.
func Start(t testing.TB, lines ...string) *Server { return start(t, 1, lines) }

// StartCluster starts three nodes, until the test ends. A bucket or stream
// with three replicas outlives the death of any one.
func StartCluster(t testing.TB, lines ...string) *Server { return start(t, 3, lines) }

func start(t testing.TB, n int, lines []string) *Server {
	t.Helper()
	program, err := Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "mhnats-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// A host of its own in 127/8: a node that was killed finds its ports free
	// when it comes back, whatever else this machine does.
	host := "127.0.0.1"
	if runtime.GOOS == "linux" {
		host = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(250), rand.IntN(250), 2+rand.IntN(250))
	}
	ports := free(t, host, 2*n)
	s := &Server{}
	var routes []string
	for i := range n {
		routes = append(routes, "nats://"+net.JoinHostPort(host, fmt.Sprint(ports[n+i])))
	}
	for i := range n {
		var b strings.Builder
		fmt.Fprintf(&b, "server_name: n%d\nlisten: \"%s:%d\"\n", i, host, ports[i])
		fmt.Fprintf(&b, "jetstream {store_dir: %q, max_memory_store: 64MB, max_file_store: 4GB}\n", filepath.Join(dir, fmt.Sprint(i)))
		if n > 1 {
			fmt.Fprintf(&b, "cluster {name: test, listen: \"%s:%d\", routes: [%s]}\n", host, ports[n+i], strings.Join(routes, ", "))
		}
		b.WriteString(strings.Join(lines, "\n"))
		conf := filepath.Join(dir, fmt.Sprintf("n%d.conf", i))
		if err := os.WriteFile(conf, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		node := &Node{URL: "nats://" + net.JoinHostPort(host, fmt.Sprint(ports[i])), program: program, conf: conf, said: &output{}}
		s.Nodes = append(s.Nodes, node)
		s.URL += "," + node.URL
		node.Start(t)
		t.Cleanup(func() { node.Kill() })
	}
	s.URL = s.URL[1:]
	for _, node := range s.Nodes {
		node.await(t)
	}
	return s
}

// free returns ports of the host that nobody listens on.
func free(t testing.TB, host string, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // together, at the end: no port twice
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// Start starts the node, again where it was killed. It doesn't wait until it
// listens.
func (n *Node) Start(t testing.TB) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	cmd := exec.Command(n.program, "-c", n.conf)
	cmd.Stdout, cmd.Stderr = n.said, n.said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(ended)
	}()
	n.cmd, n.ended = cmd, ended
}

// Kill ends the node as kill -9 does, and waits until it is gone.
func (n *Node) Kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	_ = n.cmd.Process.Kill() // it may be gone
	<-n.ended
}

// Pause stops the node as SIGSTOP does: its connections stay, and nobody answers.
func (n *Node) Pause(t testing.TB) { n.signal(t, syscall.SIGSTOP) }

// Resume lets a node go on that was stopped.
func (n *Node) Resume(t testing.TB) { n.signal(t, syscall.SIGCONT) }

func (n *Node) signal(t testing.TB, sig os.Signal) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// await waits until JetStream answers on the node, which needs a leader of
// the cluster.
func (n *Node) await(t testing.TB) {
	t.Helper()
	n.mu.Lock()
	ended := n.ended
	n.mu.Unlock()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		if last = n.ask(t.Context()); last == nil {
			return
		}
		select {
		case <-ended:
			t.Fatalf("nats-server has ended: %s", n.said)
		case <-tick.C:
		}
	}
	t.Fatalf("nats-server isn't ready: %v: %s", last, n.said)
}

// ask says whether JetStream answers. Where the configuration wants a user, a
// server that refuses the login does as well.
func (n *Node) ask(ctx context.Context) error {
	nc, err := nats.Connect(n.URL, nats.NoReconnect(), nats.Timeout(10*time.Second))
	if err != nil {
		if strings.Contains(err.Error(), nats.ErrAuthorization.Error()) {
			return nil
		}
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err = js.AccountInfo(ctx)
	return err
}

// Connect returns a connection to the server, until the test ends.
func (s *Server) Connect(t testing.TB, options ...nats.Option) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(s.URL, append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(100 * time.Millisecond)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// output is what a node said.
type output struct {
	mu sync.Mutex
	b  []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, p...)
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b)
}
