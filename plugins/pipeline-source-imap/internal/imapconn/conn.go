// Package imapconn is one IMAP connection. The session is opened by go-imap:
// greeting, capabilities, login. Then this package owns the wire, because the
// library ends the connection on everything it can't parse, loses bodies in
// some orders of items, and switches goroutines for each. Data commands (LIST,
// EXAMINE, STATUS, SEARCH, FETCH) are written verbatim under tags of our own,
// and their answers are read here, on the goroutine of whoever asked.
package imapconn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

const (
	readBuffer = 64 << 10
	// maxResponse bounds a response without its body: a SEARCH of millions
	// of messages or a huge header, not an endless line.
	maxResponse = 64 << 20
	keepBuffer  = 1 << 20
)

// Conn is an open, authenticated connection. One goroutine uses it at a time,
// but Send may be called by another one beside Next.
type Conn struct {
	net  *mailnet.Conn
	br   *bufio.Reader
	w    io.Writer
	caps map[string]bool
	utf8 bool // UTF8=ACCEPT is enabled: names are UTF-8

	lib *libConn

	wmu  sync.Mutex
	tags uint64
	out  []byte

	resp   Response
	buf    []byte // the response being read
	spare  []byte // the one before
	body   body
	broken error
	look   mailnet.Lookout // for the server's next octet

	trip   time.Duration // a round trip, as the login had it
	inside bool          // logged in
	adapts bool          // compression may be turned on
	opened *Opened       // the mailbox that is open; nil: none, or one that has changed

	ServerID   string // what ID said, for logs
	Compressed bool   // COMPRESS=DEFLATE is on
	Throttled  bool   // a [THROTTLED] was seen since it was last cleared
	goodbye    string // text of a BYE
}

// Opened is what the server said when it opened a mailbox; -1: it didn't say.
type Opened struct {
	Mailbox                                string
	Messages, UIDNext, UIDValidity, ModSeq int64

	ReadOnly bool
	Keeps    string // flags that can be set for good, in lower case, in their list; empty: not said
}

// Select notes which mailbox is open; nil: none.
func (c *Conn) Select(o *Opened) { c.opened = o }

// Opened returns the mailbox that is open; nil where none is, and where the
// server has said since that other messages are in it.
func (c *Conn) Opened() *Opened { return c.opened }

// Has reports whether the server has the capability, in upper case.
func (c *Conn) Has(capability string) bool { return c.caps[capability] }

// UTF8 reports whether mailbox names are UTF-8 rather than modified UTF-7.
func (c *Conn) UTF8() bool { return c.utf8 }

// Net returns the network connection below.
func (c *Conn) Net() *mailnet.Conn { return c.net }

// Broken reports whether the connection is of no more use.
func (c *Conn) Broken() bool { return c.broken != nil }

// Err returns why the connection is of no more use; nil when it is.
func (c *Conn) Err() error { return c.broken }

// Close ends the connection at once.
func (c *Conn) Close() error {
	if c.broken == nil {
		c.broken = io.ErrClosedPipe
	}
	if c.lib != nil {
		c.lib.end()
	}
	return c.net.Close()
}

// Logout says goodbye and closes. It doesn't wait for the answer.
func (c *Conn) Logout() {
	if c.broken == nil {
		_, _ = c.Send("LOGOUT") // a courtesy: whoever doesn't hear it sees the end
	}
	_ = c.Close()
}

func (c *Conn) fail(err error) error {
	if c.broken == nil {
		c.broken = err
	}
	return err
}

// lost makes an error of the wire a fault, with the server's last words.
func (c *Conn) lost(err error) error {
	if c.broken != nil {
		err = c.broken
	}
	tried := "read from " + c.net.Address()
	if c.goodbye != "" {
		return c.fail(refusal(fault.Unavailable, "BYE", "", c.goodbye, tried))
	}
	return c.fail(mailnet.Classify(err, tried))
}

// Send writes a command under a new tag, which it returns. It is safe beside
// Next. The words may hold literals as Literal makes them.
func (c *Conn) Send(command string) (tag string, err error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.tags++
	tag = "m" + strconv.FormatUint(c.tags, 10)
	c.out = append(append(append(c.out[:0], tag...), ' '), command...)
	c.out = append(c.out, '\r', '\n')
	if _, err := c.w.Write(c.out); err != nil {
		return "", mailnet.Classify(err, "write to "+c.net.Address())
	}
	return tag, nil
}

// Ready returns a channel that is closed once there is something to read, an
// error as well; nil: there is already. Next may be called at any time.
func (c *Conn) Ready() <-chan struct{} {
	if c.resp.Streams || c.broken != nil {
		return nil
	}
	return c.look.Ready(c.br)
}

// Together sends commands in one go and hands each response to f, their tagged
// ones too, until the server has answered all: one round trip. refused is the error of
// each command, nil where it was done. No command may wait for the server's
// "+" (Waits). f's Response is its until it returns.
func (c *Conn) Together(ctx context.Context, commands []string, f func(*Response) error) (refused []error, err error) {
	release := c.net.CloseOn(ctx)
	defer release()
	tags := make([]string, len(commands))
	for i, command := range commands {
		if tags[i], err = c.Send(command); err != nil {
			return nil, c.fail(err)
		}
	}
	refused = make([]error, len(commands))
	for left := len(commands); left > 0; {
		r, err := c.Next()
		if err != nil {
			return nil, err
		}
		i := slices.Index(tags, r.Tag)
		if i < 0 && r.Tag != "" {
			continue // the late answer to a command of the login
		}
		if err := f(r); err != nil {
			return nil, c.fail(err) // answers are under way that nobody will read
		}
		if i >= 0 {
			refused[i] = r.Err(firstWords(commands[i]))
			left--
		}
	}
	return refused, nil
}

// Sequence sends batches of commands in one go, of which each changes what the
// next is about, as one that opens a mailbox does. Within a batch a server may
// answer in any order, and to several at once; from one batch to the next it
// must keep the order. f gets each response with the batch that it is of, the
// first that isn't answered whole, and the command in it that it ends; -1: none.
// A server that keeps another order, or says of an answer that it is another
// command's, is of no more use (ErrDisorder): what is whose can't be told.
// refused is the error of each command, nil where it was done.
func (c *Conn) Sequence(ctx context.Context, batches [][]string, f func(batch, ends int, r *Response) error) (refused [][]error, err error) {
	release := c.net.CloseOn(ctx)
	defer release()
	tags, err := c.sendAll(batches)
	if err != nil {
		return nil, c.fail(err)
	}
	known := map[string]int{}
	refused = make([][]error, len(batches))
	for i := range batches {
		refused[i] = make([]error, len(batches[i]))
		for _, tag := range tags[i] {
			known[tag] = i
		}
	}
	for at := range batches {
		for left := len(batches[at]); left > 0; {
			r, err := c.Next()
			if err != nil {
				return nil, err
			}
			of, ours := known[r.Tag]
			switch {
			case r.Tag != "" && !ours:
				continue // the late answer to a command before
			case ours && of != at, r.Name == "ESEARCH" && !imapdata.CouldBeOf(r.Data, tags[at]):
				return nil, c.fail(fault.New(fault.Unavailable, "%w: %s", ErrDisorder, c.net.Address()))
			}
			ends := slices.Index(tags[at], r.Tag)
			if err := f(at, ends, r); err != nil {
				return nil, c.fail(err) // answers are under way that nobody will read
			}
			if ends >= 0 {
				delete(known, r.Tag)
				refused[at][ends] = r.Err(firstWords(batches[at][ends]))
				left--
			}
		}
	}
	return refused, nil
}

// ErrDisorder says that a server answered commands in another order than that
// in which it got them, where the order matters (RFC 9051 §5.5).
var ErrDisorder = errors.New("the server answers commands out of their order")

// sendAll sends commands with a single write.
func (c *Conn) sendAll(batches [][]string) (tags [][]string, err error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.out = c.out[:0]
	tags = make([][]string, len(batches))
	for i, batch := range batches {
		for _, command := range batch {
			c.tags++
			tag := "m" + strconv.FormatUint(c.tags, 10)
			c.out = append(append(append(append(c.out, tag...), ' '), command...), '\r', '\n')
			tags[i] = append(tags[i], tag)
		}
	}
	if _, err := c.w.Write(c.out); err != nil {
		return nil, mailnet.Classify(err, "write to "+c.net.Address())
	}
	return tags, nil
}

// Do sends a command and hands each untagged response to f until the server
// has answered it. A NO or BAD is an error with its class and the server's
// words. f may be nil; the Response is its until it returns.
func (c *Conn) Do(ctx context.Context, command string, f func(*Response) error) (*Response, error) {
	release := c.net.CloseOn(ctx)
	defer release()
	rest := command
	head, tail, waits := strings.Cut(rest, syncMark)
	tag, err := c.Send(head)
	if err != nil {
		return nil, c.fail(err)
	}
	for {
		r, err := c.Next()
		if err != nil {
			return nil, err
		}
		switch {
		case r.Tag == "+" && waits:
			rest = tail
			head, tail, waits = strings.Cut(rest, syncMark)
			c.wmu.Lock()
			_, err := io.WriteString(c.w, head+"\r\n")
			c.wmu.Unlock()
			if err != nil {
				return nil, c.fail(mailnet.Classify(err, "write to "+c.net.Address()))
			}
		case r.Tag == tag:
			return r, r.Err(firstWords(command))
		case r.Tag == "" && f != nil:
			if err := f(r); err != nil {
				return nil, err
			}
		}
	}
}

// syncMark stands in a command where the server must say "+" first.
const syncMark = "\x00"

// String returns s as an argument: quoted, or as a literal where it has
// characters that no quoted string may have.
func (c *Conn) String(s string) string {
	plain := true
	for i := range len(s) {
		if b := s[i]; b == 0 || b == '\r' || b == '\n' || b >= 0x80 && !c.utf8 {
			plain = false
		}
	}
	if plain {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	}
	if c.caps["LITERAL+"] || c.caps["LITERAL-"] && len(s) <= 4096 {
		return fmt.Sprintf("{%d+}\r\n%s", len(s), s)
	}
	return fmt.Sprintf("{%d}%s%s", len(s), syncMark, s)
}

// firstWords names a command in an error: never its arguments beyond a
// mailbox's name, and not at length.
func firstWords(command string) string {
	command, _, _ = strings.Cut(command, "\r\n")
	command = strings.ReplaceAll(command, syncMark, " ")
	if len(command) > 80 {
		command = command[:80] + "…"
	}
	return command
}

// ErrMismatch is what a literal ends in that didn't end where it should.
var ErrMismatch = errors.New("the server announced another length than it sent")

// Waits reports whether an argument made by String needs the server's "+" in
// the middle of the command: it can be sent with Do only.
func Waits(argument string) bool { return strings.Contains(argument, syncMark) }
