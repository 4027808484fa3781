package wireproxy

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Line is a long line between clients and the server: every octet takes half
// a round trip, and all connections share a bandwidth in each direction. What
// TCP does to a line (its slow start, its losses) isn't in it.
type Line struct {
	RoundTrip time.Duration
	Octets    float64 // a second, in each direction; 0: as many as come
}

const (
	// linePiece is how much is put on a line at once: small, so that what is
	// short needn't wait long behind what is long.
	linePiece = 8 << 10
	// lineBacklog is how long what is sent may wait for the line before its
	// sender is held up, as by the buffer of a router.
	lineBacklog = 50 * time.Millisecond
)

// Over puts new connections on a line.
func (p *Proxy) Over(l Line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line = &line{Line: l}
}

// Trips returns how many round trips followed one another so far: the length
// of the longest chain in which each thing that was sent came after an answer
// to the one before, on whatever connection. To connect and be greeted is two
// (TCP's own, and the greeting's). It is counted where there is a line, since
// without one an answer may be there before the next command that doesn't wait
// for it.
func (p *Proxy) Trips() int {
	p.mu.Lock()
	l := p.line
	p.mu.Unlock()
	if l == nil {
		return 0
	}
	return int(l.seen.Load())
}

// line is a Line in use.
type line struct {
	Line
	seen atomic.Int64 // the longest chain of which a client has the end
	up   direction
	down direction
}

// direction is when one direction of a line is free again.
type direction struct {
	mu   sync.Mutex
	free time.Time
}

// leaves returns when so many octets have left, all that were sent before
// having gone first.
func (d *direction) leaves(octets int, perSecond float64) time.Time {
	now := time.Now()
	if perSecond <= 0 {
		return now
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.free.Before(now) {
		d.free = now
	}
	d.free = d.free.Add(time.Duration(float64(octets) / perSecond * float64(time.Second)))
	return d.free
}

// piece is on its way: when it is there, and how many round trips it follows.
type piece struct {
	octets []byte
	at     time.Time
	chain  int64
}

// connect waits as long as it takes until the server's kernel has a client's
// connection and the server may say something: a round trip and a half, of
// which the client's own dial through a proxy takes nothing.
func (l *line) connect() (chain int64) {
	chain = l.seen.Load() + 2
	time.Sleep(l.RoundTrip * 3 / 2)
	return chain
}

// carry passes a connection's octets on until both sides have ended. chain is
// how many round trips the connection itself took.
func (l *line) carry(p *Proxy, client, server net.Conn, chain int64, tap func(bool, []byte)) {
	var heard atomic.Int64 // the longest chain of which the server has the end
	heard.Store(chain)
	var both sync.WaitGroup
	both.Go(func() {
		l.pass(server, client, &l.up, func(n []byte) int64 {
			p.up.Add(int64(len(n)))
			if tap != nil {
				tap(false, n)
			}
			return max(l.seen.Load()+1, chain)
		}, &heard)
	})
	both.Go(func() {
		l.pass(client, server, &l.down, func(n []byte) int64 {
			p.down.Add(int64(len(n)))
			if tap != nil {
				tap(true, n)
			}
			return heard.Load()
		}, &l.seen)
	})
	both.Wait()
}

// pass takes what one side sends to the other, each octet after its time.
func (l *line) pass(to, from net.Conn, d *direction, sent func([]byte) (chain int64), there *atomic.Int64) {
	// Enough pieces for any line that a test wants: a second of a gigabit.
	way := make(chan piece, 16<<10)
	go func() {
		defer close(way)
		for {
			buf := make([]byte, linePiece)
			n, err := from.Read(buf)
			if n > 0 {
				chain := sent(buf[:n])
				leaves := d.leaves(n, l.Octets)
				way <- piece{buf[:n], leaves.Add(l.RoundTrip / 2), chain}
				time.Sleep(time.Until(leaves) - lineBacklog)
			}
			if err != nil {
				return
			}
		}
	}()
	dead := false
	for p := range way {
		if dead {
			continue
		}
		time.Sleep(time.Until(p.at))
		raise(there, p.chain)
		if _, err := to.Write(p.octets); err != nil {
			dead = true
			from.Close()
		}
	}
	// The end takes as long as what came before it.
	if c, ok := to.(*net.TCPConn); ok && !dead {
		_ = c.CloseWrite() // it may have ended already
	}
}

// raise makes a number as large as n.
func raise(at *atomic.Int64, n int64) {
	for {
		old := at.Load()
		if n <= old || at.CompareAndSwap(old, n) {
			return
		}
	}
}
