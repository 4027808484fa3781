package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/internal/stages/filter"
	"github.com/mailhaul/pipeline/internal/stages/limit"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
)

// rig is a pipeline of synthetic parts with a real ledger.
type rig struct {
	t       *testing.T
	dir     string
	servers map[string]*server
	stores  map[string]*store
	stages  []stages.Config
	sinks   []plan.Sink
	limit   int64
	newest  bool
	opts    engine.Options
	events  []engine.Event
}

func newRig(t *testing.T, s *server) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), servers: map[string]*server{"src": s}, stores: map[string]*store{}}
	r.data("files")
	return r
}

func (r *rig) data(name string) *store {
	r.stores[name] = newStore()
	r.sinks = append(r.sinks, plan.Sink{Name: name, Plugin: "store", Prepared: sink.Prepared{Target: "/" + name, Lanes: 4, Needs: message.NeedBody}})
	return r.stores[name]
}

func (r *rig) index(needs message.Needs) *store {
	r.stores["index"] = newStore()
	r.stores["index"].record = true
	r.sinks = append(r.sinks, plan.Sink{Name: "index", Plugin: "store", Prepared: sink.Prepared{Target: "/index", Lanes: 1, Record: true, Needs: needs}})
	return r.stores["index"]
}

func (r *rig) filter(name, text string) {
	r.stages = append(r.stages, stages.Config{Name: name, Filter: &text})
}

func (r *rig) OpenSource(_ context.Context, s *plan.Source, _ bool) (source.Opened, error) {
	return r.servers[s.Name].open()
}

func (r *rig) OpenSink(_ context.Context, s *plan.Sink, st sink.State, _ bool) (engine.SinkSession, error) {
	return r.stores[s.Name].open(st)
}

// run runs the pipeline once, and checks the sum of each mailbox (I1).
func (r *rig) run() *engine.Result {
	r.t.Helper()
	return r.runUntil(make(chan struct{}))
}

func (r *rig) runUntil(stop <-chan struct{}) *engine.Result {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	l, err := ledger.Open(ctx, r.dir, "test")
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.Close()
	var built []*stages.Stage
	for _, c := range r.stages {
		s, err := stages.Build(c, filter.Options{})
		if err != nil {
			r.t.Fatal(err)
		}
		built = append(built, s)
	}
	p := &plan.Plan{Name: "test", Chain: stages.NewChain(built), Sinks: r.sinks, Concurrency: 4}
	for _, name := range slices.Sorted(maps.Keys(r.servers)) {
		p.Sources = append(p.Sources, plan.Source{
			Name: name, Plugin: "synthetic", Selects: func(message.Mailbox) bool { return true }, Provides: serverProvides,
			Limit: r.limit, Newest: r.newest, Rules: fmt.Sprint(r.limit, r.newest),
		})
	}
	p.Settle()
	opts := r.opts
	opts.Plan, opts.Ledger, opts.Plugins = p, l, r
	opts.Events = func(e engine.Event) { r.events = append(r.events, e) }
	if opts.Now == nil {
		opts.Now = func() time.Time { return time.Unix(1e9, 0) }
	}
	res, err := engine.Run(ctx, stop, opts)
	if ctx.Err() != nil {
		r.t.Fatal("the run hung")
	}
	if err != nil {
		r.t.Logf("run: %v", err)
	}
	for _, a := range res.Accounts {
		for i := range a.Mailboxes {
			if err := a.Mailboxes[i].Check(); err != nil {
				r.t.Errorf("I1: %v", err)
			}
		}
	}
	return res
}

// total adds up the mailboxes of a run.
func total(r *engine.Result) engine.Sum {
	t := engine.Sum{Dropped: map[string]int64{}, Complete: true}
	for _, a := range r.Accounts {
		for _, s := range a.Mailboxes {
			t.Listed += s.Listed
			t.DoneBefore += s.DoneBefore
			t.Written += s.Written
			t.Unrouted += s.Unrouted
			t.DeadLetters += s.DeadLetters
			t.Vanished += s.Vanished
			t.Pending += s.Pending
			t.Complete = t.Complete && s.Complete
			for k, n := range s.Dropped {
				t.Dropped[k] += n
			}
		}
	}
	return t
}

// wantAll checks that a store holds just the messages of the server that ok
// lets pass.
func (r *rig) wantAll(sink string, ok func(mailbox string, uid uint32) bool) {
	r.t.Helper()
	want := map[string]string{}
	for name, s := range r.servers {
		for _, m := range s.mailboxes {
			for _, uid := range s.uids(m) {
				if ok == nil || ok(m, uid) {
					id := message.ID{Source: name, Mailbox: m, UIDValidity: 7, UID: uid}
					want[id.Key()] = string(s.octets(m, uid))
				}
			}
		}
	}
	if diff := cmp.Diff(want, r.stores[sink].contents()); diff != "" {
		r.t.Errorf("sink %s (-want +got):\n%.2000s", sink, diff)
	}
}

func (r *rig) wantExit(res *engine.Result, exit int) {
	r.t.Helper()
	if res.Exit() != exit {
		r.t.Errorf("exit code %d, want %d; error %v", res.Exit(), exit, res.Err)
		for _, a := range res.Accounts {
			r.t.Logf("%+v", a)
		}
	}
}

func TestARunWritesEverythingOnce(t *testing.T) {
	t.Parallel()
	s := newServer(1500, "INBOX", "Sent", "Empty")
	s.count["Empty"] = 0
	r := newRig(t, s)
	r.index(message.NeedHeaders | message.NeedStructure)
	res := r.run()
	r.wantExit(res, engine.ExitDone)
	r.wantAll("files", nil)
	if n := len(r.stores["index"].contents()); n != 3000 {
		t.Errorf("%d records, want 3000", n)
	}
	if n := s.fetched.Load(); n != 3000 {
		t.Errorf("%d bodies were fetched, want each once", n)
	}
	if sum := total(res); sum.Listed != 3000 || sum.Written != 3000 || !sum.Complete {
		t.Errorf("sum: %+v", sum)
	}

	t.Run("again: nothing is listed, fetched or opened", func(t *testing.T) {
		before, opened := r.stores["files"].contents(), r.stores["files"].opened
		listed := s.listed.Load()
		res := r.run()
		r.wantExit(res, engine.ExitDone)
		if s.listed.Load() != listed || s.fetched.Load() != 3000 {
			t.Error("an unchanged mailbox was listed or fetched")
		}
		if r.stores["files"].opened != opened || r.stores["index"].opened != 1 {
			t.Error("a sink was opened with nothing to write")
		}
		if diff := cmp.Diff(before, r.stores["files"].contents()); diff != "" {
			t.Error(diff)
		}
		if sum := total(res); sum.DoneBefore != 3000 || sum.Listed != 3000 {
			t.Errorf("sum: %+v", sum)
		}
	})
	t.Run("a new message costs one message", func(t *testing.T) {
		s.count["INBOX"]++
		listed := s.listed.Load()
		res := r.run()
		r.wantExit(res, engine.ExitDone)
		r.wantAll("files", nil)
		if n := s.fetched.Load(); n != 3001 {
			t.Errorf("%d bodies fetched in all, want 3001", n)
		}
		if n := s.listed.Load() - listed; n != 1501 {
			t.Errorf("%d summaries listed, want the one mailbox's 1501 ids", n)
		}
		if sum := total(res); sum.DoneBefore != 3000 || sum.Written != 1 {
			t.Errorf("sum: %+v", sum)
		}
	})
	t.Run("a new sink gets the backlog, and it alone", func(t *testing.T) {
		writes := r.stores["files"].writes
		r.data("second")
		res := r.run()
		r.wantExit(res, engine.ExitDone)
		r.wantAll("second", nil)
		if r.stores["files"].writes != writes {
			t.Error("the old sink was written to")
		}
		for _, rec := range r.stores["index"].contents() {
			if !strings.Contains(rec, "files:") || !strings.Contains(rec, "second:") {
				t.Fatalf("a record wasn't replaced: %s", rec)
			}
		}
	})
}

func TestAnIndexAloneFetchesNoBody(t *testing.T) {
	t.Parallel()
	s := newServer(700, "INBOX")
	r := newRig(t, s)
	r.sinks = nil
	r.index(message.NeedHeaders | message.NeedStructure)
	res := r.run()
	r.wantExit(res, engine.ExitDone)
	if n := s.fetched.Load(); n != 0 {
		t.Errorf("%d bodies were fetched", n)
	}
	if n := len(r.stores["index"].contents()); n != 700 {
		t.Errorf("%d records, want 700", n)
	}
}

func TestStages(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		filters []string
		limit   *limit.Config
		keeps   func(mailbox string, uid uint32) bool
		dropped map[string]int64
		listed  message.Needs // what listings may ask for at the most
	}{
		"a filter on size asks for sizes alone": {
			filters: []string{"size < 110"},
			keeps:   func(m string, uid uint32) bool { return len(newServer(0).octets(m, uid)) < 110 },
			listed:  message.NeedSize,
		},
		"a filter on headers": {
			filters: []string{`subject endsWith "7"`},
			keeps:   func(_ string, uid uint32) bool { return uid%10 == 7 },
			dropped: map[string]int64{"f0": 540},
			listed:  message.NeedHeaders,
		},
		"the cheaper of two filters gets the credit": {
			filters: []string{`subject endsWith "7"`, "internal_date < date(\"1970-01-01T00:01:00Z\")"},
			keeps:   func(_ string, uid uint32) bool { return uid%10 == 7 && uid < 60 },
			dropped: map[string]int64{"f0": 106, "f1": 482},
			listed:  message.NeedHeaders | message.NeedInternalDate,
		},
		"a limit for each mailbox": {
			limit:   &limit.Config{Messages: 10, Per: "mailbox"},
			keeps:   func(_ string, uid uint32) bool { return uid <= 10 },
			dropped: map[string]int64{"few": 580},
		},
		"a limit for the source": {
			limit:   &limit.Config{Messages: 310, Per: "source"},
			keeps:   func(m string, uid uint32) bool { return m == "A" || uid <= 10 },
			dropped: map[string]int64{"few": 290},
		},
		"a limit after a filter counts what passed": {
			filters: []string{`subject endsWith "7"`},
			limit:   &limit.Config{Messages: 2, Per: "mailbox"},
			keeps:   func(_ string, uid uint32) bool { return uid == 7 || uid == 17 },
			dropped: map[string]int64{"f0": 540, "few": 56},
			listed:  message.NeedHeaders,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(300, "A", "B")
			r := newRig(t, s)
			for i, f := range tc.filters {
				r.filter(fmt.Sprintf("f%d", i), f)
			}
			if tc.limit != nil {
				r.stages = append(r.stages, stages.Config{Name: "few", Limit: tc.limit})
			}
			res := r.run()
			r.wantExit(res, engine.ExitDone)
			r.wantAll("files", tc.keeps)
			if asked := message.Needs(s.needs.Load()); asked&^tc.listed != 0 {
				t.Errorf("listings asked for %s, need at the most %s", asked, tc.listed)
			}
			if tc.dropped != nil {
				if diff := cmp.Diff(tc.dropped, total(res).Dropped); diff != "" {
					t.Errorf("dropped (-want +got):\n%s", diff)
				}
			}
			fetched := s.fetched.Load()
			if kept := int64(len(r.stores["files"].contents())); fetched != kept {
				t.Errorf("%d bodies were fetched for %d kept messages", fetched, kept)
			}
			// More mail, the same rules: nothing is fetched twice.
			s.count["A"] = 301
			r.run()
			if s.fetched.Load() > fetched+1 {
				t.Errorf("%d bodies were fetched again", s.fetched.Load()-fetched)
			}
		})
	}
}

// I8: the file is the truth. What a filter dropped is judged again, from the
// values that it read, when the rules change.
func TestChangedRulesJudgeDropsAgain(t *testing.T) {
	t.Parallel()
	s := newServer(100, "INBOX")
	r := newRig(t, s)
	r.filter("small", "size < 100")
	r.run()
	kept := len(r.stores["files"].contents())
	asked := s.needs.Swap(0)
	r.stages = nil
	r.filter("small", "size < 90")
	r.run()
	if again := s.needs.Load(); again != 0 {
		t.Errorf("after a stricter filter the listing asked for %s; the kept values tell (first run: %s)", message.Needs(again), message.Needs(asked))
	}
	if n := len(r.stores["files"].contents()); n != kept {
		t.Errorf("%d files, want %d: what is written stays", n, kept)
	}
	r.stages = nil
	r.wantExit(r.run(), engine.ExitDone)
	r.wantAll("files", nil)
}

func TestRouting(t *testing.T) {
	t.Parallel()
	s := newServer(100, "A", "B")
	r := newRig(t, s)
	when, err := expression.Compile(`mailbox == "B"`, expression.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.sinks[0].When = when
	r.index(message.NeedHeaders)
	res := r.run()
	r.wantExit(res, engine.ExitDone)
	r.wantAll("files", func(m string, _ uint32) bool { return m == "B" })
	if n := s.fetched.Load(); n != 100 {
		t.Errorf("%d bodies were fetched, want only the routed 100", n)
	}
	if n := len(r.stores["index"].contents()); n != 200 {
		t.Errorf("%d records, want 200", n)
	}
	r.sinks[0].When = nil
	r.wantExit(r.run(), engine.ExitDone)
	r.wantAll("files", nil)
}

func TestTroubleWithSingleMessages(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		trouble func(*server, *store)
		missing func(uid uint32) bool
		sum     func(engine.Sum) bool
		exit    int
	}{
		"expunged between List and Fetch": {
			trouble: func(s *server, _ *store) {
				s.gone[5] = true
				s.expunged["INBOX"] = map[uint32]bool{}
				octets := s.octets
				s.octets = func(m string, uid uint32) []byte {
					s.expunged["INBOX"][5] = true // once the first body is asked for
					return octets(m, uid)
				}
			},
			sum:  func(s engine.Sum) bool { return s.Vanished == 1 && s.Written == 199 },
			exit: engine.ExitDone,
		},
		"listed but never given": {
			trouble: func(s *server, _ *store) { s.gone[5] = true },
			missing: func(uid uint32) bool { return uid == 5 },
			sum:     func(s engine.Sum) bool { return s.DeadLetters == 1 && s.Written == 199 },
			exit:    engine.ExitLetters,
		},
		"refused by the source": {
			trouble: func(s *server, _ *store) { s.refuse[5] = true },
			missing: func(uid uint32) bool { return uid == 5 },
			sum:     func(s engine.Sum) bool { return s.DeadLetters == 1 && s.Written == 199 },
			exit:    engine.ExitLetters,
		},
		"refused by the sink": {
			trouble: func(_ *server, st *store) { st.refuse[5], st.refuse[199] = true, true },
			missing: func(uid uint32) bool { return uid == 5 || uid == 199 },
			sum:     func(s engine.Sum) bool { return s.DeadLetters == 2 && s.Written == 198 },
			exit:    engine.ExitLetters,
		},
		"a body that breaks off twice": {
			trouble: func(s *server, _ *store) { s.cut[5] = 2 },
			sum:     func(s engine.Sum) bool { return s.Written == 200 },
			exit:    engine.ExitDone,
		},
		"a body that always breaks off": {
			trouble: func(s *server, _ *store) { s.cut[5] = 1000 },
			missing: func(uid uint32) bool { return uid == 5 },
			sum:     func(s engine.Sum) bool { return s.DeadLetters == 1 && s.Written == 199 },
			exit:    engine.ExitLetters,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(200, "INBOX")
			s.lanes = 1
			r := newRig(t, s)
			tc.trouble(s, r.stores["files"])
			res := r.run()
			r.wantExit(res, tc.exit)
			r.wantAll("files", func(_ string, uid uint32) bool { return tc.missing == nil || !tc.missing(uid) })
			if !tc.sum(total(res)) {
				t.Errorf("sum: %+v", total(res))
			}
		})
	}
}

func TestDeaths(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		trouble func(*server, *store, *store)
		missing func(uid uint32) bool
		exit    int
	}{
		"the source dies once":  {trouble: func(s *server, _, _ *store) { s.dieAfter = 333 }},
		"a sink dies in Write":  {trouble: func(_ *server, st, _ *store) { st.dieAt = 444 }},
		"a sink dies in Flush":  {trouble: func(_ *server, st, _ *store) { st.dieIn = "flush" }},
		"the index dies":        {trouble: func(_ *server, _, ix *store) { ix.dieAt = 77 }},
		"the index dies, Flush": {trouble: func(_ *server, _, ix *store) { ix.dieIn = "flush" }},
		"all of them die":       {trouble: func(s *server, st, ix *store) { s.dieAfter, st.dieAt, ix.dieAt = 100, 300, 50 }},
		"a message kills the source": {
			trouble: func(s *server, _, _ *store) { s.killer[400] = true },
			missing: func(uid uint32) bool { return uid == 400 },
			exit:    engine.ExitLetters,
		},
		"two messages kill a sink": {
			trouble: func(_ *server, st, _ *store) { st.killer[400], st.killer[2] = true, true },
			missing: func(uid uint32) bool { return uid == 400 || uid == 2 },
			exit:    engine.ExitLetters,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(1000, "INBOX")
			r := newRig(t, s)
			ix := r.index(message.NeedHeaders | message.NeedStructure)
			tc.trouble(s, r.stores["files"], ix)
			res := r.run()
			r.wantExit(res, tc.exit)
			r.wantAll("files", func(_ string, uid uint32) bool { return tc.missing == nil || !tc.missing(uid) })
			records := 1000
			if tc.missing != nil && len(s.killer) > 0 {
				records = 999 // no octets ever came
			}
			if n := len(ix.contents()); n != records {
				t.Errorf("%d records, want %d", n, records)
			}
			if sum := total(res); !sum.Complete {
				t.Errorf("sum: %+v", sum)
			}
			// Dead letters of a killer are not tried again by themselves.
			fetched := s.fetched.Load()
			r.run()
			if s.fetched.Load() != fetched {
				t.Errorf("the next run fetched %d", s.fetched.Load()-fetched)
			}
		})
	}
}

func TestAFullDiskStopsTheRunAndLosesNothing(t *testing.T) {
	t.Parallel()
	s := newServer(1000, "INBOX")
	r := newRig(t, s)
	r.data("other")
	r.stores["files"].full = 300
	res := r.run()
	r.wantExit(res, engine.ExitStopped)
	if res.Err == nil || !fault.Is(res.Err, fault.Full) || !strings.Contains(res.Err.Error(), "sink files") {
		t.Errorf("error %v, want one that names the sink", res.Err)
	}
	r.stores["files"].full = 0
	res = r.run()
	r.wantExit(res, engine.ExitDone)
	r.wantAll("files", nil)
	r.wantAll("other", nil)
}

func TestASinkThatFailsMayLeaveTheOthersAlone(t *testing.T) {
	t.Parallel()
	s := newServer(300, "INBOX")
	r := newRig(t, s)
	r.data("broken").openErr = fault.New(fault.Config, "the marker is gone")
	r.sinks[1].GoOn = true
	res := r.run()
	if res.Exit() == engine.ExitDone {
		t.Error("exit code 0 with a failed sink")
	}
	r.wantAll("files", nil)
	r.stores["broken"].openErr = nil
	r.wantExit(r.run(), engine.ExitDone)
	r.wantAll("broken", nil)
}

func TestAnAccountThatFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err  error
		exit int
	}{
		"a wrong password":      {fault.New(fault.Auth, "LOGIN refused"), engine.ExitIncomplete},
		"parked by its server":  {fault.New(fault.Throttled, "slow down").After(time.Hour), engine.ExitParked},
		"no class":              {errors.New("odd"), engine.ExitIncomplete},
		"unavailable all along": {fault.New(fault.Unavailable, "connection refused"), engine.ExitIncomplete},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, newServer(100, "INBOX"))
			bad := newServer(100, "INBOX")
			bad.openErr = tc.err
			r.servers["bad"] = bad
			res := r.run()
			r.wantExit(res, tc.exit)
			bad.openErr = nil
			r.wantExit(r.run(), engine.ExitDone)
			r.wantAll("files", nil)
		})
	}
}

func TestStopFinishesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	s := newServer(20_000, "INBOX")
	r := newRig(t, s)
	stop := make(chan struct{})
	go func() {
		for s.fetched.Load() < 500 {
			time.Sleep(time.Millisecond)
		}
		close(stop)
	}()
	res := r.runUntil(stop)
	r.wantExit(res, engine.ExitStopped)
	written := int64(len(r.stores["files"].contents()))
	if written == 0 || written == 20_000 {
		t.Fatalf("%d written at the stop", written)
	}
	if sum := total(res); sum.Written != written {
		t.Errorf("the sum says %d written, the store has %d", sum.Written, written)
	}
	fetched := s.fetched.Load()
	if fetched != written {
		t.Errorf("%d fetched, %d written: what was in flight was lost", fetched, written)
	}
	r.wantExit(r.run(), engine.ExitDone)
	r.wantAll("files", nil)
	if s.fetched.Load() != 20_000 {
		t.Errorf("%d fetched in all, want 20000", s.fetched.Load())
	}
}

func TestALargeBodyPassesToSeveralSinks(t *testing.T) {
	t.Parallel()
	s := newServer(3, "INBOX")
	octets := s.octets
	s.octets = func(m string, uid uint32) []byte {
		return append(octets(m, uid), strings.Repeat("0123456789abcdef", 1<<20)...)
	}
	r := newRig(t, s)
	r.data("second")
	r.index(message.NeedHeaders | message.NeedStructure)
	r.wantExit(r.run(), engine.ExitDone)
	r.wantAll("files", nil)
	r.wantAll("second", nil)
}
