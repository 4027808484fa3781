// Command drain shows what a mail server can give: a plain socket, one large
// buffer, nothing parsed but what says how long a message is. Every octet is
// thrown away, or written to a file a message, made durable by one flush at
// the end.
//
//	drain -imap HOST:PORT -user U -password P [-connections N] [-tls] [-headers] [-out DIR]
//	drain -pop3 HOST:PORT -user U -password P [-connections N] [-tls] [-out DIR]
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
)

type options struct {
	imap, pop3, user, password, out string
	connections                     int
	tls, headers                    bool
}

func main() {
	var o options
	flag.StringVar(&o.imap, "imap", "", "address of an IMAP server")
	flag.StringVar(&o.pop3, "pop3", "", "address of a POP3 server")
	flag.StringVar(&o.user, "user", "", "user")
	flag.StringVar(&o.password, "password", "", "password, which anybody on this machine can see")
	flag.StringVar(&o.out, "out", "", "write files into this directory")
	flag.IntVar(&o.connections, "connections", 1, "connections")
	flag.BoolVar(&o.tls, "tls", false, "TLS, with no look at the certificate")
	flag.BoolVar(&o.headers, "headers", false, "IMAP: headers only")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "drain:", err)
		os.Exit(1)
	}
}

// tally counts what came.
type tally struct{ messages, octets atomic.Int64 }

func run(o options) error {
	var t tally
	var wg sync.WaitGroup
	failed := make([]error, o.connections)
	for i := range o.connections {
		wg.Go(func() {
			if o.pop3 != "" {
				failed[i] = o.drainPOP3(i, &t)
			} else {
				failed[i] = o.drainIMAP(i, &t)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(failed...); err != nil {
		return err
	}
	if o.out != "" {
		if err := flush(o.out); err != nil {
			return err
		}
	}
	fmt.Printf("%d messages, %d octets\n", t.messages.Load(), t.octets.Load())
	return nil
}

// line is a connection that speaks lines.
type line struct {
	net.Conn
	r *bufio.Reader
}

func (o options) dial(at string) (*line, error) {
	var c net.Conn
	var err error
	if o.tls {
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // a loopback server of the benchmark's own
		c, err = d.DialContext(context.Background(), "tcp", at)
	} else {
		var d net.Dialer
		c, err = d.DialContext(context.Background(), "tcp", at)
	}
	if err != nil {
		return nil, err
	}
	return &line{Conn: c, r: bufio.NewReaderSize(c, 256<<10)}, nil
}

// read returns the next line, valid until the next read.
func (l *line) read() ([]byte, error) {
	b, err := l.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		err = nil
	}
	return b, err
}

// file is where a message goes: nowhere, or into a file.
type file struct {
	dir  string
	part int
	n    int
	buf  []byte
	f    *os.File
}

func (f *file) write(b []byte) error {
	if f.dir == "" {
		return nil
	}
	f.buf = append(f.buf, b...)
	if len(f.buf) < 1<<20 {
		return nil
	}
	return f.spill()
}

func (f *file) spill() error {
	if f.f == nil {
		var err error
		if f.f, err = os.Create(fmt.Sprintf("%s/%d-%06d.eml", f.dir, f.part, f.n)); err != nil {
			return err
		}
		f.n++
	}
	_, err := f.f.Write(f.buf)
	f.buf = f.buf[:0]
	return err
}

// end closes the file of one message.
func (f *file) end() error {
	if f.dir == "" {
		return nil
	}
	if err := f.spill(); err != nil {
		return err
	}
	err := f.f.Close()
	f.f = nil
	return err
}
