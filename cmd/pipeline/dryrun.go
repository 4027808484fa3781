package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/mailhaul/pipeline/internal/browse"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/preview"
	"github.com/mailhaul/pipeline/pkg/source"
)

// dryRun says what a run would export. It takes no lock: it may be asked while
// a run goes on.
func (c *command) dryRun(ctx context.Context, j *job.Job) (err error) {
	o := preview.Options{Plan: j.Plan, Now: time.Now(), Open: func(ctx context.Context, s *plan.Source) (source.Opened, error) {
		return j.OpenSource(ctx, s, false)
	}}
	if err := j.CheckShard(); err != nil {
		return err
	}
	l, err := ledger.View(ctx, j.File.State, j.File.Name)
	switch {
	case err == nil:
		o.Ledger = l
		defer func() { err = errors.Join(err, l.Close()) }()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	total := preview.Source{Name: "total", Dropped: map[string]int64{}}
	var failed []error
	fmt.Fprintln(c.out, "a run would find:")
	err = preview.Run(ctx, o, func(s *preview.Source) {
		if s.Err != nil {
			failed = append(failed, fmt.Errorf("source %s: %w", s.Name, s.Err))
			return
		}
		s.Text(c.out, browse.Size)
		total.Add(s)
	})
	if len(j.Plan.Sources) > 1 {
		total.Text(c.out, browse.Size)
	}
	for _, r := range j.File.BadRows {
		failed = append(failed, fmt.Errorf("source %w", r))
	}
	tell(c.err, failed...)
	if err == nil && len(failed) > 0 {
		return exit(engine.ExitIncomplete)
	}
	return err
}
