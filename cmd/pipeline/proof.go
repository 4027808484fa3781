package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/custody"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/report"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// ended is a run that has come to its end.
type ended struct {
	job    *job.Job
	ledger *ledger.Ledger
	box    letterBox
	number int64
	began  time.Time
	result *engine.Result
	series report.Timeline
	code   int
}

// prove leaves what the file wants of a run's end: the report, and the
// custody record.
func (c *command) prove(ctx context.Context, e ended) error {
	ctx = context.WithoutCancel(ctx)
	files := reports(e.job)
	if !files.Any() && e.job.File.Custody == nil {
		return nil
	}
	r, err := report.Build(ctx, report.Input{
		File: c.file, Version: version(), Plan: e.job.Plan, Result: e.result, Ledger: e.box,
		Shard: e.job.Shard(), Run: e.number, Began: e.began, Ended: time.Now(), Exit: e.code, Series: e.series,
	})
	if err != nil {
		return err
	}
	for _, path := range []*string{&files.JSON, &files.HTML, &files.CSV} {
		if *path, err = c.beside(*path); err != nil {
			return err
		}
	}
	return errors.Join(fault.Wrap(fault.Full, report.Write(ctx, files, r), "write the report"), c.keepCustody(ctx, e, r))
}

// reports are the reports that the file wants.
func reports(j *job.Job) report.Files {
	return report.Files{JSON: j.File.Report.JSON, HTML: j.File.Report.HTML, CSV: j.File.Report.CSV, Store: j.Store}
}

// beside makes a path of the pipeline file absolute.
func (c *command) beside(path string) (string, error) {
	if path == "" || filepath.IsAbs(path) || objects.IsAddress(path) {
		return path, nil
	}
	folder, err := filepath.Abs(filepath.Dir(c.file))
	if err != nil {
		return "", fault.Wrap(fault.Config, err, "find the folder of %s", c.file)
	}
	return filepath.Join(folder, path), nil
}

// canProve finds before a run what would keep its end from being proven: a key
// that can't sign is worth knowing before hours of work, as is a bucket that
// takes no report.
func (c *command) canProve(ctx context.Context, j *job.Job) error {
	if err := reports(j).Check(ctx); err != nil {
		return fault.Wrap(fault.Config, err, "see where the report goes")
	}
	if j.File.Custody == nil {
		return nil
	}
	s, err := c.custodySettings(j.File.Custody)
	if err == nil && s.SSHKey != "" {
		_, err = custody.LoadKey(s.SSHKey)
	}
	return err
}

// keepCustody writes the custody record of a run.
func (c *command) keepCustody(ctx context.Context, e ended, r *report.Report) error {
	if e.job.File.Custody == nil {
		return nil
	}
	s, err := c.custodySettings(e.job.File.Custody)
	if err != nil {
		return err
	}
	in := custody.Input{Settings: s, Store: e.job.Store, Plan: e.job.Plan, Ledger: e.ledger, Result: e.result, Report: r, Config: e.job.Redacted(ctx)}
	programs, err := e.job.Programs(ctx)
	if err != nil {
		return fault.Wrap(fault.Config, err, "name the plugins in the custody record")
	}
	for _, p := range programs {
		in.Plugins = append(in.Plugins, custody.Program{Name: p.Name, Version: p.Version, SHA256: p.SHA256})
	}
	in.Tool = custody.Program{Name: "pipeline", Version: version(), Go: runtime.Version()}
	if self, err := os.Executable(); err == nil {
		if in.Tool.SHA256, err = job.HashFile(self); err != nil {
			return err
		}
	}
	for i := range e.job.File.Sources {
		m := e.job.File.Sources[i].Mailboxes
		in.Sources = append(in.Sources, custody.Rules{Include: m.Include, Exclude: m.Exclude})
	}
	warning, err := custody.Keep(ctx, in)
	if warning != nil {
		fmt.Fprintf(c.err, "warning: %v\n", warning)
		if f := fault.As(warning); f != nil && f.Hint != "" {
			fmt.Fprintf(c.err, "hint: %s\n", f.Hint)
		}
	}
	return fault.Wrap(fault.Full, err, "write the custody record")
}

func (c *command) custodySettings(f *config.Custody) (custody.Settings, error) {
	s := custody.Settings{Manifest: f.Manifest, Timestamp: f.Timestamp}
	var err error
	if s.Path, err = c.beside(f.Path); err != nil {
		return s, err
	}
	if f.Sign == nil {
		return s, nil
	}
	s.SSHKey = f.Sign.SSHKey
	if !strings.HasPrefix(s.SSHKey, "~/") {
		s.SSHKey, err = c.beside(s.SSHKey)
	}
	return s, err
}
