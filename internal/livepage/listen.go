package livepage

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// Door is where the page is to be had: an address that is taken, and who may
// come in.
type Door struct {
	listener net.Listener
	names    []string // that a browser may call it, besides addresses
	token    string   // empty: none is asked for
	remote   bool
}

// Open takes an address, host:port, at which nothing is answered before Serve.
// Others than this machine may reach it only when remote says so: then the page
// asks for a token. Close must be called.
func Open(ctx context.Context, address string, remote bool) (*Door, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fault.New(fault.Config, "--ui %s: this is no address", address).WithHint("give host and port, as in 127.0.0.1:8080; port 0 takes a free one")
	}
	bound, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, fault.New(fault.Config, "--ui %s: %w", address, err).WithHint("give an address of this machine and a port, as in 127.0.0.1:8080")
	}
	if !bound.IP.IsLoopback() && !remote {
		return nil, fault.New(fault.Config, "--ui %s: other machines could open the page", address).
			WithHint("127.0.0.1:%s is for this machine alone (from another: ssh -L %s:127.0.0.1:%s); with --ui-remote the page asks for a token, over plain HTTP", port, port, port)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", bound.String())
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fault.New(fault.Config, "--ui %s: the port is taken", address).
			WithHint("another run may show its page there: give each one of its own, or port 0 for a free one")
	}
	if err != nil {
		return nil, fault.New(fault.Config, "--ui %s: %w", address, err).WithHint("give an address of this machine and a port that this user may take, as in 127.0.0.1:8080")
	}
	d := &Door{listener: l, remote: !bound.IP.IsLoopback()}
	if d.remote {
		d.token = rand.Text()
		if name, err := os.Hostname(); err == nil {
			d.names = append(d.names, strings.ToLower(name))
		}
		if _, err := netip.ParseAddr(host); err != nil && host != "" {
			d.names = append(d.names, strings.ToLower(host))
		}
	}
	return d, nil
}

// Close gives the address back. After Serve it has no effect.
func (d *Door) Close() error { return d.listener.Close() }

// URL is what a person opens in a browser, with the token where there is one.
func (d *Door) URL() string {
	url := "http://" + d.host() + "/"
	if d.token != "" {
		url += "?token=" + d.token
	}
	return url
}

// host is an address that leads here: of all, the first that isn't of this
// machine alone.
func (d *Door) host() string {
	bound, ok := d.listener.Addr().(*net.TCPAddr)
	if !ok || !bound.IP.IsUnspecified() {
		return d.listener.Addr().String()
	}
	_, port, _ := net.SplitHostPort(bound.String())
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return net.JoinHostPort(n.IP.String(), port)
		}
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// called reports whether a browser may call this place so. A name that anybody
// can make lead here (DNS rebinding) would let their page read ours.
func (d *Door) called(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "localhost" {
		return true
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return d.remote || ip.Unmap().IsLoopback()
	}
	for _, name := range d.names {
		if host == name {
			return true
		}
	}
	return false
}
