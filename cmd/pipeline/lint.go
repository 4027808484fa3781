package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/job"
)

func (c *command) lintCommand() *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:   "lint",
		Short: "Check the file, and each plugin's config in it, without any network",
		Long: `Check the file, and each plugin's config in it, without any network.

Everything that is wrong is told at once, each with file, line, column, the
key's path, what was expected and the nearest right word; a bad row of a CSV
file with its line there. No server is asked, no ${exec:…} is run, no variable
needs to be set.

--strict also warns of what the file may say and hardly means: a password that
stands in the file, a sink that nothing reaches, a filter that is always false, a
text that YAML cuts at a #.

Exit codes: 0 all is right; 1 there are warnings; 2 there are mistakes.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			j, err := job.Load(job.Options{File: c.file, Plugins: c.plugins, Values: c.values, Log: c.logger(), Mistaken: true})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.closeJob(j)) }()
			if err := j.Check(cmd.Context()); err != nil {
				return err
			}
			for _, r := range j.File.BadRows {
				tell(c.err, r)
			}
			warnings := 0
			if strict {
				if warnings, err = c.warn(cmd.Context(), j); err != nil {
					return err
				}
			}
			switch {
			case len(j.File.BadRows) > 0:
				return exit(engine.ExitUsage)
			case warnings > 0:
				return exit(engine.ExitStopped)
			}
			fmt.Fprintf(c.out, "%s: no mistakes found\n", c.file)
			return nil
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "also warn of what the file hardly means")
	return cmd
}

// warn tells the warnings about a file, and returns how many they are.
func (c *command) warn(ctx context.Context, j *job.Job) (int, error) {
	secrets, err := j.PlainSecrets(ctx)
	if err != nil {
		return 0, err
	}
	warnings := slices.Concat(secrets, j.File.Warnings(time.Now()))
	warnings.Sort()
	for _, w := range warnings {
		fmt.Fprintf(c.err, "warning: %v\n", w)
	}
	return len(warnings), nil
}
