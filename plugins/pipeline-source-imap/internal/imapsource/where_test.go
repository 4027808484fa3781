package imapsource

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/dovecot"
	"github.com/mailhaul/pipeline/test/imapscript"
	"github.com/mailhaul/pipeline/test/wireproxy"
)

// holds says whether a condition holds of a message, as the host would: known
// is false where the value is missing or can't be read.
func holds(c source.Condition, s *message.Summary) (ok, known bool) {
	compare := func(n int) bool {
		switch c.Op {
		case "<":
			return n < 0
		case "<=":
			return n <= 0
		case ">":
			return n > 0
		}
		return n >= 0
	}
	switch c.Field {
	case "size":
		return compare(int(s.Size - c.Size)), s.Have.Has(message.NeedSize)
	case "internal_date":
		return compare(s.InternalDate.Compare(c.Time)), !s.InternalDate.IsZero()
	case "date":
		t, known := s.Header.Date()
		return compare(t.Compare(c.Time)), known
	}
	has := false
	for _, f := range append(s.Flags, s.Keywords...) {
		has = has || strings.EqualFold(f, c.Flag)
	}
	return has == (c.Op == "has"), s.Have.Has(message.NeedFlags)
}

// TestConditions: what the server's SEARCH finds to fail fails indeed, with
// dates at the edges of days and zones, missing, doubled and unreadable; and
// what fails clearly is found.
func TestConditions(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	mid := time.Date(2020, 6, 15, 12, 0, 0, 0, time.UTC)
	var n int
	deliver := func(head string, arrived time.Time, flags ...string) {
		n++
		d.Deliver("alice", "INBOX", fmt.Appendf(nil, "Subject: %d\r\n%s\r\n%s", n, head, strings.Repeat("x", n*10)), arrived, flags...)
	}
	for _, hours := range []int{-24 * 4000, -24 * 400, -50, -38, -26, -25, -14, -13, -1, 0, 1, 11, 13, 14, 25, 38, 50, 24 * 400, 24 * 4000} {
		at := mid.Add(time.Duration(hours) * time.Hour)
		for _, zone := range []int{-11, 0, 14} {
			deliver("Date: "+at.In(time.FixedZone("", zone*3600)).Format(time.RFC1123Z)+"\r\n", at)
		}
		deliver("", at)               // no Date at all
		deliver("Date: \r\n", at)     // an empty one
		deliver("Date: soon\r\n", at) // no date
		deliver("Date: "+mid.AddDate(-3, 0, 0).Format(time.RFC1123Z)+"\r\nDate: "+mid.AddDate(3, 0, 0).Format(time.RFC1123Z)+"\r\n", at)
		deliver("Date: "+at.Format("2 Jan 06 15:04 MST")+"\r\n", at) // two digits of a year
		deliver("Date: "+at.Format("Monday, 02-Jan-06 15:04:05 MST")+"\r\n", at, `\Seen`)
		deliver("Date: "+at.Format(time.RFC3339)+"\r\n", at, "$Forwarded")
		deliver("Date: "+at.Format(time.ANSIC)+"\r\n", at, `\Flagged`, `\Seen`)
		deliver("Date: "+at.Format("Mon, 2 Jan 2006 25:61:61 +0000")+"\r\n", at)
		deliver("X-Date: here\r\nDate : "+at.Format(time.RFC1123Z)+"\r\n", mid)
		deliver("Date: "+at.Format(time.RFC1123Z)+"\r\n", mid.AddDate(5, 0, 0)) // moved here long after
	}
	s := openSource(t, plainConfig(d.IMAP))
	all := map[uint32]message.Summary{}
	for _, sum := range list(t, s, source.ListRequest{Mailbox: "INBOX", Needs: everything}) {
		all[sum.ID.UID] = sum
	}
	if len(all) != n {
		t.Fatalf("%d messages, want %d", len(all), n)
	}
	day := 24 * time.Hour
	for _, tt := range []struct {
		where source.Condition
		clear int // at least so many are found to fail
	}{
		{source.Condition{Field: "internal_date", Op: ">=", Time: mid}, 48},
		{source.Condition{Field: "internal_date", Op: ">", Time: mid.Add(11 * time.Hour)}, 60},
		{source.Condition{Field: "internal_date", Op: "<", Time: mid}, 60},
		{source.Condition{Field: "internal_date", Op: "<=", Time: mid.Truncate(day)}, 60},
		{source.Condition{Field: "internal_date", Op: "<=", Time: mid.In(time.FixedZone("", 14*3600))}, 60},
		{source.Condition{Field: "date", Op: ">=", Time: mid}, 18},
		{source.Condition{Field: "date", Op: ">", Time: mid.Truncate(day)}, 18},
		{source.Condition{Field: "date", Op: "<", Time: mid}, 18},
		{source.Condition{Field: "date", Op: "<=", Time: mid.Truncate(day).Add(day)}, 18},
		{source.Condition{Field: "date", Op: ">=", Time: time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC)}, 0},
		{source.Condition{Field: "date", Op: "<", Time: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)}, 0},
		{source.Condition{Field: "size", Op: "<", Size: 1000}, 10},
		{source.Condition{Field: "size", Op: "<=", Size: all[5].Size}, 10},
		{source.Condition{Field: "size", Op: ">", Size: all[5].Size}, 3},
		{source.Condition{Field: "size", Op: ">=", Size: all[5].Size}, 2},
		{source.Condition{Field: "size", Op: ">", Size: 1 << 40}, 0},
		{source.Condition{Field: "size", Op: "<", Size: 0}, 0},
		{source.Condition{Field: "flags", Op: "has", Flag: `\Seen`}, 200},
		{source.Condition{Field: "flags", Op: "lacks", Flag: `\seen`}, 38},
		{source.Condition{Field: "flags", Op: "lacks", Flag: "$forwarded"}, 19},
		{source.Condition{Field: "flags", Op: "has", Flag: `not "an atom"`}, 0},
		{source.Condition{Field: "subject", Op: "has", Flag: "x"}, 0},
	} {
		t.Run(fmt.Sprintf("%s %s %v%d%s", tt.where.Field, tt.where.Op, tt.where.Time.Format("2006-01-02T15Z07"), tt.where.Size, tt.where.Flag), func(t *testing.T) {
			for _, needs := range []message.Needs{0, message.NeedSize} {
				got := list(t, s, source.ListRequest{Mailbox: "INBOX", Needs: needs, Where: []source.Condition{{Field: "weather"}, tt.where}})
				if len(got) != n {
					t.Errorf("%d messages are listed, want %d: those that fail stay in the count", len(got), n)
				}
				failed := 0
				for i, g := range got {
					if i > 0 && g.ID.UID <= got[i-1].ID.UID {
						t.Fatalf("UID %d behind %d", g.ID.UID, got[i-1].ID.UID)
					}
					if g.Fails == 0 {
						if !g.Have.Has(needs) {
							t.Errorf("UID %d has %s, want %s", g.ID.UID, g.Have, needs)
						}
						continue
					}
					failed++
					sum := all[g.ID.UID]
					if ok, known := holds(tt.where, &sum); ok || !known || g.Fails != 2 || g.Have != 0 {
						t.Errorf("UID %d is said to fail: holds %v, known %v, %+v (Date %q, arrived %v, size %d)", g.ID.UID, ok, known, g, sum.Header.Get("Date"), sum.InternalDate, sum.Size)
					}
				}
				if failed < tt.clear {
					t.Errorf("%d are found to fail, want at least %d", failed, tt.clear)
				}
			}
		})
	}
}

// TestConditionsInOrder: the first that fails counts, pages keep their order
// and size in both directions.
func TestConditionsInOrder(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	const n = 1600
	for i := range n {
		var flags []string
		if i%3 == 0 {
			flags = append(flags, `\Seen`)
		}
		if i%5 == 0 {
			flags = append(flags, `\Flagged`)
		}
		d.Deliver("alice", "INBOX", sampleMail(i+1), sampleDate, flags...)
	}
	s := openSource(t, plainConfig(d.IMAP))
	where := []source.Condition{{Field: "flags", Op: "lacks", Flag: `\Seen`}, {Field: "flags", Op: "lacks", Flag: `\Flagged`}}
	for _, newest := range []bool{false, true} {
		for _, limit := range []int{0, 1100} {
			got := list(t, s, source.ListRequest{Mailbox: "INBOX", Needs: message.NeedSize, Where: where, Newest: newest, Limit: limit, Skip: 100})
			want := n - 100
			if limit > 0 {
				want = limit
			}
			if len(got) != want {
				t.Fatalf("newest %v, limit %d: %d messages, want %d", newest, limit, len(got), want)
			}
			for at, g := range got {
				i := at + 100
				if newest {
					i = n - 1 - i
				}
				fails := 0
				if i%3 == 0 {
					fails = 1
				} else if i%5 == 0 {
					fails = 2
				}
				if g.ID.UID != uint32(i+1) || g.Fails != fails || (g.Size > 0) != (fails == 0) {
					t.Fatalf("newest %v, limit %d: at %d is %+v, want UID %d failing %d", newest, limit, at, g, i+1, fails)
				}
			}
		}
	}
}

// TestConditionsOfServersThatCannotSearch: nothing is lost, and nothing fails.
func TestConditionsOfServersThatCannotSearch(t *testing.T) {
	t.Parallel()
	server := imapscript.Start(t, imapscript.Script{Mailboxes: []imapscript.Mailbox{inbox(5)}, Command: func(c *imapscript.Conn, tag, verb, args string) bool {
		if verb == "UID SEARCH" && args != "ALL" {
			c.Write("%s BAD what is %s?\r\n", tag, args)
			return true
		}
		return false
	}})
	got := list(t, openSource(t, plainConfig(server.Addr)), source.ListRequest{Mailbox: "INBOX", Needs: message.NeedSize, Where: []source.Condition{{Field: "size", Op: ">", Size: 1000}}})
	if len(got) != 5 || got[0].Fails != 0 || got[0].Size == 0 {
		t.Errorf("%d messages, %+v", len(got), got[0])
	}
}

// TestDateFilterOnTheWire measures what a filter on the last year costs over a
// mailbox of five.
func TestDateFilterOnTheWire(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	const n = 5000
	begin := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		at := begin.Add(time.Duration(i) * (5 * 365 * 24 * time.Hour / n))
		d.Deliver("alice", "INBOX", fmt.Appendf(nil, "Received: from a.example.org by b.example.org with ESMTPS id %030d\r\n\tfor <alice@example.org>; %s\r\nFrom: a@example.org\r\nTo: alice@example.org\r\nSubject: number %d\r\nMessage-ID: <%d@example.org>\r\nDate: %s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello.\r\n",
			i, at.Format(time.RFC1123Z), i, i, at.Format(time.RFC1123Z)), at)
	}
	p := wireproxy.Start(t, d.IMAP)
	c := plainConfig(p.Addr)
	c.Compress = "never"
	s := openSource(t, c)
	measure := func(where ...source.Condition) (octets int64, left int, took time.Duration) {
		p.Reset()
		began := time.Now()
		for _, g := range list(t, s, source.ListRequest{Mailbox: "INBOX", Needs: message.NeedHeaders, Where: where}) {
			if g.Fails == 0 {
				left++
			}
		}
		return p.Up() + p.Down(), left, time.Since(began)
	}
	before, all, slow := measure()
	after, left, fast := measure(source.Condition{Field: "date", Op: ">=", Time: begin.AddDate(4, 0, 0)})
	t.Logf("a filter on the last of 5 years over %d mails: %d octets and %v without SEARCH, %d and %v with it (%.1f times less), %d summaries instead of %d",
		n, before, slow, after, fast, float64(before)/float64(after), left, all)
	if all != n || left < n/5 || left > n/5+10 || after > before/4 {
		t.Errorf("%d of %d messages are left, %d octets of %d", left, all, after, before)
	}
}
