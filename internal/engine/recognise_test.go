package engine_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/pkg/message"
)

// notes returns what a run told of its accounts.
func (e *events) notes() []string {
	var out []string
	for _, ev := range e.of(engine.AccountNote) {
		out = append(out, ev.Text)
	}
	return out
}

// grown checks that a store holds what it held, and besides it only messages of
// those ids.
func (r *rig) grown(sink string, before map[string]string, added ...message.ID) {
	r.t.Helper()
	want := maps.Clone(before)
	for _, id := range added {
		s := r.servers["src"]
		uid := s.uidOf(id)
		id.Source = "src"
		want[id.Key()] = string(s.octets(id.Mailbox, uid))
	}
	if diff := cmp.Diff(want, r.stores[sink].contents()); diff != "" {
		r.t.Errorf("sink %s (-want +got):\n%.2000s", sink, diff)
	}
}

// A mailbox whose UIDVALIDITY changed is known again: what was exported stays
// as it is, nothing is written a second time, and only what is new is fetched.
func TestUIDValidityChanged(t *testing.T) {
	t.Parallel()
	s := newServer(1200, "INBOX", "Sent") // more than a page of headers
	r := newRig(t, s)
	index := r.index(message.NeedHeaders)
	r.wantExit(r.run(), engine.ExitDone)
	files, records := r.stores["files"].contents(), index.contents()

	s.validity, s.shift = 8, 100
	s.count["INBOX"] += 3
	fetched := s.fetched.Load()
	var seen events
	r.opts.Events = seen.note
	res := r.run()
	r.wantExit(res, engine.ExitDone)
	r.grown("files", files, s.id("INBOX", 1201), s.id("INBOX", 1202), s.id("INBOX", 1203))
	if n := s.fetched.Load() - fetched; n != 3 {
		t.Errorf("%d bodies were fetched for 3 new messages", n)
	}
	if n := len(index.contents()) - len(records); n != 3 || index.doubled != 0 {
		t.Errorf("the index grew by %d records, %d doubled", n, index.doubled)
	}
	want := []string{"INBOX: UIDVALIDITY changed 7 → 8: 1,200 recognised, 3 new", "Sent: UIDVALIDITY changed 7 → 8: 1,200 recognised, 0 new"}
	if diff := cmp.Diff(want, seen.notes()); diff != "" {
		t.Error(diff)
	}
	m := res.Accounts[0].Mailboxes[0]
	if m.Former != 7 || m.UIDValidity != 8 || m.Recognised != 1200 || m.DoneBefore != 1200 || m.Written != 3 || !m.Complete {
		t.Errorf("the result says %+v", m)
	}

	// Nothing more is said or done; and a sink that comes later gets the
	// messages under the names that they have in the others.
	seen.list = nil
	r.data("later")
	r.wantExit(r.run(), engine.ExitDone)
	if diff := cmp.Diff(r.stores["files"].contents(), r.stores["later"].contents()); diff != "" {
		t.Errorf("the later sink differs:\n%.1000s", diff)
	}
	if len(seen.notes()) != 0 || index.doubled != 0 {
		t.Errorf("said %q; %d records doubled", seen.notes(), index.doubled)
	}
	files = r.stores["files"].contents()

	// Changed once more, back to what it was.
	s.validity, s.shift = 7, 5000
	fetched = s.fetched.Load()
	res = r.run()
	r.wantExit(res, engine.ExitDone)
	r.grown("files", files)
	r.grown("later", files)
	if n := s.fetched.Load() - fetched; n != 0 || total(res).Written != 0 {
		t.Errorf("%d bodies were fetched, %d messages written", n, total(res).Written)
	}
}

// What a header doesn't tell apart, the octets do: a message that only looks
// like an exported one is exported.
func TestMessagesThatLookAlikeAreComparedByTheirOctets(t *testing.T) {
	t.Parallel()
	s := newServer(6, "INBOX")
	plain := s.octets
	alike := map[uint32]string{1: "aaaa", 2: "bbbb", 3: "cccc", 4: "cccc"}
	s.octets = func(mailbox string, uid uint32) []byte {
		if body, ok := alike[uid]; ok {
			return []byte("Subject: alike\r\nMessage-ID: <1@example.com>\r\n\r\n" + body + "\r\n")
		}
		return plain(mailbox, uid)
	}
	r := newRig(t, s)
	r.wantExit(r.run(), engine.ExitDone)
	files := r.stores["files"].contents()
	s.validity = 8
	alike[2] = "dddd" // in the place of one that is gone
	res := r.run()
	r.wantExit(res, engine.ExitDone)
	r.grown("files", files, s.id("INBOX", 2))
	if m := res.Accounts[0].Mailboxes[0]; m.Recognised != 5 || m.Written != 1 {
		t.Errorf("the result says %+v", m)
	}
}

// Where the server's sizes are estimates, octets are compared, and not written.
func TestSizesThatLieAreNoLoss(t *testing.T) {
	t.Parallel()
	s := newServer(50, "INBOX")
	s.lies = 13
	r := newRig(t, s)
	r.wantExit(r.run(), engine.ExitDone)
	files, writes := r.stores["files"].contents(), r.stores["files"].writes
	s.validity = 8
	r.wantExit(r.run(), engine.ExitDone)
	r.grown("files", files)
	if n := r.stores["files"].writes; n != writes {
		t.Errorf("%d messages were written again", n-writes)
	}
}

// Where no body was ever wanted, the header is all that was exported.
func TestAnIndexAloneKnowsItsMessagesAgain(t *testing.T) {
	t.Parallel()
	s := newServer(100, "INBOX")
	s.octets = func(_ string, uid uint32) []byte { // two of each
		return fmt.Appendf(nil, "Subject: %d\r\nMessage-ID: <%d@example.com>\r\n\r\nx\r\n", uid/2, uid/2)
	}
	r := newRig(t, s)
	r.sinks, r.stores = nil, map[string]*store{}
	index := r.index(message.NeedHeaders)
	r.wantExit(r.run(), engine.ExitDone)
	records := index.contents()
	s.validity, s.shift = 8, 3
	r.wantExit(r.run(), engine.ExitDone)
	if diff := cmp.Diff(records, index.contents()); diff != "" || s.fetched.Load() != 0 {
		t.Errorf("%d bodies were fetched; %s", s.fetched.Load(), diff)
	}
}

// A POP3 server that changes all its unique ids at once; and one whose old
// messages have all made room for new ones.
func TestUniqueIDsChangedAllAtOnce(t *testing.T) {
	t.Parallel()
	s := newServer(700, "")
	s.uidls = "old"
	r := newRig(t, s)
	r.wantExit(r.run(), engine.ExitDone)
	files := r.stores["files"].contents()
	s.uidls = "new"
	s.count[""] += 2
	s.expunged[""] = map[uint32]bool{5: true}
	fetched := s.fetched.Load()
	var seen events
	r.opts.Events = seen.note
	res := r.run()
	r.wantExit(res, engine.ExitDone)
	r.grown("files", files, s.id("", 701), s.id("", 702))
	if n := s.fetched.Load() - fetched; n != 2 {
		t.Errorf("%d bodies were fetched for 2 new messages", n)
	}
	if want := []string{"mailbox: the server changed its unique ids: 699 recognised, 2 new"}; !slices.Equal(seen.notes(), want) {
		t.Errorf("said %q", seen.notes())
	}
	files = r.stores["files"].contents()

	seen.list = nil
	for uid := range uint32(702) {
		s.expunged[""][uid+1] = true
	}
	s.count[""] = 710
	var added []message.ID
	for uid := uint32(703); uid <= 710; uid++ {
		added = append(added, s.id("", uid))
	}
	r.wantExit(r.run(), engine.ExitDone)
	r.grown("files", files, added...)
	if len(seen.notes()) != 0 {
		t.Errorf("said %q", seen.notes())
	}
}

// The UIDVALIDITY changes while bodies are fetched: nothing is taken for gone,
// nothing is written twice.
func TestUIDValidityChangedInMidRun(t *testing.T) {
	t.Parallel()
	s := newServer(3000, "INBOX")
	s.lanes = 1
	r := newRig(t, s)
	index := r.index(message.NeedHeaders)
	s.onFetch = func(n int64) {
		if n == 1500 {
			s.validity, s.shift = 8, 10_000
		}
	}
	res := r.run()
	r.wantExit(res, engine.ExitDone)
	if sum := total(res); sum.Vanished != 0 || sum.DeadLetters != 0 {
		t.Errorf("%+v", sum)
	}
	got, want := map[string]int{}, map[string]int{}
	for _, octets := range r.stores["files"].contents() {
		got[octets]++
	}
	for uid := range uint32(3000) {
		want[string(s.octets("INBOX", uid+1))] = 1
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%.2000s", diff)
	}
	if n := len(index.contents()); n != 3000 || index.doubled != 0 {
		t.Errorf("%d records, %d doubled", n, index.doubled)
	}
}

// Drops, dead letters and routing are judged anew or stay, as the rules are.
func TestFatesOfAMailboxThatIsKnownAgain(t *testing.T) {
	t.Parallel()
	s := newServer(60, "INBOX")
	s.refuse[5] = true
	r := newRig(t, s)
	r.filter("odd", "uid % 2 == 1")
	r.data("some").refuse[7] = true
	r.wantExit(r.run(), engine.ExitLetters)
	files, some := r.stores["files"].contents(), r.stores["some"].contents()
	s.validity = 8
	res := r.run()
	r.wantExit(res, engine.ExitLetters)
	r.grown("files", files)
	r.grown("some", some)
	sum := total(res)
	if sum.Listed != 60 || sum.Written != 0 || sum.Dropped["odd"] != 30 || res.Accounts[0].Mailboxes[0].Standing != 2 {
		t.Errorf("%+v", res.Accounts[0].Mailboxes[0])
	}
	var letters []string
	for _, l := range r.letters() {
		letters = append(letters, strings.Fields(l)[0])
	}
	slices.Sort(letters)
	if want := []string{"8/5", "8/7"}; !slices.Equal(letters, want) {
		t.Errorf("dead letters %q, want %q", letters, want)
	}
}
