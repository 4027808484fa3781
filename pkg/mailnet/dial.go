// Package mailnet holds what every source that speaks to a mail server over
// the network shares: dialing, TLS, deadlines that roll, SASL, pace, backoff,
// and network errors in words that say what to do.
package mailnet

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Security says how a connection is protected.
type Security string

// The ways.
const (
	TLS      Security = "tls"      // TLS from the first octet (RFC 8314 §3)
	StartTLS Security = "starttls" // plain first, then TLS or nothing: never a downgrade
	Auto     Security = "auto"     // TLS where the port says so, else STARTTLS
	None     Security = "none"     // no protection; refused off loopback unless allowed
)

// Timeouts bound how long the other side may be silent. They roll: each octet
// starts them anew, so that a long transfer is fine and a dead peer isn't. A
// zero value means the default.
type Timeouts struct {
	Connect time.Duration `json:"connect" doc:"for TCP and TLS together" default:"30s"`
	Read    time.Duration `json:"read" doc:"how long the server may be silent when an answer is due" default:"2m"`
	Write   time.Duration `json:"write" doc:"how long the server may refuse to take what is sent" default:"1m"`
}

func (t Timeouts) withDefaults() Timeouts {
	if t.Connect <= 0 {
		t.Connect = 30 * time.Second
	}
	if t.Read <= 0 {
		t.Read = 2 * time.Minute
	}
	if t.Write <= 0 {
		t.Write = time.Minute
	}
	return t
}

// Dialer opens connections to one server. It is safe for concurrent use when
// its fields no longer change.
type Dialer struct {
	Address    string   // host or host:port
	Security   Security // empty means TLS
	TLS        TLSConfig
	AllowPlain bool // allow passwords and mail in clear off loopback
	Timeouts   Timeouts

	// TLSPort and PlainPort are used when Address names none, and tell Auto
	// which way a named port goes, as in 993 and 143.
	TLSPort, PlainPort int
}

// Host returns the host of the address, without the port.
func (d *Dialer) Host() string {
	host, _, err := d.split()
	if err != nil {
		return d.Address
	}
	return host
}

// HostPort returns the address with its port, the default one where none is
// named.
func (d *Dialer) HostPort() string {
	host, port, err := d.split()
	if err != nil {
		return d.Address
	}
	return net.JoinHostPort(host, port)
}

// Mode returns the Security that is in force: never Auto with a TLS port, and
// never empty. Auto that is left means STARTTLS where the server offers it.
func (d *Dialer) Mode() Security {
	switch d.Security {
	case "":
		return TLS
	case Auto:
		_, port, err := d.split()
		if err == nil && port == strconv.Itoa(d.TLSPort) {
			return TLS
		}
	}
	return d.Security
}

func (d *Dialer) split() (host, port string, err error) {
	bad := func(why string) error {
		return fault.New(fault.Config, "address %q: %s", d.Address, why).
			WithHint("write it as host or host:port").WithKey("address")
	}
	host, port, err = net.SplitHostPort(d.Address)
	if err != nil {
		host = strings.Trim(d.Address, "[]")
		if ip, e := netip.ParseAddr(host); strings.Contains(host, ":") && (e != nil || !ip.Is6()) {
			return "", "", bad("it isn't one of a host")
		}
		port = strconv.Itoa(d.TLSPort)
		if d.Security == StartTLS || d.Security == None {
			port = strconv.Itoa(d.PlainPort)
		}
	}
	if host == "" {
		return "", "", bad("no host")
	}
	if i := strings.IndexFunc(host, notInHost); i >= 0 {
		return "", "", bad(strconv.Quote(host[i:i+1]) + " may not stand in a host's name")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", "", bad("port " + strconv.Quote(port) + " isn't a number from 1 to 65535")
	}
	return host, port, nil
}

// notInHost reports whether a character can't be part of a name or address of
// a host. Letters beyond ASCII are left to the resolver.
func notInHost(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r >= 0x80 && r != utf8.RuneError:
		return false
	}
	return !strings.ContainsRune("-._:%", r) // % is for the zone of an IPv6 address
}

// Check says what is wrong with the settings, without a network. An error is
// a fault.Config with the key relative to the struct that holds them.
func (d *Dialer) Check() error {
	host, _, err := d.split()
	if err != nil {
		return err
	}
	switch d.Security {
	case "", TLS, StartTLS, Auto:
	case None:
		return d.checkPlain(host)
	default:
		return fault.New(fault.Config, "security %q is unknown", d.Security).
			WithHint("use tls, starttls, auto or none").WithKey("security")
	}
	return nil
}

// checkPlain refuses to send a password in clear over a network.
func (d *Dialer) checkPlain(host string) error {
	if d.AllowPlain || Loopback(host) {
		return nil
	}
	return fault.New(fault.Config, "security none would send the password and all mail to %s in clear", host).
		WithHint("use security: tls or starttls, or say allow_plain: true if the network is yours").WithKey("security")
}

// PlainAllowed reports whether the connection may stay without TLS: the host
// is this machine, or the user said so. Auto asks it when a server offers no
// STARTTLS.
func (d *Dialer) PlainAllowed() error { return d.checkPlain(d.Host()) }

// Loopback reports whether host names this machine itself. Names other than
// localhost are not looked up: what they mean may change.
func Loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// Dial connects, and does the TLS handshake where Mode is TLS. For the other
// modes the protocol goes on with Conn.StartTLS. Cancelling ctx ends the
// attempt; afterwards it has no influence (see Conn.CloseOn).
//
// Errors are faults: Config for what only the user can mend, as an unknown
// host or a certificate that doesn't check, else Unavailable.
func (d *Dialer) Dial(ctx context.Context) (*Conn, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	t := d.Timeouts.withDefaults()
	address := d.HostPort()
	bounded, cancel := context.WithTimeout(ctx, t.Connect)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(bounded, "tcp", address)
	if err != nil {
		return nil, Classify(callerErr(ctx, err), "connect to "+address)
	}
	c := NewConn(raw, address, t)
	if d.Mode() == TLS {
		if err := c.startTLS(ctx, d); err != nil {
			raw.Close()
			return nil, err
		}
	}
	return c, nil
}

// StartTLS turns a plain connection into one under TLS: after the server
// agreed to STARTTLS or STLS. The caller has made sure that nothing of the
// server's answer is left in a buffer (RFC 9051 §11.1: injected plaintext).
func (d *Dialer) StartTLS(ctx context.Context, c *Conn) error { return c.startTLS(ctx, d) }

func (c *Conn) startTLS(ctx context.Context, d *Dialer) error {
	cfg, err := d.TLS.Client(d.Host())
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, c.timeouts.Connect)
	defer cancel()
	tc := tls.Client(c.Conn, cfg)
	if err := tc.HandshakeContext(bounded); err != nil {
		return Classify(callerErr(ctx, err), "TLS with "+c.address)
	}
	c.Conn, c.readSet, c.secure = tc, time.Time{}, true
	return nil
}

// callerErr prefers the reason of a cancelled caller over what the network
// made of it.
func callerErr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
