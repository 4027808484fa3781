package wire

import (
	"github.com/mailhaul/pipeline/internal/arena"
	"google.golang.org/grpc/mem"
)

// Memory is what the frames of one connection are made of: buffers of its own,
// and, where host and plugin share memory, places there. It is safe for
// concurrent use.
type Memory struct {
	pool   mem.BufferPool
	shared *arena.Arena // nil: none
}

// NewMemory returns memory for both directions of a connection, with buffers of
// pool. shared may be nil.
func NewMemory(pool mem.BufferPool, shared *arena.Arena) *Memory {
	return &Memory{pool: pool, shared: shared}
}

// Share says that the other side maps the shared memory.
func (m *Memory) Share() {
	if m.shared != nil {
		m.shared.Share()
	}
}

// Shares reports whether there is shared memory.
func (m *Memory) Shares() bool { return m.shared != nil }

// piece is memory that is being filled with a frame's data.
type piece struct {
	place arena.Place // none: buf is of the pool
	buf   *[]byte
}

// get returns a piece of n octets at least, with anything in them: of the
// shared memory where a place is free.
func (m *Memory) get(n int) piece {
	if n <= arena.Size {
		if p := m.shared.Get(); p.OK() {
			b := p.Memory()
			return piece{p, &b}
		}
	}
	return piece{buf: m.pool.Get(n)}
}

// put takes back a piece that isn't sent.
func (m *Memory) put(p piece) {
	if p.place.OK() {
		p.place.Free()
	} else {
		m.pool.Put(p.buf)
	}
}

// hold returns n octets that a frame has in shared memory, as a buffer that
// gives the place back.
func (m *Memory) hold(number, turn uint32, n int) (mem.Buffer, error) {
	p, b, err := m.shared.Hold(number, turn, n)
	if err != nil {
		return nil, err
	}
	return mem.NewBuffer(&b, holder{p}), nil
}

// holder gives back a place of shared memory as pools take back a buffer.
type holder struct{ place arena.Place }

// Get isn't used: a holder has no memory of its own.
func (holder) Get(n int) *[]byte {
	b := make([]byte, n)
	return &b
}

// Put frees the place.
func (h holder) Put(*[]byte) { h.place.Done() }
