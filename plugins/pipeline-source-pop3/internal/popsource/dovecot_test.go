package popsource

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/test/dovecot"
)

var sampleDate = time.Unix(1_700_000_000, 0)

// TestDovecot: count, sizes, ids and bodies from a real server, over several
// sessions at once.
func TestDovecot(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	for i := range 300 {
		d.Deliver("alice", "INBOX", []byte(sample(i)), sampleDate)
	}
	c := plainConfig(d.POP3)
	c.Connections = 3
	s := openSource(t, c)
	if s.Lanes() != 3 {
		t.Errorf("%d lanes, want 3", s.Lanes())
	}
	m := mailbox(t, s)
	sums := list(t, s, source.ListRequest{Needs: message.NeedSize})
	var total int64
	for _, sum := range sums {
		total += sum.Size
	}
	if m.State.Messages != 300 || m.State.Bytes != total || len(sums) != 300 {
		t.Errorf("%+v, %d messages of %d octets are listed", m.State, len(sums), total)
	}
	done := make(chan answers, 3)
	for lane := range 3 {
		go func() { done <- fetch(t.Context(), t, s, 0, idsOf(sums[lane*100:lane*100+100]), 30) }()
	}
	got := 0
	for range 3 {
		a := <-done
		if a.err != nil || len(a.errs) > 0 {
			t.Error(a.err, a.errs)
		}
		got += len(a.octets)
	}
	if got != 300 {
		t.Errorf("%d messages came, want 300", got)
	}
}

// TestState: the token of the state is the same for the same maildrop, and
// another as soon as one message replaces another of the same size.
func TestState(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	for i := range 5 {
		d.Deliver("alice", "INBOX", []byte(sample(i)), sampleDate)
	}
	look := func() message.MailboxState { return mailbox(t, openSource(t, plainConfig(d.POP3))).State }
	first, second := look(), look()
	if !reflect.DeepEqual(first, second) || first.Content == "" {
		t.Errorf("nothing changed: %+v, then %+v", first, second)
	}
	d.Doveadm("expunge", "-u", "alice", "mailbox", "INBOX", "2")
	d.Deliver("alice", "INBOX", []byte(sample(5)), sampleDate)
	if third := look(); third.Messages != first.Messages || third.Bytes != first.Bytes || third.Content == first.Content {
		t.Errorf("one message for another: %+v, then %+v", first, third)
	}
}

// TestExpungedInBetween: a message that another client deletes in mid-session
// is gone, which a fresh session says, and the others come.
func TestExpungedInBetween(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	for i := range 10 {
		d.Deliver("alice", "INBOX", []byte(sample(i)), sampleDate)
	}
	s := openSource(t, plainConfig(d.POP3))
	sums := list(t, s, source.ListRequest{})
	d.Doveadm("expunge", "-u", "alice", "mailbox", "INBOX", "4")
	a := fetch(t.Context(), t, s, 0, idsOf(sums), 4)
	if a.err != nil || len(a.octets) != 9 || !fault.Is(a.errs[sums[3].ID], fault.Gone) {
		t.Fatalf("%d messages came, errors %v, %v", len(a.octets), a.errs, a.err)
	}
	if left := list(t, s, source.ListRequest{IDs: idsOf(sums[2:5])}); len(left) != 2 {
		t.Errorf("a fresh list has %d of the three, want 2", len(left))
	}
}

// TestRestart: a server that restarts in mid-fetch costs nothing.
func TestRestart(t *testing.T) {
	t.Parallel()
	d := dovecot.Start(t, dovecot.Options{})
	pad := strings.Repeat("All work and no play makes Jack a dull boy.\r\n", 3000)
	for i := range 40 {
		d.Deliver("alice", "INBOX", []byte(sample(i)+pad), sampleDate)
	}
	s := openSource(t, plainConfig(d.POP3))
	sums := list(t, s, source.ListRequest{})
	n := 0
	for got, err := range s.Fetch(t.Context(), source.FetchRequest{Mailbox: inbox, Needs: message.NeedBody, IDs: func(yield func([]message.ID) bool) {
		for i := 0; i < len(sums); i += 10 {
			if !yield(idsOf(sums[i : i+10])) {
				return
			}
		}
	}}) {
		if err != nil || got.Err != nil {
			t.Fatal(err, got.Err)
		}
		if n++; n == 7 {
			d.Restart()
		}
	}
	if n != 40 {
		t.Errorf("%d messages came, want 40", n)
	}
}

// TestNothingIsMarked: Dovecot marks what was retrieved as read at the end of
// a session, whether that ended by QUIT or not, unless it is asked to forget
// it (I7). Where it knows LAST nothing is asked: that would mark all mail.
func TestNothingIsMarked(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, last string
		before     []string // flags of one message
		seen       int      // messages with \Seen in the end
	}{
		{"as it comes", "no", nil, 0},
		{"one was read", "no", []string{`\Seen`}, 1},
		{"LAST is known", "yes", []string{`\Seen`}, 6}, // not the least that could be, but nothing is unmarked
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := dovecot.Start(t, dovecot.Options{Extra: "protocol pop3 {\n  pop3_no_flag_updates = no\n  pop3_enable_last = " + tt.last + "\n}\n"})
			for i := range 5 {
				d.Deliver("alice", "INBOX", []byte(sample(i)), sampleDate)
			}
			d.Deliver("alice", "INBOX", []byte(sample(5)), sampleDate, tt.before...)
			s := openSource(t, plainConfig(d.POP3))
			ids := idsOf(list(t, s, source.ListRequest{Needs: message.NeedHeaders}))
			if a := fetch(t.Context(), t, s, 0, ids, 10); a.err != nil || len(a.octets) != 6 {
				t.Fatal(a.err, a.errs)
			}
			s.Close()
			seen := strings.Count(d.Doveadm("search", "-u", "alice", "mailbox", "INBOX", "seen"), "\n")
			if seen != tt.seen {
				t.Errorf("%d messages are marked as read, want %d", seen, tt.seen)
			}
		})
	}
}
