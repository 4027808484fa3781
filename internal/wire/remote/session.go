package remote

import (
	"context"
	"time"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Spec is what a session is opened with.
type Spec struct {
	Name    string // the session's name in the file
	Config  []byte // JSON; a secret stands as {"$secret": "ref"}
	Secrets Secrets
	Spool   *message.Spool // also for bodies on the host's side; may be nil
}

// session is the part that all kinds of session share.
type session struct {
	conn   *Conn
	number uint64
	spool  *message.Spool
	merges bool // closing it may take long: only the caller's context bounds it
}

func (c *Conn) open(ctx context.Context, spec Spec, state *pluginpb.SinkState) (session, *pluginpb.OpenResponse, error) {
	s := session{conn: c, number: c.number.Add(1), spool: spec.Spool}
	c.mu.Lock()
	c.secrets[s.number] = spec.Secrets
	c.mu.Unlock()
	req := &pluginpb.OpenRequest{Name: spec.Name, Config: spec.Config, Sink: state, Session: s.number}
	if spec.Spool != nil {
		req.SpoolDir, req.SpoolBudget = spec.Spool.Dir, spec.Spool.Budget
	}
	answered := c.call("Open of " + spec.Name)
	o, err := c.plugin.Open(ctx, req)
	answered()
	if err != nil {
		err = c.lost(ctx, err)
	} else {
		err = c.error(o.GetError())
	}
	if err != nil {
		s.forget()
		return session{}, nil, err
	}
	if o.GetShares() {
		c.o.Memory.Share()
	}
	return s, o, nil
}

func (s *session) forget() {
	s.conn.mu.Lock()
	delete(s.conn.secrets, s.number)
	s.conn.mu.Unlock()
}

// closeTimeout is how long a plugin may take to close a session.
const closeTimeout = 30 * time.Second

// close ends the session.
func (s *session) close(ctx context.Context) error {
	defer s.forget()
	if !s.merges {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, closeTimeout)
		defer cancel()
	}
	r, err := s.conn.plugin.Close(ctx, &pluginpb.CloseRequest{Session: s.number})
	if err != nil {
		return s.conn.lost(ctx, err)
	}
	return s.conn.error(r.GetError())
}

func needs(n uint32) message.Needs { return message.Needs(n) }
