package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Several epochs of these are in a run.
const sealedMessages = 9_000

// beside makes the store's first Flush wait until messages of the next epoch have
// been written, and returns how many had been at the Seal and at the Flush's
// end.
func beside(s *store) (before, after *int) {
	before, after = new(int), new(int)
	s.onFlush = func(ctx context.Context) {
		s.onFlush, *before = nil, s.writtenAtSeal()
		*after = s.writtenMoreThan(ctx, *before)
	}
	return before, after
}

// done returns the ids of what the ledger calls written to a sink.
func (r *rig) done(name string) []string {
	r.t.Helper()
	l, err := ledger.Open(r.t.Context(), r.dir, "test")
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.Close()
	target, err := l.Target(r.t.Context(), name, "/"+name)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for source, s := range r.servers {
		for _, mailbox := range s.mailboxes {
			box, err := l.Box(r.t.Context(), source, mailbox, max(s.validity, 7))
			if err != nil {
				r.t.Fatal(err)
			}
			var ids []message.ID
			for _, uid := range s.uids(mailbox) {
				id := s.id(mailbox, uid)
				id.Source = source
				ids = append(ids, id)
			}
			entries, err := l.Lookup(r.t.Context(), box, ids)
			if err != nil {
				r.t.Fatal(err)
			}
			for i, e := range entries {
				for _, f := range e.Fates {
					if f.Target == target.ID && f.Class == ledger.Written {
						out = append(out, ids[i].Key())
					}
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// wantCovered checks that the ledger calls written just what the checkpoint
// covers that it committed last (I3).
func (r *rig) wantCovered(name string) {
	r.t.Helper()
	s := r.stores[name]
	l, err := ledger.Open(r.t.Context(), r.dir, "test")
	if err != nil {
		r.t.Fatal(err)
	}
	target, err := l.Target(r.t.Context(), name, "/"+name)
	if err = errors.Join(err, l.Close()); err != nil {
		r.t.Fatal(err)
	}
	number := 0
	if target.Checkpoint != nil {
		if _, err := fmt.Sscan(string(target.Checkpoint), &number); err != nil {
			r.t.Fatal(err)
		}
	}
	covered := slices.Sorted(maps.Keys(s.at[number]))
	if done := r.done(name); !slices.Equal(done, covered) {
		r.t.Errorf("I3: the ledger calls %d messages written, its checkpoint covers %d", len(done), len(covered))
	}
}

// TestTheNextEpochIsWrittenWhileOneIsFlushed: a sink that has sealed an epoch is
// written to while it flushes it, and the ledger calls done what was sealed, and
// nothing of what came meanwhile (I3).
func TestTheNextEpochIsWrittenWhileOneIsFlushed(t *testing.T) {
	t.Parallel()
	r := newRig(t, newServer(sealedMessages, "INBOX"))
	r.index(message.NeedHeaders)
	s := r.stores["files"]
	before, after := beside(s)
	var covered int
	r.opts.Events = func(e engine.Event) {
		if e.Kind == engine.Committed && covered == 0 {
			covered = int(e.Count)
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.at[1]) != covered || covered != *before {
				t.Errorf("%d messages had been written at the first Seal, its Flush covers %d, and %d were committed", *before, len(s.at[1]), covered)
			}
		}
	}
	r.wantExit(r.run(), engine.ExitDone)
	if *after <= *before {
		t.Errorf("nothing was written while the first epoch was flushed")
	}
	r.wantAll("files", nil)
	r.wantCovered("files")
}

// TestDeathsWhileOneEpochIsFlushedAndTheNextWritten: what a dead session hadn't
// made durable is written again, of both epochs (I2, I3).
func TestDeathsWhileOneEpochIsFlushedAndTheNextWritten(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"seal", "sealed", "flush", "flushed", "committed"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, newServer(sealedMessages, "INBOX"))
			ix := r.index(message.NeedHeaders)
			s := r.stores["files"]
			s.dieIn = where
			if where == "flush" || where == "flushed" || where == "committed" {
				beside(s)
			}
			r.wantExit(r.run(), engine.ExitDone)
			if s.dieIn != "" || s.opened < 2 {
				t.Errorf("it never died: it was opened %d times", s.opened)
			}
			r.wantAll("files", nil)
			r.wantCovered("files")
			if n := len(ix.contents()); n != sealedMessages {
				t.Errorf("%d records, want %d", n, sealedMessages)
			}
			writes := s.writes
			r.wantExit(r.run(), engine.ExitDone)
			if s.writes != writes {
				t.Errorf("the next run wrote %d messages again", s.writes-writes)
			}
		})
	}
}

// TestAFlushFailsWhileTheNextEpochIsWritten: what was written beside a Flush that
// failed isn't flushed any more: nobody knows what the sink has lost.
func TestAFlushFailsWhileTheNextEpochIsWritten(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{
		"the disk is full": fault.New(fault.Full, "no space left on device"),
		"a bug":            fault.New(fault.Bug, "out of order"),
		"no class":         errors.New("odd"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, newServer(sealedMessages, "INBOX"))
			r.data("other")
			s := r.stores["files"]
			_, after := beside(s)
			s.fail = failure
			res := r.run()
			r.wantExit(res, engine.ExitStopped)
			if !errors.Is(res.Err, failure) {
				t.Errorf("the run ended with %v, want %v", res.Err, failure)
			}
			if *after == 0 || s.flushes != 0 {
				t.Errorf("%d Writes beside the Flush, %d Flushes after it", *after, s.flushes)
			}
			r.wantCovered("files")
			r.wantCovered("other")
			r.wantExit(r.run(), engine.ExitDone)
			r.wantAll("files", nil)
			r.wantAll("other", nil)
		})
	}
}

// TestASinkThatSealsWaitsForOneThatDoesNot: nobody writes while a sink flushes
// that can't seal, also where another could be written to.
func TestASinkThatSealsWaitsForOneThatDoesNot(t *testing.T) {
	t.Parallel()
	r := newRig(t, newServer(sealedMessages, "INBOX"))
	other, files := r.data("other"), r.stores["files"]
	flushing := make(chan struct{})
	// The one that seals is still flushing when the other begins, and goes on when
	// that has ended and messages are written again.
	files.onFlush = func(ctx context.Context) {
		files.onFlush = nil
		select {
		case <-flushing:
		case <-ctx.Done():
		}
		files.writtenMoreThan(ctx, files.writtenAtSeal())
	}
	var at []int
	other.onFlush = func(context.Context) {
		at = append(at, files.written())
		if len(at) == 1 {
			close(flushing)
		}
	}
	r.wantExit(r.run(), engine.ExitDone)
	r.wantAll("files", nil)
	r.wantAll("other", nil)
	r.wantCovered("files")
	r.wantCovered("other")
	if len(at) < 2 || at[0] == 0 || at[0] != len(files.at[1]) {
		t.Errorf("messages written at the other's Flushes: %v; the first epoch has %d", at, len(files.at[1]))
	}
}

// TestARefusalOfASealedEpoch: what a target refuses in a Flush is a dead letter,
// and what is written meanwhile and refused is one of the next epoch (I6).
func TestARefusalOfASealedEpoch(t *testing.T) {
	t.Parallel()
	r := newRig(t, newServer(sealedMessages, "INBOX"))
	s := r.stores["files"]
	s.late = map[uint32]bool{}
	for uid := uint32(100); uid <= sealedMessages; uid += 100 {
		s.late[uid] = true
	}
	beside(s)
	r.wantExit(r.run(), engine.ExitLetters)
	r.wantAll("files", func(_ string, uid uint32) bool { return !s.late[uid] })
	r.wantCovered("files")
	if n := len(r.letters()); n != len(s.late) {
		t.Errorf("%d dead letters, want %d", n, len(s.late))
	}
}

// TestARunIsCancelledWhileASealedEpochIsFlushed: nothing of it is called done, and
// the next run writes it.
func TestARunIsCancelledWhileASealedEpochIsFlushed(t *testing.T) {
	t.Parallel()
	r := newRig(t, newServer(sealedMessages, "INBOX"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.ctx = ctx
	s := r.stores["files"]
	beside(s)
	wait := s.onFlush
	s.onFlush = func(ctx context.Context) {
		wait(ctx)
		cancel()
	}
	r.run()
	r.ctx = nil
	r.wantCovered("files")
	r.wantExit(r.run(), engine.ExitDone)
	r.wantAll("files", nil)
	r.wantCovered("files")
}
