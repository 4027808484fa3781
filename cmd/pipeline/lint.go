package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func (c *command) lintCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "lint",
		Short: "Check the file, and each plugin's config in it, without any network",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			j, err := c.load(cmd.Context())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, j.Close(context.WithoutCancel(cmd.Context()))) }()
			if err := j.Check(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintf(c.out, "%s: no mistakes found\n", c.file)
			return nil
		},
	}
}
