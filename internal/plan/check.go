package plan

import (
	"errors"
	"fmt"

	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Check finds what the file allows and the plugins can't do: a field that a
// source never has, a limit behind a stage that needs bodies.
func (p *Plan) Check() error {
	var errs []error
	for _, g := range p.groups() {
		s := g.sources[0]
		// The octets tell the headers and the structure whatever the source
		// can list.
		can := s.Provides | message.NeedHeaders | message.NeedStructure | message.NeedBody
		for j, st := range p.Chain.Stages() {
			if lacks := st.Needs() &^ can; lacks != 0 {
				errs = append(errs, fault.New(fault.Config, "stage %s reads %s, which source %s (plugin %s) never has", st.Name, lacks, s.Name, s.Plugin).
					WithKey(fmt.Sprintf("stages[%d]", j)).WithHint("take the stage out, or give that source a pipeline of its own"))
			}
		}
		for j := range p.Sinks {
			w := p.Sinks[j].When
			if w == nil {
				continue
			}
			if lacks := w.Needs() &^ can; lacks != 0 {
				errs = append(errs, fault.New(fault.Config, "the `when` of sink %s reads %s, which source %s (plugin %s) never has", p.Sinks[j].Name, lacks, s.Name, s.Plugin).
					WithKey(fmt.Sprintf("sinks[%d].when", j)))
			}
		}
		var before message.Needs
		for j, st := range p.Chain.Stages() {
			if st.Kind == stages.Limit && before&^s.Provides != 0 {
				errs = append(errs, fault.New(fault.Config, "stage %s counts in the order of the listing, but a stage before it needs the body from source %s (%s)", st.Name, s.Name, before&^s.Provides).
					WithKey(fmt.Sprintf("stages[%d]", j)).WithHint("put the limit before it, or use the source's own limit"))
			}
			before |= st.Needs()
		}
	}
	return errors.Join(errs...)
}
