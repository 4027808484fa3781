package plan

import (
	"errors"

	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Check finds what the file allows and the plugins can't do: a field that a
// source never has, a limit behind a stage that needs bodies.
func (p *Plan) Check() error {
	var errs []error
	for i := range p.Sources {
		s := &p.Sources[i]
		// The octets tell the headers and the structure whatever the source
		// can list.
		can := s.Provides | message.NeedHeaders | message.NeedStructure | message.NeedBody
		for _, st := range p.Chain.Stages() {
			if lacks := st.Needs() &^ can; lacks != 0 {
				errs = append(errs, fault.New(fault.Config, "stage %s reads %s, which source %s (plugin %s) never has", st.Name, lacks, s.Name, s.Plugin).
					WithKey("stages").WithHint("take the stage out, or give that source a pipeline of its own"))
			}
		}
		for j := range p.Sinks {
			w := p.Sinks[j].When
			if w == nil {
				continue
			}
			if lacks := w.Needs() &^ can; lacks != 0 {
				errs = append(errs, fault.New(fault.Config, "the `when` of sink %s reads %s, which source %s (plugin %s) never has", p.Sinks[j].Name, lacks, s.Name, s.Plugin).
					WithKey("sinks"))
			}
		}
		var before message.Needs
		for _, st := range p.Chain.Stages() {
			if st.Kind == stages.Limit && before&^s.Provides != 0 {
				errs = append(errs, fault.New(fault.Config, "stage %s counts in the order of the listing, but a stage before it needs the body from source %s (%s)", st.Name, s.Name, before&^s.Provides).
					WithKey("stages").WithHint("put the limit before it, or use the source's own limit"))
			}
			before |= st.Needs()
		}
	}
	return errors.Join(errs...)
}
