package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// drainPOP3 reads one part of the maildrop, every RETR sent before the first
// answer is read (RFC 2449 §6.6).
func (o options) drainPOP3(part int, t *tally) error {
	l, err := o.dial(o.pop3)
	if err != nil {
		return err
	}
	defer l.Close()
	if _, err := l.ok("greeting"); err != nil {
		return err
	}
	var stat string
	for _, c := range []string{"USER " + o.user, "PASS " + o.password, "STAT"} {
		if _, err := fmt.Fprintf(l, "%s\r\n", c); err != nil {
			return err
		}
		if stat, err = l.ok(strings.Fields(c)[0]); err != nil {
			return err
		}
	}
	n, err := strconv.Atoi(strings.Fields(stat)[1])
	if err != nil {
		return err
	}
	from, to := part*n/o.connections+1, (part+1)*n/o.connections
	go func() {
		var b bytes.Buffer
		for i := from; i <= to; i++ {
			fmt.Fprintf(&b, "RETR %d\r\n", i)
		}
		// A failed write shows as a failed read below.
		_, _ = l.Write(b.Bytes())
	}()
	f := &file{dir: o.out, part: part}
	for i := from; i <= to; i++ {
		if _, err := l.ok("RETR"); err != nil {
			return err
		}
		t.messages.Add(1)
		if err := l.message(f, t); err != nil {
			return err
		}
	}
	return nil
}

// ok reads an answer, which must be +OK.
func (l *line) ok(to string) (string, error) {
	b, err := l.read()
	if err == nil && !bytes.HasPrefix(b, []byte("+OK")) {
		err = fmt.Errorf("%s: %s", to, bytes.TrimSpace(b))
	}
	return string(b), err
}

// message reads lines up to the one that is a dot, and takes the dot off
// those that were stuffed (RFC 1939 §3).
func (l *line) message(f *file, t *tally) error {
	start := true
	for {
		b, err := l.read()
		if err != nil {
			return err
		}
		if start && b[0] == '.' {
			if b = b[1:]; len(b) <= 2 {
				return f.end()
			}
		}
		start = b[len(b)-1] == '\n'
		t.octets.Add(int64(len(b)))
		if err := f.write(b); err != nil {
			return err
		}
	}
}
