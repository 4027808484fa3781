// Package imapscript is an IMAP server for tests that behaves as badly as a
// script tells it to. By itself it is a small, correct, read-only server; hooks
// change the answer to any command, or to the FETCH of any message.
package imapscript

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Message is one message of a mailbox. Raw has CR LF line ends.
type Message struct {
	UID       uint32
	Raw       string
	Flags     string            // as in `\Seen $Forwarded`
	Date      string            // INTERNALDATE; a fixed one when empty
	Structure string            // BODYSTRUCTURE; one of a plain text when empty
	Extra     map[string]string // any other item by its name, as in "X-GM-MSGID"
}

// Mailbox is one mailbox. Name is as on the wire.
type Mailbox struct {
	Name        string
	Attributes  string // as in `\HasNoChildren \Sent`
	UIDValidity uint32 // 1 when 0
	Messages    []Message
}

// Script says what the server is and where it misbehaves. The hooks run on a
// connection's own goroutine. Each may write what it likes with Conn.Write;
// true means that the command, or the message, is dealt with.
type Script struct {
	Greeting     string // default "* OK ready"
	Capabilities string // default "IMAP4rev1 UIDPLUS"
	Separator    string // default "/"
	Mailboxes    []Mailbox

	Command func(c *Conn, tag, verb, args string) bool
	Fetch   func(c *Conn, m *Message, seq int, items string) bool
}

// Server is a running script.
type Server struct {
	Addr string

	mu       sync.Mutex
	script   Script
	accepted atomic.Int64
	log      []string
}

// Conn is one connection to the server.
type Conn struct {
	Number   int // from 1, in the order of connecting
	Selected *Mailbox

	server *Server
	net    net.Conn
	r      *bufio.Reader
}

// Start starts a server, which ends with the test.
func Start(tb testing.TB, script Script) *Server {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	if script.Greeting == "" {
		script.Greeting = "* OK ready"
	}
	if script.Capabilities == "" {
		script.Capabilities = "IMAP4rev1 UIDPLUS"
	}
	if script.Separator == "" {
		script.Separator = "/"
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
			c := &Conn{Number: int(s.accepted.Add(1)), server: s, net: nc, r: bufio.NewReader(nc)}
			go func() {
				defer nc.Close()
				c.serve()
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

// Commands returns all commands so far, without their tags and in order.
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
func (c *Conn) Write(format string, args ...any) {
	fmt.Fprintf(c.net, format, args...)
}

// Close ends the connection without a word.
func (c *Conn) Close() { c.net.Close() }

// Wait blocks until the client hangs up: a server that is silent for ever.
func (c *Conn) Wait() { io.Copy(io.Discard, c.r) }

// ReadLine reads a line from the client, as in a SASL exchange.
func (c *Conn) ReadLine() string {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimRight(line, "\r\n")
}

func (c *Conn) serve() {
	c.Write("%s\r\n", c.server.current().Greeting)
	for {
		line, ok := c.command()
		if !ok {
			return
		}
		tag, rest, _ := strings.Cut(line, " ")
		verb, args, _ := strings.Cut(rest, " ")
		verb = strings.ToUpper(verb)
		if verb == "UID" {
			sub, more, _ := strings.Cut(args, " ")
			verb, args = "UID "+strings.ToUpper(sub), more
		}
		script := c.server.current()
		c.server.mu.Lock()
		c.server.log = append(c.server.log, rest)
		c.server.mu.Unlock()
		if script.Command != nil && script.Command(c, tag, verb, args) {
			continue
		}
		if !c.answer(&script, tag, verb, args) {
			return
		}
	}
}

// command reads a command with its literals.
func (c *Conn) command() (string, bool) {
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return "", false
		}
		line = strings.TrimRight(line, "\r\n")
		open := strings.LastIndexByte(line, '{')
		if open < 0 || !strings.HasSuffix(line, "}") {
			all.WriteString(line)
			return all.String(), true
		}
		size := strings.TrimSuffix(line[open+1:len(line)-1], "+")
		n, err := strconv.Atoi(size)
		if err != nil {
			all.WriteString(line)
			return all.String(), true
		}
		if size == line[open+1:len(line)-1] {
			c.Write("+ go on\r\n")
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(c.r, b); err != nil {
			return "", false
		}
		all.WriteString(line[:open] + `"` + string(b) + `"`)
	}
}

// answer is the server without a script.
func (c *Conn) answer(s *Script, tag, verb, args string) bool {
	ok := func() { c.Write("%s OK done\r\n", tag) }
	switch verb {
	case "CAPABILITY":
		c.Write("* CAPABILITY %s\r\n", s.Capabilities)
		ok()
	case "LOGIN", "NOOP", "ENABLE", "ID":
		ok()
	case "AUTHENTICATE":
		mechanism, initial, _ := strings.Cut(args, " ")
		if initial == "" {
			c.Write("+ \r\n")
			c.ReadLine()
			if strings.EqualFold(mechanism, "LOGIN") {
				c.Write("+ %s\r\n", base64.StdEncoding.EncodeToString([]byte("Password:")))
				c.ReadLine()
			}
		}
		ok()
	case "LOGOUT":
		c.Write("* BYE see you\r\n%s OK done\r\n", tag)
		return false
	case "LIST":
		for _, m := range s.Mailboxes {
			c.Write("* LIST (%s) %q %q\r\n", m.Attributes, s.Separator, m.Name)
		}
		ok()
	case "STATUS", "EXAMINE":
		c.open(s, tag, verb, args)
	case "UID SEARCH":
		c.search(tag, args)
	case "UID FETCH":
		c.fetch(s, tag, args)
	default:
		c.Write("%s BAD what is %s?\r\n", tag, verb)
	}
	return true
}

func (m *Mailbox) validity() uint32 {
	if m.UIDValidity == 0 {
		return 1
	}
	return m.UIDValidity
}

func (m *Mailbox) next() uint32 {
	if len(m.Messages) == 0 {
		return 1
	}
	return m.Messages[len(m.Messages)-1].UID + 1
}

func (c *Conn) open(s *Script, tag, verb, args string) {
	for i := range s.Mailboxes {
		m := &s.Mailboxes[i]
		if !strings.HasPrefix(args, `"`+m.Name+`"`) && !strings.HasPrefix(args, m.Name) {
			continue
		}
		if verb == "STATUS" {
			c.Write("* STATUS %q (MESSAGES %d UIDNEXT %d UIDVALIDITY %d)\r\n", m.Name, len(m.Messages), m.next(), m.validity())
			c.Write("%s OK done\r\n", tag)
			return
		}
		c.Selected = m
		c.Write("* FLAGS (\\Seen)\r\n* %d EXISTS\r\n* OK [UIDVALIDITY %d] ok\r\n* OK [UIDNEXT %d] ok\r\n%s OK [READ-ONLY] done\r\n",
			len(m.Messages), m.validity(), m.next(), tag)
		return
	}
	c.Write("%s NO [NONEXISTENT] there is no such mailbox\r\n", tag)
}

// inSet reports whether n is in a sequence-set.
func inSet(set string, n, largest uint32) bool {
	num := func(s string) uint32 {
		if s == "*" {
			return largest
		}
		v, _ := strconv.ParseUint(s, 10, 32)
		return uint32(v)
	}
	for _, piece := range strings.Split(set, ",") {
		a, b, isRange := strings.Cut(piece, ":")
		if !isRange {
			b = a
		}
		if lo, hi := num(a), num(b); n >= min(lo, hi) && n <= max(lo, hi) {
			return true
		}
	}
	return false
}

func (c *Conn) search(tag, args string) {
	var out bytes.Buffer
	set := "1:*"
	if i := strings.Index(args, "UID "); i >= 0 {
		set, _, _ = strings.Cut(args[i+4:], " ")
	}
	if c.Selected != nil {
		for _, m := range c.Selected.Messages {
			if inSet(set, m.UID, 1<<32-1) {
				fmt.Fprintf(&out, " %d", m.UID)
			}
		}
	}
	c.Write("* SEARCH%s\r\n%s OK done\r\n", out.String(), tag)
}

func (c *Conn) fetch(s *Script, tag, args string) {
	set, items, _ := strings.Cut(args, " ")
	if c.Selected != nil {
		for i := range c.Selected.Messages {
			m := &c.Selected.Messages[i]
			if !inSet(set, m.UID, 1<<32-1) {
				continue
			}
			if s.Fetch != nil && s.Fetch(c, m, i+1, items) {
				continue
			}
			c.Write("* %d FETCH (%s)\r\n", i+1, m.Items(items))
		}
	}
	c.Write("%s OK done\r\n", tag)
}

// Items returns the answer to a list of FETCH items, UID first and the body
// last.
func (m *Message) Items(items string) string {
	out := []string{"UID " + strconv.FormatUint(uint64(m.UID), 10)}
	for _, name := range split(strings.Trim(items, "()")) {
		if v, ok := m.Item(name); ok && name != "UID" {
			out = append(out, v)
		}
	}
	return strings.Join(out, " ")
}

// split cuts at spaces outside of brackets.
func split(items string) (out []string) {
	depth, start := 0, 0
	for i := 0; i <= len(items); i++ {
		switch {
		case i == len(items) || items[i] == ' ' && depth == 0:
			if i > start {
				out = append(out, items[start:i])
			}
			start = i + 1
		case items[i] == '[':
			depth++
		case items[i] == ']':
			depth--
		}
	}
	return out
}

// Item returns one item with its value.
func (m *Message) Item(name string) (string, bool) {
	head, text, _ := strings.Cut(m.Raw, "\r\n\r\n")
	literal := func(v string) string { return fmt.Sprintf("{%d}\r\n%s", len(v), v) }
	name = strings.ToUpper(name)
	switch name {
	case "UID":
		return "UID " + strconv.FormatUint(uint64(m.UID), 10), true
	case "FLAGS":
		return "FLAGS (" + m.Flags + ")", true
	case "RFC822.SIZE":
		return "RFC822.SIZE " + strconv.Itoa(len(m.Raw)), true
	case "INTERNALDATE":
		date := m.Date
		if date == "" {
			date = `"29-Feb-2020 12:00:00 +0000"`
		}
		return "INTERNALDATE " + date, true
	case "BODYSTRUCTURE":
		if m.Structure != "" {
			return "BODYSTRUCTURE " + m.Structure, true
		}
		return fmt.Sprintf(`BODYSTRUCTURE ("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL "" "7BIT" %d 1)`, len(text)), true
	case "BODY.PEEK[HEADER]":
		return "BODY[HEADER] " + literal(head+"\r\n\r\n"), true
	case "BODY.PEEK[TEXT]":
		return "BODY[TEXT] " + literal(text), true
	case "BODY.PEEK[]":
		return "BODY[] " + literal(m.Raw), true
	}
	if v, ok := m.Extra[name]; ok {
		return name + " " + v, true
	}
	return "", false
}
