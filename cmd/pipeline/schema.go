package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/job"
)

func (c *command) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the pipeline file, for editors",
		Long: `Print the JSON Schema of the pipeline file, with the configs of the plugins that
are installed. Editors complete and check by it: put it beside the file, and
this line at the file's top:

  # yaml-language-server: $schema=pipeline.schema.json`,
		Example: `  pipeline schema > pipeline.schema.json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := cmd.Context()
			j, err := job.Bare(job.Options{Plugins: c.plugins, Values: c.values, Log: c.logger()})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, j.Close(context.WithoutCancel(ctx))) }()
			plugins, broken := j.Installed(ctx)
			schema, err := config.SchemaWith(plugins)
			if err != nil {
				return err
			}
			if _, err := c.out.Write(schema); err != nil {
				return err
			}
			tell(c.err, broken...) // the others are in it
			return nil
		},
	}
}
