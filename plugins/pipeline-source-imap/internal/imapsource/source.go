package imapsource

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// Provides is what an IMAP server can tell at most.
const Provides = message.AllSummary | message.NeedBody

// Source is one account on one server.
type Source struct {
	config   Config
	settings *imapconn.Settings
	log      *slog.Logger
	spool    *message.Spool
	pool     *mailnet.Pool[*imapconn.Conn]
	gmail    bool // X-GM-EXT-1
	objectID bool // OBJECTID (RFC 8474)

	// rest is how long the source rests when a server says that it is
	// throttling, and not for how long.
	rest time.Duration

	mu     sync.Mutex
	raws   map[string]string // name -> the octets that the server calls it by
	own    naming
	sought sought

	foretold map[string]*inquiry // mailboxes that were asked for ahead of their turn
	width    int                 // how many are next time
	alone    bool                // none: the server keeps no order

	uses     map[string]string // special use -> name
	counts   map[string]int64  // messages of a mailbox, where the server said
	said     map[string]bool   // warnings that were given
	hidesAll bool              // Gmail's All Mail isn't shown
}

// Opener returns the plugin's Open. All its sessions share tokens.
func Opener(tokens *mailnet.Tokens) func(context.Context, Config, source.Env) (source.Opened, error) {
	return func(ctx context.Context, c Config, env source.Env) (source.Opened, error) {
		return open(ctx, c, env, tokens)
	}
}

// open logs in once, so that a wrong password is known before any work, and
// keeps the connection for the first call.
func open(ctx context.Context, c Config, env source.Env, tokens *mailnet.Tokens) (source.Opened, error) {
	if err := c.Validate(); err != nil {
		return source.Opened{}, err
	}
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Source{config: c, settings: c.settings(tokens), log: log, spool: env.Spool, rest: 5 * time.Second, width: widest}
	s.pool = newPool(c.Connections, s.settings, log)
	conn, err := s.pool.Get(ctx, nil)
	if err != nil {
		return source.Opened{}, err
	}
	s.gmail, s.objectID = conn.Has("X-GM-EXT-1"), conn.Has("OBJECTID")
	facts := conn.Net().Facts()
	s.pool.Put(conn)
	provides := Provides
	if !s.gmail && !s.objectID {
		provides &^= message.NeedGmail
	}
	var notes []string
	if s.once() {
		notes = append(notes, "Gmail: each message is taken once, with all its labels (gmail: folders takes each mailbox as it stands)")
	}
	return source.Opened{Source: s, Lanes: s.pool.Size(), Provides: provides, URL: c.URL(mailnet.IMAP), Notes: notes, Facts: facts,
		Budget: source.Budget{Bytes: max(c.Budget.Bytes.Octets, 0), Per: c.Budget.Bytes.Per}}, nil
}

// Lanes returns how many connections the server grants.
func (s *Source) Lanes() int { return s.pool.Size() }

// Close says goodbye on all connections.
func (s *Source) Close() error {
	s.pool.Close()
	return nil
}

// stateOf is the state of a mailbox as it was opened.
func stateOf(o *imapconn.Opened) message.MailboxState {
	return state(o.Messages, -1, o.UIDValidity, o.UIDNext, o.ModSeq)
}

// state makes the tokens of a mailbox's state. STATUS and EXAMINE must give
// the same, or nothing could ever be passed over.
func state(messages, bytes, validity, next, modSeq int64) message.MailboxState {
	st := message.MailboxState{Messages: messages, Bytes: bytes}
	if validity > 0 && validity < 1<<32 {
		st.UIDValidity = uint32(validity)
	}
	if messages >= 0 && next > 0 && validity > 0 {
		st.Content = fmt.Sprintf("%d.%d.%d", validity, next, messages)
	}
	if modSeq > 0 {
		st.Flags = fmt.Sprint(modSeq)
	}
	return st
}

// selected opens a mailbox for reading on a connection, or goes on with it
// where it is open there and the server hasn't said since that other messages
// are in it: to open one of 20,000 messages costs some servers as much as a
// hundred headers. Within a selection its UIDVALIDITY can't change
// (RFC 9051 §2.3.1.1).
func (s *Source) selected(ctx context.Context, c *imapconn.Conn, mailbox string) (*imapconn.Opened, error) {
	if o := c.Opened(); o != nil && o.Mailbox == mailbox {
		return o, nil
	}
	return s.examine(ctx, c, mailbox, nil)
}

// examine opens a mailbox for reading on a connection, anew even when it is
// open: the state must be that of now. Microsoft sometimes refuses for a
// moment what it granted at the login ("authenticated but not connected"): it
// is asked again before that counts as a refusal. Inquiries, the first of which
// is the mailbox's own, run in the same round trip.
func (s *Source) examine(ctx context.Context, c *imapconn.Conn, mailbox string, inquiries []*inquiry) (*imapconn.Opened, error) {
	raw, err := s.raw(ctx, c, mailbox)
	if err != nil {
		return nil, err
	}
	b := mailnet.Backoff{Min: s.rest / 4}
	for {
		var e *imapconn.Opened
		if len(inquiries) == 0 {
			e, err = s.examineOnce(ctx, c, "EXAMINE", mailbox, raw)
		} else {
			c.Select(nil)
			if err = s.inquire(ctx, c, inquiries); err != nil {
				err = fault.Wrap(fault.Unavailable, err, "open mailbox %s", mailbox)
			} else {
				e = inquiries[0].opened
			}
		}
		if !fault.Is(err, fault.Auth) || c.Broken() || b.Tries() == 2 {
			return e, err
		}
		if err := mailnet.Sleep(ctx, b.Next()); err != nil {
			return nil, err
		}
	}
}

func (s *Source) examineOnce(ctx context.Context, c *imapconn.Conn, verb, mailbox, raw string) (*imapconn.Opened, error) {
	e := newOpened(mailbox)
	c.Select(nil)
	done, err := c.Do(ctx, openCommand(c, verb, c.String(raw)), func(r *imapconn.Response) error {
		readOpened(c, e, r)
		return nil
	})
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "open mailbox %s", mailbox)
	}
	readOpened(c, e, done)
	return e, nil
}

// newOpened is a mailbox of which the server hasn't said anything yet.
func newOpened(mailbox string) *imapconn.Opened {
	return &imapconn.Opened{Mailbox: mailbox, Messages: -1, UIDNext: -1, UIDValidity: -1, ModSeq: -1}
}

// openCommand returns the command that opens a mailbox. name is as
// Conn.String makes it.
func openCommand(c *imapconn.Conn, verb, name string) string {
	if c.Has("CONDSTORE") {
		name += " (CONDSTORE)"
	}
	return verb + " " + name
}

// readOpened reads one response to the command that opens e.
func readOpened(c *imapconn.Conn, e *imapconn.Opened, r *imapconn.Response) {
	switch {
	case r.Tag != "" && r.Name == "OK":
		e.ReadOnly = r.Code == "READ-ONLY"
		c.Select(e)
	case r.Code == "CLOSED": // what came before was of the mailbox before (RFC 9051 §7.1)
		*e = *newOpened(e.Mailbox)
	case r.Code == "PERMANENTFLAGS":
		e.Keeps = strings.ToLower(r.Argument)
	case r.Name == "EXISTS":
		e.Messages = int64(r.Num)
	case r.Code == "UIDNEXT":
		e.UIDNext = imapdata.Number(r.Argument)
	case r.Code == "UIDVALIDITY":
		e.UIDValidity = imapdata.Number(r.Argument)
	case r.Code == "HIGHESTMODSEQ":
		e.ModSeq = imapdata.Number(r.Argument)
	}
}

// raw returns the octets of a mailbox's name. They are as LIST had them; a
// name that was never listed is written as the server's own are.
func (s *Source) raw(ctx context.Context, c *imapconn.Conn, mailbox string) (string, error) {
	s.mu.Lock()
	known := s.raws != nil
	raw, ok := s.raws[mailbox]
	s.mu.Unlock()
	if ok {
		return raw, nil
	}
	if !known {
		// The separator and odd spellings are only known from a listing.
		if _, err := s.list(ctx, c); err != nil {
			return "", err
		}
		return s.raw(ctx, c, mailbox)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own.raw(mailbox, c.UTF8()), nil
}
