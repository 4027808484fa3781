package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/cluster/worker"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/status"
	"github.com/mailhaul/pipeline/pkg/fault"
)

type workerFlags struct {
	once  bool
	tasks int
	quiet bool
	pprof string
}

func (c *command) workerCommand() *cobra.Command {
	var f workerFlags
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Take tasks of runs, and do them",
		Long: `Take tasks of runs, and do them.

With engine: {type: nats} in the file, "pipeline run" divides the work into
tasks, and any number of workers on any machines do them (docs/scaling.md). All
have the same file, and the same tables. A worker may be stopped or killed at
any time: what it committed counts, and another one goes on with its tasks.

Ctrl-C once finishes what is in flight of the tasks under way, and gives them
back; twice stops at once.

Exit codes:
  0   it was asked to stop, or, with --once, nothing is left to do
  1   it can't go on: NATS isn't to be reached
  2   the command line or the file is wrong, or isn't the file of the run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.worker(cmd.Context(), f) },
	}
	cmd.Flags().BoolVar(&f.once, "once", false, "end when no task is left, for a job; without it, wait for the next run")
	cmd.Flags().IntVar(&f.tasks, "tasks", 8, "how many tasks at once; each has one connection")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "say only what is wrong")
	cmd.Flags().StringVar(&f.pprof, "pprof", "", "write CPU and heap profiles of the command and each plugin process to this `folder` (docs/speed.md)")
	return cmd
}

func (c *command) worker(ctx context.Context, f workerFlags) (err error) {
	if err := supported(runtime.GOOS); err != nil {
		return err
	}
	if f.tasks < 1 {
		return fault.New(fault.Config, "--tasks %d: expected 1 or more", f.tasks)
	}
	if f.pprof != "" {
		end, err := c.record(f.pprof)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, end()) }() // last: the plugins end before
	}
	ctx, asked, release := c.signals(ctx)
	defer release()
	j, err := c.load(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.closeJob(j)) }()
	if !j.File.Engine.Shared() {
		return fault.New(fault.Config, "the file has no engine of type nats: there are no tasks to take").
			WithHint("\"pipeline run\" does all the work; docs/scaling.md says how to divide it")
	}
	if err := j.Check(ctx); err != nil {
		return err
	}
	if err := j.Prepare(ctx); err != nil {
		return err
	}
	cl, err := c.cluster(ctx, j, false)
	if err != nil {
		return err
	}
	defer cl.Close()
	bucket, prefix, err := j.Bucket()
	if err != nil {
		return err
	}
	defer bucket.Close()
	dir, err := os.MkdirTemp("", "mailhaul-tasks-")
	if err != nil {
		return fault.Wrap(fault.Full, err, "make room for the ledgers of tasks")
	}
	defer os.RemoveAll(dir)
	say := func(format string, args ...any) {
		if !f.quiet {
			fmt.Fprintf(c.err, format+"\n", args...)
		}
	}
	say("%s takes tasks of %s from stream %s", process(), filepath.Base(c.file), cl.Name())
	n, err := worker.Run(ctx, worker.Options{
		Cluster: cl, Plan: j.Plan, File: j.File.Sum, Plugins: j, Open: j.OpenShare, Objects: bucket, Prefix: prefix, Dir: dir,
		Log: c.logger(), Spool: j.Spool(), Name: process(), Tasks: f.tasks, Once: f.once, Stop: asked.stop, Hurry: asked.hurry,
		Events: func(e worker.Event) {
			switch {
			case e.Err != nil:
				fmt.Fprintf(c.err, "%s\n", status.Harmless(e.String()))
			case e.Outcome != nil && (c.debug || e.Outcome.Sum.Listed > 0 || !e.Outcome.Complete()):
				say("%s", status.Harmless(e.String()))
			}
		},
	})
	say("%d tasks done", n)
	if err == nil && ctx.Err() != nil {
		return exit(engine.ExitStopped)
	}
	return err
}
