package mailnet

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// AwaitGreeting watches over the wait for the greeting of a server that was
// dialed without TLS. A port that is for TLS stays silent there, as it waits for
// the client to begin: after a twelfth of Timeouts.Read (10 s of the default) a
// second connection tries a handshake, and where that stands, c is closed and
// its Read returns a fault.Config that says so. Nothing else is sent.
//
// The function returned ends the watch. It must be called when the greeting is
// there or has failed, before anything else is done with c. On a connection
// that is secure both do nothing.
func (c *Conn) AwaitGreeting(ctx context.Context, d *Dialer) (greeted func()) {
	if c.secure {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		silent := time.NewTimer(c.timeouts.Read / 12)
		defer silent.Stop()
		select {
		case <-ctx.Done():
			return
		case <-silent.C:
		}
		if !d.speaksTLS(ctx) {
			return
		}
		var err error = fault.New(fault.Config, "%s says nothing in clear: it speaks TLS from the first octet", c.address).
			WithHint("use security: tls, or the port without TLS").WithKey("security")
		c.cause.CompareAndSwap(nil, &err)
		c.Conn.Close()
	}()
	return func() {
		cancel()
		<-done
	}
}

// speaksTLS reports whether a TLS handshake with the server succeeds, whoever
// it is: no secret is sent over that connection.
func (d *Dialer) speaksTLS(ctx context.Context) bool {
	cfg, err := d.TLS.Client(d.Host())
	if err != nil {
		return false
	}
	cfg.InsecureSkipVerify = true
	ctx, cancel := context.WithTimeout(ctx, d.Timeouts.withDefaults().Connect)
	defer cancel()
	c, err := (&tls.Dialer{NetDialer: new(net.Dialer), Config: cfg}).DialContext(ctx, "tcp", d.HostPort())
	if err != nil {
		return false
	}
	c.Close()
	return true
}
