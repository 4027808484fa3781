// Package demo is an IMAP server on loopback with a small mailbox of our own
// making: something to run the pipeline against on a machine without mail.
//
// It is read-only. BODY[], BODY[HEADER] and BODY[TEXT] answer the sample's
// octets exactly (I4); sections of single parts and the structure come from
// go-imap's own MIME reader. It is a demonstration and a fixture, not a server
// for anybody's mail.
package demo

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"sync/atomic"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
)

// User and DefaultPassword open the demo server.
const (
	User            = "demo"
	DefaultPassword = "demo"
)

// Server is a running server. Its methods may be called from any goroutine.
type Server struct {
	listener net.Listener
	imap     *imapserver.Server
	stop     func() bool
	served   chan struct{}

	password  string
	mailboxes []*mailbox
	changes   atomic.Int64
}

// Option changes how Start serves.
type Option func(*options)

type options struct {
	address  string
	password string
}

// WithPassword sets the password of the only user.
func WithPassword(password string) Option {
	return func(o *options) { o.password = password }
}

// WithAddress sets where to listen, as in "127.0.0.1:1143". Only loopback is
// accepted: the password travels in clear.
func WithAddress(address string) Option {
	return func(o *options) { o.address = address }
}

// Start serves the sample mailbox on a free port of loopback until ctx ends or
// Close is called.
func Start(ctx context.Context, opts ...Option) (*Server, error) {
	o := options{address: "127.0.0.1:0", password: DefaultPassword}
	for _, opt := range opts {
		opt(&o)
	}
	s := &Server{password: o.password, served: make(chan struct{})}
	for _, box := range sample() {
		m, err := newMailbox(box)
		if err != nil {
			return nil, err
		}
		s.mailboxes = append(s.mailboxes, m)
	}

	var listen net.ListenConfig
	ln, err := listen.Listen(ctx, "tcp", o.address)
	if err != nil {
		return nil, fmt.Errorf("demo server: %w", err)
	}
	if addr, ok := ln.Addr().(*net.TCPAddr); !ok || !addr.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("demo server: %s isn't loopback, and the demo has no TLS", ln.Addr()), ln.Close())
	}
	s.listener = ln
	s.imap = imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return &session{server: s}, nil, nil
		},
		Caps: imap.CapSet{
			imap.CapIMAP4rev1: {}, imap.CapNamespace: {}, imap.CapESearch: {}, imap.CapChildren: {},
			imap.CapListExtended: {}, imap.CapListStatus: {}, imap.CapSpecialUse: {}, imap.CapStatusSize: {},
		},
		InsecureAuth: true,
		Logger:       log.New(io.Discard, "", 0), // it only tells of connections that were cut
	})
	go func() {
		defer close(s.served)
		_ = s.imap.Serve(ln) // it ends when the listener closes; a client notices any other end
	}()
	s.stop = context.AfterFunc(ctx, func() { _ = s.shutdown() }) // nobody is left to tell
	return s, nil
}

// Addr returns host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Password returns the password of User.
func (s *Server) Password() string { return s.password }

// Environ returns the variables that the repository's pipeline.yaml reads, as
// name=value, so that it reaches this server.
func (s *Server) Environ() []string {
	return []string{
		"MAILHAUL_ADDRESS=" + s.Addr(),
		"MAILHAUL_USER=" + User,
		"MAILHAUL_PASSWORD=" + s.password,
		"MAILHAUL_SECURITY=none", // loopback only
	}
}

// Changes counts the commands that would have changed something on a server
// that allows it: STORE, EXPUNGE, APPEND, COPY, CREATE and their kin, and a
// body fetched without PEEK from a selected mailbox. An export makes none (I7).
func (s *Server) Changes() int64 { return s.changes.Load() }

// Messages returns the whole sample, by mailbox and UID, for comparing octets.
func (s *Server) Messages() []*Message {
	var out []*Message
	for _, m := range s.mailboxes {
		out = append(out, m.messages...)
	}
	return out
}

// Close ends the server and all its connections. It may be called again.
func (s *Server) Close() error {
	var err error
	if s.stop() { // else the context ended first, or Close ran before
		err = s.shutdown()
	}
	<-s.served
	return err
}

// shutdown closes the listener itself too: a library server that is closed
// before its Serve has begun doesn't know of it yet.
func (s *Server) shutdown() error {
	err := s.imap.Close()
	if lnErr := s.listener.Close(); lnErr != nil && !errors.Is(lnErr, net.ErrClosed) {
		err = errors.Join(err, lnErr)
	}
	return err
}

func (s *Server) login(user, password string) bool {
	return subtle.ConstantTimeCompare([]byte(user), []byte(User)) == 1 &&
		subtle.ConstantTimeCompare([]byte(password), []byte(s.password)) == 1
}

func (s *Server) mailbox(name string) *mailbox {
	for _, m := range s.mailboxes {
		if m.name == name && !m.noSelect {
			return m
		}
	}
	return nil
}
