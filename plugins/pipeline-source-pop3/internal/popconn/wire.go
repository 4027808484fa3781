package popconn

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
)

const (
	// statusLimit is how much of a status line is kept. RFC 2449 §4 allows
	// 512 octets; SASL challenges are longer.
	statusLimit = 3 << 10
	// lineLimit ends a connection whose line never does.
	lineLimit = 1 << 20
)

// wire is the net.Conn that go-pop3 gets from its Dialer. The library reads
// status lines from it, one a call and put into a form that it understands;
// it writes commands to it, which are held until somebody wants an answer.
type wire struct {
	*mailnet.Conn // whose deadlines roll, whatever the library sets
	br            *bufio.Reader

	out  []byte // written, not sent
	line []byte // status line that the library has not read yet
	buf  []byte // its memory

	refused bool   // the last status line was -ERR
	text    string // of a -ERR
	bare    bool   // the server ends its lines with LF alone
	sasl    bool   // "+ " is an answer, too

	greeted  bool
	greeting string // text of the first status line
}

// Dial is the library's Dialer: it gets this connection, which was dialed
// already.
func (w *wire) Dial(string, string) (net.Conn, error) { return w, nil }

// flush sends what is held.
func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	_, err := w.Conn.Write(w.out)
	w.out = w.out[:0]
	return err
}

// Write holds a command.
func (w *wire) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

// Read gives the library one status line.
func (w *wire) Read(p []byte) (int, error) {
	if len(w.line) == 0 {
		if err := w.flush(); err != nil {
			return 0, err
		}
		if err := w.status(); err != nil {
			return 0, err
		}
	}
	n := copy(p, w.line)
	w.line = w.line[n:]
	return n, nil
}

// status reads a line from the server and writes it as the library wants it.
func (w *wire) status() error {
	w.refused, w.text = false, ""
	raw, err := readLine(w.br, statusLimit)
	if err != nil {
		return err
	}
	w.bare = !bytes.HasSuffix(raw, []byte("\r\n"))
	text := bytes.TrimRight(raw, "\r\n")
	word, rest, _ := bytes.Cut(text, []byte(" "))
	rest = bytes.TrimSpace(rest)
	if !w.greeted {
		w.greeted, w.greeting = true, printable(rest)
	}
	switch {
	case bytes.EqualFold(word, []byte("+OK")):
		w.give("+OK ", rest)
	case bytes.EqualFold(word, []byte("-ERR")):
		w.refused, w.text = true, printable(rest)
		w.give("-ERR refused", nil)
	case w.sasl && len(word) > 0 && word[0] == '+':
		// A challenge (RFC 5034 §4): the library knows +OK only.
		w.give("+OK + ", bytes.TrimSpace(text[1:]))
	default:
		if len(text) > 80 {
			text = text[:80]
		}
		f := fault.New(fault.Unavailable, "%s answered %q, which is neither +OK nor -ERR", w.Address(), text)
		if bytes.Equal(word, []byte("*")) {
			f = f.WithHint("that is how an IMAP server speaks: use the port for POP3 (995, or 110 without TLS), or the plugin imap")
		}
		return f
	}
	return nil
}

// give makes the next line that the library reads.
func (w *wire) give(prefix string, text []byte) {
	w.buf = append(append(append(w.buf[:0], prefix...), text...), '\r', '\n')
	w.line = w.buf
}

// printable returns a server's words as they may stand in an error.
func printable(text []byte) string {
	return strings.ToValidUTF8(string(bytes.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return '?'
		}
		return r
	}, text)), "?")
}

var errLongLine = errors.New("a line without an end")

// readLine returns the next line with its end, and of a longer one its first
// limit octets. The slice is valid until the next read.
func readLine(br *bufio.Reader, limit int) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	if err == nil && len(line) <= limit {
		return line, nil
	}
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	kept := append(make([]byte, 0, limit+2), line[:min(limit, len(line))]...)
	for total := len(line); errors.Is(err, bufio.ErrBufferFull); total += len(line) {
		if total > lineLimit {
			return nil, errLongLine
		}
		if line, err = br.ReadSlice('\n'); err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
	if !bytes.HasSuffix(line, []byte("\r\n")) {
		return append(kept, '\n'), nil
	}
	return append(kept, '\r', '\n'), nil
}

// MaxBody bounds a message of which no size is known, in octets.
const MaxBody = 64 << 30

// ErrEndless is within the error of an answer that is longer than its limit.
var ErrEndless = errors.New("an answer far longer than what was listed")
