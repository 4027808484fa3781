package engine_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// standing reads what the ledger has of accounts and mailboxes, as `status`
// does.
func (r *rig) standing() (map[string]ledger.Account, map[string]ledger.Mailbox) {
	r.t.Helper()
	l, err := ledger.View(r.t.Context(), r.dir, "test")
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.Close()
	accounts, boxes := map[string]ledger.Account{}, map[string]ledger.Mailbox{}
	list, err := l.Accounts(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, a := range list {
		accounts[a.Source] = a
	}
	err = l.Mailboxes(r.t.Context(), "", func(m ledger.Mailbox) error {
		boxes[m.Source+" "+m.Name] = m
		sum := int64(0)
		for _, n := range m.Fates {
			sum += n
		}
		if sum != m.Listed {
			r.t.Errorf("mailbox %s: listed %d, the fates add up to %d", m.Name, m.Listed, sum)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return accounts, boxes
}

// The ledger tells between runs where each mailbox stands, with the server's
// count beside the sum and what the server hides (I1).
func TestTheLedgerTellsWhereMailboxesStand(t *testing.T) {
	t.Parallel()
	s := newServer(40, "INBOX", "Sent", "Trash")
	s.refuse[3] = true
	s.hidden = map[string]int64{"Sent": 5}
	s.blind = []string{"the server shows the newest messages only"}
	r := newRig(t, s)
	r.filter("even", `uid % 2 == 0 || uid == 3`)
	r.exclude = []string{"Trash"}
	r.opts.Run = 1
	res := r.run()
	r.wantExit(res, 3)
	accounts, boxes := r.standing()
	if a := accounts["src"]; a.State != ledger.Complete || a.Run != 1 || a.Began.IsZero() || a.Ended.Before(a.Began) {
		t.Errorf("account %+v", a)
	}
	want := map[string]ledger.Mailbox{
		"src INBOX": {Source: "src", Name: "INBOX", Run: 1, State: ledger.Complete, UIDValidity: 7, Server: 40, Listed: 40,
			Fates:   ledger.Tally{ledger.Written: 20, ledger.Dead: 1, ledger.Dropped: 19},
			Dropped: map[string]int64{"even": 19}, BlindSpots: s.blind},
		"src Sent": {Source: "src", Name: "Sent", Run: 1, State: ledger.Complete, UIDValidity: 7, Server: 45, Listed: 40,
			Fates:      ledger.Tally{ledger.Written: 20, ledger.Dead: 1, ledger.Dropped: 19},
			Dropped:    map[string]int64{"even": 19},
			BlindSpots: []string{s.blind[0], "the server counts 45 messages and lists 40"}},
		"src Trash": {Source: "src", Name: "Trash", Run: 1, State: ledger.Excluded, Server: -1},
	}
	if diff := cmp.Diff(want, boxes, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	for _, m := range res.Accounts[0].Mailboxes {
		if w := want["src "+m.Mailbox]; m.State != w.State || m.Server != w.Server || !slices.Equal(m.BlindSpots, w.BlindSpots) {
			t.Errorf("the result says %+v of %s", m, m.Mailbox)
		}
	}

	// A run that finds nothing new changes only who looked last; one that
	// can't log in says so and takes nothing back.
	r.opts.Run = 2
	r.run()
	for name, m := range want {
		m.Run = 2
		want[name] = m
	}
	_, boxes = r.standing()
	if diff := cmp.Diff(want, boxes, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	r.opts.Run = 3
	s.openErr = fault.New(fault.Auth, "NO wrong password").WithHint("look it up")
	r.wantExit(r.run(), 4)
	accounts, boxes = r.standing()
	if a := accounts["src"]; a.State != ledger.Incomplete || a.Run != 3 || a.Err != "NO wrong password" || a.Hint != "look it up" {
		t.Errorf("account %+v", a)
	}
	if diff := cmp.Diff(want, boxes, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

// A run that is cut off in the middle of a mailbox leaves a sum that holds.
func TestARunThatIsCutOffLeavesItsSums(t *testing.T) {
	t.Parallel()
	s := newServer(20_000, "A", "B")
	s.lanes = 1
	r := newRig(t, s)
	stop := make(chan struct{})
	store := r.stores["files"]
	store.slow = func() {
		switch {
		case store.writes == 5000:
			close(stop)
		case store.writes > 5000:
			// So that A isn't listed to its end before the engine, on a busy
			// machine, hears of the stop.
			time.Sleep(time.Millisecond / 2)
		}
	}
	r.runUntil(stop)
	accounts, boxes := r.standing()
	if a := accounts["src"]; a.State != ledger.Incomplete {
		t.Errorf("account %+v", a)
	}
	a, b := boxes["src A"], boxes["src B"]
	if a.State != ledger.Incomplete || a.Fates[ledger.Written] < 5000 || a.Fates[ledger.Pending] == 0 {
		t.Errorf("A is %+v", a)
	}
	if b.State != ledger.NeverListed || b.Listed != 0 || b.Server != 20_000 {
		t.Errorf("B is %+v", b)
	}
}
