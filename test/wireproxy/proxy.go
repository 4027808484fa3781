// Package wireproxy is a TCP proxy for tests: it counts what crosses the wire,
// and cuts, stalls or refuses connections.
package wireproxy

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Way is how a connection breaks.
type Way int

// The ways.
const (
	Close   Way = iota // both sides are closed, as by a server that ends
	Reset              // the client's side is reset (RST), as by a firewall or a crashed server
	Silence            // half-open: the server is gone, and the client isn't told
)

// Proxy forwards connections to a server. Its methods may be called at any
// time, and hold for connections made from then on. It ends with the test.
type Proxy struct {
	Addr string // host:port to dial

	up, down    atomic.Int64
	connections atomic.Int64
	stalled     atomic.Bool
	refusing    atomic.Bool

	mu   sync.Mutex
	open map[net.Conn]bool
	tap  func(fromServer bool, p []byte)
	fail func(connection int) (after int64, how Way)
	bits bool
	lag  time.Duration
	rate float64
	line *line
}

// Start starts a proxy to the server at target, host:port.
func Start(tb testing.TB, target string) *Proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), open: map[net.Conn]bool{}}
	tb.Cleanup(func() {
		l.Close()
		p.CutAll()
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c, target)
		}
	}()
	return p
}

// Up returns the octets that clients sent.
func (p *Proxy) Up() int64 { return p.up.Load() }

// Down returns the octets that the server sent.
func (p *Proxy) Down() int64 { return p.down.Load() }

// Connections returns how many connections were made.
func (p *Proxy) Connections() int64 { return p.connections.Load() }

// Reset sets the counts to zero.
func (p *Proxy) Reset() {
	p.up.Store(0)
	p.down.Store(0)
	p.connections.Store(0)
}

// Stall stops forwarding what the server sends, until it is called with false.
func (p *Proxy) Stall(on bool) { p.stalled.Store(on) }

// Refuse closes new connections at once, until it is called with false.
func (p *Proxy) Refuse(on bool) { p.refusing.Store(on) }

// CutAll cuts all connections that are open.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		c.Close()
	}
}

// Cut cuts connections after so many octets from the server: f is asked for
// each, numbered from 1; 0 is at once, -1 never.
func (p *Proxy) Cut(f func(connection int) int64) {
	p.Break(func(connection int) (int64, Way) { return f(connection), Close })
}

// Break breaks connections after so many octets from the server, as Cut does,
// each in its way. nil breaks none.
func (p *Proxy) Break(f func(connection int) (after int64, how Way)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = f
}

// Singly passes octets on one at a time, each in a write of its own.
func (p *Proxy) Singly(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bits = on
}

// Delay holds each piece from the server back for so long.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lag = d
}

// Rate lets so many octets a second of the server's pass, on each connection.
func (p *Proxy) Rate(octets float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = octets
}

// Tap calls f with everything that passes; from several goroutines.
func (p *Proxy) Tap(f func(fromServer bool, octets []byte)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tap = f
}

// Heal takes all that was asked for back, and ends the connections that suffer
// from it.
func (p *Proxy) Heal() {
	p.Stall(false)
	p.Refuse(false)
	p.mu.Lock()
	p.fail, p.bits, p.lag, p.rate, p.line = nil, false, 0, 0, nil
	p.mu.Unlock()
	p.CutAll()
}

func (p *Proxy) serve(client net.Conn, target string) {
	n := p.connections.Add(1)
	if p.refusing.Load() {
		client.Close()
		return
	}
	p.mu.Lock()
	l := p.line
	p.mu.Unlock()
	chain := int64(0)
	if l != nil {
		chain = l.connect()
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		client.Close()
		return
	}
	p.mu.Lock()
	p.open[client], p.open[server] = true, true
	w := way{tap: p.tap, lag: p.lag, rate: p.rate, singly: p.bits, limit: -1, fromServer: true}
	fail := p.fail
	p.mu.Unlock()
	how := Close
	end := func() {
		client.Close()
		server.Close()
		p.mu.Lock()
		delete(p.open, client)
		delete(p.open, server)
		p.mu.Unlock()
	}
	if l != nil {
		l.carry(p, client, server, chain, w.tap)
		end()
		return
	}
	if fail != nil {
		w.limit, how = fail(int(n))
	}
	up := make(chan struct{})
	go func() {
		defer close(up)
		p.copy(server, client, &p.up, way{tap: w.tap, singly: w.singly, limit: -1})
		if how == Silence {
			server.Close() // the client's side may have to stay open
		} else {
			end()
		}
	}()
	broken := p.copy(client, server, &p.down, w)
	switch {
	case broken && how == Reset:
		// An error leaves the client's side to be closed: a break as well.
		_ = client.(*net.TCPConn).SetLinger(0)
	case broken && how == Silence:
		server.Close()
		<-up
		// Nothing is read or written any more, until the client closes.
		_, _ = io.Copy(io.Discard, client)
	}
	end()
}

// way is what becomes of the octets that one side of a connection sends.
type way struct {
	tap        func(bool, []byte)
	lag        time.Duration
	rate       float64
	singly     bool
	limit      int64 // -1: none
	fromServer bool
}

// copy passes octets on, and reports whether it ended at the limit.
func (p *Proxy) copy(to, from net.Conn, count *atomic.Int64, w way) (broken bool) {
	buf := make([]byte, 64<<10)
	for w.limit != 0 {
		n, err := from.Read(buf)
		if w.fromServer {
			for p.stalled.Load() {
				time.Sleep(5 * time.Millisecond)
			}
			time.Sleep(w.lag)
		}
		if w.limit > 0 {
			n = int(min(int64(n), w.limit))
			w.limit -= int64(n)
		}
		count.Add(int64(n))
		if w.rate > 0 {
			time.Sleep(time.Duration(float64(n) / w.rate * float64(time.Second)))
		}
		if w.tap != nil && n > 0 {
			w.tap(w.fromServer, buf[:n])
		}
		if werr := write(to, buf[:n], w.singly); werr != nil || err != nil {
			return false
		}
	}
	return true
}

func write(to net.Conn, octets []byte, singly bool) error {
	if !singly {
		_, err := to.Write(octets)
		return err
	}
	for i := range octets {
		if _, err := to.Write(octets[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}
