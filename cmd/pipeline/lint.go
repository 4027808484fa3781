package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/engine"
)

func (c *command) lintCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "lint",
		Short: "Check the file, and each plugin's config in it, without any network",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			j, err := c.read()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, j.Close(context.WithoutCancel(cmd.Context()))) }()
			if err := j.Check(cmd.Context()); err != nil {
				return err
			}
			if bad := j.File.BadRows; len(bad) > 0 {
				for _, r := range bad {
					tell(c.err, r)
				}
				return exit(engine.ExitUsage)
			}
			fmt.Fprintf(c.out, "%s: no mistakes found\n", c.file)
			return nil
		},
	}
}
