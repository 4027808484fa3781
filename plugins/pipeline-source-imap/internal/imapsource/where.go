package imapsource

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/plugins/pipeline-source-imap/internal/imapconn"
)

// failing asks the server which of the messages surely fail the request's
// conditions. A condition that it can't judge, or refuses to, is left to the
// host: nothing is lost by that but octets.
func (l *lister) failing(ctx context.Context, st *imapconn.Opened) (out []failed, _ error) {
	for i, c := range l.req.Where {
		criteria := complement(&c)
		if criteria == "" {
			continue
		}
		set, _, err := l.seek(ctx, st, criteria)
		switch {
		case err != nil && (l.conn.Broken() || ctx.Err() != nil):
			return nil, err
		case err != nil:
			l.log.Info("the server can't search for a condition: it is judged from the summaries", "mailbox", l.req.Mailbox, "cause", err.Error())
		case len(set) > 0:
			out = append(out, failed{i, set})
		}
	}
	return out, nil
}

// complement returns the criteria of the messages that surely fail a
// condition; empty: the server can't tell.
func complement(c *source.Condition) string {
	switch c.Field {
	case "size":
		return sizeFails(c)
	case "internal_date":
		if d := dateFails(c, "BEFORE", "SINCE"); d != "" {
			return d
		}
	case "date":
		// Servers read a Date header that isn't as it should be in their own
		// ways, and some take the day of arrival where there is none. So the
		// day of arrival has to fail as well, and the field has to be there.
		sent, arrived := dateFails(c, "SENTBEFORE", "SENTSINCE"), dateFails(c, "BEFORE", "SINCE")
		if sent != "" {
			return arrived + " " + sent + ` HEADER DATE ""`
		}
	case "flags":
		return flagFails(c)
	}
	return ""
}

// sizeFails: RFC822.SIZE is what the host compares, and what servers search.
// Numbers have 32 bits (RFC 9051 §9 number).
func sizeFails(c *source.Condition) string {
	smaller := func(n int64) string { // fewer than n octets
		if n < 1 || n >= 1<<32 {
			return ""
		}
		return "SMALLER " + strconv.FormatInt(n, 10)
	}
	larger := func(n int64) string {
		if n < 0 || n >= 1<<32 {
			return ""
		}
		return "LARGER " + strconv.FormatInt(n, 10)
	}
	switch c.Op {
	case ">":
		return smaller(c.Size + 1)
	case ">=":
		return smaller(c.Size)
	case "<":
		return larger(c.Size - 1)
	case "<=":
		return larger(c.Size)
	}
	return ""
}

// Days that a date must lie within for a server to be believed: a date that
// is missing, or can't be read, is searched for as 0, as -1 or not at all.
const (
	firstDay = "2-Jan-1971"
	lastDay  = "1-Jan-2038"
)

// zones is how far a day somewhere on earth is from that of UTC, and a second
// for the strict comparisons.
const zones = 14*time.Hour + time.Second

// dateFails: SEARCH compares days, in whatever zone a date was written down
// (RFC 9051 §6.4.4), so a day is chosen that fails in all of them.
func dateFails(c *source.Condition, before, since string) string {
	day := func(t time.Time) string { return t.Format("2-Jan-2006") }
	t := c.Time.UTC()
	if y := t.Year(); y < 1972 || y > 2036 {
		return ""
	}
	switch c.Op {
	case ">", ">=":
		return since + " " + firstDay + " " + before + " " + day(t.Add(-zones))
	case "<", "<=":
		return since + " " + day(t.Add(zones).Add(24*time.Hour-time.Nanosecond)) + " " + before + " " + lastDay
	}
	return ""
}

var flagKeys = map[string]string{
	`\answered`: "ANSWERED", `\deleted`: "DELETED", `\draft`: "DRAFT", `\flagged`: "FLAGGED", `\seen`: "SEEN",
}

// flagFails: \Recent isn't among the flags of a summary, and what is no atom
// can't be searched for.
func flagFails(c *source.Condition) string {
	key, system := flagKeys[strings.ToLower(c.Flag)]
	if !system {
		if c.Flag == "" || strings.IndexFunc(c.Flag, notInKeyword) >= 0 {
			return ""
		}
		key = "KEYWORD " + c.Flag
	}
	switch c.Op {
	case "has":
		return "UN" + key
	case "lacks":
		return key
	}
	return ""
}

func notInKeyword(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\]`, r) }
