package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/plan"
)

func (c *command) planCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "plan",
		Short: "Say what a run will ask of whom; asks no server",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := cmd.Context()
			j, err := c.load(ctx)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, j.Close(context.WithoutCancel(ctx))) }()
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
			return nil
		},
	}
}
