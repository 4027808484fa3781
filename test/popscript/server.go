// Package popscript is a POP3 server for tests that behaves as badly as a
// script tells it to. By itself it is a small, correct server that keeps the
// octets of messages as they are; hooks change the answer to any command.
package popscript

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Message is one message of the maildrop.
type Message struct {
	UIDL string
	Raw  string // sent as it is, dots stuffed behind CR LF, with a final CR LF where that lacks
	Size int    // in LIST; 0: the length of what is sent
}

// Script says what the server is and where it misbehaves. The hook runs on a
// connection's own goroutine and may write what it likes with Conn.Write; true
// means that the command is dealt with.
type Script struct {
	Greeting string   // default "+OK ready"
	CAPA     []string // default TOP UIDL PIPELINING USER SASL PLAIN; an empty list: no CAPA
	Messages []Message
	Lock     bool        // one session at a time, the second gets [IN-USE]
	TLS      *tls.Config // for STLS

	Command func(c *Conn, verb, args string) bool
}

// Server is a running script.
type Server struct {
	Addr string

	mu       sync.Mutex
	script   Script
	accepted atomic.Int64
	users    atomic.Int64 // sessions that are logged in
	log      []string
}

// Conn is one connection to the server.
type Conn struct {
	Number int // from 1, in the order of connecting

	server *Server
	net    net.Conn
	r      *bufio.Reader
	w      *bufio.Writer
	inside bool
}

// Start starts a server, which ends with the test.
func Start(tb testing.TB, script Script) *Server {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	if script.Greeting == "" {
		script.Greeting = "+OK ready"
	}
	if script.CAPA == nil {
		script.CAPA = []string{"TOP", "UIDL", "PIPELINING", "USER", "SASL PLAIN"}
	}
	s := &Server{Addr: l.Addr().String(), script: script}
	var open sync.Map
	tb.Cleanup(func() {
		l.Close()
		open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
	})
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			open.Store(nc, true)
			c := &Conn{Number: int(s.accepted.Add(1)), server: s, net: nc, r: bufio.NewReader(nc), w: bufio.NewWriterSize(nc, 64<<10)}
			go func() {
				c.serve()
				c.w.Flush()
				c.net.Close()
				if c.inside {
					s.users.Add(-1)
				}
			}()
		}
	}()
	return s
}

// Change changes the script of a running server.
func (s *Server) Change(f func(*Script)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.script)
}

// Connections returns how many connections were made.
func (s *Server) Connections() int { return int(s.accepted.Load()) }

// Commands returns all commands so far, in order.
func (s *Server) Commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.log...)
}

func (s *Server) current() Script {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.script
}

// Write sends text as it is; \r\n is the script's to write.
func (c *Conn) Write(format string, args ...any) { fmt.Fprintf(c.w, format, args...) }

// Close ends the connection without a word. What was written goes out first.
func (c *Conn) Close() {
	c.w.Flush()
	c.net.Close()
}

// Wait blocks until the client hangs up: a server that is silent for ever.
func (c *Conn) Wait() {
	c.w.Flush()
	io.Copy(io.Discard, c.r)
}

// Writable reports whether the client still listens, after sending all.
func (c *Conn) Writable() bool { return c.w.Flush() == nil }

// ReadLine reads a line from the client, as in a SASL exchange.
func (c *Conn) ReadLine() string {
	c.w.Flush()
	line, err := c.r.ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimRight(line, "\r\n")
}

// StartTLS goes on under TLS.
func (c *Conn) StartTLS(cfg *tls.Config) {
	c.w.Flush()
	c.net = tls.Server(c.net, cfg)
	c.r, c.w = bufio.NewReader(c.net), bufio.NewWriter(c.net)
}

func (c *Conn) serve() {
	c.Write("%s\r\n", c.server.current().Greeting)
	for {
		if c.r.Buffered() == 0 {
			c.w.Flush()
		}
		line, err := c.r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb, args, _ := strings.Cut(line, " ")
		verb = strings.ToUpper(verb)
		c.server.mu.Lock()
		c.server.log = append(c.server.log, line)
		script := c.server.script
		c.server.mu.Unlock()
		if script.Command != nil && script.Command(c, verb, args) {
			continue
		}
		if !c.answer(&script, verb, args) {
			return
		}
	}
}

// enter lets a session in, or not.
func (c *Conn) enter(s *Script) {
	if n := c.server.users.Add(1); n > 1 && s.Lock {
		c.server.users.Add(-1)
		c.Write("-ERR [IN-USE] Do you have another POP session running?\r\n")
		return
	}
	c.inside = true
	c.Write("+OK welcome\r\n")
}

// answer is the server without a script.
func (c *Conn) answer(s *Script, verb, args string) bool {
	message := func() *Message {
		number, _, _ := strings.Cut(args, " ")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || n > len(s.Messages) {
			c.Write("-ERR no such message\r\n")
			return nil
		}
		return &s.Messages[n-1]
	}
	switch verb {
	case "CAPA":
		if len(s.CAPA) == 0 {
			c.Write("-ERR unknown command\r\n")
			return true
		}
		c.Write("+OK\r\n%s\r\n.\r\n", strings.Join(s.CAPA, "\r\n"))
	case "STLS":
		if s.TLS == nil {
			c.Write("-ERR no TLS\r\n")
			return true
		}
		c.Write("+OK begin\r\n")
		c.StartTLS(s.TLS)
	case "USER":
		c.Write("+OK\r\n")
	case "PASS", "APOP":
		c.enter(s)
	case "AUTH":
		if !strings.Contains(args, " ") {
			c.Write("+ \r\n")
			c.ReadLine()
		}
		c.enter(s)
	case "NOOP":
		c.Write("+OK\r\n")
	case "STAT":
		total := 0
		for i := range s.Messages {
			total += s.Messages[i].size()
		}
		c.Write("+OK %d %d\r\n", len(s.Messages), total)
	case "LIST", "UIDL":
		text := func(i int) string {
			if verb == "LIST" {
				return strconv.Itoa(s.Messages[i].size())
			}
			return s.Messages[i].UIDL
		}
		if args != "" {
			if m := message(); m != nil {
				n, _ := strconv.Atoi(args)
				c.Write("+OK %d %s\r\n", n, text(n-1))
			}
			return true
		}
		c.Write("+OK\r\n")
		for i := range s.Messages {
			c.Write("%d %s\r\n", i+1, text(i))
		}
		c.Write(".\r\n")
	case "RETR":
		if m := message(); m != nil {
			c.Write("+OK %d octets\r\n", m.size())
			c.w.WriteString(Stuff(m.Raw))
		}
	case "TOP":
		if m := message(); m != nil {
			head, _, _ := strings.Cut(m.Raw, "\r\n\r\n")
			c.Write("+OK\r\n")
			c.w.WriteString(Stuff(strings.TrimSuffix(head, "\r\n") + "\r\n\r\n"))
		}
	case "QUIT":
		c.Write("+OK bye\r\n")
		return false
	default:
		c.Write("-ERR unknown command %s\r\n", verb)
	}
	return true
}

func (m *Message) size() int {
	if m.Size != 0 {
		return m.Size
	}
	return len(m.Raw)
}

// Stuff returns a multi-line answer as it goes over the wire (RFC 1939 §3): a
// dot put before one that begins a line, where a line ends with CR LF; a final
// CR LF where there is none; and the end.
func Stuff(raw string) string {
	var out bytes.Buffer
	bol := true
	for i := 0; i < len(raw); i++ {
		if bol && raw[i] == '.' {
			out.WriteByte('.')
		}
		out.WriteByte(raw[i])
		bol = raw[i] == '\n' && i > 0 && raw[i-1] == '\r'
	}
	if !bol {
		out.WriteString("\r\n")
	}
	out.WriteString(".\r\n")
	return out.String()
}
