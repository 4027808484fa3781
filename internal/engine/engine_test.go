package engine_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/internal/stages/filter"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
	"github.com/mailhaul/pipeline/pkg/stage"
)

// rig is a pipeline of synthetic parts with a real ledger.
type rig struct {
	t       *testing.T
	dir     string
	servers map[string]*server
	stores  map[string]*store
	opens   map[string]func(sink.State) (engine.SinkSession, error) // of sinks that are no stores
	stages  []stages.Config
	plugins map[string]func(isolated bool) (stage.Stage, error)
	specs   map[string]stage.Spec
	sinks   []plan.Sink
	limit   int64
	newest  bool
	exclude []string // mailboxes
	tune    func(*plan.Plan)
	rules   string // of the file, besides the limit
	opts    engine.Options
	ctx     context.Context // of the run; nil: the test's
}

func newRig(t *testing.T, s *server) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), servers: map[string]*server{"src": s}, stores: map[string]*store{}}
	r.data("files").seals = true // as those of files do; other sinks of a test don't
	t.Cleanup(func() {
		for name, s := range r.stores {
			for _, what := range s.wrong {
				t.Errorf("sink %s: %s", name, what)
			}
		}
	})
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

func (r *rig) OpenStage(ctx context.Context, s *stages.Stage, isolated bool) (stage.Stage, error) {
	return r.plugins[s.Name](isolated)
}

func (r *rig) OpenSink(_ context.Context, s *plan.Sink, st sink.State, _ bool) (engine.SinkSession, error) {
	if open := r.opens[s.Name]; open != nil {
		return open(st)
	}
	return r.stores[s.Name].open(st)
}

// run runs the pipeline once, and checks the sum of each mailbox (I1).
func (r *rig) run() *engine.Result {
	r.t.Helper()
	return r.runUntil(make(chan struct{}))
}

func (r *rig) runUntil(stop <-chan struct{}) *engine.Result {
	r.t.Helper()
	limit, cancel := context.WithTimeout(r.t.Context(), 5*time.Minute)
	defer cancel()
	ctx := limit
	if r.ctx != nil {
		ctx = r.ctx
	}
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
		s.Spec = r.specs[s.Name]
		built = append(built, s)
	}
	p := &plan.Plan{Name: "test", Chain: stages.NewChain(built), Sinks: r.sinks, Concurrency: 4}
	for _, name := range slices.Sorted(maps.Keys(r.servers)) {
		p.Sources = append(p.Sources, plan.Source{
			Name: name, Plugin: "synthetic", Selects: func(m message.Mailbox) bool { return !slices.Contains(r.exclude, m.Name) }, Provides: serverProvides &^ r.servers[name].hides,
			Limit: r.limit, Newest: r.newest, Rules: fmt.Sprint(r.limit, r.newest, r.rules),
		})
	}
	if r.tune != nil {
		r.tune(p)
	}
	p.Settle()
	opts := r.opts
	opts.Plan, opts.Ledger, opts.Plugins = p, l, r
	if opts.Now == nil {
		opts.Now = func() time.Time { return time.Unix(1e9, 0) }
	}
	if opts.Stats == nil {
		opts.Stats = &engine.Stats{}
	}
	away := r.lookOn(opts.Stats, p.Sources)
	res, err := engine.Run(ctx, stop, opts)
	away(res)
	if limit.Err() != nil {
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

// lookOn asks all through the run where its mailboxes stand, as a page that
// shows it does: each sum must be true at any moment (I1). What it returns ends
// that, and holds what was seen last against the result.
func (r *rig) lookOn(stats *engine.Stats, sources []plan.Source) func(*engine.Result) {
	var onlooker sync.WaitGroup
	ended := make(chan struct{})
	onlooker.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
			}
			for i := range sources {
				boxes, _ := stats.Mailboxes(sources[i].Name)
				for j := range boxes {
					if err := boxes[j].Check(); err != nil {
						r.t.Errorf("I1, during the run: %v", err)
					}
				}
			}
		}
	})
	return func(res *engine.Result) {
		r.t.Helper()
		close(ended)
		onlooker.Wait()
		for i := range res.Accounts {
			a := &res.Accounts[i]
			boxes, excluded := stats.Mailboxes(a.Source)
			if diff := cmp.Diff(a.Mailboxes, boxes, cmp.Comparer(func(x, y error) bool { return fmt.Sprint(x) == fmt.Sprint(y) }), cmpopts.EquateEmpty()); diff != "" {
				r.t.Errorf("what is seen of %s isn't its result: %s", a.Source, diff)
			}
			if diff := cmp.Diff(a.Excluded, excluded); diff != "" {
				r.t.Error(diff)
			}
		}
	}
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
			t.Duplicates += s.Duplicates
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
					id := s.id(m, uid)
					id.Source = name
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

// letters returns the dead letters that stand, each by UIDVALIDITY and UID.
func (r *rig) letters() (out []string) {
	r.t.Helper()
	l, err := ledger.View(r.t.Context(), r.dir, "test")
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.Close()
	err = l.Letters(r.t.Context(), func(id message.ID, sink string, letter ledger.Letter) error {
		out = append(out, fmt.Sprintf("%d/%d %s %s", id.UIDValidity, id.UID, sink, letter.Reason))
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}
