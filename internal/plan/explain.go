package plan

import (
	"fmt"
	"strings"

	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Explain says in words what a run will ask of whom, as EXPLAIN does for a
// query.
func Explain(p *Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "pipeline %s\n", p.Name)
	for i := range p.Sources {
		s := &p.Sources[i]
		fmt.Fprintf(&b, "source %s (%s)\n", s.Name, s.Plugin)
		fmt.Fprintf(&b, "  list   %s, of every message that isn't done\n", s.FirstNeeds)
		if s.Newest {
			fmt.Fprintf(&b, "         newest first\n")
		}
		if s.Limit > 0 {
			fmt.Fprintf(&b, "         at most %d messages\n", s.Limit)
		}
		for _, level := range p.Chain.Levels() {
			if more := level & s.Provides &^ s.FirstNeeds; more != 0 {
				fmt.Fprintf(&b, "  then   %s, of those that are still wanted\n", more)
			}
		}
		if p.Fetches() {
			fmt.Fprintf(&b, "  fetch  %s, of those that a sink gets\n", s.FetchNeeds)
		} else {
			fmt.Fprintf(&b, "  fetch  nothing: no sink takes bodies\n")
		}
	}
	for _, st := range p.Chain.Stages() {
		fmt.Fprintf(&b, "stage %s (%s)\n  %s\n", st.Name, st.Kind, where(p, st))
	}
	for i := range p.Sinks {
		s := &p.Sinks[i]
		kind := "gets bodies"
		if s.Prepared.Record {
			kind = "gets a record of each message, no body"
		}
		fmt.Fprintf(&b, "sink %s (%s)\n  writes to %s\n  %s\n", s.Name, s.Plugin, s.Prepared.Target, kind)
		if s.When != nil {
			fmt.Fprintf(&b, "  when   %s\n", s.When.Text())
		}
	}
	return b.String()
}

// where says at what point a stage judges.
func where(p *Plan, st *stages.Stage) string {
	if !st.Pure() {
		return "counts in the order of the listing"
	}
	needs := st.Needs()
	for i := range p.Sources {
		if needs&^p.Sources[i].Provides != 0 {
			return fmt.Sprintf("reads %s: from source %s only the body tells", needs, p.Sources[i].Name)
		}
	}
	if needs&message.NeedBody != 0 {
		return fmt.Sprintf("reads %s: judged when the body is there", needs)
	}
	return fmt.Sprintf("reads %s: judged from the listing, before any body is fetched", needs)
}

// Fetches reports whether some sink takes bodies.
func (p *Plan) Fetches() bool {
	for i := range p.Sinks {
		if !p.Sinks[i].Prepared.Record {
			return true
		}
	}
	return false
}
