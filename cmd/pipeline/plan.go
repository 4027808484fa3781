package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/browse"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/internal/plan"
)

func (c *command) planCommand() *cobra.Command {
	var connect bool
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Say what a run will ask of whom; asks no server, unless told to",
		Long: `Say what a run will ask of whom, as EXPLAIN does for a query: what is listed of
every message, what more of those that are still wanted, and what is fetched;
where each stage judges, and what its server can judge for it; where each sink
writes. Accounts of one table that are asked the same are one.

No server is asked, but with --connect. "pipeline run --dry-run" goes further: it
lists and judges, and says how much would be exported.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := cmd.Context()
			j, err := c.load(ctx)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.closeJob(j)) }()
			if err := j.Check(ctx); err != nil {
				return err
			}
			if err := j.Prepare(ctx); err != nil {
				return err
			}
			fmt.Fprint(c.out, plan.Explain(j.Plan))
			for i, r := range j.File.BadRows {
				if i == 0 {
					fmt.Fprintln(c.out)
				}
				fmt.Fprintf(c.out, "left out: %v\n", r)
			}
			if !connect {
				return nil
			}
			return errors.Join(c.survey(ctx, j), c.reach(ctx, j))
		},
	}
	cmd.Flags().BoolVar(&connect, "connect", false, "ask each server, too: how much there is, what it grants, and what it hides; and look into the sinks' buckets")
	c.shardFlag(cmd)
	return cmd
}

// survey asks each source's server. One that can't be asked doesn't stop the
// others.
func (c *command) survey(ctx context.Context, j *job.Job) error {
	var errs []error
	for i := range j.Plan.Sources {
		s := &j.Plan.Sources[i]
		opened, err := j.OpenSource(ctx, s, false)
		if err == nil {
			err = browse.Survey(ctx, c.out, s.Name, opened, s.Selects)
			opened.Source.Close()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("source %s: %w", s.Name, err))
		}
	}
	return errors.Join(errs...)
}

// reach looks into the buckets that sinks write to: a wrong name, region or
// credential is worth knowing before a run.
func (c *command) reach(ctx context.Context, j *job.Job) error {
	var errs []error
	for i := range j.Plan.Sinks {
		s := &j.Plan.Sinks[i]
		if s.Address == "" {
			continue
		}
		m, err := j.Reach(ctx, s)
		switch {
		case err != nil:
			errs = append(errs, err)
		case m.Pipeline == "":
			fmt.Fprintf(c.out, "sink %s: %s can be reached; no sink has written there\n", s.Name, s.Prepared.Target)
		default:
			fmt.Fprintf(c.out, "sink %s: %s can be reached; it is marked as that of sink %s of pipeline %s\n", s.Name, s.Prepared.Target, m.Sink, m.Pipeline)
		}
	}
	return errors.Join(errs...)
}
