package wire

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// Sizes of the buffers in a pool. 16 KiB is what gRPC reads at once (an
// HTTP/2 frame), 256 KiB is a frame's data.
var tiers = [...]int{1 << 12, 1 << 14, 1 << 15, 1 << 16, 1 << 17, MaxFrame}

// NewPool returns a pool of buffers for frames and for gRPC. Unlike gRPC's own
// it has tiers for frames, and doesn't clear a buffer before it is reused:
// whoever takes one fills it. It is safe for concurrent use.
func NewPool() mem.BufferPool { return &pool{} }

type pool struct{ tier [len(tiers)]sync.Pool }

// Get returns a buffer of n octets, with anything in them.
func (p *pool) Get(n int) *[]byte {
	for i, size := range tiers {
		if n > size {
			continue
		}
		if b, ok := p.tier[i].Get().(*[]byte); ok {
			*b = (*b)[:n]
			return b
		}
		b := make([]byte, n, size)
		return &b
	}
	b := make([]byte, n)
	return &b
}

// Put takes back a buffer. One of another size than Get makes is left to the
// garbage collector.
func (p *pool) Put(b *[]byte) {
	for i, size := range tiers {
		if cap(*b) == size {
			p.tier[i].Put(b)
			return
		}
	}
}
