package main

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/report"
	"github.com/mailhaul/pipeline/pkg/fault"
)

func (c *command) reportCommand() *cobra.Command {
	var merge bool
	var outputs []string
	cmd := &cobra.Command{
		Use:   "report FILE|FOLDER…",
		Short: "Read the JSON report of a run, or join those of its shards",
		Long: `Read the JSON report of a run, or join those of its shards, and print the totals
or write it in another form. Of a folder the reports of shards are taken.

The exit code is the one of the run: of several, the gravest. A shard that has
no report makes the whole incomplete.`,
		Example: `  pipeline report --merge reports/                                # the totals of all shards
  pipeline report --merge reports/last.*-of-3.json -o all.html -o all.json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.report(cmd.Context(), args, merge, outputs) },
	}
	cmd.Flags().BoolVar(&merge, "merge", false, "join several reports to one")
	cmd.Flags().StringArrayVarP(&outputs, "output", "o", nil, "write it to this `file`: .json, .html or .csv; may be given more than once")
	return cmd
}

func (c *command) report(ctx context.Context, args []string, merge bool, outputs []string) error {
	var files report.Files
	for _, path := range outputs {
		form, ok := map[string]*string{".json": &files.JSON, ".html": &files.HTML, ".csv": &files.CSV}[strings.ToLower(filepath.Ext(path))]
		if !ok || *form != "" {
			return fault.New(fault.Config, "--output %s: expected one file each that ends in .json, .html or .csv", path)
		}
		*form = path
	}
	reports, err := report.ReadAll(args)
	if err != nil {
		return err
	}
	r := reports[0]
	switch {
	case merge:
		if r, err = report.Merge(reports); err != nil {
			return err
		}
	case len(reports) > 1:
		return fault.New(fault.Config, "these are %d reports", len(reports)).WithHint("join them with --merge")
	}
	if err := report.Write(ctx, files, r); err != nil {
		return fault.Wrap(fault.Full, err, "write the report")
	}
	report.Summary(c.out, r)
	if r.Error != "" {
		err := fault.New(fault.Unavailable, "%s", r.Error)
		if r.Hint != "" {
			err = err.WithHint("%s", r.Hint)
		}
		tell(c.err, err)
	}
	if r.Exit != 0 {
		return exit(r.Exit)
	}
	return nil
}
