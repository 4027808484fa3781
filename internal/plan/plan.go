// Package plan decides what will be asked of whom: from the file and what the
// plugins say of themselves, the needs of each source, before anything is
// listed.
package plan

import (
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// Plan is what a run carries out. It doesn't change.
type Plan struct {
	Name        string
	Sources     []Source
	Chain       *stages.Chain
	Sinks       []Sink
	Concurrency int           // accounts at once
	PerHost     int           // lanes to one host at once, over all accounts; 0: no bound
	ParkAfter   time.Duration // an account that must wait longer is parked; 0: a minute
}

// Source is one source of the plan.
type Source struct {
	Name     string
	Plugin   string
	Row      string // where the row stands that made it; "" without a table
	Host     string // that it connects to, for PerHost; empty: unknown
	Selects  func(message.Mailbox) bool
	Newest   bool
	Limit    int64 // messages of the listing, over all mailboxes; 0: none
	Vars     map[string]string
	Provides message.Needs // what a listing can tell

	FirstNeeds message.Needs // asked of every message
	FetchNeeds message.Needs // asked with the body
	Rules      string        // fingerprint of selection, order and limit
}

// Take selects among the mailboxes that a source has: those that the file
// asks for, without those that lie within another one of them.
func (s *Source) Take(all []message.Mailbox) (taken, left []message.Mailbox) {
	wanted := map[string]bool{}
	for _, m := range all {
		wanted[m.Name] = m.Selectable && s.Selects(m)
	}
	for _, m := range all {
		switch {
		case !m.Selectable:
		case wanted[m.Name] && !wanted[m.Within]:
			taken = append(taken, m)
		default:
			left = append(left, m)
		}
	}
	return taken, left
}

// Among returns what List is told of the mailboxes that are taken, for one
// that Overlaps (source.ListRequest.Among).
func Among(m message.Mailbox, taken []message.Mailbox) (names []string) {
	if !m.Overlaps {
		return nil
	}
	for _, t := range taken {
		if t.Overlaps {
			names = append(names, t.Name)
		}
	}
	return names
}

// Table returns the name of the table that made the source, "" without one.
func (s *Source) Table() string {
	if i := strings.LastIndexByte(s.Row, ':'); i >= 0 {
		return s.Row[:i]
	}
	return ""
}

// Sink is one sink of the plan.
type Sink struct {
	Name     string
	Plugin   string
	When     *expression.Program // nil: everything
	Prepared sink.Prepared
	GoOn     bool // on_failure: continue
}

// Settle fills in what each source is asked for.
//
// Of every message is asked what the cheapest stages read, and, where no sink
// takes bodies, what the record sinks want. What is needed only where the body
// is needed too comes from the body.
func (p *Plan) Settle() {
	var record, fetch message.Needs
	bodies := false
	for i := range p.Sinks {
		s := &p.Sinks[i]
		fetch |= s.Prepared.Needs
		if s.When != nil {
			fetch |= s.When.Needs()
		}
		if s.Prepared.Record {
			record |= s.Prepared.Needs
		} else {
			bodies = true
		}
	}
	fetch |= p.Chain.NeededOverall()
	for i := range p.Sources {
		s := &p.Sources[i]
		s.FirstNeeds = p.Chain.NeededForList() & s.Provides
		if len(p.Chain.Stages()) == 0 && !bodies {
			s.FirstNeeds = record & s.Provides
		}
		s.FetchNeeds = message.NeedBody | fetch&s.Provides&^(message.NeedHeaders|message.NeedStructure)
	}
}

// Conditions returns what the source's server may be asked in the place of
// stages: those of the chain whose field the source has.
func (p *Plan) Conditions(s *Source, now time.Time) []stages.Pushed {
	needs := map[string]message.Needs{
		"date": message.NeedHeaders, "internal_date": message.NeedInternalDate, "size": message.NeedSize, "flags": message.NeedFlags,
	}
	var out []stages.Pushed
	for _, c := range p.Chain.Conditions(now) {
		if need := needs[c.Field]; need != 0 && s.Provides.Has(need) {
			out = append(out, c)
		}
	}
	return out
}
