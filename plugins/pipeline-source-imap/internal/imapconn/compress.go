package imapconn

import (
	"bufio"
	"compress/flate"
	"context"
	"time"
)

// When a link is taken for a slow one, where compressing is worth the server's
// time: so little comes through, over so much of it, from a server that isn't
// next door (a near one that is slow is busy, and would be more so). Dovecot
// deflates 15 MB of mail a second where it sends 445 as they are, 30 times as
// many; over a link that carries 6.5 MB it brings 14 (BenchmarkCompress).
const (
	slowRate = 5_000_000 // octets a second
	enough   = 1 << 20   // octets
	nextDoor = 4 * time.Millisecond
)

// Slow reports whether Adapt would turn compression on.
func (c *Conn) Slow() bool {
	if !c.adapts || c.Compressed {
		return false
	}
	octets, took := c.net.Flow()
	return slow(octets, took, c.trip)
}

func slow(octets int64, took, trip time.Duration) bool {
	return trip >= nextDoor && octets >= enough && float64(octets) < slowRate*took.Seconds()
}

// Adapt turns compression on where the link turned out to be slow. No command
// is under way.
func (c *Conn) Adapt(ctx context.Context) error {
	if !c.Slow() {
		return nil
	}
	c.adapts = false // asked once
	return c.compress(ctx)
}

// compress turns on COMPRESS=DEFLATE (RFC 4978). A server that refuses stays
// as it was.
func (c *Conn) compress(ctx context.Context) error {
	if _, err := c.Do(ctx, "COMPRESS DEFLATE", nil); err != nil {
		if c.Broken() {
			return err
		}
		return nil
	}
	w, err := flate.NewWriter(c.net, flate.DefaultCompression)
	if err != nil {
		return err
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	// What is in the buffer already is the beginning of the stream.
	c.br = bufio.NewReaderSize(flate.NewReader(c.br), readBuffer)
	c.w = flushing{w}
	c.Compressed = true
	return nil
}

// flushing sends each command at once.
type flushing struct{ *flate.Writer }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err == nil {
		err = f.Flush()
	}
	return n, err
}
