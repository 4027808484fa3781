package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/report"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// ended is a run that has come to its end.
type ended struct {
	job    *job.Job
	ledger *ledger.Ledger
	number int64
	began  time.Time
	result *engine.Result
	series report.Timeline
	code   int
}

// prove leaves what the file wants of a run's end: the report.
func (c *command) prove(ctx context.Context, e ended) error {
	ctx = context.WithoutCancel(ctx)
	files := report.Files{JSON: e.job.File.Report.JSON, HTML: e.job.File.Report.HTML, CSV: e.job.File.Report.CSV}
	if !files.Any() {
		return nil
	}
	r, err := report.Build(ctx, report.Input{
		File: c.file, Version: version(), Plan: e.job.Plan, Result: e.result, Ledger: e.ledger,
		Run: e.number, Began: e.began, Ended: time.Now(), Exit: e.code, Series: e.series,
	})
	if err != nil {
		return err
	}
	folder, err := filepath.Abs(filepath.Dir(c.file))
	if err != nil {
		return fault.Wrap(fault.Config, err, "find the folder of %s", c.file)
	}
	for _, path := range []*string{&files.JSON, &files.HTML, &files.CSV} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(folder, *path)
		}
	}
	return fault.Wrap(fault.Full, report.Write(files, r), "write the report")
}
