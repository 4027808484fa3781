// Package plan decides what will be asked of whom: from the file and what the
// plugins say of themselves, the needs of each source, before anything is
// listed.
package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/source"
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

	After After // what is done on the server with messages that are exported

	FirstNeeds message.Needs // asked of every message
	FetchNeeds message.Needs // asked with the body
	Rules      string        // fingerprint of selection, order and limit
}

// Take selects among the mailboxes that a source has: those that the file
// asks for, without those that lie within another one of them.
func (s *Source) Take(all []message.Mailbox) (taken, left []message.Mailbox) {
	wanted := map[string]bool{}
	for _, m := range all {
		// What was exported and moved is not exported from there again.
		moved := s.After.Action.Move != "" && m.Name == s.After.Action.Move
		wanted[m.Name] = m.Selectable && !moved && s.Selects(m)
	}
	for _, m := range all {
		switch {
		case !m.Selectable:
		case wanted[m.Name] && (m.Within == "" || !wanted[m.Within]):
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

// After is what is done on the server with messages once they are exported:
// durable in every sink that wanted them, and in the ledger (I3). The zero
// value does nothing (I7).
type After struct {
	Action    source.Action
	OlderThan time.Duration // only of messages at least so old; 0: of all
	Rehash    bool          // only where the files of the message are read back and are what was written
	Batch     int           // messages in one request; 0: 200
}

// String says what is done with exported messages; "" when nothing is.
func (a After) String() string {
	var what string
	switch {
	case a.Action.Flag != "":
		what = "flags exported messages " + a.Action.Flag
	case a.Action.Move != "":
		what = "moves exported messages to " + a.Action.Move
	case a.Action.Delete:
		what = "deletes exported messages on the server"
	default:
		return ""
	}
	if a.OlderThan > 0 {
		what += fmt.Sprintf(" that are older than %s", a.OlderThan)
	}
	if a.Rehash {
		what += ", after reading their files back"
	}
	return what
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

	// Address is how a target in object storage is reached, its Target with
	// parameters; empty for one in a file system.
	Address string
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
		with := fetch
		if s.After.OlderThan > 0 {
			with |= message.NeedInternalDate
		}
		s.FetchNeeds = message.NeedBody | with&s.Provides&^(message.NeedHeaders|message.NeedStructure)
	}
}

// Reads returns all that stages and routes read of a message.
func (p *Plan) Reads() message.Needs {
	n := p.Chain.NeededOverall()
	for i := range p.Sinks {
		if w := p.Sinks[i].When; w != nil {
			n |= w.Needs()
		}
	}
	return n
}

// Adapts reports whether headers that stages or routes read of the source may
// come with the bodies, where most messages pass: nothing counts or compares
// messages before their bodies are there, sizes tell what that costs, and no
// record says whether the octets of a message that no sink got were read.
func (p *Plan) Adapts(s *Source) bool {
	reads, data, all, record := p.Reads(), false, false, false
	for i := range p.Sinks {
		sk := &p.Sinks[i]
		record = record || sk.Prepared.Record
		data = data || !sk.Prepared.Record
		all = all || !sk.Prepared.Record && sk.When == nil
	}
	pure := !slices.ContainsFunc(p.Chain.Stages(), func(st *stages.Stage) bool { return !st.Pure() })
	return pure && data && (all || !record) && reads.Has(message.NeedHeaders) && !reads.Has(message.NeedStructure) &&
		s.Provides.Has(message.NeedHeaders|message.NeedSize)
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
