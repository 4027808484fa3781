package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/stages"
	"github.com/mailhaul/pipeline/internal/trial"
)

func (c *command) testCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "test FILE",
		Short: "Try the stages and routes on messages of your own; asks no server",
		Long: `Try the stages and routes on messages of your own.

FILE has cases: a mail each, and what is expected of stages and sinks. No
server is asked and nothing is written; stages that are plugins are started.
Exit codes: 0 all cases are as expected; 1 some aren't; 2 a file is wrong.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.test(cmd.Context(), args[0], all) },
	}
	cmd.Flags().BoolVarP(&all, "verbose", "v", false, "say of every case what became of it")
	return cmd
}

func (c *command) test(ctx context.Context, path string, all bool) (err error) {
	j, err := c.read()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close(context.WithoutCancel(ctx))) }()
	cases, now, err := config.LoadCases(path, j.File)
	if err != nil {
		return err
	}
	if now.IsZero() {
		now = stages.Now()
	}
	if err := j.PrepareStages(ctx); err != nil {
		return err
	}
	t := &trial.Trial{File: j.File, Now: now, Open: j.TryStage}
	failed := 0
	for i := range cases {
		got, err := t.Run(ctx, &cases[i])
		if err != nil {
			return fmt.Errorf("case %q: %w", cases[i].Name, err)
		}
		wrong := trial.Differs(&cases[i], got, j.File.Stages)
		switch {
		case len(wrong) > 0:
			failed++
			fmt.Fprintf(c.out, "FAIL  %s\n", cases[i].Name)
		default:
			fmt.Fprintf(c.out, "ok    %s\n", cases[i].Name)
		}
		for _, line := range wrong {
			fmt.Fprintf(c.out, "      %s\n", line)
		}
		if all {
			c.tellOutcome(j.File.Stages, got)
		}
	}
	fmt.Fprintf(c.out, "%d cases, %d as expected, %d not\n", len(cases), len(cases)-failed, failed)
	if failed > 0 {
		return exit(engine.ExitStopped)
	}
	return nil
}

// tellOutcome says what became of a message, stage by stage.
func (c *command) tellOutcome(order []*stages.Stage, o *trial.Outcome) {
	for _, s := range order {
		line := fmt.Sprintf("      %-12s %s", o.Verdicts[s.Name], s.Name)
		if why := o.Why[s.Name]; why != "" {
			line += " (" + why + ")"
		}
		fmt.Fprintln(c.out, line)
	}
	for _, s := range o.Sinks {
		fmt.Fprintf(c.out, "      to sink      %s, in %s\n", s, o.LandsIn)
	}
}
