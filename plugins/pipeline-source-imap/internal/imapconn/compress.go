package imapconn

import (
	"bufio"
	"compress/flate"
	"context"
)

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
