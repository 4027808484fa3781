package stages

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/stages/limit"
	"github.com/mailhaul/pipeline/pkg/message"
)

// maxKept is how much of one value is kept with a drop. A longer one is left
// out: the drop is then judged again from a new listing.
const maxKept = 4096

// Chain is the stages of a pipeline, in order. It is safe for concurrent use.
type Chain struct {
	stages   []*Stage
	segments []segment
}

// segment is a run of pure stages, and the barrier after it.
type segment struct {
	terms   []ranked
	stages  []*Stage // the pure ones
	barrier *Stage   // nil at the end of the chain
	first   int      // index in the chain of what stands first in it
}

// ranked is a term with the stage that it belongs to; or the `when` of a stage
// that doesn't keep what that can't tell of.
type ranked struct {
	*expression.Term
	when  *expression.Program
	stage int           // index in segment.stages
	notes []*Stage      // those before it, when it reads what they change
	needs message.Needs // its own, and those of the notes
}

// NewChain returns the chain of the stages, which may be none. In each run of
// pure stages the terms of all are sorted by what they cost to know: a message
// is refused by the cheapest term that refuses it, always the same one.
func NewChain(stages []*Stage) *Chain {
	c := &Chain{stages: stages}
	var seg segment
	for i, s := range stages {
		if !s.Pure() {
			seg.barrier = s
			c.segments = append(c.segments, seg)
			seg = segment{first: i + 1}
			continue
		}
		add := func(r ranked, fields []string) {
			r.stage = len(seg.stages)
			if c.readsNotes(fields) {
				r.notes = c.notesBefore(i)
			}
			r.needs |= needsOf(r.notes)
			seg.terms = append(seg.terms, r)
		}
		for _, t := range s.terms() {
			add(ranked{Term: t, needs: t.Needs()}, t.Fields())
		}
		if s.When != nil && s.Unknown != UnknownKeep {
			add(ranked{when: s.When, needs: s.When.Needs()}, s.When.Fields())
		}
		seg.stages = append(seg.stages, s)
	}
	c.segments = append(c.segments, seg)
	for _, seg := range c.segments {
		slices.SortStableFunc(seg.terms, func(a, b ranked) int { return cmp.Compare(level(a.needs), level(b.needs)) })
	}
	return c
}

// levels are the steps in which a listing is deepened, and what each asks for:
// what a server has at hand, then what it must open the message for.
var levels = [...]message.Needs{
	message.NeedSize | message.NeedInternalDate | message.NeedFlags | message.NeedGmail,
	message.NeedHeaders,
	message.NeedStructure,
	message.NeedBody,
}

// level returns the first step after which all of n is known.
func level(n message.Needs) int {
	var have message.Needs
	for i, l := range levels {
		if have |= l; have.Has(n) {
			return i
		}
	}
	return len(levels)
}

// Stages returns the stages in order. Don't change them.
func (c *Chain) Stages() []*Stage { return c.stages }

// Pushed is a condition that stands for a term of a stage: what surely fails
// it is dropped by that stage.
type Pushed struct {
	expression.Condition
	Stage *Stage
}

// Conditions returns what a server may be asked in the place of stages: terms
// of the filters at the head of the chain, which judge every message first.
// now is the time that expressions see.
func (c *Chain) Conditions(now time.Time) []Pushed {
	var out []Pushed
	for _, s := range c.stages {
		if s.Filter == nil {
			break
		}
		for _, t := range s.terms() {
			if cond, ok := t.Condition(now); ok {
				out = append(out, Pushed{cond, s})
			}
		}
	}
	return out
}

// Levels returns what to ask a listing for, step by step: first what can be
// asked of every message, then what is worth asking for the survivors of the
// step before. Only what the chain reads; empty for a chain that reads nothing.
func (c *Chain) Levels() []message.Needs {
	var all message.Needs
	for i, seg := range c.segments {
		for _, t := range seg.terms {
			all |= t.needs
		}
		if b := seg.barrier; b != nil && !b.Needs().Has(message.NeedBody) {
			all |= c.BarrierNeeds(Position(i))
		}
	}
	var out []message.Needs
	for _, l := range levels {
		if n := all & l; n != 0 {
			out = append(out, n)
		}
	}
	return out
}

// NeededForList returns what the first listing, of every message, should ask
// for.
func (c *Chain) NeededForList() message.Needs {
	if l := c.Levels(); len(l) > 0 {
		return l[0]
	}
	return 0
}

// NeededOverall returns everything that a stage reads.
func (c *Chain) NeededOverall() message.Needs {
	var n message.Needs
	for _, s := range c.stages {
		n |= s.Needs()
	}
	return n
}

// ReadsNow reports whether a stage's judgement depends on the time of the run.
func (c *Chain) ReadsNow() bool { return slices.ContainsFunc(c.stages, (*Stage).ReadsNow) }

// ReadsFlags reports whether a stage reads flags or labels.
func (c *Chain) ReadsFlags() bool { return slices.ContainsFunc(c.stages, (*Stage).ReadsFlags) }

// Fingerprint is the same as long as the whole chain does the same.
func (c *Chain) Fingerprint() string {
	parts := []string{"chain 1"}
	for _, s := range c.stages {
		parts = append(parts, s.Fingerprint())
	}
	return hash(parts...)
}

// FingerprintUpTo covers the stages that can have had a part in a drop by the
// stage of that name: a drop is judged again when it changes (I8). Those are
// all stages up to the next barrier, since a run of pure stages is judged by
// cost and not by order. It is "" for a name that isn't in the chain.
func (c *Chain) FingerprintUpTo(name string) string {
	parts := []string{"chain 1"}
	found := false
	for _, s := range c.stages {
		if found && !s.Pure() {
			break
		}
		if s.Pure() && s.Changes() && s.Unknown == UnknownKeep {
			continue // it has no part in what goes on
		}
		parts = append(parts, s.Fingerprint())
		if s.Name == name {
			found = true
			if !s.Pure() {
				break
			}
		}
	}
	if !found {
		return ""
	}
	return hash(parts...)
}

// Verdict is what a chain says of a message.
type Verdict int

// The verdicts of a chain.
const (
	Kept         Verdict = iota + 1 // it goes on to the sinks
	Dropped                         // by Outcome.Stage
	DeadLettered                    // by Outcome.Stage, for Outcome.Reason
	NeedMore                        // ask the source for Outcome.Needs, then judge again from Outcome.At
	AtBarrier                       // it waits at Outcome.Stage: see Run.Admit, Chain.Past
	CannotJudge                     // kept values only: a new listing must tell
)

// Position is how far a message has come in a chain. The zero Position is its
// start; it is all the state that a message has.
type Position int

// Outcome is what became of a message in a chain.
type Outcome struct {
	Verdict   Verdict
	At        Position      // where to go on: NeedMore, AtBarrier
	Stage     *Stage        // Dropped and DeadLettered: by whom; AtBarrier: the barrier
	Needs     message.Needs // NeedMore: what more must be known
	Reason    string        // DeadLettered: the values that are absent, in words
	Undecided []*Stage      // stages that couldn't tell, and kept it since the last barrier

	// Values is a JSON object of what was read to drop the message, for
	// JudgeValues in a later run (I8).
	Values []byte
}

// Run is what one run counts. Judge may be called by many goroutines at once,
// Admit by one at a time.
type Run struct {
	chain    *Chain
	now      time.Time
	vars     map[string]string // the source's own
	counters []*limit.Counter  // by segment; nil where there is no limit
}

// NewRun returns the chain at the start of a run over one source. now is the
// time that expressions see, vars are the source's variables.
func (c *Chain) NewRun(now time.Time, vars map[string]string) *Run {
	r := &Run{chain: c, now: now, vars: vars, counters: make([]*limit.Counter, len(c.segments))}
	for i, seg := range c.segments {
		if seg.barrier != nil && seg.barrier.Kind == Limit {
			r.counters[i] = limit.NewCounter(*seg.barrier.Limit)
		}
	}
	return r
}

// Judge judges a message from a position as far as its summary allows: to the
// end, or to the next barrier. Terms run cheapest first, and the first that
// says no drops the message, whatever the others would say. When none says no
// and some can't tell, the first of their stages in order whose unknown isn't
// keep decides.
func (r *Run) Judge(at Position, s *message.Summary) Outcome {
	return r.chain.judge(at, r.live(s))
}

func (r *Run) live(s *message.Summary) *live { return &live{summary: s, now: r.now, vars: r.vars} }

// Admit takes a message past the limit at which Judge left it, and judges
// on. It must be called in the order of the listing, and for messages of
// earlier runs too: so each run lets the same ones pass (I2).
func (r *Run) Admit(at Position, s *message.Summary) Outcome {
	seg := r.chain.segments[at]
	if c := r.counters[at]; c != nil && !c.Admit(s.ID.Source, s.ID.Mailbox) {
		l := r.live(s)
		var read []ranked
		for _, before := range r.chain.segments[:at+1] {
			read = append(read, before.terms...)
		}
		return Outcome{Verdict: Dropped, Stage: seg.barrier, Values: l.values(read)}
	}
	return r.Judge(at+1, s)
}

// DroppedAt returns the outcome of a message that a barrier dropped: a plugin,
// or a stage that failed at it.
func (r *Run) DroppedAt(at Position, by *Stage, s *message.Summary) Outcome {
	var read []ranked
	for _, seg := range r.chain.segments[:at+1] {
		read = append(read, seg.terms...)
	}
	return Outcome{Verdict: Dropped, Stage: by, Values: r.live(s).values(read)}
}

// Full reports whether no more message of the mailbox can pass the barrier
// at that position: the rest of its listing need only be counted.
func (r *Run) Full(at Position, source, mailbox string) bool {
	c := r.counters[at]
	return c != nil && c.Full(source, mailbox)
}

// JudgeValues judges a message of an earlier run again, from the values that
// its drop kept. CannotJudge, AtBarrier and Kept need the message's summary
// from a new listing; Dropped and DeadLettered are final. Its drop by a limit
// is never final: only a count can tell.
func (c *Chain) JudgeValues(values []byte, now time.Time) Outcome {
	k := &kept{now: now, raw: values}
	if err := json.Unmarshal(values, &k.held); err != nil {
		return Outcome{Verdict: CannotJudge}
	}
	return c.judge(0, k)
}

// evidence is what terms are judged by: a message, or the values kept of one.
type evidence interface {
	// eval judges a term; known is false when the evidence lacks what the term
	// reads, which isn't the same as a value that the message hasn't.
	eval(t *ranked) (value, undecided, known bool)
	// values returns what the terms read.
	values(read []ranked) []byte
	// lacking says what follows from a term that isn't known, and whether the
	// other terms may still be judged.
	lacking(t *ranked) (out Outcome, goOn bool)
}

func (c *Chain) judge(at Position, e evidence) Outcome {
	seg := &c.segments[at]
	var unsure []ranked
	var lacking *Outcome
	for i, t := range seg.terms {
		value, undecided, known := e.eval(&t)
		switch {
		case !known:
			out, goOn := e.lacking(&t)
			out.At = at
			if !goOn {
				return out
			}
			lacking = &out
		case undecided:
			unsure = append(unsure, t)
		case !value && t.when == nil:
			return Outcome{Verdict: Dropped, Stage: seg.stages[t.stage], Values: e.values(c.read(at, i+1))}
		}
	}
	if lacking != nil {
		return *lacking
	}
	out := Outcome{Verdict: Kept, At: at}
	if seg.barrier != nil {
		out.Verdict, out.Stage = AtBarrier, seg.barrier
	}
	if len(unsure) == 0 {
		return out
	}
	slices.SortStableFunc(unsure, func(a, b ranked) int { return cmp.Compare(a.stage, b.stage) })
	for _, t := range unsure {
		s := seg.stages[t.stage]
		switch s.Unknown {
		case UnknownDrop:
			return Outcome{Verdict: Dropped, Stage: s, Values: e.values(c.read(at, len(seg.terms)))}
		case UnknownDeadLetter:
			return Outcome{Verdict: DeadLettered, Stage: s, Reason: reason(&t), Values: e.values(c.read(at, len(seg.terms)))}
		}
		if !slices.Contains(out.Undecided, s) {
			out.Undecided = append(out.Undecided, s)
		}
	}
	return out
}

// read returns all terms that were judged when the n first of a segment were.
func (c *Chain) read(at Position, n int) []ranked {
	if at == 0 {
		return c.segments[0].terms[:n]
	}
	var out []ranked
	for _, seg := range c.segments[:at] {
		out = append(out, seg.terms...)
	}
	return append(out, c.segments[at].terms[:n]...)
}

func (t *ranked) fields() []string {
	if t.when != nil {
		return t.when.Fields()
	}
	return t.Term.Fields()
}

func reason(t *ranked) string {
	out := "a value is absent or can't be read, of: "
	for i, f := range t.fields() {
		if i > 0 {
			out += ", "
		}
		out += f
	}
	return out
}

// live is a message's summary.
type live struct {
	summary *message.Summary
	now     time.Time
	vars    map[string]string // the source's own; nil: those of the summary
}

func (l *live) eval(t *ranked) (value, undecided, known bool) {
	if !l.summary.Have.Has(t.needs) {
		return false, false, false
	}
	s := l.summary
	if len(t.notes) > 0 {
		seen := *s
		note(t.notes, &seen, l.now, nil)
		s = &seen
	}
	// A term that fails at one message is one that can't tell about it (I6).
	if t.when != nil {
		value, undecided, _ = t.when.Eval(s, l.now)
	} else {
		value, undecided, _ = t.Eval(s, l.now)
	}
	return value, undecided, true
}

// lacking stops: a cheaper term goes first, so that the same stage gets the
// credit for a drop however little was asked for at a time.
func (l *live) lacking(t *ranked) (Outcome, bool) {
	return Outcome{Verdict: NeedMore, Needs: t.needs &^ l.summary.Have}, false
}

func (l *live) values(read []ranked) []byte {
	// What stages noted is worked out again from what was there before them.
	s := *l.summary
	s.LandsIn = ""
	if l.vars != nil {
		s.Vars = l.vars
	}
	values := map[string]any{}
	for _, t := range read {
		for _, n := range t.notes {
			if n.When != nil {
				readValues(n.When, &s, values)
			}
			if n.Kind == Mailbox {
				values[landsIn] = s.Landing()
			}
		}
		if t.when != nil {
			readValues(t.when, &s, values)
			continue
		}
		t.Values(&s, values)
	}
	out := make(map[string]json.RawMessage, len(values))
	for name, v := range values {
		// What JSON can't hold, as a year after 9999, is left out too.
		if raw, err := json.Marshal(v); err == nil && len(raw) <= maxKept {
			out[name] = raw
		}
	}
	b, err := json.Marshal(out)
	if err != nil {
		panic(err) // each value was marshalled above
	}
	return b
}

func readValues(p *expression.Program, s *message.Summary, values map[string]any) {
	for _, t := range p.Terms {
		t.Values(s, values)
	}
}

// kept is what an earlier run kept of a message.
type kept struct {
	held map[string]json.RawMessage
	raw  []byte
	now  time.Time
}

func (k *kept) eval(t *ranked) (value, undecided, known bool) {
	held := k.held
	if len(t.notes) > 0 {
		var ok bool
		if held, ok = noteKept(t.notes, held, k.now); !ok {
			return false, false, false
		}
	}
	var err error
	if t.when != nil {
		value, undecided, err = t.when.EvalValues(held, k.now)
	} else {
		value, undecided, err = t.EvalValues(held, k.now)
	}
	var missing *expression.MissingError
	return value, undecided, !errors.As(err, &missing)
}

// lacking goes on: one term that says no is enough, and saves a listing.
func (k *kept) lacking(*ranked) (Outcome, bool) {
	return Outcome{Verdict: CannotJudge}, true
}

// values keeps what was kept: a later chain may read more of it again.
func (k *kept) values([]ranked) []byte { return k.raw }
