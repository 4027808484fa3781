package imapsource

import (
	"context"
	"strings"

	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapdata"
)

// search returns the UIDs of the mailbox as ranges.
func (l *lister) search(ctx context.Context, st *examined) (imapdata.Set, error) {
	if st.messages == 0 {
		return nil, nil
	}
	var criteria []string
	if text := l.config.Select.Sequence; text != "" {
		// Numbers beyond the last are a protocol error (RFC 9051 §9).
		last := uint32(max(st.messages, 1))
		set, _ := imapdata.ParseSetTo(text, last)
		if set = set.And(imapdata.Set{{First: 1, Last: last}}); len(set) == 0 {
			return nil, nil
		}
		criteria = append(criteria, set.String())
	}
	if set := l.config.Select.UIDs; set != "" {
		criteria = append(criteria, "UID "+set)
	}
	if l.config.Search != "" {
		criteria = append(criteria, l.config.Search)
	}
	if len(criteria) > 0 {
		return searchUIDs(ctx, l.conn, strings.Join(criteria, " "))
	}
	all, err := searchUIDs(ctx, l.conn, "ALL")
	if n := all.Count(); err == nil && n != st.messages {
		l.log.Warn("blind spot: the server's count and its listing differ", "mailbox", l.req.Mailbox, "count", st.messages, "listed", n)
	}
	switch st.messages {
	case 1_000, 10_000, 100_000:
		l.log.Warn("blind spot: the mailbox has exactly as many messages as some providers show at most", "mailbox", l.req.Mailbox, "count", st.messages)
	}
	return all, err
}

// searchUIDs runs UID SEARCH. ESEARCH (RFC 4731) answers in ranges. A server
// with a limit answers in pieces, from the newest on (RFC 9738).
func searchUIDs(ctx context.Context, c *imapconn.Conn, criteria string) (imapdata.Set, error) {
	var set imapdata.Set
	collect := func(r *imapconn.Response) error {
		switch r.Name {
		case "SEARCH":
			set.ReadSearch(r.Data)
		case "ESEARCH":
			set.ReadESearch(r.Data)
		}
		return nil
	}
	command := "UID SEARCH "
	if c.Has("ESEARCH") || c.Has("IMAP4REV2") {
		command = "UID SEARCH RETURN (ALL) "
	}
	for piece, low := "", uint32(1<<32-1); ; {
		r, err := c.Do(ctx, command+piece+criteria, collect)
		if err != nil && !c.Broken() && command != "UID SEARCH " {
			command, set = "UID SEARCH ", nil // promised but not kept
			continue
		}
		if err != nil || r.Code != "MESSAGELIMIT" {
			return set, err
		}
		_, lowest, _ := strings.Cut(r.Argument, " ")
		n := imapdata.Number(lowest)
		if n <= 1 || n >= int64(low) {
			return set, nil
		}
		low = uint32(n)
		piece = "UID 1:" + imapdata.Uint64(uint64(low-1)) + " "
	}
}

// choose applies the request to the UIDs that there are.
func (l *lister) choose(all imapdata.Set) imapdata.Set {
	if l.req.IDs != nil {
		var uids []uint32
		for _, id := range l.req.IDs {
			if id.UIDValidity == l.validity {
				uids = append(uids, id.UID)
			}
		}
		all = all.And(imapdata.Of(uids))
	}
	if a := l.req.After; a != nil && a.UIDValidity == l.validity {
		if l.req.Newest {
			all = all.Below(a.UID)
		} else {
			all = all.Above(a.UID)
		}
	}
	if n := int64(l.req.Limit); n > 0 {
		if l.req.Newest {
			all = all.Last(n)
		} else {
			all = all.First(n)
		}
	}
	return all
}
