package objects

import (
	"errors"
	"net"
	"os"
	"time"
)

// storeSilence is how long the store's process may say nothing while a call is
// under way. While it waits for a server it says so every few seconds (Beat):
// silence is a process that is stopped or hangs, however slow the server is.
const storeSilence = time.Minute

// Beat returns how often the store says that it is still at a call, for whom
// that long a silence is too long; 0 is the usual.
func Beat(silence time.Duration) time.Duration {
	if silence <= 0 {
		silence = storeSilence
	}
	return min(silence/6, 5*time.Second)
}

// Moving returns a connection that ends when nothing was read or written on it
// for that long: not a limit on the whole, so that what is slow and large
// comes through. The error then has a Silence.
func Moving(c net.Conn, silence time.Duration) net.Conn { return &moving{c, silence} }

type moving struct {
	net.Conn
	silence time.Duration
}

// silentError is that nothing moved on a connection.
type silentError time.Duration

func (e silentError) Error() string { return "nothing came for " + time.Duration(e).String() }

// Silence returns how long nothing moved on a connection of Moving, where that
// is what err is about; else 0.
func Silence(err error) time.Duration {
	var e silentError
	errors.As(err, &e)
	return time.Duration(e)
}

// Read implements net.Conn.
func (c *moving) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if n > 0 { // who answers is awake, though it may take nothing just now
		_ = c.SetWriteDeadline(time.Now().Add(c.silence)) // a closed connection says so itself
	}
	return n, c.told(err)
}

// atOnce is how many octets must get through before the silence is up.
const atOnce = 64 << 10

// Write implements net.Conn.
func (c *moving) Write(p []byte) (int, error) {
	done := 0
	for {
		if err := c.SetDeadline(time.Now().Add(c.silence)); err != nil { // an answer is waited for from here on
			return done, err
		}
		n, err := c.Conn.Write(p[done:min(done+atOnce, len(p))])
		if done += n; err != nil || done == len(p) {
			return done, c.told(err)
		}
	}
}

func (c *moving) told(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return silentError(c.silence)
	}
	return err
}
