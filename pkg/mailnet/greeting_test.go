package mailnet

import (
	"bufio"
	"net"
	"testing"
	"time"
)

// A server may take its time to greet: it is asked on another connection
// whether it speaks TLS, and the first one stays.
func TestALateGreetingIsWaitedFor(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		first, err := l.Accept()
		if err != nil {
			return
		}
		defer first.Close()
		second, err := l.Accept()
		if err != nil {
			return
		}
		second.Close()
		first.Write([]byte("* OK late\r\n"))
		l.Accept() // the first stays open for as long as the test
	}()
	d := &Dialer{Address: l.Addr().String(), Security: StartTLS, Timeouts: Timeouts{Read: time.Minute / 2}}
	c, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	greeted := c.AwaitGreeting(t.Context(), d)
	line, err := bufio.NewReader(c).ReadString('\n')
	greeted()
	if line != "* OK late\r\n" || err != nil {
		t.Errorf("read %q: %v", line, err)
	}
}
