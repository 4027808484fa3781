package engine_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/internal/stages/limit"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// lettersOf gives a server mail of that size, of which those that good lets
// pass have a subject that the filter keeps.
func lettersOf(size int, good func(uid uint32) bool) func(string, uint32) []byte {
	body := strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n", size/64+1)[:size]
	received := strings.Repeat("Received: from a.example.com by b.example.com with ESMTP; Mon, 1 Jan 2024 00:00:00 +0000\r\n", 5)
	return func(mailbox string, uid uint32) []byte {
		subject := "bad"
		if good(uid) {
			subject = "good"
		}
		return fmt.Appendf(nil, "%sFrom: a@example.com\r\nSubject: %s %d\r\nMessage-ID: <%d@%s>\r\n\r\n%s", received, subject, uid, uid, mailbox, body)
	}
}

const keepsGood = `subject startsWith "good"`

// TestHeadersWithBodies: where most messages pass, headers cost more than the
// bodies of the few that don't. What is exported is the same whichever way.
func TestHeadersWithBodies(t *testing.T) {
	t.Parallel()
	const n = 4 * 512
	every := func(of uint32) func(uint32) bool { return func(uid uint32) bool { return uid%of == 0 } }
	not := func(f func(uint32) bool) func(uint32) bool { return func(uid uint32) bool { return !f(uid) } }
	for name, tc := range map[string]struct {
		good          func(uid uint32) bool
		size          int
		budget        bool
		headers, most int64 // how many may be asked for first
		bodies        int64 // how many may be fetched
	}{
		// The first page, and a sample of each of the others.
		"99 of 100 pass":       {good: not(every(100)), size: 4096, headers: 512, most: 512 + 3*32, bodies: n},
		"all pass":             {good: not(every(n + 1)), size: 4096, headers: 512, most: 512 + 3*32, bodies: n},
		"99 of 100, large":     {good: not(every(100)), size: 100_000, headers: n, most: n, bodies: n - n/100},
		"half passes":          {good: every(2), size: 4096, headers: n, most: n, bodies: n / 2},
		"1 of 100 passes":      {good: every(100), size: 4096, headers: n, most: n, bodies: n / 100},
		"half, and octets few": {good: not(every(5)), size: 4096, budget: true, headers: n, most: n, bodies: n - n/5},
		// What one page teaches is wrong for the next ones: the sample tells.
		"the first half passes": {good: func(uid uint32) bool { return uid <= n/2 }, size: 4096, headers: n / 2, most: n, bodies: n / 2},
		"the last half passes":  {good: func(uid uint32) bool { return uid > n/2 }, size: 4096, headers: n / 2, most: n/2 + 512 + 2*32, bodies: n / 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(n, "INBOX")
			s.octets = lettersOf(tc.size, tc.good)
			if tc.budget {
				s.budget = source.Budget{Bytes: 1 << 40}
			}
			r := newRig(t, s)
			r.stores["files"].forgetful = true
			r.filter("good", keepsGood)
			res := r.run()
			r.wantExit(res, engine.ExitDone)
			want := int64(0)
			for uid := range uint32(n) {
				if tc.good(uid + 1) {
					want++
				}
			}
			sum := total(res)
			if sum.Written != want || sum.Dropped["good"] != n-want {
				t.Errorf("%d written, %d dropped; want %d and %d", sum.Written, sum.Dropped["good"], want, n-want)
			}
			if h := s.headers.Load(); h < tc.headers || h > tc.most {
				t.Errorf("%d headers were asked for, want %d to %d", h, tc.headers, tc.most)
			}
			if b := s.fetched.Load(); b > tc.bodies {
				t.Errorf("%d bodies were fetched, want at most %d", b, tc.bodies)
			}
			if w := res.Accounts[0].Mailboxes[0].WithBodies; w+s.headers.Load() != n {
				t.Errorf("the report says that %d headers came with the bodies; %d of %d were asked for", w, s.headers.Load(), n)
			}
			t.Logf("%d listings, %d headers, %d bodies of %d octets", s.lists.Load(), s.headers.Load(), s.fetched.Load(), s.brought.Load())

			// The next run has nothing to do: drops by the body are kept as
			// those by a listing are (I8).
			fetched, headers := s.fetched.Load(), s.headers.Load()
			s.count["INBOX"]++ // else the mailbox is passed over
			s.expunged["INBOX"] = map[uint32]bool{n + 1: true}
			if again := total(r.run()); again.DoneBefore != n || s.fetched.Load() != fetched || s.headers.Load() != headers {
				t.Errorf("again: %+v", again)
			}
		})
	}
}

// TestHeadersWithBodiesTellsOnce: a person who watches is told why headers are
// no longer asked for.
func TestHeadersWithBodiesTellsOnce(t *testing.T) {
	t.Parallel()
	s := newServer(2000, "A", "B")
	s.octets = lettersOf(2000, func(uid uint32) bool { return uid%50 != 0 })
	r := newRig(t, s)
	r.filter("good", keepsGood)
	var mu sync.Mutex
	var told []string
	r.opts.Events = func(e engine.Event) {
		if e.Kind == engine.AccountNote {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, e.Text)
		}
	}
	r.wantExit(r.run(), engine.ExitDone)
	const want = "A: headers come with the bodies from message 513 on, where a sample says so: 98 % pass"
	if len(told) != 1 || told[0] != want {
		t.Errorf("told %q, want once %q", told, want)
	}
}

// TestNeverABodyThatACheapTermRefuses: a size, a flag or a date of the server's
// refuses before any octet of a body, however many messages pass the header.
func TestNeverABodyThatACheapTermRefuses(t *testing.T) {
	t.Parallel()
	for name, filters := range map[string][]string{
		"in one filter":              {`size < 6000 && ` + keepsGood},
		"in a filter after it":       {keepsGood, `size < 6000`},
		"in two, with internal date": {keepsGood, `internal_date > date("1970-01-01T00:00:00Z")`, `size < 6000`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(3000, "INBOX")
			small, large := lettersOf(3000, func(uint32) bool { return true }), lettersOf(9000, func(uint32) bool { return true })
			s.octets = func(m string, uid uint32) []byte {
				if uid%3 == 0 {
					return large(m, uid)
				}
				return small(m, uid)
			}
			r := newRig(t, s)
			for i, f := range filters {
				r.filter(fmt.Sprint("f", i), f)
			}
			r.wantExit(r.run(), engine.ExitDone)
			r.wantAll("files", func(_ string, uid uint32) bool { return uid%3 != 0 })
			if n := s.fetched.Load(); n != 2000 {
				t.Errorf("%d bodies were fetched for 2000 messages that pass", n)
			}
			if s.headers.Load() > 1000 {
				t.Errorf("%d headers were asked for first: all pass", s.headers.Load())
			}
		})
	}
}

// TestHeadersFirstWhereItMatters: a limit counts what passed in the order of
// the listing, and a record tells whose octets were read: these see the headers
// first, or nothing would be the same twice (I2).
func TestHeadersFirstWhereItMatters(t *testing.T) {
	t.Parallel()
	good := func(uid uint32) bool { return uid%100 != 0 }
	for name, set := range map[string]func(*rig){
		"a limit after the filter": func(r *rig) {
			r.filter("good", keepsGood)
			r.stages = append(r.stages, stages.Config{Name: "few", Limit: &limit.Config{Messages: 1900, Per: "mailbox"}})
		},
		"a route, and an index of all": func(r *rig) {
			r.sinks[0].When = mustCompile(t, keepsGood)
			r.index(message.NeedHeaders)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(2000, "INBOX")
			s.octets = lettersOf(1000, good)
			r := newRig(t, s)
			set(r)
			r.wantExit(r.run(), engine.ExitDone)
			if n, kept := s.fetched.Load(), int64(len(r.stores["files"].contents())); n != kept || kept == 0 {
				t.Errorf("%d bodies were fetched for %d messages that pass", n, kept)
			}
		})
	}
	t.Run("a route alone needn't", func(t *testing.T) {
		t.Parallel()
		s := newServer(2000, "INBOX")
		s.octets = lettersOf(1000, good)
		r := newRig(t, s)
		r.sinks[0].When = mustCompile(t, keepsGood)
		res := r.run()
		r.wantExit(res, engine.ExitDone)
		r.wantAll("files", func(_ string, uid uint32) bool { return good(uid) })
		if s.headers.Load() > 1000 || total(res).Unrouted != 20 {
			t.Errorf("%d headers were asked for, %d unrouted", s.headers.Load(), total(res).Unrouted)
		}
	})
}

func mustCompile(t *testing.T, text string) *expression.Program {
	t.Helper()
	p, err := expression.Compile(text, expression.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
