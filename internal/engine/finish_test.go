package engine_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// after lets the rig's sources do something on the server.
func (r *rig) after(a plan.After) {
	r.tune = func(p *plan.Plan) {
		for i := range p.Sources {
			p.Sources[i].After = a
		}
	}
}

// durable fails the test when a message is finished that isn't durable in each
// of the sinks and in the ledger (I3).
func (r *rig) durable(sinks ...string) func(message.ID, source.Action) error {
	var mu sync.Mutex
	return func(id message.ID, _ source.Action) error {
		mu.Lock()
		defer mu.Unlock()
		id.Source = "src"
		for _, name := range sinks {
			if _, ok := r.stores[name].contents()[id.Key()]; !ok {
				r.t.Errorf("%s is finished on the server and isn't durable in %s", id, name)
			}
		}
		l, err := ledger.View(context.Background(), r.dir, "test")
		if err != nil {
			return err
		}
		defer l.Close()
		box, err := l.Box(context.Background(), "src", id.Mailbox, id.UIDValidity)
		if err != nil {
			return err
		}
		found, err := l.Lookup(context.Background(), box, []message.ID{id})
		if err != nil || len(found[0].Fates) < len(sinks) {
			r.t.Errorf("%s is finished on the server, and the ledger has %+v, %v", id, found, err)
		}
		return nil
	}
}

// What every sink has, and nothing else, is flagged, moved or deleted; and
// once only.
func TestExportedMessagesAreFinished(t *testing.T) {
	t.Parallel()
	for name, action := range map[string]source.Action{
		"flag": {Flag: `\Seen`}, "move": {Move: "Exported"}, "delete": {Delete: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(50, "INBOX", "Sent")
			s.refuse[6] = true // a dead letter
			r := newRig(t, s)
			r.data("more").refuse[8] = true // a dead letter of one sink alone
			r.filter("even", "uid % 2 == 0")
			r.after(plan.After{Action: action, Batch: 7})
			s.onFinish = r.durable("files", "more")
			res := r.run()
			r.wantExit(res, engine.ExitLetters)
			want := map[string]int{}
			for _, m := range s.mailboxes {
				for uid := 2; uid <= 50; uid += 2 {
					if uid != 6 && uid != 8 {
						want[fmt.Sprint(m, " ", uid, " ", action.Flag, action.Move, action.Delete)] = 1
					}
				}
			}
			if diff := cmp.Diff(want, s.done); diff != "" {
				t.Error(diff)
			}
			for _, m := range res.Accounts[0].Mailboxes {
				if m.Finished != 23 || !m.Complete {
					t.Errorf("%s: %d finished, want 23; %+v", m.Mailbox, m.Finished, m)
				}
			}
			// New mail makes the next run look; what is done isn't done again.
			s.onFinish = r.durable("files")
			s.count["INBOX"] = 52
			r.run()
			want[fmt.Sprint("INBOX 52 ", action.Flag, action.Move, action.Delete)] = 1
			if diff := cmp.Diff(want, s.done); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Without `after` nothing changes on the server (I7); a plugin that can't is
// refused before anything is exported.
func TestNothingIsFinishedUnasked(t *testing.T) {
	t.Parallel()
	s := newServer(50, "INBOX")
	s.onFinish = func(message.ID, source.Action) error { t.Error("Finish was called"); return nil }
	r := newRig(t, s)
	r.wantExit(r.run(), engine.ExitDone)

	s = newServer(50, "INBOX")
	r = newRig(t, s)
	r.after(plan.After{Action: source.Action{Delete: true}})
	res := r.run()
	r.wantExit(res, engine.ExitIncomplete)
	if err := res.Accounts[0].Err; !fault.Is(err, fault.Config) || len(r.stores["files"].contents()) != 0 {
		t.Errorf("%v; %d messages were exported", err, len(r.stores["files"].contents()))
	}
}

// `after` that comes later into the file is done with what earlier runs
// exported.
func TestAfterForWhatIsExportedAlready(t *testing.T) {
	t.Parallel()
	s := newServer(6000, "INBOX") // more than a page
	r := newRig(t, s)
	r.wantExit(r.run(), engine.ExitDone)
	s.onFinish = func(message.ID, source.Action) error { return nil }
	r.after(plan.After{Action: source.Action{Flag: `\Seen`}})
	r.rules = "after" // as the file's fingerprint does
	res := r.run()
	if sum := total(res); sum.DoneBefore != 6000 || sum.Written != 0 || len(s.done) != 6000 {
		t.Errorf("%+v; %d finished", sum, len(s.done))
	}
	if n := s.fetched.Load(); n != 6000 {
		t.Errorf("%d bodies were fetched", n)
	}
}

// A sink that fails keeps its messages on the server as they are, until a
// later run has brought them there too.
func TestASinkThatFailsKeepsMessagesUnfinished(t *testing.T) {
	t.Parallel()
	s := newServer(50, "INBOX")
	r := newRig(t, s)
	broken := r.data("broken")
	broken.openErr = fault.New(fault.Unavailable, "no such disk")
	r.sinks[1].GoOn = true
	r.after(plan.After{Action: source.Action{Delete: true}})
	s.onFinish = func(message.ID, source.Action) error { t.Error("Finish was called"); return nil }
	r.run()
	broken.openErr = nil
	s.onFinish = r.durable("files", "broken")
	r.wantExit(r.run(), engine.ExitDone)
	if len(s.done) != 50 {
		t.Errorf("%d are deleted, want 50", len(s.done))
	}
}

// A connection that breaks in the middle, and a host that dies there, leave
// messages undone that the next try does.
func TestFinishingIsTakenUpAgain(t *testing.T) {
	t.Parallel()
	s := newServer(500, "INBOX")
	r := newRig(t, s)
	r.after(plan.After{Action: source.Action{Delete: true}, Batch: 50})
	s.onFinish = r.durable("files")
	s.cutAfter = 77
	r.wantExit(r.run(), engine.ExitDone)
	if len(s.done) != 500 {
		t.Errorf("%d are deleted, want 500", len(s.done))
	}

	s = newServer(500, "INBOX")
	r = newRig(t, s)
	r.after(plan.After{Action: source.Action{Flag: `\Seen`}, Batch: 50})
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	s.onFinish = func(message.ID, source.Action) error {
		if n++; n == 120 {
			cancel()
		}
		return nil
	}
	r.ctx = ctx
	r.run()
	r.ctx = nil
	all := r.stores["files"].contents()
	s.onFinish = func(message.ID, source.Action) error { return nil }
	r.wantExit(r.run(), engine.ExitDone)
	if len(s.done) != 500 || len(all) != 500 {
		t.Errorf("%d are flagged and %d exported, want 500", len(s.done), len(all))
	}
	r.wantAll("files", nil)
}

// One message that the server won't change stays for later runs, and costs
// nothing else (I6).
func TestAMessageThatCantBeFinished(t *testing.T) {
	t.Parallel()
	s := newServer(20, "INBOX")
	r := newRig(t, s)
	r.after(plan.After{Action: source.Action{Move: "Exported"}})
	s.onFinish = func(id message.ID, _ source.Action) error {
		if id.UID == 5 {
			return fault.New(fault.Message, "NO [NOPERM]")
		}
		return nil
	}
	var seen events
	r.opts.Events = seen.note
	r.wantExit(r.run(), engine.ExitDone)
	if len(s.done) != 19 || len(seen.of(engine.AccountNote)) != 1 {
		t.Errorf("%d are moved, and the notes are %+v", len(s.done), seen.of(engine.AccountNote))
	}
	s.onFinish = func(message.ID, source.Action) error { return nil }
	r.wantExit(r.run(), engine.ExitDone)
	if len(s.done) != 20 {
		t.Errorf("%d are moved, want 20", len(s.done))
	}
}

// Only what is old enough is touched, and a later run finds what has become
// so, though nothing else has changed.
func TestOnlyOldMessagesAreFinished(t *testing.T) {
	t.Parallel()
	s := newServer(100, "INBOX") // a second apart
	r := newRig(t, s)
	r.after(plan.After{Action: source.Action{Delete: true}, OlderThan: time.Hour})
	s.onFinish = func(message.ID, source.Action) error { return nil }
	now := time.Unix(3600+40, 0)
	r.opts.Now = func() time.Time { return now }
	r.wantExit(r.run(), engine.ExitDone)
	if len(s.done) != 40 {
		t.Errorf("%d are deleted, want 40", len(s.done))
	}
	now = now.Add(30 * time.Second)
	r.wantExit(r.run(), engine.ExitDone)
	if len(s.done) != 70 {
		t.Errorf("%d are deleted, want 70", len(s.done))
	}
	if n := s.fetched.Load(); n != 100 {
		t.Errorf("%d bodies were fetched", n)
	}
}

// A source that asks for it is told of every commit, and the server stays as
// it is.
func TestASourceThatWantsToKnow(t *testing.T) {
	t.Parallel()
	s := newServer(300, "INBOX")
	r := newRig(t, s)
	s.finishes = true
	known := r.durable("files")
	s.onFinish = func(id message.ID, a source.Action) error {
		if !a.IsZero() {
			t.Errorf("action %+v", a)
		}
		return known(id, a)
	}
	res := r.run()
	r.wantExit(res, engine.ExitDone)
	if len(s.done) != 300 || res.Accounts[0].Mailboxes[0].Finished != 0 {
		t.Errorf("told of %d, want 300; %+v", len(s.done), res.Accounts[0].Mailboxes[0])
	}
	// It may have died before it could act on that: what it lists still, it
	// hears of again.
	clear(s.done)
	r.wantExit(r.run(), engine.ExitDone)
	if len(s.done) != 300 || s.fetched.Load() != 300 {
		t.Errorf("told of %d in the second run, want 300; %d fetched", len(s.done), s.fetched.Load())
	}
}

// Thousands that wait in many mailboxes, none of which fills a batch, or in one
// whose batch is larger than what may wait, don't hold up the listing for good.
func TestFinishingGoesOnWithoutAFullBatch(t *testing.T) {
	t.Parallel()
	var small []string
	for i := range 60 {
		small = append(small, fmt.Sprint("m", i))
	}
	for name, s := range map[string]*server{"small mailboxes": newServer(150, small...), "a large batch": newServer(9000, "INBOX")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, s)
			r.wantExit(r.run(), engine.ExitDone)
			s.onFinish = func(message.ID, source.Action) error { return nil }
			batch := 0
			if len(s.mailboxes) == 1 {
				batch = 9001
			}
			r.after(plan.After{Action: source.Action{Flag: `\Seen`}, Batch: batch})
			r.rules = "after" // as the file's fingerprint does
			r.wantExit(r.run(), engine.ExitDone)
			if len(s.done) != 9000 {
				t.Errorf("%d are finished, want 9000", len(s.done))
			}
		})
	}
}

// What a sink has and the server doesn't any more, since the file wanted it
// deleted, isn't given up by --rewrite (I1).
func TestRewriteKeepsWhatIsDeletedOnTheServer(t *testing.T) {
	t.Parallel()
	s := newServer(10, "INBOX")
	s.onFinish = func(id message.ID, _ source.Action) error {
		if id.UID == 3 {
			return fault.New(fault.Message, "not this one")
		}
		return nil
	}
	r := newRig(t, s)
	r.after(plan.After{Action: source.Action{Delete: true}})
	r.wantExit(r.run(), engine.ExitDone)
	r.opts.Rewrite = []string{"files"}
	if res := r.run(); !fault.Is(res.Err, fault.Config) || !strings.Contains(res.Err.Error(), "9 of its messages") {
		t.Errorf("%v", res.Err)
	}
	r.opts.Rewrite = nil
	if sum := total(r.run()); len(r.stores["files"].contents()) != 10 || sum.DoneBefore != 1 {
		t.Errorf("%d are left; %+v", len(r.stores["files"].contents()), sum)
	}
	// A sink that has none of them is written anew.
	r.data("more")
	r.wantExit(r.run(), engine.ExitDone)
	r.opts.Rewrite = []string{"more"}
	if sum := total(r.run()); sum.Written != 1 {
		t.Errorf("%+v", sum)
	}
}

// An account that is parked since its budget is used up has finished what it
// exported: nothing keeps its server from that.
func TestABudgetThatIsUsedUpKeepsNothingUnfinished(t *testing.T) {
	t.Parallel()
	s := newServer(300, "INBOX")
	s.onFinish = func(message.ID, source.Action) error { return nil }
	s.budget = source.Budget{Bytes: 5000, Per: time.Hour}
	r := newRig(t, s)
	r.after(plan.After{Action: source.Action{Delete: true}})
	res := r.run()
	r.wantExit(res, engine.ExitParked)
	if n := total(res).Written; n == 0 || n == 300 || int64(len(s.done)) != n {
		t.Errorf("%d are written, %d finished", n, len(s.done))
	}
}
