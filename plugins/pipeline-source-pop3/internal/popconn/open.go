package popconn

import (
	"bufio"
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/go-pop3"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
)

// Settings are what a connection is opened with.
type Settings struct {
	Dialer      *mailnet.Dialer
	Credentials *mailnet.Credentials // Mechanism may also be apop and user
	Pace        *mailnet.Pace
}

// Open connects, secures and logs in. A refused login is a fault.Auth with
// the server's words; a mailbox that another session has locked ([IN-USE],
// RFC 2449 §8.1.1) is a fault.Unavailable for which InUse is true.
func Open(ctx context.Context, s *Settings) (*Conn, error) {
	return mailnet.Renewing(s.Credentials, func(renewed bool) (*Conn, error) { return open(ctx, s, renewed) })
}

func open(ctx context.Context, s *Settings, renewed bool) (*Conn, error) {
	nc, err := s.Dialer.Dial(ctx)
	if err != nil {
		return nil, err
	}
	nc.SetPace(s.Pace)
	in := &incoming{Reader: nc, least: directLeast}
	br := bufio.NewReaderSize(in, readBuffer)
	c := &Conn{net: nc, in: in, br: br, wire: &wire{Conn: nc, br: br}}
	release := nc.CloseOn(ctx)
	defer release()
	if err := c.establish(ctx, s, renewed); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) establish(ctx context.Context, s *Settings, renewed bool) (err error) {
	greeted := c.net.AwaitGreeting(ctx, s.Dialer)
	c.lib, err = pop3.New(pop3.Opt{Dialer: c.wire}).NewConn()
	greeted()
	switch {
	case c.wire.refused:
		return refusal(fault.Unavailable, c.wire.text, "connect to "+c.net.Address(), 0)
	case err != nil:
		return fault.Wrap(fault.Unavailable, c.fail(err), "wait for the greeting")
	}
	if err := c.capabilities(); err != nil {
		return err
	}
	if err := c.secure(ctx, s.Dialer); err != nil {
		return err
	}
	if err := c.login(ctx, s.Credentials, renewed); err != nil {
		return err
	}
	if c.caps == nil || !c.Has("PIPELINING") {
		// Some servers tell all only to those who are logged in.
		return c.capabilities()
	}
	return nil
}

// mostCapabilities bounds a hostile CAPA.
const mostCapabilities = 200

// capabilities asks for what the server can do. A server that knows no CAPA
// has none.
func (c *Conn) capabilities() error {
	_, err := c.Do("CAPA")
	var refused *Refused
	if errors.As(err, &refused) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "ask for the capabilities")
	}
	caps := map[string]string{}
	err = c.Lines(mostCapabilities, func(line []byte) {
		name, args, _ := strings.Cut(strings.ToUpper(string(line)), " ")
		caps[name] = args
	})
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "read the capabilities")
	}
	c.caps = caps
	return nil
}

// secure turns on TLS where it is to be. Nothing is sent behind STLS before
// TLS stands, and a server that says more than its answer is refused: what it
// said would count as said under TLS (RFC 2595 §2.1, as for IMAP).
func (c *Conn) secure(ctx context.Context, d *mailnet.Dialer) error {
	mode := d.Mode()
	if mode == mailnet.TLS || mode == mailnet.None {
		return nil
	}
	if !c.Has("STLS") {
		if mode == mailnet.Auto {
			return d.PlainAllowed()
		}
		return fault.New(fault.Config, "%s offers no STLS", c.net.Address()).
			WithHint("use security: tls with the port for TLS (995)").WithKey("security")
	}
	if _, err := c.Do("STLS"); err != nil {
		var refused *Refused
		if errors.As(err, &refused) {
			return fault.New(fault.Config, "STLS with %s: %w", c.net.Address(), err).
				WithHint("use security: tls with the port for TLS (995)").WithKey("security")
		}
		return err
	}
	if c.br.Buffered() > 0 {
		return fault.New(fault.Config, "%s sent something between STLS and TLS: somebody may be in between", c.net.Address()).
			WithKey("security")
	}
	if err := d.StartTLS(ctx, c.net); err != nil {
		return err
	}
	c.br.Reset(c.in)
	c.caps = nil
	return c.capabilities()
}

// loginDelay is what the server says it wants between two logins
// (RFC 2449 §6.5); 0 when it doesn't say.
func (c *Conn) loginDelay() time.Duration {
	first, _, _ := strings.Cut(c.caps["LOGIN-DELAY"], " ")
	n, err := strconv.Atoi(first)
	if err != nil || n < 0 || n > 24*3600 {
		return 0
	}
	return time.Duration(n) * time.Second
}
