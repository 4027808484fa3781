package serve

import (
	"context"
	"strings"
	"sync"

	"google.golang.org/grpc"
)

// calls lets a plugin serve one host after the other: what the next one asks
// waits until nothing of the last is left.
type calls struct {
	mu      sync.Mutex
	changed sync.Cond
	running int
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
			c.enter()
			defer c.leave()
			return call(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, call grpc.StreamHandler) error {
			if strings.HasSuffix(info.FullMethod, "/Attach") { // lasts as long as the host
				return call(srv, stream)
			}
			c.enter()
			defer c.leave()
			return call(srv, stream)
		}),
	}
}

func (c *calls) enter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.leaving {
		c.changed.Wait()
	}
	c.running++
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
