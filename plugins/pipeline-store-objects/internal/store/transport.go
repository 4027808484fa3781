package store

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/mailhaul/pipeline/pkg/objects"
)

// tries is how often an SDK does a request before the caller is told: a part
// of a big object is worth a few more than a small one, whose caller tries it
// again whole. longestPause is the longest time between two of them.
const (
	tries        = 4
	longestPause = 5 * time.Second
)

// transport is Go's own with as many connections as there are uploads, and an
// end to those on which nothing moves. It speaks HTTP/1.1 alone: a connection
// for each call tells which of them is stuck, and one connection for all would
// be as slow as its one window.
func transport(silence time.Duration) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 256, 256
	t.IdleConnTimeout = min(t.IdleConnTimeout, silence/2)
	t.ForceAttemptHTTP2 = false
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	d := net.Dialer{Timeout: min(20*time.Second, silence), KeepAlive: 30 * time.Second}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return objects.Moving(c, silence), nil
	}
	return t
}
