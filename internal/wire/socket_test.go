//go:build linux

package wire

import (
	"net"
	"path/filepath"
	"syscall"
	"testing"
)

// TestSocketsAreWide: at both ends of a unix socket, and that any other
// connection is taken as it is.
func TestSocketsAreWide(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	usual := sendBuffer(t, here)
	if c, _, err := newWide().ClientHandshake(t.Context(), "", here); err != nil || c != here {
		t.Fatalf("the client's end: %v, %v", c, err)
	}
	if c, _, err := newWide().Clone().ServerHandshake(there); err != nil || c != there {
		t.Fatalf("the server's end: %v, %v", c, err)
	}
	// A system may allow less than is asked for; Linux allows twice the usual.
	for end, c := range map[string]net.Conn{"client": here, "server": there} {
		if got := sendBuffer(t, c); got <= usual {
			t.Errorf("the %s's end holds %d octets, as before", end, got)
		}
	}
	a, b := net.Pipe()
	defer b.Close()
	defer a.Close()
	if c, _, err := newWide().ClientHandshake(t.Context(), "", a); err != nil || c != a {
		t.Errorf("a pipe: %v, %v", c, err)
	}
}

func sendBuffer(t *testing.T, c net.Conn) (octets int) {
	t.Helper()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err == nil {
		var wrong error
		err = raw.Control(func(fd uintptr) {
			octets, wrong = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
		})
		if err == nil {
			err = wrong
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return octets
}
