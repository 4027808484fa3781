package imapsource

import (
	"context"
	"log/slog"
	"time"

	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
)

// maxIdle is how long a connection may rest in the pool: servers hang up
// after 30 minutes (RFC 9051 §5.4), firewalls sooner.
const maxIdle = 4 * time.Minute

func newPool(limit int, s *imapconn.Settings, log *slog.Logger) *mailnet.Pool[*imapconn.Conn] {
	p := &mailnet.Pool[*imapconn.Conn]{
		Open: func(ctx context.Context) (*imapconn.Conn, error) { return imapconn.Open(ctx, s) },
		End:  (*imapconn.Conn).Logout, MaxIdle: maxIdle, Log: log,
	}
	p.Start(max(limit, 1))
	return p
}

// opened prefers a connection that has the mailbox open already.
func opened(mailbox string) func(*imapconn.Conn) bool {
	return func(c *imapconn.Conn) bool {
		o := c.Opened()
		return o != nil && o.Mailbox == mailbox
	}
}
