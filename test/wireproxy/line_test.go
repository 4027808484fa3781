package wireproxy

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// TestALineTakesItsTime: never sooner than the round trips and the bandwidth
// allow, and what is sent without waiting for answers takes one round trip.
func TestALineTakesItsTime(t *testing.T) {
	t.Parallel()
	const trip = 40 * time.Millisecond
	p := Start(t, echo(t))
	p.Over(Line{RoundTrip: trip, Octets: 1e6})
	start := time.Now()
	c, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	msg := bytes.Repeat([]byte("0123456789"), 2000)
	for range 5 { // pipelined: the server echoes all that it gets
		if _, err := c.Write(msg); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, 5*len(msg))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, bytes.Repeat(msg, 5)) {
		t.Fatalf("other octets came than were sent, or %v", err)
	}
	// Connected after a round trip and a half, and there and back; 100,000 octets
	// at a million a second, of which one direction overlaps the other.
	if took, least := time.Since(start), trip*5/2+100*time.Millisecond; took < least {
		t.Errorf("it took %s, and the line allows no less than %s", took, least)
	}
	if n := p.Trips(); n != 2 {
		t.Errorf("%d round trips, want 2: connecting, with what was sent at once", n)
	}
	for n := range 3 {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got[:1]); err != nil {
			t.Fatal(err)
		}
		if want := 3 + n; p.Trips() != want {
			t.Errorf("%d round trips, want %d", p.Trips(), want)
		}
	}
	if p.Up() != 100_003 || p.Down() != 100_003 {
		t.Errorf("up %d, down %d; want 100003 of each", p.Up(), p.Down())
	}
}

// TestALineEnds: what was sent before the end still comes, then the end.
func TestALineEnds(t *testing.T) {
	t.Parallel()
	p := Start(t, echo(t))
	p.Over(Line{RoundTrip: 20 * time.Millisecond})
	c, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("the last words")); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "the last words" {
		t.Errorf("%q, %v", got, err)
	}
}
