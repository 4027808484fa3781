// Package ledgertest holds the tests that every ledger of a run must pass,
// whatever keeps it: internal/ledger in a file, internal/ledger/segments in
// NATS and a store of objects.
package ledgertest

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Ledger is a ledger under test: what a run asks, and what is read of it after.
type Ledger interface {
	engine.Ledger
	Accounts(ctx context.Context) ([]ledger.Account, error)
	Mailboxes(ctx context.Context, source string, f func(ledger.Mailbox) error) error
	Letters(ctx context.Context, f func(id message.ID, sink string, letter ledger.Letter) error) error
	Known(ctx context.Context, f func(*ledger.Known) error) error
	Release(ctx context.Context, match func(id message.ID, sink string, letter ledger.Letter) bool) (int, error)
}

// Store keeps one ledger.
type Store interface {
	// Open opens it; nobody has it open.
	Open(t testing.TB) Ledger
	// End closes it as at the end of a run.
	End(t testing.TB, l Ledger)
	// Crash lets go of it as when the process dies.
	Crash(t testing.TB, l Ledger)
}

// Run runs the suite. fresh returns a store that knows nothing.
func Run(t *testing.T, fresh func(t testing.TB) Store) {
	for name, test := range map[string]func(*testing.T, *tester){
		"fates":          testFates,
		"both ids":       testStringIDs,
		"boxes":          testBoxes,
		"saved states":   testSavedState,
		"standing":       testStanding,
		"targets":        testTargets,
		"forget":         testForget,
		"suspects":       testSuspects,
		"letters":        testLetters,
		"claims":         testClaims,
		"recognise":      testRecognise,
		"finished":       testFinished,
		"spent":          testSpent,
		"cancelled":      testCancelled,
		"readers":        testReaders,
		"little at once": testLittle,
		"much at once":   testMuch,
		"any order":      testAnyOrder,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fresh(t)
			test(t, &tester{TB: t, store: s, Ledger: s.Open(t)})
		})
	}
}

// tester is a ledger and what tests do with it. Its methods end the test where
// the ledger fails.
type tester struct {
	testing.TB
	Ledger
	store Store
}

// again closes the ledger and opens it: what it then says was stored.
func (l *tester) again() {
	l.Helper()
	l.store.End(l.TB, l.Ledger)
	l.Ledger = l.store.Open(l.TB)
}

// crash is again after a crash: what was committed is there.
func (l *tester) crash() {
	l.Helper()
	l.store.Crash(l.TB, l.Ledger)
	l.Ledger = l.store.Open(l.TB)
}

func (l *tester) ok(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *tester) box(mailbox string) ledger.Box { l.Helper(); return l.boxOf(mailbox, 1) }

func (l *tester) boxOf(mailbox string, validity uint32) ledger.Box {
	l.Helper()
	b, err := l.Box(l.Context(), "alice", mailbox, validity)
	l.ok(err)
	return b
}

func (l *tester) target(sink string) ledger.Target {
	l.Helper()
	tg, err := l.Target(l.Context(), sink, "/export/"+sink)
	l.ok(err)
	return tg
}

func (l *tester) commit(e ledger.Epoch) {
	l.Helper()
	l.ok(l.Commit(l.Context(), e))
}

func (l *tester) settle(s ...ledger.Settled) {
	l.Helper()
	l.commit(ledger.Epoch{Settled: s})
}

func (l *tester) lookup(b ledger.Box, ids ...message.ID) []ledger.Entry {
	l.Helper()
	found, err := l.Lookup(l.Context(), b, ids)
	l.ok(err)
	return found
}

// want compares what came with what should.
func (l *tester) want(what string, want, got any) {
	l.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		l.Errorf("%s: %s", what, diff)
	}
}

func (l *tester) mailboxes(source string) (out []ledger.Mailbox) {
	l.Helper()
	l.ok(l.Mailboxes(l.Context(), source, func(m ledger.Mailbox) error { out = append(out, m); return nil }))
	return out
}

func uid(n uint32) message.ID {
	return message.ID{Source: "alice", Mailbox: "INBOX", UIDValidity: 1, UID: n}
}

func uidl(s, hash string, ordinal uint32) message.ID {
	return message.ID{Source: "alice", UIDL: s, HeaderHash: hash, Ordinal: ordinal}
}

// unknown is the entry of a message that the ledger knows nothing of.
var unknown = ledger.Entry{Octets: -1}
