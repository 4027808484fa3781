// Package popconn is one POP3 connection: go-pop3 over a net.Conn of ours. The
// library opens the session, sends the commands and reads their status lines.
// What follows a status line never reaches it: lists, headers and messages are
// read here, octet by octet as the server sent them, because the library turns
// bare LF into CR LF, takes LF "." LF for the end of a message, and holds whole
// messages in memory.
package popconn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/knadh/go-pop3"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
)

const readBuffer = 64 << 10

// Conn is an open, authenticated session. One goroutine uses it at a time.
type Conn struct {
	net    *mailnet.Conn
	in     *incoming
	br     *bufio.Reader // of in
	wire   *wire
	lib    *pop3.Conn
	caps   map[string]string // name in upper case -> arguments
	body   Body
	broken error
	look   mailnet.Lookout // for the server's next octet
}

// Has reports whether the server names a capability, in upper case (RFC 2449).
func (c *Conn) Has(capability string) bool {
	_, ok := c.caps[capability]
	return ok
}

// Capable reports whether the server said what it can at all.
func (c *Conn) Capable() bool { return len(c.caps) > 0 }

// Net returns the network connection, for CloseOn.
func (c *Conn) Net() *mailnet.Conn { return c.net }

// Broken reports whether the connection is of no more use.
func (c *Conn) Broken() bool { return c.broken != nil }

// Close hangs up without QUIT: nothing changes on the server (I7).
func (c *Conn) Close() error {
	if c.broken == nil {
		c.broken = fault.New(fault.Unavailable, "the connection to %s is closed", c.net.Address())
	}
	return c.net.Close()
}

// Quit ends the session with QUIT, which makes the server commit what the
// session did: Gmail marks the messages retrieved as popped.
func (c *Conn) Quit(ctx context.Context) error {
	defer c.Close()
	defer c.net.CloseOn(ctx)()
	_, err := c.Do("QUIT")
	return err
}

// fail ends the connection. The error that is returned is what every later
// call returns, too.
func (c *Conn) fail(err error) error {
	if c.broken != nil {
		return c.broken
	}
	if fault.As(err) == nil && !errors.Is(err, context.Canceled) {
		err = mailnet.Classify(err, "talk to "+c.net.Address())
	}
	c.broken = err
	_ = c.net.Close()
	return err
}

// Send writes a command. It goes out when an answer is waited for, or with
// Flush: commands that are sent together travel together (RFC 2449 §6.6).
func (c *Conn) Send(command string) error {
	if c.broken != nil {
		return c.broken
	}
	if strings.ContainsAny(command, "\r\n\x00") {
		// Nothing that a server or a user wrote becomes a second command.
		return fault.New(fault.Config, "a command may not hold a line break: %q", verb(command))
	}
	if err := c.lib.Send(command); err != nil {
		return c.fail(err)
	}
	return nil
}

// Flush sends what Send wrote.
func (c *Conn) Flush() error {
	if err := c.wire.flush(); err != nil {
		return c.fail(err)
	}
	return nil
}

// Refused is a -ERR.
type Refused struct{ Text string }

// Error returns the server's words.
func (r *Refused) Error() string { return fmt.Sprintf("the server answered %q", "-ERR "+r.Text) }

// Ready sends what Send wrote, and returns a channel that is closed once there
// is an answer to read, or an error; nil: there is already. Answer may be
// called at any time.
func (c *Conn) Ready() <-chan struct{} {
	if c.broken != nil || c.body.open || c.Flush() != nil {
		return nil
	}
	return c.look.Ready(c.br)
}

// Answer reads the status line of the oldest command that has none yet, and
// returns its text. -ERR is a *Refused; after any other error the connection
// is broken. What is left of a multi-line answer before it is read first.
func (c *Conn) Answer() ([]byte, error) {
	if c.broken != nil {
		return nil, c.broken
	}
	if err := c.look.End(); err != nil {
		return nil, c.fail(err)
	}
	if err := c.body.Skip(); err != nil {
		return nil, err
	}
	text, err := c.lib.ReadOne()
	switch {
	case err == nil:
		return text, nil
	case c.wire.refused:
		return nil, &Refused{Text: c.wire.text}
	}
	return nil, c.fail(err)
}

// Do sends a command and reads its status line.
func (c *Conn) Do(command string) ([]byte, error) {
	if err := c.Send(command); err != nil {
		return nil, err
	}
	return c.Answer()
}

// Body returns the octets that follow the status line read last. They are
// read to their end by the next Answer if nobody else does. More than limit
// octets break the connection: no answer is endless. about is how many the
// server says there are, 0 or less where it doesn't; nothing but time hangs on
// that.
func (c *Conn) Body(limit, about int64) *Body {
	c.body = Body{c: c, left: limit, about: about, bare: c.wire.bare, open: true, bol: true}
	return &c.body
}

// verb returns a command without its arguments, which may be secret.
func verb(command string) string {
	v, _, _ := strings.Cut(command, " ")
	return v
}
