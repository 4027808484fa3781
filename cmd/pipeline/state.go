package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/pkg/fault"
)

func (c *command) stateCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "state",
		Short: "Carry a pipeline to another machine",
		Args:  cobra.NoArgs,
	}
	export := &cobra.Command{
		Use:   "export FILE",
		Short: "Write what the pipeline knows of its messages to one file",
		Long: `Write what the pipeline knows of its messages to one file.

Carry that file, the pipeline file and the output to the other machine, and
run "pipeline state import FILE" there: it goes on where it stopped here. Stored
secrets aren't in it: log in there again.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.exportState(cmd.Context(), args[0]) },
	}
	take := &cobra.Command{
		Use:   "import FILE",
		Short: "Go on with a pipeline that was exported elsewhere",
		Long: `Go on with a pipeline that was exported elsewhere.

Sinks are known by their names: what each wrote is looked for where the pipeline
file says that it writes now. No ledger may be there yet.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.importState(cmd.Context(), args[0]) },
	}
	c.shardFlag(export)
	c.shardFlag(take)
	group.AddCommand(export, take)
	return group
}

func (c *command) exportState(ctx context.Context, path string) (err error) {
	j, err := c.load(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.closeJob(j)) }()
	if _, err := os.Stat(filepath.Join(j.File.State, j.File.Name+".db")); err != nil {
		return fault.Wrap(fault.Config, err, "open the ledger").(*fault.Error).WithKey("state").
			WithHint("there is one after the first run: pipeline run")
	}
	if _, err := j.OpenLedger(ctx); err != nil {
		return err
	}
	if err := j.ExportState(ctx, path, time.Now()); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s: what pipeline %s knows. Carry it with the pipeline file and the output.\n", path, j.File.Name)
	if _, err := os.Stat(filepath.Join(j.File.State, "secrets")); err == nil {
		fmt.Fprintf(c.out, "Stored secrets aren't in it: log in there again.\n")
	}
	return nil
}

func (c *command) importState(ctx context.Context, path string) (err error) {
	j, err := c.loadOffline(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.closeJob(j)) }()
	moved, err := j.ImportState(ctx, path)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "imported: pipeline %s goes on from there\n", j.File.Name)
	for _, m := range moved {
		if m.From != "" {
			fmt.Fprintf(c.out, "%s: what was in %s is looked for in %s\n", m.Sink, m.From, m.To)
		}
		if !m.There {
			fmt.Fprintf(c.err, "warning: the output of sink %s isn't in %s yet\nhint: copy it there, with its folder .mailhaul, before the next run; pipeline verify says whether all came\n", m.Sink, m.To)
		}
	}
	return nil
}
