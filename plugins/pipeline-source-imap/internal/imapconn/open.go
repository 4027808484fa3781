package imapconn

import (
	"bufio"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
)

// Settings are what a connection is opened with.
type Settings struct {
	Dialer      *mailnet.Dialer
	Credentials *mailnet.Credentials
	Pace        *mailnet.Pace
	Compress    string // auto, always, never
}

// Open connects, secures and logs in. A refused login is a fault.Auth with
// the server's words.
func Open(ctx context.Context, s *Settings) (*Conn, error) {
	return mailnet.Renewing(s.Credentials, func(renewed bool) (*Conn, error) { return open(ctx, s, renewed) })
}

func open(ctx context.Context, s *Settings, renewed bool) (*Conn, error) {
	nc, err := s.Dialer.Dial(ctx)
	if err != nil {
		return nil, err
	}
	nc.SetPace(s.Pace)
	c := &Conn{net: nc, w: nc, br: bufio.NewReaderSize(nc, readBuffer)}
	release := nc.CloseOn(ctx)
	defer release()
	if err := c.establish(ctx, s, renewed); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) establish(ctx context.Context, s *Settings, renewed bool) error {
	preauth, err := c.secure(ctx, s.Dialer)
	if err != nil {
		return err
	}
	c.lib = newLibConn(c)
	// The greeting was read above; the library wants one of its own.
	greet := &Response{Name: "OK", Text: "ready"}
	if c.caps != nil {
		greet.Code = "CAPABILITY"
		for w := range c.caps {
			greet.Argument += " " + w
		}
	}
	c.lib.out = append(safeState("*", greet), '\r', '\n')
	client := imapclient.New(c.lib, &imapclient.Options{})
	if err := client.WaitGreeting(); err != nil {
		return c.loginError(err, s)
	}
	if !preauth {
		if err := c.login(ctx, client, s.Credentials, renewed); err != nil {
			return err
		}
	}
	return c.takeOver(ctx, s)
}

// secure reads the greeting and turns on TLS where it is to be. Nothing is
// sent before the greeting, nothing is pipelined behind STARTTLS, and what
// came before TLS is thrown away (RFC 9051 §11.1).
func (c *Conn) secure(ctx context.Context, d *mailnet.Dialer) (preauth bool, err error) {
	greeted := c.net.AwaitGreeting(ctx, d)
	r, err := c.greeting()
	greeted()
	if err != nil {
		return false, err
	}
	preauth = r.Name == "PREAUTH"
	mode := d.Mode()
	if mode == mailnet.TLS || mode == mailnet.None {
		return preauth, nil
	}
	if preauth {
		return false, fault.New(fault.Config, "%s greets with PREAUTH before TLS: it can't be made secure", c.net.Address()).
			WithHint("use security: tls").WithKey("security")
	}
	if c.caps == nil {
		if _, err := c.Do(ctx, "CAPABILITY", nil); err != nil {
			return false, err
		}
	}
	if !c.caps["STARTTLS"] {
		if mode == mailnet.Auto {
			return false, d.PlainAllowed()
		}
		return false, fault.New(fault.Config, "%s offers no STARTTLS", c.net.Address()).
			WithHint("use security: tls with the port for TLS (993)").WithKey("security")
	}
	if _, err := c.Do(ctx, "STARTTLS", nil); err != nil {
		return false, err
	}
	if c.br.Buffered() > 0 {
		return false, fault.New(fault.Config, "%s sent something between STARTTLS and TLS: somebody may be in between", c.net.Address()).
			WithKey("security")
	}
	c.caps = nil
	if err := d.StartTLS(ctx, c.net); err != nil {
		return false, err
	}
	c.br.Reset(c.net)
	return false, nil
}

func (c *Conn) greeting() (*Response, error) {
	for {
		r, err := c.Next()
		if err != nil {
			if c.goodbye != "" {
				return nil, err
			}
			return nil, fault.Wrap(fault.Unavailable, err, "wait for the greeting")
		}
		switch {
		case r.Tag == "+": // nothing was sent that a server could ask more of
			return nil, fault.New(fault.Config, "%s greets as a POP3 server does, not as an IMAP server", c.net.Address()).
				WithHint("use the port for IMAP (993, or 143 without TLS), or the plugin pop3").WithKey("address")
		case r.Tag != "":
		case r.Name == "BYE":
			return nil, c.lost(errors.New("BYE"))
		case r.Name == "OK" || r.Name == "PREAUTH":
			return r, nil
		}
	}
}

func (c *Conn) login(ctx context.Context, client *imapclient.Client, cred *mailnet.Credentials, renewed bool) error {
	client.Caps()
	var offered []string
	for w := range c.caps {
		if m, ok := strings.CutPrefix(w, "AUTH="); ok {
			offered = append(offered, m)
		}
	}
	sc, err := cred.Client(ctx, offered, renewed)
	if err != nil {
		return err
	}
	if sc == nil {
		if c.caps["LOGINDISABLED"] {
			return fault.New(fault.Config, "%s refuses passwords without TLS (LOGINDISABLED)", c.net.Address()).
				WithHint("use security: tls or starttls").WithKey("security")
		}
		password, err := cred.Secret(ctx)
		if err != nil {
			return err
		}
		return c.loginErr(client.Login(cred.Username, password).Wait(), nil, cred)
	}
	return c.loginErr(client.Authenticate(sc), sc, cred)
}

func (c *Conn) loginError(err error, s *Settings) error { return c.loginErr(err, nil, s.Credentials) }

// loginErr classes what the login ended with. The password is in none of it
// (I9): only the server's words.
func (c *Conn) loginErr(err error, sc sasl.Client, cred *mailnet.Credentials) error {
	if err == nil {
		return nil
	}
	tried := "log in to " + c.net.Address() + " as " + cred.Username
	var said *imap.Error
	if errors.As(err, &said) {
		text := said.Text
		if more := mailnet.Refusal(sc); more != "" {
			text += " (" + more + ")"
		}
		f := refusal(fault.Auth, string(said.Type), string(said.Code), cred.Hide(text), tried)
		if f.Class == fault.Auth && f.Hint == "" {
			f.Hint = "check username and password; many providers want an app password or OAuth2 here"
		}
		return f
	}
	if c.goodbye != "" {
		return refusal(fault.Unavailable, "BYE", "", cred.Hide(c.goodbye), tried)
	}
	return mailnet.Classify(err, tried)
}

// myName is told to servers that have ID (RFC 2971): some open no mailbox for a
// client without a name.
const myName = `ID ("name" "mailhaul" "vendor" "github.com/mailhaul/pipeline")`

// hear notes what the server says of itself after the login.
func (c *Conn) hear(r *Response) error {
	switch r.Name {
	case "ID":
		c.ServerID = string(r.Data)
	case "ENABLED":
		c.utf8 = c.utf8 || strings.Contains(strings.ToUpper(string(r.Data)), "UTF8=ACCEPT")
	}
	return nil
}

// takeOver ends the library's part: from here on the wire is ours.
func (c *Conn) takeOver(ctx context.Context, s *Settings) error {
	c.lib.mu.Lock()
	c.lib.taken = true
	c.lib.mu.Unlock()
	start := time.Now()
	tag, err := c.Send("CAPABILITY")
	if err != nil {
		return err
	}
	// The name goes along where the server was heard to want it: a round trip
	// less. What it says to it is read below.
	waiting := []string{tag}
	named := c.caps["ID"]
	if named {
		also, err := c.Send(myName)
		if err != nil {
			return err
		}
		waiting = append(waiting, also)
	}
	c.lib.take()
	c.inside = true
	for len(waiting) > 0 {
		r, err := c.Next()
		if err != nil {
			return err
		}
		if r.Tag == tag {
			if err := r.Err("CAPABILITY"); err != nil {
				return err
			}
			c.trip = time.Since(start)
		}
		_ = c.hear(r) // never an error
		waiting = slices.DeleteFunc(waiting, func(t string) bool { return t == r.Tag })
	}
	if c.caps["ID"] && !named {
		if _, err := c.Do(ctx, myName, c.hear); err != nil && c.Broken() {
			return err
		}
	}
	if c.caps["UTF8=ACCEPT"] && c.caps["ENABLE"] {
		if _, err := c.Do(ctx, "ENABLE UTF8=ACCEPT", c.hear); err != nil && c.Broken() {
			return err
		}
	}
	if c.adapts = c.caps["COMPRESS=DEFLATE"] && s.Compress == "auto"; c.caps["COMPRESS=DEFLATE"] && s.Compress == "always" {
		return c.compress(ctx)
	}
	return nil
}
