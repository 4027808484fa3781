package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// drainIMAP reads one part of every mailbox: by sequence numbers, one FETCH
// for the whole of it (RFC 3501 §6.4.5).
func (o options) drainIMAP(part int, t *tally) error {
	l, err := o.dial(o.imap)
	if err != nil {
		return err
	}
	defer l.Close()
	if _, err := l.read(); err != nil {
		return err
	}
	if _, err := l.command(fmt.Sprintf("LOGIN %q %q", o.user, o.password)); err != nil {
		return err
	}
	listed, err := l.command(`LIST "" "*"`)
	if err != nil {
		return err
	}
	f := &file{dir: o.out, part: part}
	for _, name := range mailboxes(listed) {
		examined, err := l.command("EXAMINE " + name)
		if err != nil {
			return err
		}
		n := exists(examined)
		from, to := part*n/o.connections+1, (part+1)*n/o.connections
		if from > to {
			continue
		}
		what := "BODY.PEEK[]"
		if o.headers {
			what = "BODY.PEEK[HEADER]"
		}
		if err := l.fetch(fmt.Sprintf("FETCH %d:%d (UID %s)", from, to, what), f, t); err != nil {
			return err
		}
	}
	return nil
}

// command sends one and returns its untagged lines.
func (l *line) command(c string) ([]string, error) {
	if _, err := fmt.Fprintf(l, "a %s\r\n", c); err != nil {
		return nil, err
	}
	var out []string
	for {
		b, err := l.read()
		if err != nil {
			return nil, err
		}
		if s, ok := strings.CutPrefix(string(b), "a "); ok {
			if !strings.HasPrefix(s, "OK") {
				return nil, fmt.Errorf("%s: %s", strings.Fields(c)[0], strings.TrimSpace(s))
			}
			return out, nil
		}
		out = append(out, string(b))
	}
}

// fetch drains the literals of one FETCH.
func (l *line) fetch(c string, f *file, t *tally) error {
	if _, err := fmt.Fprintf(l, "a %s\r\n", c); err != nil {
		return err
	}
	for {
		b, err := l.read()
		if err != nil {
			return err
		}
		if bytes.HasPrefix(b, []byte("a ")) {
			if !bytes.HasPrefix(b, []byte("a OK")) {
				return fmt.Errorf("FETCH: %s", bytes.TrimSpace(b))
			}
			return nil
		}
		open := bytes.LastIndexByte(b, '{')
		if open < 0 || !bytes.HasSuffix(b, []byte("}\r\n")) {
			continue
		}
		n, err := strconv.Atoi(string(b[open+1 : len(b)-3]))
		if err != nil {
			return err
		}
		t.messages.Add(1)
		t.octets.Add(int64(n))
		for n > 0 {
			if l.r.Buffered() == 0 {
				if _, err := l.r.Peek(1); err != nil {
					return err
				}
			}
			part, _ := l.r.Peek(min(n, l.r.Buffered()))
			if err := f.write(part); err != nil {
				return err
			}
			n -= len(part)
			if _, err := l.r.Discard(len(part)); err != nil {
				return err
			}
		}
		if err := f.end(); err != nil {
			return err
		}
	}
}

// mailboxes are the names of a LIST as the server wrote them, quotes and all.
func mailboxes(listed []string) []string {
	var out []string
	for _, s := range listed {
		attributes, rest, ok := strings.Cut(s, ") ")
		if !ok || strings.Contains(attributes, `\Noselect`) {
			continue
		}
		if _, name, ok := strings.Cut(rest, " "); ok {
			out = append(out, strings.TrimSpace(name))
		}
	}
	return out
}

// exists is the count of an EXAMINE.
func exists(lines []string) int {
	for _, s := range lines {
		if n, ok := strings.CutSuffix(strings.TrimSpace(s), " EXISTS"); ok {
			v, _ := strconv.Atoi(strings.TrimPrefix(n, "* "))
			return v
		}
	}
	return 0
}
