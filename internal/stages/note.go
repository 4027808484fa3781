package stages

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/pkg/message"
)

// What notes change, as expressions name it.
const (
	landsIn   = "lands_in"
	varPrefix = "vars."
)

// notesBefore returns the stages before index i that note something, back to
// the plugin whose notes stand in the summary already.
func (c *Chain) notesBefore(i int) []*Stage {
	var out []*Stage
	for j := i - 1; j >= 0 && c.stages[j].Kind != Plugin; j-- {
		if c.stages[j].Notes() {
			out = append(out, c.stages[j])
		}
	}
	slices.Reverse(out)
	return out
}

// readsNotes reports whether one of the fields is something that a stage of
// the chain notes.
func (c *Chain) readsNotes(fields []string) bool {
	for _, f := range fields {
		if f == landsIn {
			return true
		}
		if name, ok := strings.CutPrefix(f, varPrefix); ok && slices.ContainsFunc(c.stages, func(s *Stage) bool {
			_, sets := s.Tag[name]
			return sets || s.Kind == Plugin
		}) {
			return true
		}
	}
	return false
}

// ReadsNotes reports whether a sink's `when` reads what stages of the chain
// note.
func (c *Chain) ReadsNotes(p *expression.Program) bool { return c.readsNotes(p.Fields()) }

func needsOf(notes []*Stage) message.Needs {
	var n message.Needs
	for _, s := range notes {
		n |= s.Needs()
	}
	return n
}

// note makes what the stages note part of the summary. Stages whose `when`
// can't tell go to unsure, and note nothing.
func note(notes []*Stage, s *message.Summary, now time.Time, unsure func(*Stage)) {
	for _, n := range notes {
		if !n.concerns(s, now, unsure) {
			continue
		}
		if n.Kind == Tag {
			s.Vars = n.Tag.Apply(s.Vars)
		} else {
			s.LandsIn = n.Mailbox.Apply(s.Landing())
		}
	}
}

// concerns reports whether the stage has to do with the message. A `when` that
// can't tell says no, and the stage goes to unsure.
func (s *Stage) concerns(m *message.Summary, now time.Time, unsure func(*Stage)) bool {
	if s.When == nil {
		return true
	}
	value, undecided, _ := s.When.Eval(m, now)
	if undecided && unsure != nil {
		unsure(s)
	}
	return value
}

// noteKept is note for the values that an earlier run kept. ok is false when
// they don't tell.
func noteKept(notes []*Stage, held map[string]json.RawMessage, now time.Time) (_ map[string]json.RawMessage, ok bool) {
	held = maps.Clone(held)
	for _, n := range notes {
		if n.When != nil {
			value, _, err := n.When.EvalValues(held, now)
			var missing *expression.MissingError
			if errors.As(err, &missing) {
				return nil, false
			}
			if !value {
				continue
			}
		}
		if n.Kind == Mailbox {
			var name string
			if json.Unmarshal(held[landsIn], &name) != nil {
				return nil, false
			}
			held[landsIn] = json.RawMessage(mustJSON(n.Mailbox.Apply(name)))
			continue
		}
		for name, value := range n.Tag {
			held[varPrefix+name] = json.RawMessage(mustJSON(value))
		}
	}
	return held, true
}

// end is the position after which no barrier stands.
func (c *Chain) end() Position { return Position(len(c.segments) - 1) }

// upTo returns the index in the chain of the barrier that ends the segment at
// a position; the number of stages for the last.
func (c *Chain) upTo(at Position) int { return c.segments[at].first + c.length(at) }

func (c *Chain) length(at Position) int { return len(c.segments[at].stages) }

// Barrier returns the barrier at a position; nil at the end of the chain.
func (c *Chain) Barrier(at Position) *Stage { return c.segments[at].barrier }

// BarrierNeeds returns what must be known of a message before the barrier at
// a position can see it as the stages before it noted it.
func (c *Chain) BarrierNeeds(at Position) message.Needs {
	b := c.segments[at].barrier
	n := b.Needs()
	if b.Kind == Plugin {
		n |= needsOf(c.notesBefore(c.upTo(at)))
	}
	return n
}

// NotesNeeds returns what must be known of a message before Note.
func (c *Chain) NotesNeeds() message.Needs { return needsOf(c.notesBefore(len(c.stages))) }

// Note makes what the stages note part of the summary: those up to the barrier
// at a position, back to the last plugin before it; at the end of the chain,
// all that are left. It is called once for each of these. unsure gets the
// stages that couldn't tell.
func (r *Run) Note(at Position, s *message.Summary, unsure func(*Stage)) {
	note(r.chain.notesBefore(r.chain.upTo(at)), s, r.now, unsure)
}

// NoteAll is Note for a message that has passed the whole chain.
func (r *Run) NoteAll(s *message.Summary, unsure func(*Stage)) { r.Note(r.chain.end(), s, unsure) }

// Concerns reports whether the barrier at a position, a plugin, has to do with
// the message, which Note has seen.
func (r *Run) Concerns(at Position, s *message.Summary, unsure func(*Stage)) bool {
	return r.chain.segments[at].barrier.concerns(s, r.now, unsure)
}

// Alters returns the stages of the segment at a position that change octets
// and have to do with the message. noted says that what the stages note stands
// in the summary already.
func (r *Run) Alters(at Position, s *message.Summary, noted bool, unsure func(*Stage)) []*Stage {
	var out []*Stage
	seg := &r.chain.segments[at]
	for i, st := range seg.stages {
		if !st.Changes() {
			continue
		}
		seen := *s
		if st.When != nil && !noted {
			note(r.chain.notesBefore(seg.first+i), &seen, r.now, nil)
		}
		if st.concerns(&seen, r.now, unsure) {
			out = append(out, st)
		}
	}
	return out
}

// Before returns what must be known of a message for all stages before the
// barrier of that name to have judged it.
func (c *Chain) Before(name string) message.Needs {
	var n message.Needs
	for i, seg := range c.segments {
		for _, t := range seg.terms {
			n |= t.needs
		}
		if seg.barrier == nil || seg.barrier.Name == name {
			break
		}
		n |= c.BarrierNeeds(Position(i))
	}
	return n
}

// Behind returns the last plugin before the stage of that name that reads
// bodies: the stage sees a message only when its body is there. nil: it needn't.
func (c *Chain) Behind(name string) *Stage {
	var last *Stage
	for _, s := range c.stages {
		if s.Name == name {
			break
		}
		if s.Kind == Plugin && s.Needs().Has(message.NeedBody) {
			last = s
		}
	}
	return last
}

// Dedupe returns the chain's dedupe; nil when it has none.
func (c *Chain) Dedupe() *Stage {
	if i := slices.IndexFunc(c.stages, func(s *Stage) bool { return s.Kind == Dedupe }); i >= 0 {
		return c.stages[i]
	}
	return nil
}
