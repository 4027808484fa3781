package ledgertest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Every fate comes back as it was stored, and takes the place of all that was
// known before.
func testFates(t *testing.T, l *tester) {
	eml, msg := l.target("eml").ID, l.target("msg").ID
	hash := bytes.Repeat([]byte{7}, 32)
	letter := &ledger.Letter{Stage: "eml", Reason: "too_long", Text: "its name\nis \"long\"", Subject: "Ünïcode", From: "a@x", Date: "never", Octets: []byte{0, 255}}
	tests := []ledger.Settled{
		{Octets: 4096, SHA256: hash, Mark: 1<<47 - 1, Fates: []ledger.Fate{{Target: eml, Class: ledger.Written, Receipt: "INBOX/1.eml"}}},
		{Octets: 0, SHA256: hash, Fates: []ledger.Fate{{Target: eml, Class: ledger.Written}}, Changed: []string{"clean", "shorten"}},
		{Octets: 5, SHA256: hash, Fates: []ledger.Fate{{Target: eml, Class: ledger.Written, Receipt: strings.Repeat("ü\x00\xff", 5000)}}},
		{Octets: 1 << 40, SHA256: hash, Fates: []ledger.Fate{{Target: eml, Class: ledger.Written, Receipt: "x"}}},
		{Octets: -1, Fates: []ledger.Fate{{Target: eml, Class: ledger.Duplicate}}},
		{Octets: -1, Fates: []ledger.Fate{{Class: ledger.Dropped, Refusal: &ledger.Refusal{Stage: "recent", Rules: "r1", Values: []byte(`{"size":1}`)}}}},
		{Octets: -1, Fates: []ledger.Fate{{Class: ledger.Dropped, Refusal: &ledger.Refusal{Stage: "recent", Rules: "r1"}}}},
		{Octets: 9, SHA256: hash, Fates: []ledger.Fate{
			{Target: eml, Class: ledger.Unrouted, Refusal: &ledger.Refusal{Stage: "eml", Rules: "w", Values: []byte(`{}`)}},
			{Target: msg, Class: ledger.Written, Receipt: "a.msg"}}},
		{Octets: 9, SHA256: hash, Fates: []ledger.Fate{{Target: eml, Class: ledger.Written, Receipt: "a.eml"}, {Target: msg, Class: ledger.Dead, Letter: letter}}},
		{Octets: -1, Fates: []ledger.Fate{{Class: ledger.Dead, Letter: &ledger.Letter{Reason: "no_body", Text: "none"}}}},
		{Octets: -1, Fates: []ledger.Fate{{Class: ledger.Vanished}}},
		{Octets: -1},
	}
	for _, way := range []struct {
		name  string
		id    func(i int) message.ID
		fresh bool
	}{
		{"uid, fresh", func(i int) message.ID { return uid(uint32(i + 1)) }, true},
		{"uid, known", func(i int) message.ID { return uid(uint32(i + 1)) }, false},
		{"uidl, fresh", func(i int) message.ID { return uidl(fmt.Sprint("u", i), "", 0) }, true},
		{"uidl, known", func(i int) message.ID { return uidl(fmt.Sprint("u", i), "", 0) }, false},
	} {
		b := l.box(way.name)
		var old, now []ledger.Settled
		var ids []message.ID
		for i, s := range tests {
			s.Box, s.ID, s.Fresh = b, way.id(i), way.fresh
			ids, now = append(ids, s.ID), append(now, s)
			old = append(old, ledger.Settled{Box: b, ID: s.ID, Octets: 77, Fresh: true, Changed: []string{"old"}, Fates: []ledger.Fate{
				{Target: 88, Class: ledger.Dead, Letter: &ledger.Letter{Text: "old"}}, {Target: 89, Class: ledger.Unrouted, Refusal: &ledger.Refusal{Stage: "old"}},
				{Class: ledger.Dropped, Refusal: &ledger.Refusal{Stage: "old"}}}})
		}
		if !way.fresh {
			l.settle(old...)
			l.ok(l.AddSuspects(t.Context(), b, eml, ids[:1]))
		}
		l.settle(now...)
		check := func(when string) {
			for i, got := range l.lookup(b, ids...) {
				l.want(fmt.Sprintf("%s, message %d, %s", way.name, i, when),
					ledger.Entry{Octets: tests[i].Octets, SHA256: tests[i].SHA256, Mark: tests[i].Mark, Fates: tests[i].Fates, Changed: tests[i].Changed}, got)
			}
		}
		check("at once")
		l.crash()
		check("after a crash")
		l.again()
		check("after an end")
	}
}

// Messages that go by string ids keep them apart; a UID of the same number is
// another message.
func testStringIDs(t *testing.T, l *tester) {
	tg, b := l.target("eml").ID, l.box("")
	ids := []message.ID{uidl("a", "", 0), uidl("a", "h", 0), uidl("a", "h", 1), uidl("", "h", 1), uid(1), uid(2)}
	for i, id := range ids {
		l.settle(ledger.Settled{Box: b, ID: id, Octets: int64(i), Fresh: true, Fates: []ledger.Fate{{Target: tg, Class: ledger.Written}}})
		if i == 2 {
			l.crash()
		}
	}
	l.again()
	for i, e := range l.lookup(b, append(ids, uidl("b", "", 0), uid(3))...) {
		want := int64(i)
		if i >= len(ids) {
			want = -1
		}
		l.want(fmt.Sprint("message ", i), want, e.Octets)
	}
	var known []message.ID
	l.ok(l.Known(t.Context(), func(k *ledger.Known) error { known = append(known, k.ID); return nil }))
	l.want("how many are known", len(ids), len(known))
}

// Who died with a message in hand is counted, until the message is settled.
func testSuspects(t *testing.T, l *tester) {
	b := l.box("INBOX")
	tg := l.target("eml").ID
	l.ok(l.AddSuspects(t.Context(), b, ledger.Everywhere, []message.ID{uid(1), uid(2)}))
	l.crash()
	l.ok(l.AddSuspects(t.Context(), b, ledger.Everywhere, []message.ID{uid(1)}))
	l.ok(l.AddSuspects(t.Context(), b, tg, []message.ID{uid(1)}))
	l.crash()
	has, err := l.HasMessages(t.Context(), b)
	l.ok(err)
	l.want("that something is known", true, has)
	found := l.lookup(b, uid(1), uid(2))
	l.want("message 1", []ledger.Suspect{{Deaths: 2}, {Target: tg, Deaths: 1}}, found[0].Suspects)
	l.want("message 2", []ledger.Suspect{{Deaths: 1}}, found[1].Suspects)
	l.settle(ledger.Settled{Box: b, ID: uid(1), Octets: 1, Fates: []ledger.Fate{{Target: tg, Class: ledger.Written}}})
	l.again()
	l.want("message 1, settled", 0, len(l.lookup(b, uid(1))[0].Suspects))
}

// Dead letters come in a stable order, and are pending again once released.
func testLetters(t *testing.T, l *tester) {
	eml, b := l.target("eml").ID, l.box("INBOX")
	read := func() (out []string) {
		l.ok(l.Letters(t.Context(), func(id message.ID, sink string, letter ledger.Letter) error {
			out = append(out, fmt.Sprint(id.UID, sink, letter.Text))
			return nil
		}))
		return out
	}
	l.want("of nothing", 0, len(read()))
	for _, n := range []uint32{3, 1, 2} {
		l.settle(ledger.Settled{Box: b, ID: uid(n), Octets: -1, Fates: []ledger.Fate{{Target: eml, Class: ledger.Dead, Letter: &ledger.Letter{Text: fmt.Sprint("t", n)}}}})
	}
	l.again()
	l.want("three", []string{"1emlt1", "2emlt2", "3emlt3"}, read())
	n, err := l.Release(t.Context(), func(id message.ID, _ string, _ ledger.Letter) bool { return id.UID != 2 })
	l.ok(err)
	l.want("released", 2, n)
	l.crash()
	l.want("the rest", []string{"2emlt2"}, read())
	l.want("a released one", unknown, l.lookup(b, uid(1))[0])
}

// What was done on the server is known, also where only a target has the
// message any more.
func testFinished(t *testing.T, l *tester) {
	tg, b := l.target("eml").ID, l.box("INBOX")
	finished := func(flag string) []bool {
		done, err := l.Finished(t.Context(), b, flag, []message.ID{uid(1), uid(2), uid(3)})
		l.ok(err)
		return done
	}
	l.want("before", []bool{false, false, false}, finished("$Done"))
	for n := range uint32(3) {
		l.settle(ledger.Settled{Box: b, ID: uid(n + 1), Octets: 1, Fresh: true, Fates: []ledger.Fate{{Target: tg, Class: ledger.Written}}})
	}
	l.ok(l.Finish(t.Context(), b, "$Done", []message.ID{uid(1), uid(3)}))
	l.ok(l.Finish(t.Context(), b, ledger.Removed, []message.ID{uid(3)}))
	l.ok(l.Finish(t.Context(), b, "$Done", nil))
	l.crash()
	l.want("flagged", []bool{true, false, false}, finished("$Done"))
	l.want("removed", []bool{false, false, true}, finished(ledger.Removed))
	n, err := l.WrittenAndRemoved(t.Context(), tg)
	l.ok(err)
	l.want("written and removed", int64(1), n)
}

// A cancelled run's commit isn't torn: its sinks have flushed.
func testCancelled(t *testing.T, l *tester) {
	tg, b := l.target("eml").ID, l.box("INBOX")
	ctx, cancel := context.WithCancel(t.Context())
	l.settle(ledger.Settled{Box: b, ID: uid(1), Octets: 1, Fresh: true, Fates: []ledger.Fate{{Target: tg, Class: ledger.Written}}})
	cancel()
	l.ok(l.Commit(ctx, ledger.Epoch{Settled: []ledger.Settled{{Box: b, ID: uid(2), Octets: 2, Fresh: true, Fates: []ledger.Fate{{Target: tg, Class: ledger.Written}}}}}))
	l.crash()
	l.want("what was committed", int64(2), l.lookup(b, uid(2))[0].Octets)
}

// Who reads meanwhile sees an epoch whole or not at all.
func testReaders(t *testing.T, l *tester) {
	tg, b := l.target("eml").ID, l.box("INBOX")
	const size, epochs = 50, 20
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for n := uint32(0); ; n = (n + 1) % epochs {
				select {
				case <-stop:
					return
				default:
				}
				ids := make([]message.ID, size)
				for i := range ids {
					ids[i] = uid(n*size + uint32(i) + 1)
				}
				// The sequence of reads within one Lookup isn't one
				// transaction: fates stand in the first.
				found, err := l.Lookup(t.Context(), b, ids)
				if err != nil {
					t.Error(err)
					return
				}
				there := 0
				for _, e := range found {
					if e.Octets >= 0 {
						there++
					}
				}
				if there != 0 && there != size {
					t.Errorf("epoch %d: %d of %d messages", n, there, size)
					return
				}
			}
		})
	}
	for n := range uint32(epochs) {
		l.commit(epochOf(b, tg, n*size+1, size))
	}
	close(stop)
	wg.Wait()
}

// epochOf is an epoch of messages that are written.
func epochOf(b ledger.Box, tg ledger.TargetID, first, size uint32) ledger.Epoch {
	e := ledger.Epoch{Checkpoints: map[ledger.TargetID][]byte{tg: fmt.Append(nil, first)}}
	for n := first; n < first+size; n++ {
		e.Settled = append(e.Settled, ledger.Settled{Box: b, ID: uid(n), Octets: int64(n), SHA256: bytes.Repeat([]byte{byte(n), byte(n >> 8)}, 16), Fresh: true,
			Fates: []ledger.Fate{{Target: tg, Class: ledger.Written, Receipt: fmt.Sprintf("INBOX/2026-11-21-%d-a-subject.eml", n)}}})
	}
	return e
}

// checkEpochs looks for what epochOf made, of the messages 1 to n.
func (l *tester) checkEpochs(b ledger.Box, n uint32) {
	l.Helper()
	var ids []message.ID
	for i := range n + 1 {
		ids = append(ids, uid(i+1))
	}
	for i, e := range l.lookup(b, ids...) {
		want := int64(i + 1)
		if want > int64(n) {
			want = -1
		}
		if e.Octets != want {
			l.Fatalf("message %d of %d: %+v", i+1, n, e)
		}
	}
}

// Very many small commits, as of a slow mailbox.
func testLittle(_ *testing.T, l *tester) {
	tg, b := l.target("eml").ID, l.box("INBOX")
	const all = 300
	for n := range uint32(all) {
		l.commit(epochOf(b, tg, n+1, 1))
		if n == 99 || n == 222 {
			l.crash()
			l.checkEpochs(b, n+1)
		}
	}
	l.again()
	l.checkEpochs(b, all)
	l.want("the checkpoint", []byte("300"), l.target("eml").Checkpoint)
}

// Full epochs.
func testMuch(_ *testing.T, l *tester) {
	tg, b := l.target("eml").ID, l.box("INBOX")
	const size = 4096
	for n := range uint32(3) {
		l.commit(epochOf(b, tg, n*size+1, size))
		l.crash()
	}
	l.checkEpochs(b, 3*size)
	l.again()
	l.checkEpochs(b, 3*size)
}
