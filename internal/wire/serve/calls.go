package serve

import (
	"context"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
)

// calls lets a plugin serve one host after the other: what the next one asks
// waits until nothing of the last is left.
type calls struct {
	mu      sync.Mutex
	changed sync.Cond
	running int
	waiting int      // calls that may not begin yet
	host    net.Addr // the connection of the host that is attached; nil: none is
	leaving bool
}

func newCalls() *calls {
	c := &calls{}
	c.changed.L = &c.mu
	return c
}

// options have a server count its calls.
func (c *calls) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, call grpc.UnaryHandler) (any, error) {
			if err := c.enter(ctx); err != nil {
				return nil, err
			}
			defer c.leave()
			return call(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, call grpc.StreamHandler) error {
			if strings.HasSuffix(info.FullMethod, "/Attach") { // lasts as long as the host
				if err := c.attach(stream.Context()); err != nil {
					return err
				}
				defer c.detach()
				return call(srv, stream)
			}
			if err := c.enter(stream.Context()); err != nil {
				return err
			}
			defer c.leave()
			return call(srv, stream)
		}),
	}
}

// caller returns the connection that a call came on; see numbered.
func caller(ctx context.Context) net.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	return p.Addr
}

// await waits until may is true. The lock is held.
func (c *calls) await(ctx context.Context, may func() bool) error {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})
	defer stop()
	c.waiting++
	defer func() { c.waiting-- }()
	for !may() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.changed.Wait()
	}
	return nil
}

// attach waits until no other host is attached: the end of the last one may
// not be known here yet when the next one comes, and would answer what that
// one's sessions ask.
func (c *calls) attach(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.await(ctx, func() bool { return c.host == nil })
	if err == nil {
		c.host = caller(ctx)
	}
	return err
}

func (c *calls) detach() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.host = nil
	c.changed.Broadcast()
}

func (c *calls) enter(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	from := caller(ctx)
	err := c.await(ctx, func() bool { return !c.leaving && (c.host == nil || c.host == from) })
	if err == nil {
		c.running++
	}
	return err
}

func (c *calls) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	c.changed.Broadcast()
}

// clear calls f when no call runs, and lets none begin before it returns. The
// calls of a host that is gone end with their connection.
func (c *calls) clear(f func()) {
	c.mu.Lock()
	c.leaving = true
	for c.running > 0 {
		c.changed.Wait()
	}
	c.mu.Unlock()
	f()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = false
	c.changed.Broadcast()
}

// numbered is a listener whose connections have addresses of their own: those
// of a unix socket have none that tells them apart.
type numbered struct {
	net.Listener
	last atomic.Uint64
}

// Accept implements net.Listener.
func (l *numbered) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &numberedConn{c, connection(l.last.Add(1))}, nil
}

type numberedConn struct {
	net.Conn
	number connection
}

// RemoteAddr implements net.Conn.
func (c *numberedConn) RemoteAddr() net.Addr { return c.number }

// connection is the number of a connection, as its address.
type connection uint64

// Network implements net.Addr.
func (connection) Network() string { return "unix" }

// String implements net.Addr.
func (c connection) String() string { return "connection " + strconv.FormatUint(uint64(c), 10) }
