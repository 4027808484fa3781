package popconn

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/knadh/go-pop3"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/mailnet"
)

// said returns a connection on which the server says what r gives, and takes
// everything that is sent.
func said(r io.Reader) *Conn {
	here, there := net.Pipe()
	there.Close()
	nc := mailnet.NewConn(here, "server", mailnet.Timeouts{})
	in := &incoming{Reader: r, least: 1}
	br := bufio.NewReaderSize(in, 64)
	return &Conn{net: nc, in: in, br: br, wire: &wire{Conn: nc, br: br}}
}

// unstuff is the reference: RFC 1939 §3 done slowly, on all octets at once.
// It returns how much of the answer was used, -1 when it has no end.
func unstuff(answer []byte, lineEnd string) (octets []byte, used int) {
	for at := 0; at < len(answer); {
		end := bytes.Index(answer[at:], []byte(lineEnd))
		line := answer[at:]
		if end >= 0 {
			line = answer[at : at+end+len(lineEnd)]
		}
		at += len(line)
		if string(line) == "."+lineEnd {
			return octets, at
		}
		octets = append(octets, bytes.TrimPrefix(line, []byte("."))...)
	}
	return octets, -1
}

// FuzzBody compares the streaming reader with the slow one, in pieces of all
// sizes, and checks that it stops exactly behind the end.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		".\r\n", "..\r\n.\r\n", "a\r\n.\r\n+OK next\r\n", "a\n.\nb\r\n.\r\n", "a\r.\r\n.\r\n", "\r\n..\r\n.\r\n", "a\r\r\n.\r\n",
		strings.Repeat("x", 62) + "\r\n.\r\n", strings.Repeat("x", 63) + "\r\n..y\r\n.\r\n", "no end", ".", "..", ".\r", "a\r\n.\rb\r\n.\r\n",
	} {
		f.Add([]byte(seed), 7)
	}
	f.Fuzz(func(t *testing.T, answer []byte, size int) {
		want, used := unstuff(answer, "\r\n")
		size = 1 + (size&0x7fffffff)%100
		c := said(iotest.HalfReader(bytes.NewReader(answer)))
		got, err := io.ReadAll(io.MultiReader(iotest.OneByteReader(io.LimitReader(c.Body(1<<30, 0), 3)), pieces{&c.body, size}))
		if used < 0 {
			if !fault.Is(err, fault.Unavailable) || !c.Broken() {
				t.Fatalf("%q has no end: %v", answer, err)
			}
			return
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q: got %q, %v, want %q", answer, got, err, want)
		}
		if rest, _ := io.ReadAll(c.br); len(answer)-len(rest) != used {
			t.Fatalf("%q: %d octets were used, want %d", answer, len(answer)-len(rest), used)
		}
		c = said(bytes.NewReader(answer))
		if all, whole, err := c.Body(1<<30, 0).AppendTo(nil, 1<<30); err != nil || !whole || !bytes.Equal(all, want) {
			t.Fatalf("%q: AppendTo gives %q, %v, %v", answer, all, whole, err)
		}
	})
}

// FuzzDirect: what is read past the buffer is the same, whatever the server says
// of the size, also where lines end in LF alone.
func FuzzDirect(f *testing.F) {
	for _, seed := range []string{
		".\r\n", "..\r\n.\r\n", "a\r\n.\r\n+OK next\r\n", "a\n.\nb\r\n.\r\n", "a\r.\r\n.\r\n", "\r\n..\r\n.\r\n", "a\r\r\n.\r\n",
		".\n", "..\n...\n.\n+OK\n", "a\n\n.\n", strings.Repeat("..\r\n", 40) + ".\r\n", strings.Repeat("a.b.", 40) + "\r\n.c\r\n.\r\n", "no end",
	} {
		f.Add([]byte(seed), 7, len(seed))
		f.Add([]byte(seed), 100, 3)
	}
	f.Fuzz(func(t *testing.T, answer []byte, size, about int) {
		size = 1 + (size&0x7fffffff)%200
		for _, bare := range []bool{false, true} {
			want, used := unstuff(answer, map[bool]string{false: "\r\n", true: "\n"}[bare])
			c := said(iotest.HalfReader(bytes.NewReader(answer)))
			c.wire.bare = bare
			got, whole, err := c.Body(1<<30, int64(about)).AppendTo(nil, size)
			if err == nil && !whole {
				var more []byte
				more, err = io.ReadAll(pieces{&c.body, size})
				got = append(got, more...)
			}
			if used < 0 {
				if !fault.Is(err, fault.Unavailable) || !c.Broken() {
					t.Fatalf("%q has no end: %v", answer, err)
				}
				continue
			}
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%q of about %d: got %q, %v, want %q", answer, about, got, err, want)
			}
			if rest, _ := io.ReadAll(c.br); len(answer)-len(rest) != used {
				t.Fatalf("%q of about %d: %d octets were used, want %d", answer, about, len(answer)-len(rest), used)
			}
		}
	})
}

// pieces reads so many octets at a time.
type pieces struct {
	r    io.Reader
	size int
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.size)]) }

// FuzzStatus: whatever a server says, the library gets a line that it
// understands or an error, and never a success that wasn't one.
func FuzzStatus(f *testing.F) {
	for _, seed := range []string{"+OK\r\n", "+OK hi\r\n", "-ERR\r\n", "-ERR [IN-USE] no\r\n", "\r\n", "+ abc\r\n", "+ok\n", "OK\r\n", "+OKAY\r\n", "+OK " + strings.Repeat("x", 5000) + "\r\n", "no end"} {
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, line []byte, sasl bool) {
		c := said(bytes.NewReader(line))
		c.wire.sasl = sasl
		lib, err := pop3.New(pop3.Opt{Dialer: c.wire}).NewConn()
		c.lib = lib
		word, _, _ := strings.Cut(strings.TrimRight(strings.SplitAfterN(string(line), "\n", 2)[0], "\r\n"), " ")
		good := strings.EqualFold(word, "+OK") || sasl && strings.HasPrefix(word, "+")
		switch {
		case err == nil && (!good || !bytes.Contains(line, []byte("\n"))):
			t.Fatalf("%q passes for a success", line)
		case err != nil && c.wire.refused && !strings.EqualFold(word, "-ERR"):
			t.Fatalf("%q passes for a refusal", line)
		}
		if strings.ContainsAny(c.wire.text, "\r\n\x00") {
			t.Fatalf("%q: the text is %q", line, c.wire.text)
		}
	})
}

// TestLimit: an answer that is longer than its limit breaks the connection.
func TestLimit(t *testing.T) {
	t.Parallel()
	c := said(strings.NewReader(strings.Repeat("0123456789\r\n", 100)))
	n, err := io.Copy(io.Discard, c.Body(500, 0))
	if !errors.Is(err, ErrEndless) || !c.Broken() || n > 600 {
		t.Errorf("%d octets, %v", n, err)
	}
	if _, err := c.Answer(); !errors.Is(err, ErrEndless) {
		t.Errorf("afterwards: %v", err)
	}
}

// TestLongLine: a listing's line of any length costs no memory, until it is
// too much.
func TestLongLine(t *testing.T) {
	t.Parallel()
	c := said(nil)
	c.br = bufio.NewReaderSize(strings.NewReader("1 "+strings.Repeat("x", 100_000)+"\r\n2 y\r\n.\r\n"), readBuffer)
	var lengths []int
	if err := c.Lines(10, func(line []byte) { lengths = append(lengths, len(line)) }); err != nil || len(lengths) != 2 || lengths[0] != 1024 || lengths[1] != 3 {
		t.Errorf("lines of %d octets, %v", lengths, err)
	}
	c = said(strings.NewReader(strings.Repeat("x", 3<<20)))
	if err := c.Lines(10, func([]byte) {}); !errors.Is(err, errLongLine) {
		t.Errorf("a line of 3 MB: %v", err)
	}
}

// BenchmarkBody is un-stuffing alone, of a large message in memory: text with a
// dot in each line, a file, and dots.
func BenchmarkBody(b *testing.B) {
	for name, line := range map[string]string{
		"text": "Lorem ipsum dolor sit amet, consectetur adipisici elit, sed eiusmod.\r\n",
		"file": "TG9yZW0gaXBzdW0gZG9sb3Igc2l0IGFtZXQsIGNvbnNlY3RldHVyIGFkaXBpc2ljaSBlbGl0LCBz\r\n",
		"dots": "..\r\n",
	} {
		b.Run(name, func(b *testing.B) { benchmarkBody(b, line) })
	}
}

func benchmarkBody(b *testing.B, line string) {
	text := []byte(strings.Repeat(line, 1<<20/len(line)) + ".\r\n")
	buf := make([]byte, 256<<10)
	b.SetBytes(int64(len(text)))
	r := bytes.NewReader(text)
	in := &incoming{Reader: r, least: directLeast}
	br := bufio.NewReaderSize(in, readBuffer)
	c := &Conn{in: in, br: br, wire: &wire{}}
	for b.Loop() {
		r.Reset(text)
		br.Reset(in)
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c.Body(1<<30, int64(len(text)))}, buf); err != nil {
			b.Fatal(err)
		}
	}
}
