// Package natsserver runs real NATS servers with JetStream for tests: one, or
// a cluster of three, whose nodes can be killed, started again and stopped.
package natsserver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/test/program"
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

	path, conf string
	said       program.Output

	mu      sync.Mutex
	process *program.Process
}

// Start starts one node, until the test ends. lines are added to its
// configuration file, for users and the like.
func Start(t testing.TB, lines ...string) *Server { return start(t, 1, lines) }

// StartCluster starts three nodes, until the test ends. A bucket or stream
// with three replicas outlives the death of any one.
func StartCluster(t testing.TB, lines ...string) *Server { return start(t, 3, lines) }

func start(t testing.TB, n int, lines []string) *Server {
	t.Helper()
	path, err := program.Find("nats-server", "nats-server", "nats", "MAILHAUL_NATSSERVER")
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
		node := &Node{URL: "nats://" + net.JoinHostPort(host, fmt.Sprint(ports[i])), path: path, conf: conf}
		s.Nodes = append(s.Nodes, node)
		s.URL += "," + node.URL
		node.Start(t)
		t.Cleanup(func() { node.Kill() })
	}
	s.URL = s.URL[1:]
	for _, node := range s.Nodes {
		node.process.Await(t, "nats-server", node.ask) // JetStream answers once the cluster has a leader
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
	n.process = program.Start(t, &n.said, n.path, "-c", n.conf)
}

// Kill ends the node as kill -9 does, and waits until it is gone.
func (n *Node) Kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process.Kill()
}

// Pause stops the node as SIGSTOP does: its connections stay, and nobody answers.
func (n *Node) Pause(t testing.TB) { n.signal(t, syscall.SIGSTOP) }

// Resume lets a node go on that was stopped.
func (n *Node) Resume(t testing.TB) { n.signal(t, syscall.SIGCONT) }

func (n *Node) signal(t testing.TB, sig os.Signal) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// ask says whether JetStream answers. Where the configuration wants a user, a
// server that refuses the login does as well.
func (n *Node) ask(ctx context.Context) error {
	nc, err := nats.Connect(n.URL, nats.NoReconnect(), nats.Timeout(10*time.Second))
	if err != nil {
		if errors.Is(err, nats.ErrAuthorization) {
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
