package mailnet

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// Conn is a network connection whose deadlines roll: the peer may be silent
// for so long, and each octet starts the clock anew. Deadlines that a library
// sets on it are ignored. One goroutine reads and one writes at a time, as
// with any net.Conn; the other methods are safe for concurrent use.
type Conn struct {
	net.Conn
	address  string
	timeouts Timeouts
	secure   bool
	readSet  time.Time // when the read deadline was last moved
	idle     func() bool
	pace     *Pace
	cause    atomic.Pointer[error] // why it was closed from this side
	received atomic.Int64
	sent     atomic.Int64

	flowing atomic.Bool  // something was read since the last Write
	flow    atomic.Int64 // octets read while flowing
	waited  atomic.Int64 // nanoseconds that it took
}

// NewConn wraps c. The address stands in errors.
func NewConn(c net.Conn, address string, t Timeouts) *Conn {
	return &Conn{Conn: c, address: address, timeouts: t.withDefaults()}
}

// Address returns the address as dialed, host:port.
func (c *Conn) Address() string { return c.address }

// Secure reports whether TLS protects the connection.
func (c *Conn) Secure() bool { return c.secure }

// Facts returns what tells the server from another, for source.Opened: the
// address as dialed, the IP that answered, and where TLS protects the
// connection its version and the sha256 of the server's certificate.
func (c *Conn) Facts() map[string]string {
	f := map[string]string{"address": c.address}
	if at := c.RemoteAddr(); at != nil {
		if host, _, err := net.SplitHostPort(at.String()); err == nil {
			f["ip"] = host
		}
	}
	if tc, ok := c.Conn.(*tls.Conn); ok {
		st := tc.ConnectionState()
		f["tls"] = tls.VersionName(st.Version)
		if len(st.PeerCertificates) > 0 {
			sum := sha256.Sum256(st.PeerCertificates[0].Raw)
			f["certificate_sha256"] = hex.EncodeToString(sum[:])
		}
	}
	return f
}

// Received returns the octets read so far, above TLS.
func (c *Conn) Received() int64 { return c.received.Load() }

// Sent returns the octets written so far, above TLS.
func (c *Conn) Sent() int64 { return c.sent.Load() }

// Flow returns how many octets were read in the middle of answers, and how
// long they were waited for: what the way from the server carries. The first
// octets after a Write are left out, as they wait for the server's work and a
// round trip; what waits here already, because the reader is slow, takes no
// time.
func (c *Conn) Flow() (octets int64, took time.Duration) {
	return c.flow.Load(), time.Duration(c.waited.Load())
}

// SetIdle sets the function that tells whether nothing is expected from the
// peer: then its silence is no error. It is called from Read, and must be set
// before the first.
func (c *Conn) SetIdle(f func() bool) { c.idle = f }

// SetPace makes Read keep to the pace's octets a second. It must be set
// before the first Read.
func (c *Conn) SetPace(p *Pace) { c.pace = p }

// Read reads what has come. A peer that is silent for longer than
// Timeouts.Read is a fault.Unavailable; a connection closed by CloseOn gives
// its context's cause.
func (c *Conn) Read(p []byte) (int, error) {
	for {
		// Moving a deadline costs a lock in the runtime: an eighth of the
		// time is close enough.
		now := time.Now()
		if now.Sub(c.readSet) > c.timeouts.Read/8 {
			c.Conn.SetReadDeadline(now.Add(c.timeouts.Read))
			c.readSet = now
		}
		n, err := c.Conn.Read(p)
		if n > 0 {
			if c.flowing.Swap(true) {
				c.flow.Add(int64(n))
				c.waited.Add(int64(time.Since(now)))
			}
			c.received.Add(int64(n))
			if c.pace != nil {
				c.pace.octets(n, func() bool { return c.cause.Load() != nil })
			}
		}
		if err == nil {
			return n, nil
		}
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && c.idle != nil && c.idle() {
			c.readSet = time.Time{}
			continue
		}
		return n, c.explain(err)
	}
}

// Write writes p. It also starts the clock of Read anew: an answer is
// expected from now on.
func (c *Conn) Write(p []byte) (int, error) {
	c.flowing.Store(false)
	now := time.Now()
	c.Conn.SetWriteDeadline(now.Add(c.timeouts.Write))
	c.Conn.SetReadDeadline(now.Add(c.timeouts.Read))
	n, err := c.Conn.Write(p)
	c.sent.Add(int64(n))
	if err != nil {
		return n, c.explain(err)
	}
	return n, nil
}

func (c *Conn) explain(err error) error {
	if cause := c.cause.Load(); cause != nil {
		return *cause
	}
	return err
}

// CloseOn closes the connection when ctx ends, which frees whoever is blocked
// on it. The function returned takes that back; it may be called twice.
func (c *Conn) CloseOn(ctx context.Context) (release func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	stop := context.AfterFunc(ctx, func() {
		cause := context.Cause(ctx)
		c.cause.CompareAndSwap(nil, &cause)
		c.Conn.Close()
	})
	return func() { stop() }
}

// SetDeadline does nothing: the deadlines are the connection's own.
func (c *Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing, as SetDeadline.
func (c *Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing, as SetDeadline.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }
