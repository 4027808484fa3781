package job

import (
	"context"
	"errors"

	"github.com/mailhaul/pipeline/internal/plan"
)

// PrepareOffline makes a plan of the sinks alone, for verbs that ask no
// server: no value of a source is evaluated, so that an export can be looked
// into where the accounts' secrets aren't.
func (j *Job) PrepareOffline(ctx context.Context) error {
	p := &plan.Plan{Name: j.File.Name, Chain: j.File.Chain(), Concurrency: j.File.Concurrency.Sources}
	var errs []error
	for i := range j.File.Sinks {
		s, err := j.planSink(ctx, &j.File.Sinks[i])
		errs = append(errs, err)
		p.Sinks = append(p.Sinks, s)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	j.Plan = p
	return nil
}
