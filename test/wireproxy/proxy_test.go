package wireproxy

import (
	"bytes"
	"io"
	"net"
	"testing"
)

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func TestCounts(t *testing.T) {
	t.Parallel()
	p := Start(t, echo(t))
	c, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	msg := bytes.Repeat([]byte("x"), 100_000)
	go c.Write(msg)
	if _, err := io.ReadFull(c, make([]byte, len(msg))); err != nil {
		t.Fatal(err)
	}
	if p.Up() != 100_000 || p.Down() != 100_000 || p.Connections() != 1 {
		t.Errorf("up %d, down %d, connections %d; want 100000, 100000, 1", p.Up(), p.Down(), p.Connections())
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	p := Start(t, echo(t))
	p.Cut(func(n int) int64 {
		if n == 1 {
			return 10
		}
		return -1
	})
	for n, want := range []int{10, 20} {
		c, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		c.Write(bytes.Repeat([]byte("x"), 20))
		got, _ := io.ReadFull(c, make([]byte, 20))
		if got != want {
			t.Errorf("connection %d: %d octets came, want %d", n+1, got, want)
		}
		c.Close()
	}
}
