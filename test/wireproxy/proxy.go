// Package wireproxy is a TCP proxy for tests: it counts what crosses the wire,
// and cuts, stalls or refuses connections.
package wireproxy

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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
	cut  func(connection int) int64
	lag  time.Duration
	rate float64
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
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = f
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

func (p *Proxy) serve(client net.Conn, target string) {
	n := p.connections.Add(1)
	if p.refusing.Load() {
		client.Close()
		return
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		client.Close()
		return
	}
	p.mu.Lock()
	p.open[client], p.open[server] = true, true
	tap, cut, lag, rate := p.tap, p.cut, p.lag, p.rate
	p.mu.Unlock()
	end := func() {
		client.Close()
		server.Close()
		p.mu.Lock()
		delete(p.open, client)
		delete(p.open, server)
		p.mu.Unlock()
	}
	limit := int64(-1)
	if cut != nil {
		limit = cut(int(n))
	}
	go func() {
		defer end()
		p.copy(server, client, &p.up, -1, 0, 0, tap, false)
	}()
	defer end()
	p.copy(client, server, &p.down, limit, lag, rate, tap, true)
}

func (p *Proxy) copy(to, from net.Conn, count *atomic.Int64, limit int64, lag time.Duration, rate float64, tap func(bool, []byte), fromServer bool) {
	buf := make([]byte, 64<<10)
	for limit != 0 {
		n, err := from.Read(buf)
		if fromServer {
			for p.stalled.Load() {
				time.Sleep(5 * time.Millisecond)
			}
			time.Sleep(lag)
		}
		if limit > 0 {
			n = int(min(int64(n), limit))
			limit -= int64(n)
		}
		count.Add(int64(n))
		if rate > 0 {
			time.Sleep(time.Duration(float64(n) / rate * float64(time.Second)))
		}
		if tap != nil && n > 0 {
			tap(fromServer, buf[:n])
		}
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}
