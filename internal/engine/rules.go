package engine

import (
	"encoding/json"

	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/message"
)

// readRules looks once at what is asked of the chain for every message.
func (e *Engine) readRules() {
	e.rules, e.limits = map[string]string{}, map[string]bool{}
	e.readsNow, e.readsFlags = e.plan.Chain.ReadsNow(), e.plan.Chain.ReadsFlags()
	for _, s := range e.plan.Chain.Stages() {
		e.rules[s.Name] = e.plan.Chain.FingerprintUpTo(s.Name)
		e.limits[s.Name] = s.Kind == stages.Limit
		if !s.Pure() {
			e.barriers++
		}
		if s.Limit != nil && s.Limit.Per == perSource {
			e.across = true
		}
	}
	e.readsStructure = e.plan.Chain.NeededOverall().Has(message.NeedStructure)
	for i := range e.plan.Sinks {
		if w := e.plan.Sinks[i].When; w != nil {
			e.readsNow = e.readsNow || w.ReadsNow()
			e.readsStructure = e.readsStructure || w.Needs().Has(message.NeedStructure)
			e.readsFlags = e.readsFlags || w.ReadsFlags()
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
