package ledgertest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Of messages that share a digest one is held to go on; what a run doesn't
// claim again may be gone.
func testClaims(t *testing.T, l *tester) {
	tg, b := l.target("eml").ID, l.box("INBOX")
	digest := func(n byte) (d ledger.Digest) { d[0] = n; return d }
	round, err := l.NewClaims(t.Context())
	l.ok(err)
	l.ok(l.Claim(t.Context(), round, b, []ledger.Claim{
		{ID: uid(1), Digest: digest(1), Kin: digest(1)}, {ID: uid(2), Digest: digest(1), Kin: digest(1)}, {ID: uidl("u", "", 0), Digest: digest(1), Kin: digest(1)},
	}))
	copies, err := l.Copies(t.Context(), round, digest(1))
	l.ok(err)
	l.want("copies", 3, len(copies))
	l.ok(l.Hold(t.Context(), []ledger.Holding{{Digest: digest(1), Holder: ledger.Copy{Box: b, Number: 2}}}))
	l.crash()
	known, err := l.Claimed(t.Context(), round, b, []message.ID{uid(1), uid(2), uid(3)})
	l.ok(err)
	holder := ledger.Copy{Box: b, Number: 2}
	l.want("who goes on", []ledger.Claimed{
		{Known: true, Copy: ledger.Copy{Box: b, Number: 1}, Digest: digest(1), Waits: true, Holder: &holder, HolderWaits: true},
		{Known: true, Copy: holder, Digest: digest(1), Waits: true, Holder: &holder, Self: true, HolderWaits: true},
		{},
	}, known)
	hash := bytes.Repeat([]byte{9}, 32)
	l.settle(ledger.Settled{Box: b, ID: uid(2), Octets: 4, SHA256: hash, Released: true, Fates: []ledger.Fate{{Target: tg, Class: ledger.Written, Receipt: "x"}}})
	l.ok(l.Tell(t.Context(), b, uid(1), digest(2)))
	l.again()
	apart, err := l.ToldApart(t.Context(), round)
	l.ok(err)
	l.want("told apart", int64(1), apart)
	known, err = l.Claimed(t.Context(), round, b, []message.ID{uidl("u", "", 0)})
	l.ok(err)
	l.want("what became of the holder", []ledger.Fate{{Target: tg, Class: ledger.Written, Receipt: "x"}}, known[0].Fates)
	l.want("that the holder doesn't wait", false, known[0].HolderWaits)
	next, err := l.NewClaims(t.Context())
	l.ok(err)
	if next <= round {
		t.Errorf("after round %d comes %d", round, next)
	}
	copies, err = l.Copies(t.Context(), next, digest(1))
	l.ok(err)
	l.want("copies in the next round", 0, len(copies))
}

// Messages that have other ids now are known by them, with all that is known.
func testRecognise(t *testing.T, l *tester) {
	tg := l.target("eml").ID
	old, now := l.boxOf("INBOX", 1), l.boxOf("INBOX", 2)
	f, err := l.OtherValidity(t.Context(), "alice", "INBOX", now)
	l.ok(err)
	l.want("messages of nothing", 0, len(f.Messages))
	hash := bytes.Repeat([]byte{3}, 32)
	l.settle(
		ledger.Settled{Box: old, ID: uid(1), Octets: 10, SHA256: hash, Mark: 5, Fates: []ledger.Fate{{Target: tg, Class: ledger.Written, Receipt: "a"}}, Changed: []string{"clean"}},
		ledger.Settled{Box: old, ID: uid(2), Octets: -1, Fates: []ledger.Fate{{Target: tg, Class: ledger.Dead, Letter: &ledger.Letter{Text: "no"}}}},
		ledger.Settled{Box: old, ID: uid(3), Octets: -1, Fates: []ledger.Fate{{Class: ledger.Dropped, Refusal: &ledger.Refusal{Stage: "s"}}}},
	)
	l.crash()
	f, err = l.OtherValidity(t.Context(), "alice", "INBOX", now)
	l.ok(err)
	if len(f.Messages) != 2 || f.Validity != 1 {
		t.Fatalf("former ids: %+v", f)
	}
	hashes, err := l.Hashes(t.Context(), []int64{f.Messages[0].Key, f.Messages[1].Key})
	l.ok(err)
	l.want("hashes", [][]byte{hash, nil}, hashes)
	l.ok(l.Recognise(t.Context(), now, []ledger.Recognised{{Key: f.Messages[0].Key, ID: uid(101)}}, f.Boxes))
	l.crash()
	was := uid(1)
	l.want("under its new id", ledger.Entry{Octets: 10, SHA256: hash, Mark: 5, Fates: []ledger.Fate{{Target: tg, Class: ledger.Written, Receipt: "a"}}, Changed: []string{"clean"}, Exported: &was},
		l.lookup(now, uid(101))[0])
	l.want("under its former id", unknown, l.lookup(old, uid(1))[0])
	f, err = l.OtherValidity(t.Context(), "alice", "INBOX", now)
	l.ok(err)
	l.want("former mailboxes, after that", 0, len(f.Boxes))

	// String ids that a server has all changed.
	pop := l.box("")
	l.settle(ledger.Settled{Box: pop, ID: uidl("a", "", 0), Octets: 1, Fates: []ledger.Fate{{Target: tg, Class: ledger.Written}}})
	f, err = l.OwnStrings(t.Context(), pop)
	l.ok(err)
	if len(f.Messages) != 1 {
		t.Fatalf("former string ids: %+v", f)
	}
	l.ok(l.Recognise(t.Context(), pop, []ledger.Recognised{{Key: f.Messages[0].Key, ID: uidl("b", "", 0)}}, nil))
	l.again()
	l.want("under its new string id", int64(1), l.lookup(pop, uidl("b", "", 0))[0].Octets)
}

// testAnyOrder does anything in any order, with ends and crashes in between,
// and holds the ledger against what a map would say.
func testAnyOrder(t *testing.T, l *tester) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	type key struct {
		box ledger.Box
		id  message.ID
	}
	want := map[key]int64{}
	boxes := []string{"INBOX", "Sent", "", "Old/2019"}
	var keys []key
	checkpoint := []byte(nil)
	saved := map[string]string{}
	tg := l.target("eml").ID
	l.ok(l.MarkDirty(t.Context(), tg)) // which stores the target's number
	for step := range 120 {
		switch r.IntN(12) {
		case 0:
			l.crash()
			for name := range saved { // these may wait for the next commit
				delete(saved, name)
			}
		case 1:
			l.again()
		case 2:
			name := boxes[r.IntN(len(boxes))]
			saved[name] = fmt.Sprint(step)
			l.commit(ledger.Epoch{Boxes: map[ledger.Box]ledger.BoxState{l.box(name): {Content: saved[name]}}})
		case 3:
			checkpoint = fmt.Append(nil, step)
			l.commit(ledger.Epoch{Checkpoints: map[ledger.TargetID][]byte{tg: checkpoint}})
		case 4:
			for name, s := range saved {
				got, err := l.SavedState(t.Context(), "alice", name, 1)
				l.ok(err)
				l.want("saved of "+name, s, got.Content)
			}
		default:
			e := ledger.Epoch{}
			for range r.IntN(40) {
				k := key{l.box(boxes[r.IntN(len(boxes))]), uid(1 + r.Uint32N(200))}
				if r.IntN(4) == 0 {
					k.id = uidl(fmt.Sprint("u", r.IntN(200)), "", 0)
				}
				_, known := want[k]
				if !known {
					keys = append(keys, k)
				}
				want[k] = int64(step)
				e.Settled = append(e.Settled, ledger.Settled{Box: k.box, ID: k.id, Octets: int64(step), Fresh: !known,
					Fates: []ledger.Fate{{Target: tg, Class: ledger.Written, Receipt: fmt.Sprint(step, k.id.UID)}}})
			}
			l.commit(e)
		}
		for range min(len(keys), 5) {
			k := keys[r.IntN(len(keys))]
			if got := l.lookup(k.box, k.id)[0].Octets; got != want[k] {
				t.Fatalf("step %d: %v has %d, want %d", step, k, got, want[k])
			}
		}
		if cp := l.target("eml").Checkpoint; string(cp) != string(checkpoint) {
			t.Fatalf("step %d: the checkpoint is %q, want %q", step, cp, checkpoint)
		}
	}
	l.again()
	for _, k := range keys {
		if got := l.lookup(k.box, k.id)[0].Octets; got != want[k] {
			t.Errorf("at the end: %v has %d, want %d", k, got, want[k])
		}
	}
}
