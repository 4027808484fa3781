package dovecot

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Octets returns BODY[] of every message of a mailbox by UID. It speaks IMAP
// itself, over a plain socket, with nothing of the project in between: what
// it says is what other code is measured by. The name of the mailbox is as on
// the wire.
func (s *Server) Octets(user, mailbox string) map[uint32][]byte {
	s.tb.Helper()
	out, err := octets(s.IMAP, user, mailbox)
	if err != nil {
		s.tb.Fatalf("read %s of %s: %v", mailbox, user, err)
	}
	return out
}

func octets(at, user, mailbox string) (map[uint32][]byte, error) {
	c, err := net.Dial("tcp", at)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	r := bufio.NewReaderSize(c, 64<<10)
	fmt.Fprintf(c, "a LOGIN %s %s\r\nb EXAMINE \"%s\"\r\nc UID FETCH 1:* (UID BODY.PEEK[])\r\n", user, Password, mailbox)
	out := map[uint32][]byte{}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "c OK"):
			return out, nil
		case strings.HasPrefix(line, "a NO"), strings.HasPrefix(line, "b NO"), strings.HasPrefix(line, "c NO"), strings.Contains(line, " BAD "):
			return nil, fmt.Errorf("the server says %q", line)
		}
		_, item, ok := strings.Cut(line, " FETCH (UID ")
		if !ok {
			continue
		}
		uidText, _, _ := strings.Cut(item, " ")
		uid, err := strconv.ParseUint(uidText, 10, 32)
		if err != nil {
			return nil, err
		}
		open := strings.LastIndexByte(item, '{')
		if open < 0 {
			return nil, fmt.Errorf("no literal in %q", line)
		}
		size, err := strconv.Atoi(strings.TrimSuffix(item[open+1:], "}"))
		if err != nil {
			return nil, err
		}
		b := make([]byte, size)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		out[uint32(uid)] = b
	}
}
