// Package preview says what a run would export: it lists what the sources have,
// leaves out what the ledger knows to be done, and lets the stages judge, as a
// run does; it fetches nothing, starts no sink and writes nothing.
package preview

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/source"
)

// page is how many messages are looked at together (I5).
const page = 512

// Options are what a preview is made of.
type Options struct {
	Plan   *plan.Plan
	Ledger *ledger.Ledger // nil: nothing was ever exported
	Open   func(context.Context, *plan.Source) (source.Opened, error)
	Now    time.Time // what now() is
}

// Source is what a run would do with one source. Listed = Done + Dropped +
// Dead + Unrouted + Fetch.
type Source struct {
	Name      string
	Mailboxes int
	Listed    int64
	Done      int64            // by earlier runs
	Dropped   map[string]int64 // by stage
	Dead      int64            // that a stage would make dead letters
	Unrouted  int64            // that no sink would get
	Fetch     int64            // that some sink would get
	Octets    int64            // of those, as far as sizes are known
	Unsized   int64            // of those, that the server tells no size of
	Later     int64            // of those, that a stage judges only when the body or the other messages are known
	Err       error
}

// Run looks at all sources, as many at once as the plan allows, and calls f for
// each, one at a time, as they are done.
func Run(ctx context.Context, o Options, f func(*Source)) error {
	targets, err := o.targets(ctx)
	if err != nil {
		return err
	}
	slots := make(chan struct{}, max(1, o.Plan.Concurrency))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range o.Plan.Sources {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			v := &viewer{o: &o, plan: &o.Plan.Sources[i], targets: targets}
			v.out = Source{Name: v.plan.Name, Dropped: map[string]int64{}}
			v.out.Err = v.run(ctx)
			mu.Lock()
			defer mu.Unlock()
			f(&v.out)
		})
	}
	wg.Wait()
	return ctx.Err()
}

// targets returns the ledger's numbers of the sinks' targets: zero for one that
// it doesn't know, which gets everything.
func (o *Options) targets(ctx context.Context) ([]ledger.TargetID, error) {
	out := make([]ledger.TargetID, len(o.Plan.Sinks))
	if o.Ledger == nil {
		return out, nil
	}
	for i := range o.Plan.Sinks {
		s := &o.Plan.Sinks[i]
		t, _, err := o.Ledger.KnownTarget(ctx, s.Name, s.Prepared.Target)
		if err != nil {
			return nil, err
		}
		out[i] = t.ID
	}
	return out, nil
}

// viewer looks at one source.
type viewer struct {
	o       *Options
	plan    *plan.Source
	targets []ledger.TargetID
	source  source.Source
	chain   *stages.Run
	out     Source
}

func (v *viewer) run(ctx context.Context) error {
	opened, err := v.o.Open(ctx, v.plan)
	if err != nil {
		return err
	}
	defer opened.Source.Close()
	v.source, v.chain = opened.Source, v.o.Plan.Chain.NewRun(v.o.Now, v.plan.Vars)
	var boxes []message.Mailbox
	for m, err := range v.source.Mailboxes(ctx) {
		if err != nil {
			return err
		}
		if m.Selectable && v.plan.Selects(m) {
			boxes = append(boxes, m)
		}
	}
	var among []string
	for _, m := range boxes {
		among = append(among, m.Name)
	}
	for _, m := range boxes {
		if slices.Contains(among, m.Within) {
			continue // all of it is there, too
		}
		v.out.Mailboxes++
		req := source.ListRequest{Mailbox: m.Name, Limit: page, Newest: v.plan.Newest}
		if m.Overlaps {
			req.Among = among
		}
		if err := v.mailbox(ctx, req); err != nil {
			return fmt.Errorf("mailbox %s: %w", m.Name, err)
		}
	}
	return nil
}

func (v *viewer) mailbox(ctx context.Context, req source.ListRequest) error {
	for {
		var ids []message.ID
		for s, err := range v.source.List(ctx, req) {
			if err != nil {
				return err
			}
			if v.plan.Limit > 0 && v.out.Listed >= v.plan.Limit {
				break
			}
			s.ID.Source = v.plan.Name
			ids = append(ids, s.ID)
			v.out.Listed++
		}
		if len(ids) == 0 {
			return nil
		}
		if err := v.judge(ctx, req, ids); err != nil {
			return err
		}
		if len(ids) < req.Limit {
			return nil
		}
		req.After = &ids[len(ids)-1]
	}
}

// judge asks for what the stages read of the messages that aren't done, and
// counts what would become of them.
func (v *viewer) judge(ctx context.Context, req source.ListRequest, ids []message.ID) error {
	done, err := v.done(ctx, req.Mailbox, ids)
	if err != nil {
		return err
	}
	open := slices.DeleteFunc(slices.Clone(ids), func(id message.ID) bool { return done[id] })
	v.out.Done += int64(len(ids) - len(open))
	if len(open) == 0 {
		return nil
	}
	needs := message.NeedSize | v.o.Plan.Chain.NeededOverall()
	for i := range v.o.Plan.Sinks {
		if when := v.o.Plan.Sinks[i].When; when != nil {
			needs |= when.Needs()
		}
	}
	asked := make([]message.ID, len(open))
	for i, id := range open {
		asked[i] = id
		asked[i].Source = "" // the plugin doesn't know it
	}
	req.IDs, req.After, req.Limit, req.Needs = asked, nil, 0, needs&v.plan.Provides&^message.NeedBody
	found := int64(0)
	for s, err := range v.source.List(ctx, req) {
		if err != nil {
			return err
		}
		s.ID.Source, s.Vars = v.plan.Name, v.plan.Vars
		found++
		v.count(&s)
	}
	v.out.Listed -= int64(len(open)) - found // gone meanwhile
	return nil
}

// done returns those of the messages that have a fate in all targets.
func (v *viewer) done(ctx context.Context, mailbox string, ids []message.ID) (map[message.ID]bool, error) {
	out := map[message.ID]bool{}
	if v.o.Ledger == nil {
		return out, nil
	}
	box, err := v.o.Ledger.Box(ctx, v.plan.Name, mailbox, ids[0].UIDValidity)
	if err != nil {
		return nil, err
	}
	entries, err := v.o.Ledger.Lookup(ctx, box, ids)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		out[ids[i]] = v.final(entries[i].Fates)
	}
	return out, nil
}

func (v *viewer) final(fates []ledger.Fate) bool {
	has := map[ledger.TargetID]bool{}
	for i := range fates {
		f := &fates[i]
		switch {
		case f.Target == ledger.Everywhere && f.Class == ledger.Dropped:
			// As a run does, but for rules that read now(): those drops are
			// judged again with the listing.
			return f.Refusal != nil && !v.o.Plan.Chain.ReadsNow() && f.Refusal.Rules == v.o.Plan.Chain.FingerprintUpTo(f.Refusal.Stage)
		case f.Target == ledger.Everywhere:
			return f.Class == ledger.Dead || f.Class == ledger.Duplicate
		case f.Class != ledger.Stale && f.Class != ledger.Vanished:
			has[f.Target] = true
		}
	}
	for _, t := range v.targets {
		if t == 0 || !has[t] {
			return false
		}
	}
	return true
}

// count judges one message as far as its summary allows.
func (v *viewer) count(s *message.Summary) {
	out := v.chain.Judge(0, s)
	for out.Verdict == stages.AtBarrier && out.Stage.Kind == stages.Limit {
		out = v.chain.Admit(out.At, s)
	}
	later := false
	switch out.Verdict {
	case stages.Dropped:
		v.out.Dropped[out.Stage.Name]++
		return
	case stages.DeadLettered:
		v.out.Dead++
		return
	case stages.Kept:
	default:
		later = true // a stage that needs the body, or compares messages
	}
	if !v.routed(s) {
		v.out.Unrouted++
		return
	}
	v.out.Fetch++
	if later {
		v.out.Later++
	}
	if s.Have.Has(message.NeedSize) {
		v.out.Octets += s.Size
	} else {
		v.out.Unsized++
	}
}

func (v *viewer) routed(s *message.Summary) bool {
	for i := range v.o.Plan.Sinks {
		when := v.o.Plan.Sinks[i].When
		if when == nil {
			return true
		}
		// An error is a value that can't be told from the listing.
		value, undecided, _ := when.Eval(s, v.o.Now)
		if value || undecided {
			return true
		}
	}
	return false
}

// Text writes a source in a line or two for a person.
func (s *Source) Text(w io.Writer, size func(int64) string) {
	boxes := "mailboxes"
	if s.Mailboxes == 1 {
		boxes = "mailbox"
	}
	fmt.Fprintf(w, "  %s: %d listed in %d %s = %d to export", s.Name, s.Listed, s.Mailboxes, boxes, s.Fetch)
	plus := func(n int64, what string) {
		if n > 0 {
			fmt.Fprintf(w, " + %d %s", n, what)
		}
	}
	plus(s.Done, "done before")
	for _, stage := range slices.Sorted(maps.Keys(s.Dropped)) {
		plus(s.Dropped[stage], "dropped by "+stage)
	}
	plus(s.Dead, "dead letters")
	plus(s.Unrouted, "unrouted")
	switch {
	case s.Fetch == 0:
	case s.Unsized == s.Fetch:
		fmt.Fprint(w, "; of unknown size")
	case s.Unsized > 0:
		fmt.Fprintf(w, "; more than %s", size(s.Octets))
	default:
		fmt.Fprintf(w, "; %s", size(s.Octets))
	}
	if s.Later > 0 {
		fmt.Fprintf(w, "; of %d a stage judges only in a run", s.Later)
	}
	fmt.Fprintln(w)
}

// Add adds another source's counts.
func (s *Source) Add(o *Source) {
	s.Mailboxes += o.Mailboxes
	s.Listed += o.Listed
	s.Done += o.Done
	s.Dead += o.Dead
	s.Unrouted += o.Unrouted
	s.Fetch += o.Fetch
	s.Octets += o.Octets
	s.Unsized += o.Unsized
	s.Later += o.Later
	for stage, n := range o.Dropped {
		s.Dropped[stage] += n
	}
}
