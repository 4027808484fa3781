package plan

import (
	"fmt"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/message"
)

// mostNames is how many accounts of a table are named.
const mostNames = 3

// Explain says in words what a run will ask of whom, as EXPLAIN does for a
// query. Sources that a table made and that are asked the same are one.
func Explain(p *Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "pipeline %s\n", p.Name)
	for _, g := range p.groups() {
		fmt.Fprintf(&b, "\n%s\n", g.title())
		explainSource(&b, p, g.sources[0])
	}
	for _, st := range p.Chain.Stages() {
		kind := string(st.Kind)
		if st.Plugin != "" {
			kind += " " + st.Plugin
		}
		fmt.Fprintf(&b, "\nstage %s (%s)\n", st.Name, kind)
		explainStage(&b, p, st)
	}
	for i := range p.Sinks {
		fmt.Fprintf(&b, "\nsink %s (%s)\n", p.Sinks[i].Name, p.Sinks[i].Plugin)
		explainSink(&b, &p.Sinks[i])
	}
	return b.String()
}

// group is a source, or those of one table that are asked the same.
type group struct {
	table   string
	sources []*Source
}

func (p *Plan) groups() []*group {
	type alike struct {
		table, plugin         string
		newest                bool
		limit                 int64
		provides, first, with message.Needs
	}
	var out []*group
	seen := map[alike]*group{}
	for i := range p.Sources {
		s := &p.Sources[i]
		table := s.Table()
		key := alike{table, s.Plugin, s.Newest, s.Limit, s.Provides, s.FirstNeeds, s.FetchNeeds}
		if g := seen[key]; g != nil && table != "" {
			g.sources = append(g.sources, s)
			continue
		}
		g := &group{table: table, sources: []*Source{s}}
		seen[key] = g
		out = append(out, g)
	}
	return out
}

func (g *group) title() string {
	if g.table == "" {
		return fmt.Sprintf("source %s (%s)", g.sources[0].Name, g.sources[0].Plugin)
	}
	var names []string
	for _, s := range g.sources[:min(mostNames, len(g.sources))] {
		names = append(names, s.Name)
	}
	if more := len(g.sources) - mostNames; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("sources of %s (%s), %d accounts: %s", g.table, g.sources[0].Plugin, len(g.sources), strings.Join(names, ", "))
}

func explainSource(b *strings.Builder, p *Plan, s *Source) {
	listed := "the ids"
	if s.FirstNeeds != 0 {
		listed = "ids and " + s.FirstNeeds.String()
	}
	order := "oldest"
	if s.Newest {
		order = "newest"
	}
	fmt.Fprintf(b, "  list   %s of every message, %s first, in mailboxes that have changed\n", listed, order)
	for _, c := range p.Conditions(s, time.Now()) {
		fmt.Fprintf(b, "         but for what fails %s, where its server can tell (stage %s)\n", c.Condition, c.Stage.Name)
	}
	if s.Limit > 0 {
		fmt.Fprintf(b, "         at most %d messages\n", s.Limit)
	}
	for _, level := range p.Chain.Levels() {
		if more := level & s.Provides &^ s.FirstNeeds; more != 0 {
			fmt.Fprintf(b, "  then   %s, of those that aren't done and that no stage has dropped yet\n", more)
		}
	}
	if p.Adapts(s) {
		fmt.Fprintf(b, "         headers come with the bodies where a sample shows that most messages pass\n")
	}
	if p.Fetches() {
		fmt.Fprintf(b, "  fetch  %s, of those that a sink gets\n", s.FetchNeeds)
	} else {
		fmt.Fprintf(b, "  fetch  nothing: no sink takes bodies\n")
	}
	if what := s.After.String(); what != "" {
		fmt.Fprintf(b, "  after  %s, once they are durable in every sink\n", what)
	}
}

func explainStage(b *strings.Builder, p *Plan, st *stages.Stage) {
	if st.Filter != nil {
		fmt.Fprintf(b, "  %-6s %s\n", st.Kind, oneLine(st.Filter.Program.Text()))
	}
	if st.When != nil {
		fmt.Fprintf(b, "  when   %s\n", oneLine(st.When.Text()))
	}
	fmt.Fprintf(b, "  %s\n", where(p, st))
}

func explainSink(b *strings.Builder, s *Sink) {
	if s.When != nil {
		fmt.Fprintf(b, "  when   %s\n", oneLine(s.When.Text()))
	}
	fmt.Fprintf(b, "  target %s\n", s.Prepared.Target)
	if s.Prepared.Record {
		fmt.Fprintf(b, "  gets   a record of what became of each message, no body\n")
	} else {
		fmt.Fprintf(b, "  gets   bodies\n")
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// where says at what point a stage does its work, and what that means.
func where(p *Plan, st *stages.Stage) string {
	switch st.Kind {
	case stages.Limit:
		return "counts in the order of the listing"
	case stages.Dedupe:
		return fmt.Sprintf("compares %s: all is listed, in the order of the sources, before the first body is fetched", st.Dedupe)
	case stages.Tag, stages.Mailbox:
		return "known to the stages after it, the sinks and the index"
	}
	if st.Changes() {
		return "changes octets of what is written from now on; what is written stays, run --rewrite SINK does it anew"
	}
	needs := st.Needs()
	if before := p.Chain.Behind(st.Name); before != nil {
		return fmt.Sprintf("judged after stage %s, when the body is there", before.Name)
	}
	if needs == 0 {
		return "reads nothing of a message: judged from the listing, before any body is fetched"
	}
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
