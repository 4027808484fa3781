package job

import (
	"context"

	"github.com/mailhaul/pipeline/internal/plan"
)

// PrepareOffline makes a plan of the sinks alone, for verbs that ask no
// server: no value of a source is evaluated, so that an export can be looked
// into where the accounts' secrets aren't.
func (j *Job) PrepareOffline(ctx context.Context) error {
	p := &plan.Plan{Name: j.File.Name, Chain: j.File.Chain(), Concurrency: j.File.Concurrency.Sources}
	if err := j.planSinks(ctx, p); err != nil {
		return err
	}
	j.Plan = p
	return nil
}
