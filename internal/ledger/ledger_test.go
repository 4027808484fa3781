package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// open opens a ledger in dir, which is closed when the test ends.
func open(t testing.TB, dir string) *Ledger {
	t.Helper()
	l, err := Open(context.Background(), dir, "acme")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // most tests close it themselves
	return l
}

// reopen closes a ledger and opens it again: what it then says was stored.
func reopen(t testing.TB, l *Ledger) *Ledger {
	t.Helper()
	shut(t, l)
	return open(t, filepath.Dir(l.Path()))
}

func shut(t testing.TB, l *Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func box(t testing.TB, l *Ledger, mailbox string) Box {
	t.Helper()
	b, err := l.Box(t.Context(), "alice", mailbox, 1)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func target(t testing.TB, l *Ledger, sink string) Target {
	t.Helper()
	tg, err := l.Target(t.Context(), sink, "/export/"+sink)
	if err != nil {
		t.Fatal(err)
	}
	return tg
}

func commit(t testing.TB, l *Ledger, e Epoch) {
	t.Helper()
	if err := l.Commit(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

func lookup(t testing.TB, l *Ledger, b Box, ids ...message.ID) []Entry {
	t.Helper()
	found, err := l.Lookup(t.Context(), b, ids)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func uid(n uint32) message.ID {
	return message.ID{Source: "alice", Mailbox: "INBOX", UIDValidity: 1, UID: n}
}

func uidl(s, hash string, ordinal uint32) message.ID {
	return message.ID{Source: "alice", UIDL: s, HeaderHash: hash, Ordinal: ordinal}
}

// unknown is the entry of a message that the ledger knows nothing of.
var unknown = Entry{Octets: -1}

func TestEveryFateComesBack(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	eml, msg := target(t, l, "eml").ID, target(t, l, "msg").ID
	hash := bytes.Repeat([]byte{7}, 32)
	everything := &Letter{Stage: "eml", Reason: "too_long", Text: "its name\nis \"long\"", Subject: "Ünïcode", From: "a@x", Date: "never"}
	tests := []struct {
		name   string
		octets int64
		hash   []byte
		fates  []Fate
	}{
		{"written", 4096, hash, []Fate{{Target: eml, Class: Written, Receipt: "INBOX/1.eml"}}},
		{"written without a receipt", 0, hash, []Fate{{Target: eml, Class: Written}}},
		{"a long receipt, any octets", 5, hash, []Fate{{Target: eml, Class: Written, Receipt: strings.Repeat("ü\x00\xff", 5000)}}},
		{"a very big message", 1 << 40, hash, []Fate{{Target: eml, Class: Written, Receipt: "x"}}},
		{"a body of unknown size", -1, nil, []Fate{{Target: eml, Class: Duplicate}}},
		{"dropped", -1, nil, []Fate{{Target: Everywhere, Class: Dropped, Refusal: &Refusal{Stage: "recent", Rules: "r1", Values: []byte(`{"size":1}`)}}}},
		{"dropped without values", -1, nil, []Fate{{Target: Everywhere, Class: Dropped, Refusal: &Refusal{Stage: "recent", Rules: "r1"}}}},
		{"dropped by other rules", -1, nil, []Fate{{Target: Everywhere, Class: Dropped, Refusal: &Refusal{Stage: "recent", Rules: "r2", Values: []byte("{}")}}}},
		{"unrouted in one, written in the other", 9, hash, []Fate{
			{Target: eml, Class: Unrouted, Refusal: &Refusal{Stage: "eml", Rules: "w", Values: []byte(`{"mailbox":"INBOX"}`)}},
			{Target: msg, Class: Written, Receipt: "a.msg"}}},
		{"unrouted by a sink that is not there", -1, nil, []Fate{{Target: eml, Class: Unrouted}}},
		{"a dead letter of one sink", 9, hash, []Fate{{Target: eml, Class: Written, Receipt: "a.eml"}, {Target: msg, Class: Dead, Letter: everything}}},
		{"a dead letter of both", 9, hash, []Fate{{Target: eml, Class: Dead, Letter: &Letter{Reason: "a", Text: "b"}}, {Target: msg, Class: Dead, Letter: everything}}},
		{"a dead letter of the source", -1, nil, []Fate{{Target: Everywhere, Class: Dead, Letter: &Letter{Reason: "no_body", Text: "the server has none"}}}},
		{"vanished", -1, nil, []Fate{{Target: Everywhere, Class: Vanished}}},
		{"of a target with a big number", 1, hash, []Fate{{Target: 1<<32 - 1, Class: Written, Receipt: "x"}}},
		{"nothing", -1, nil, nil},
	}
	byUID := func(i int) message.ID { return uid(uint32(i + 1)) }
	byUIDL := func(i int) message.ID { return uidl(fmt.Sprint("u", i), "", 0) }
	for _, way := range []struct {
		name  string
		id    func(i int) message.ID
		fresh bool
	}{{"uid, fresh", byUID, true}, {"uid, known", byUID, false}, {"uidl, fresh", byUIDL, true}, {"uidl, known", byUIDL, false}} {
		b := box(t, l, way.name)
		var old, now Epoch
		for i, tt := range tests {
			old.Settled = append(old.Settled, Settled{Box: b, ID: way.id(i), Octets: 77, Fresh: true, Fates: []Fate{
				{Target: 88, Class: Dead, Letter: &Letter{Text: "old"}}, {Target: 89, Class: Unrouted, Refusal: &Refusal{Stage: "old"}},
				{Target: Everywhere, Class: Dropped, Refusal: &Refusal{Stage: "old"}}}})
			now.Settled = append(now.Settled, Settled{Box: b, ID: way.id(i), Octets: tt.octets, SHA256: tt.hash, Fates: tt.fates, Fresh: way.fresh})
		}
		if !way.fresh { // what was known before leaves no trace
			commit(t, l, old)
			if err := l.AddSuspects(t.Context(), b, eml, []message.ID{way.id(0)}); err != nil {
				t.Fatal(err)
			}
		}
		commit(t, l, now)
		l = reopen(t, l)
		for i, tt := range tests {
			want := Entry{Octets: tt.octets, SHA256: tt.hash, Fates: tt.fates}
			if diff := cmp.Diff(want, lookup(t, l, b, way.id(i))[0]); diff != "" {
				t.Errorf("%s, %s: %s", tt.name, way.name, diff)
			}
		}
	}
}

// TestStringIDs has every kind of id that a POP3 source makes: doubled UIDLs,
// none at all, and such as differ in what SQLite might not tell apart.
func TestStringIDs(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	b, eml := box(t, l, ""), target(t, l, "eml").ID
	ids := []message.ID{
		uidl("a", "", 0), uidl("A", "", 0), uidl("a ", "", 0), uidl("a", "", 1), uidl("a", "h", 0), uidl("a", "h", 1),
		uidl("", "h", 0), uidl("", "h", 1), uidl("", "i", 0), uidl("1", "", 0), uidl("01", "", 0), uidl("1.0", "", 0),
		uidl("\xff", "", 0), uidl("\xfe", "", 0), uidl("a\x00b", "", 0), uidl("a\x00c", "", 0), uidl(strings.Repeat("u", 70), "", 0), uidl("%", "", 1<<32-1),
	}
	for i := range 300 { // more than go into one statement
		ids = append(ids, uidl(fmt.Sprint("many", i), "", 0))
	}
	receipt := func(i int) []Fate { return []Fate{{Target: eml, Class: Written, Receipt: fmt.Sprint(i)}} }
	var e Epoch
	for i, id := range ids {
		e.Settled = append(e.Settled, Settled{Box: b, ID: id, Octets: -1, Fates: receipt(i), Fresh: true})
	}
	half := len(ids) / 2
	commit(t, l, Epoch{Settled: e.Settled[half:]})
	l = reopen(t, l)
	commit(t, l, Epoch{Settled: append(e.Settled[:half:half], e.Settled[0])}) // one twice: it gets one number
	l = reopen(t, l)
	for i, found := range lookup(t, l, b, ids...) {
		if diff := cmp.Diff(Entry{Octets: -1, Fates: receipt(i)}, found); diff != "" {
			t.Errorf("%q: %s", ids[i], diff)
		}
	}
	for i, found := range lookup(t, l, b, uidl("b", "", 0), uidl("a", "", 2), uidl("a", "i", 0), uidl("", "", 0), uidl("", "h", 2), uidl("A ", "", 0)) {
		if diff := cmp.Diff(unknown, found); diff != "" {
			t.Errorf("foreign id %d: %s", i, diff)
		}
	}
	other := box(t, l, "other")
	for i, found := range lookup(t, l, other, ids...) {
		if diff := cmp.Diff(unknown, found); diff != "" {
			t.Errorf("%q in another mailbox: %s", ids[i], diff)
		}
	}
}

// TestLookup finds what was asked for, in the order of the question, however
// the ids lie.
func TestLookup(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	b, eml := box(t, l, "INBOX"), target(t, l, "eml").ID
	before, after := box(t, l, "before"), box(t, l, "after")
	known := map[uint32]bool{}
	var e Epoch
	add := func(n uint32) {
		known[n] = true
		e.Settled = append(e.Settled, Settled{Box: b, ID: uid(n), Octets: int64(n), Fates: []Fate{{Target: eml, Class: Written, Receipt: fmt.Sprint(n)}}, Fresh: true})
	}
	for n := uint32(1); n < 5000; n += 3 {
		add(n)
	}
	for _, n := range []uint32{1 << 31, 1<<32 - 1} {
		add(n)
	}
	for _, other := range []Box{before, after} {
		e.Settled = append(e.Settled, Settled{Box: other, ID: uid(2), Octets: 1, Fates: []Fate{{Target: eml, Class: Written}}, Fresh: true},
			Settled{Box: other, ID: uid(1<<32 - 1), Octets: 1, Fates: []Fate{{Target: eml, Class: Written}}, Fresh: true})
	}
	commit(t, l, e)
	all := make([]uint32, 5100)
	for i := range all {
		all[i] = uint32(i + 1)
	}
	reversed := slices.Clone(all)
	slices.Reverse(reversed)
	for name, nums := range map[string][]uint32{
		"none": {}, "one": {4}, "one that isn't there": {2}, "all": all, "newest first": reversed, "one of them twice": {7, 4, 7, 2, 2},
		"sparse": {1, 400, 1000, 4000, 1 << 31, 1<<32 - 1}, "sparse, not there": {3, 402, 1002, 1<<31 - 1, 1<<32 - 2},
		"gaps of every size": {1, 2, 4, 8, 16, 33, 49, 66, 97, 130, 162, 196, 1024}, "beyond all": {6000, 6001},
	} {
		ids := make([]message.ID, len(nums))
		for i, n := range nums {
			ids[i] = uid(n)
		}
		found := lookup(t, l, b, ids...)
		if len(found) != len(ids) {
			t.Fatalf("%s: %d entries for %d ids", name, len(found), len(ids))
		}
		for i, n := range nums {
			want := unknown
			if known[n] {
				want = Entry{Octets: int64(n), Fates: []Fate{{Target: eml, Class: Written, Receipt: fmt.Sprint(n)}}}
			}
			if diff := cmp.Diff(want, found[i]); diff != "" {
				t.Errorf("%s: UID %d: %s", name, n, diff)
			}
		}
	}
}

// TestBothKindsOfID lets a source that went by string ids go by UIDs: what has
// the same number isn't the same message.
func TestBothKindsOfID(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	b := box(t, l, "")
	dead := []Fate{{Class: Dead, Letter: &Letter{Text: "x"}}}
	commit(t, l, Epoch{Settled: []Settled{{Box: b, ID: uidl("a", "", 0), Octets: -1, Fates: dead}}})
	if diff := cmp.Diff(unknown, lookup(t, l, b, uid(1))[0]); diff != "" {
		t.Error(diff)
	}
	commit(t, l, Epoch{Settled: []Settled{{Box: b, ID: uid(1), Octets: 1, Fates: []Fate{{Target: 1, Class: Written}}}}})
	if diff := cmp.Diff(Entry{Octets: -1, Fates: dead}, lookup(t, l, b, uidl("a", "", 0))[0]); diff != "" {
		t.Error(diff)
	}
}

func TestSuspects(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	b, eml := box(t, l, ""), target(t, l, "eml").ID
	suspect := func(target TargetID, ids ...message.ID) {
		t.Helper()
		if err := l.AddSuspects(t.Context(), b, target, ids); err != nil {
			t.Fatal(err)
		}
	}
	a, n := uidl("a", "", 0), uid(9)
	suspect(eml, a, n)
	suspect(Everywhere, a)
	l = reopen(t, l)
	suspect(eml, a)
	suspect(eml)
	want := []Entry{{Octets: -1, Suspects: []Suspect{{Everywhere, 1}, {eml, 2}}}, {Octets: -1, Suspects: []Suspect{{eml, 1}}}}
	if diff := cmp.Diff(want, lookup(t, l, b, a, n)); diff != "" {
		t.Error(diff)
	}
	// A fate ends the suspicion, and keeps the string id's number.
	commit(t, l, Epoch{Settled: []Settled{{Box: b, ID: a, Octets: -1, Fates: []Fate{{Target: eml, Class: Written}}}}})
	if diff := cmp.Diff(Entry{Octets: -1, Fates: []Fate{{Target: eml, Class: Written}}}, lookup(t, l, b, a)[0]); diff != "" {
		t.Error(diff)
	}
}

func TestLetters(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	eml := target(t, l, "eml").ID
	dead := func(target TargetID, text string) Fate {
		return Fate{Target: target, Class: Dead, Letter: &Letter{Reason: "r", Text: text}}
	}
	inbox, pop := box(t, l, "INBOX"), box(t, l, "")
	commit(t, l, Epoch{Settled: []Settled{
		{Box: inbox, ID: uid(1<<32 - 1), Octets: -1, Fates: []Fate{dead(eml, "last")}},
		{Box: inbox, ID: uid(3), Octets: -1, Fates: []Fate{dead(eml, "sink"), dead(99, "a sink that is gone")}},
		{Box: inbox, ID: uid(2), Octets: -1, Fates: []Fate{dead(Everywhere, "source")}},
		{Box: inbox, ID: uid(1), Octets: -1, Fates: []Fate{{Target: eml, Class: Written}}},
		{Box: pop, ID: uidl("a", "h", 2), Octets: -1, Fates: []Fate{dead(eml, "string")}},
		{Box: pop, ID: uidl("", "h", 0), Octets: -1, Fates: []Fate{dead(eml, "no uidl")}},
	}})
	read := func() (out []string) {
		t.Helper()
		err := l.Letters(t.Context(), func(id message.ID, sink string, letter Letter) error {
			if _, err := l.HasMessages(t.Context(), inbox); err != nil { // it may call the ledger
				return err
			}
			out = append(out, fmt.Sprintf("%s to %q: %s", id.Key(), sink, letter.Text))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	want := []string{
		`"alice" "" "a" h 2 to "eml": string`, `"alice" "" "" h 0 to "eml": no uidl`,
		`"alice" "INBOX" 1 2 to "": source`, `"alice" "INBOX" 1 3 to "eml": sink`, `"alice" "INBOX" 1 3 to "": a sink that is gone`, `"alice" "INBOX" 1 4294967295 to "eml": last`,
	}
	if diff := cmp.Diff(want, read()); diff != "" {
		t.Error(diff)
	}
	// A retry that succeeds takes the letter away.
	commit(t, l, Epoch{Settled: []Settled{{Box: inbox, ID: uid(2), Octets: 5, Fates: []Fate{{Target: eml, Class: Written}}}}})
	if diff := cmp.Diff(slices.Delete(want, 2, 3), read()); diff != "" {
		t.Error(diff)
	}
	enough := errors.New("enough")
	if err := l.Letters(t.Context(), func(message.ID, string, Letter) error { return enough }); err != enough { //nolint:errorlint // as it is
		t.Errorf("the caller's own error came back as %v", err)
	}
}

func TestRemembered(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	for _, value := range []string{"one", "two"} {
		if err := l.Remember(t.Context(), "k", []byte(value)); err != nil {
			t.Fatal(err)
		}
		l = reopen(t, l)
		if got, err := l.Recall(t.Context(), "k"); string(got) != value || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if got, err := l.Recall(t.Context(), "other"); got != nil || err != nil {
		t.Errorf("never stored: %q, %v", got, err)
	}
}

func TestRuns(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	began := time.Date(2026, 11, 21, 12, 0, 0, 0, time.FixedZone("", 3600))
	first, err := l.BeginRun(t.Context(), began)
	if err != nil {
		t.Fatal(err)
	}
	second, err := l.BeginRun(t.Context(), began)
	if err != nil || first == second {
		t.Fatalf("runs %d and %d, %v", first, second, err)
	}
	if err := l.EndRun(t.Context(), second, began.Add(time.Minute), 3); err != nil {
		t.Fatal(err)
	}
	var got [2]string
	err = l.db.QueryRowContext(t.Context(), `SELECT group_concat(started || ' ' || COALESCE(finished, '-') || ' ' || COALESCE(exit, '-'), ', ') FROM run`).Scan(&got[0])
	if want := "2026-11-21T11:00:00Z - -, 2026-11-21T11:00:00Z 2026-11-21T11:01:00Z 3"; got[0] != want || err != nil {
		t.Errorf("got %s, %v", got[0], err)
	}
}

// TestPipelineID stands in the targets' markers: it stays, and no two
// pipelines have one.
func TestPipelineID(t *testing.T) {
	t.Parallel()
	l, other := open(t, t.TempDir()), open(t, t.TempDir())
	id := l.Pipeline()
	if len(id) != 32 || id == other.Pipeline() {
		t.Errorf("ids %q and %q", id, other.Pipeline())
	}
	if again := reopen(t, l).Pipeline(); again != id {
		t.Errorf("the id was %q, and is %q", id, again)
	}
}

// TestCommitIsAllOrNothing lets the last statement of an epoch fail.
func TestCommitIsAllOrNothing(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	eml := target(t, l, "eml")
	if _, err := l.db.ExecContext(t.Context(), "CREATE TRIGGER no BEFORE UPDATE OF content ON box BEGIN SELECT RAISE(ABORT, 'no'); END"); err != nil {
		t.Fatal(err)
	}
	b := box(t, l, "INBOX")
	e := Epoch{
		Settled: []Settled{
			{Box: b, ID: uid(1), Octets: 5, Fates: []Fate{{Target: eml.ID, Class: Written}, {Target: 7, Class: Dead, Letter: &Letter{}}}, Fresh: true},
			{Box: b, ID: uid(2), Octets: 5, Fates: []Fate{{Class: Dropped, Refusal: &Refusal{Stage: "s"}}}, Fresh: true},
			{Box: b, ID: uidl("a", "", 0), Octets: 5, Fates: []Fate{{Target: eml.ID, Class: Written}}, Fresh: true}},
		Checkpoints: map[TargetID][]byte{eml.ID: []byte("c")},
		Boxes:       map[Box]BoxState{b: {Content: "c"}},
	}
	if err := l.Commit(t.Context(), e); !fault.Is(err, fault.Bug) {
		t.Fatalf("the trigger refused, and Commit returned %v", err)
	}
	for i, found := range lookup(t, l, b, uid(1), uid(2), uidl("a", "", 0)) {
		if diff := cmp.Diff(unknown, found); diff != "" {
			t.Errorf("message %d: %s", i, diff)
		}
	}
	if diff := cmp.Diff(eml, target(t, l, "eml")); diff != "" {
		t.Error(diff)
	}
	if _, err := l.db.ExecContext(t.Context(), "DROP TRIGGER no"); err != nil {
		t.Fatal(err)
	}
	// The same epoch goes in afterwards, with its new mailbox.
	commit(t, l, e)
	l = reopen(t, l)
	if again := box(t, l, "INBOX"); again != b {
		t.Errorf("the mailbox got the number %d instead of %d", again, b)
	}
	if found := lookup(t, l, b, uid(1), uid(2), uidl("a", "", 0)); len(found[0].Fates) != 2 || len(found[1].Fates) != 1 || len(found[2].Fates) != 1 {
		t.Errorf("got %+v", found)
	}
}

// TestCancelled reads and commits under a context that is done: a commit whose
// sinks have flushed goes on, a read ends, and is nobody's fault.
func TestCancelled(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	b := box(t, l, "INBOX")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Commit(ctx, Epoch{Settled: []Settled{{Box: b, ID: uid(1), Octets: 1, Fates: []Fate{{Target: 1, Class: Written}}}}}); err != nil {
		t.Errorf("Commit: %v", err)
	}
	_, err := l.Lookup(ctx, b, []message.ID{uid(1), uidl("x", "", 0)})
	if !errors.Is(err, context.Canceled) || fault.As(err) != nil {
		t.Errorf("Lookup: %v of class %s", err, fault.Of(err))
	}
	if found := lookup(t, l, b, uid(1)); len(found[0].Fates) != 1 {
		t.Error("the commit isn't there")
	}
}

// TestSize keeps the room that a message takes (I5).
func TestSize(t *testing.T) {
	t.Parallel()
	const n, most = 100_000, 64
	l := open(t, t.TempDir())
	b, eml := box(t, l, "INBOX"), target(t, l, "eml").ID
	receipts := 0
	for first := 1; first <= n; first += 4096 {
		e, octets := epoch(b, eml, first, min(4096, n+1-first), true)
		receipts += octets
		commit(t, l, e)
	}
	shut(t, l)
	fi, err := os.Stat(l.Path())
	if err != nil {
		t.Fatal(err)
	}
	each := float64(fi.Size()-int64(receipts)) / n
	t.Logf("%.1f octets a message, and %.1f of its receipt", each, float64(receipts)/n)
	if each > most {
		t.Errorf("a message takes %.1f octets, at most %d are allowed", each, most)
	}
}
