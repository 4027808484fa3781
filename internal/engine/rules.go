package engine

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/mailhaul/pipeline/internal/expression"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/message"
)

// readRules looks once at what is asked of the chain for every message.
func (e *Engine) readRules() {
	e.rules, e.limits = map[string]string{}, map[string]bool{}
	e.readsNow, e.readsFlags = e.plan.Chain.ReadsNow(), e.plan.Chain.ReadsFlags()
	e.barriersBefore = map[string]int{}
	barriers := 0
	for _, s := range e.plan.Chain.Stages() {
		e.barriersBefore[s.Name] = barriers
		e.rules[s.Name] = e.plan.Chain.FingerprintUpTo(s.Name)
		e.limits[s.Name] = s.Kind == stages.Limit
		for _, p := range s.Programs() {
			e.readsVars = e.readsVars || readsVars(p)
		}
		e.noting = e.noting || s.Notes()
		e.altering = e.altering || s.Changes() || s.Kind == stages.Plugin
		if !s.Pure() {
			barriers++
		}
		if s.Kind == stages.Limit {
			e.barriers = barriers // behind the last limit nothing counts
		}
		if s.Limit != nil && s.Limit.Per == perSource {
			e.across = true
		}
	}
	e.readsStructure = e.plan.Chain.NeededOverall().Has(message.NeedStructure)
	for name, n := range e.barriersBefore {
		e.barriersBefore[name] = min(n, e.barriers)
	}
	e.whenRules = make([]string, len(e.plan.Sinks))
	for i := range e.plan.Sinks {
		if w := e.plan.Sinks[i].When; w != nil {
			e.whenRules[i] = w.Fingerprint()
			if e.plan.Chain.ReadsNotes(w) {
				e.whenRules[i] += " " + e.plan.Chain.Fingerprint()
			}
			e.readsNow = e.readsNow || w.ReadsNow()
			e.readsStructure = e.readsStructure || w.Needs().Has(message.NeedStructure)
			e.readsFlags = e.readsFlags || w.ReadsFlags()
			e.readsVars = e.readsVars || readsVars(w)
		}
	}
}

// perSource is a limit that counts over all mailboxes of a source.
const perSource = "source"

func decodeValues(b []byte) (map[string]json.RawMessage, bool) {
	var values map[string]json.RawMessage
	return values, json.Unmarshal(b, &values) == nil
}

// encodeValues keeps what can be kept; what JSON can't hold is left out, and
// then needs a new listing.
func encodeValues(values map[string]any) []byte {
	out := make(map[string]json.RawMessage, len(values))
	for name, v := range values {
		if raw, err := json.Marshal(v); err == nil {
			out[name] = raw
		}
	}
	b, err := json.Marshal(out)
	if err != nil {
		return []byte("{}") // never: each value is valid JSON
	}
	return b
}

// passedBarriers returns how many limits let a message pass in an earlier run.
func (e *Engine) passedBarriers(entry *ledger.Entry) int {
	f := fateOf(entry, ledger.Everywhere)
	switch {
	case f == nil:
	case f.Refusal != nil:
		return e.barriersBefore[f.Refusal.Stage]
	case f.Letter != nil:
		if n, ok := e.barriersBefore[f.Letter.Stage]; ok {
			return n
		}
	}
	return e.barriers
}

// sameVars reports whether the variables that a refusal read are what they
// were: they come from the file, not from the message (I8).
func (e *Engine) sameVars(r *ledger.Refusal, vars map[string]string) bool {
	if !e.readsVars {
		return true
	}
	values, ok := decodeValues(r.Values)
	if !ok {
		return false
	}
	for name, raw := range values {
		var was string
		if v, isVar := strings.CutPrefix(name, varPrefix); isVar && (json.Unmarshal(raw, &was) != nil || was != vars[v]) {
			return false
		}
	}
	return true
}

// varPrefix is how expressions name the source's variables.
const varPrefix = "vars."

func readsVars(p *expression.Program) bool {
	return slices.ContainsFunc(p.Fields(), func(f string) bool { return strings.HasPrefix(f, varPrefix) })
}
