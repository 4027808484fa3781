package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/cluster/coordinator"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/internal/status"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/spec"
)

func (c *command) statusCommand() *cobra.Command {
	var all, asJSON bool
	cmd := &cobra.Command{
		Use:   "status [SOURCE…]",
		Short: "Say where each source and mailbox stands, from the ledger alone",
		Long: `Say where each source and mailbox stands, from the ledger alone.

It asks no server, starts no plugin, and may be asked while a run goes on.
Listed = done + dropped + failed + vanished + pending. Done are messages that
are written, that are duplicates of those, or that no sink wanted; failed are
dead letters. Mailboxes are shown where something is left to do: name a source
or give --all to see the others.`,
		Example: `  pipeline status
  pipeline status alice
  pipeline status --json | jq '.sources[] | select(.state != "complete") | .name'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			j, state, err := c.peek(cmd.Context())
			if err != nil {
				return err
			}
			s, err := status.Read(cmd.Context(), state, j.File.Name, j.Sources(), choice(args))
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := known(s, j, name); err != nil {
					return err
				}
			}
			var at *coordinator.Standing
			if j.File.Engine.Shared() {
				if at, err = c.sharedStatus(cmd.Context(), j); err != nil {
					return err
				}
			}
			if asJSON {
				return writeJSON(c.out, struct {
					*status.Status
					Workers *coordinator.Standing `json:"workers,omitempty"`
				}{s, at})
			}
			s.Text(c.out, all || len(args) > 0, time.Now())
			if at != nil {
				fmt.Fprintln(c.out)
				at.Text(c.out)
			}
			if n := len(j.File.BadRows); n > 0 && len(args) == 0 {
				fmt.Fprintf(c.out, "\n%d of the file's accounts aren't above, for their rows have mistakes: see them with \"pipeline lint\"\n", n)
			}
			return nil
		},
	}
	cmd.ValidArgsFunction = c.completes(sourceNames)
	c.shardFlag(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "show all mailboxes")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON (docs/reference/status.md)")
	return cmd
}

// peek reads the file for a verb that looks at the ledger alone, and returns
// the state directory.
func (c *command) peek(ctx context.Context) (*job.Job, string, error) {
	j, err := c.read()
	if err != nil {
		return nil, "", err
	}
	state, err := j.State(ctx)
	if err == nil {
		err = j.CheckShard()
	}
	return j, state, err
}

func choice(names []string) func(string) bool {
	if len(names) == 0 {
		return nil
	}
	return func(name string) bool { return slices.Contains(names, name) }
}

// known returns an error unless the file or the ledger has the source: one that
// was taken out of the file has a past all the same.
func known(s *status.Status, j *job.Job, name string) error {
	names := j.Sources()
	for i := range s.Sources {
		names = append(names, s.Sources[i].Name)
	}
	if slices.Contains(names, name) {
		return nil
	}
	if j.Shard().Divides() {
		return j.Source(name) // which knows those of other shards
	}
	err := fault.New(fault.Config, "there is no source %q", name)
	if near := spec.Nearest(name, names); near != "" {
		return err.WithHint("did you mean %q?", near)
	}
	return err.WithHint("\"pipeline status\" shows all")
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
