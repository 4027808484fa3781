package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/status"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

func (c *command) failedCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "failed",
		Short: "Look at dead letters, and try them again",
		Long: `Look at dead letters, and try them again.

A dead letter is a message that a stage, a sink or its source refused for good;
the run went on without it. Each has a key, by which it is named here.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(c.failedListCommand(), c.failedShowCommand(), c.failedRetryCommand(), c.failedExportCommand())
	return cmd
}

// choiceFlags adds the flags that choose among dead letters.
func (c *command) choiceFlags(cmd *cobra.Command, choice *status.Choice) {
	cmd.Flags().StringArrayVar(&choice.Sources, "source", nil, "of this source; may be given more than once")
	cmd.Flags().StringArrayVar(&choice.Reasons, "reason", nil, "for this reason; may be given more than once")
	c.shardFlag(cmd)
	c.completeFlag(cmd, "source", sourceNames)
}

func (c *command) failedListCommand() *cobra.Command {
	var choice status.Choice
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters by reason",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := status.NewText(c.out)
			if asJSON {
				w = status.NewJSON(c.out)
			}
			return c.letters(cmd.Context(), choice, w, !asJSON)
		},
	}
	c.choiceFlags(cmd, &choice)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line (docs/reference/status.md)")
	return cmd
}

// letters writes the dead letters that are meant, and for a person also what of
// the last run of workers was given up whole.
func (c *command) letters(ctx context.Context, choice status.Choice, w status.Writer, person bool) error {
	j, state, err := c.peek(ctx)
	if err != nil {
		return err
	}
	if err := c.eachLetter(ctx, j, state, choice, w.Write); err != nil {
		return err
	}
	if err := w.Close(); err != nil || !person || !j.File.Engine.Shared() {
		return err
	}
	at, err := c.sharedStatus(ctx, j)
	if err != nil {
		return err
	}
	for _, g := range at.GivenUp {
		fmt.Fprintf(c.out, "\nnot done: %s\n", status.Harmless(g.Why))
		if g.Hint != "" {
			fmt.Fprintf(c.out, "  %s\n", status.Harmless(g.Hint))
		}
	}
	return nil
}

func (c *command) failedShowCommand() *cobra.Command {
	var octets bool
	cmd := &cobra.Command{
		Use:   "show KEY…",
		Short: "Show all that is known of a dead letter",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, keys []string) error {
			if octets && len(keys) != 1 {
				return fault.New(fault.Config, "--octets writes one message: expected one key")
			}
			j, state, err := c.peek(cmd.Context())
			if err != nil {
				return err
			}
			left := slices.Clone(keys)
			first := true
			err = c.eachLetter(cmd.Context(), j, state, status.Choice{Keys: keys}, func(l status.Letter) error {
				if !first {
					fmt.Fprintln(c.out)
				}
				first = false
				if octets {
					if len(l.Octets) == 0 {
						return fault.New(fault.Config, "no octets are kept of dead letter %s", l.Key)
					}
					_, err := c.out.Write(l.Octets)
					left = nil
					return err
				}
				l.Show(c.out)
				left = slices.DeleteFunc(left, func(key string) bool { return key == l.Key })
				return nil
			})
			if err != nil {
				return err
			}
			return noLetters(left)
		},
	}
	c.shardFlag(cmd)
	cmd.Flags().BoolVar(&octets, "octets", false, "write what the server sent in the message's place, as it is")
	return cmd
}

// noLetters returns an error when keys are left that no dead letter has.
func noLetters(keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	return fault.New(fault.Config, "no dead letter has the key %s", keys[0]).WithHint("\"pipeline failed list\" shows the keys")
}

func (c *command) failedRetryCommand() *cobra.Command {
	var choice status.Choice
	var f runFlags
	cmd := &cobra.Command{
		Use:   "retry [KEY…]",
		Short: "Run the sources of dead letters, and try those again",
		Long: `Run the sources of dead letters, and try those again: all of them, or those that
are chosen. It is a run of those sources: what is new there comes too. The exit
codes are those of "pipeline run".`,
		Example: `  pipeline failed retry
  pipeline failed retry --reason too_large
  pipeline failed retry i3s3jp4tlm`,
		RunE: func(cmd *cobra.Command, keys []string) error {
			choice.Keys = keys
			sources, tasks, err := c.release(cmd.Context(), choice)
			if err != nil {
				return err
			}
			if len(sources) == 0 {
				fmt.Fprintln(c.out, "no dead letters")
				return nil
			}
			// A task is of one source: which are meant is said by its being chosen.
			f.only, f.retryTasks, f.retryChoice = sources, tasks, status.Choice{Keys: choice.Keys, Reasons: choice.Reasons}
			return c.run(cmd.Context(), f)
		},
	}
	c.choiceFlags(cmd, &choice)
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "say only what is wrong")
	return cmd
}

// release makes the dead letters pending, and returns their sources. One whose
// source is no longer in the file stays. Of a run with workers it returns the
// tasks that are to try theirs again.
func (c *command) release(ctx context.Context, choice status.Choice) (sources []string, tasks map[string]bool, err error) {
	j, err := c.read()
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, j.Close(context.WithoutCancel(ctx))) }()
	if _, err := j.State(ctx); err != nil {
		return nil, nil, err
	}
	if j.File.Engine.Shared() {
		return c.sharedRetry(ctx, j, choice)
	}
	l, err := j.OpenLedger(ctx)
	if err != nil {
		return nil, nil, err
	}
	left, inFile := slices.Clone(choice.Keys), j.Sources()
	_, err = l.Release(ctx, func(id message.ID, sink string, letter ledger.Letter) bool {
		made := status.NewLetter(id, sink, letter)
		if !choice.Includes(&made) || !slices.Contains(inFile, id.Source) {
			return false
		}
		left = slices.DeleteFunc(left, func(key string) bool { return key == made.Key })
		if !slices.Contains(sources, id.Source) {
			sources = append(sources, id.Source)
		}
		return true
	})
	if err != nil {
		return nil, nil, err
	}
	return sources, nil, noLetters(left)
}

// eachLetter calls f for the dead letters that are meant: of the ledger here, or
// of all workers.
func (c *command) eachLetter(ctx context.Context, j *job.Job, state string, choice status.Choice, f func(status.Letter) error) error {
	if !j.File.Engine.Shared() {
		return status.Letters(ctx, state, j.File.Name, choice, f)
	}
	return c.sharedLetters(ctx, j, choice, func(_ string, l status.Letter) error { return f(l) })
}

// sharedRetry returns the sources and tasks of the dead letters that are meant.
func (c *command) sharedRetry(ctx context.Context, j *job.Job, choice status.Choice) (sources []string, tasks map[string]bool, err error) {
	left, inFile := slices.Clone(choice.Keys), j.Sources()
	tasks = map[string]bool{}
	err = c.sharedLetters(ctx, j, choice, func(task string, l status.Letter) error {
		if !slices.Contains(inFile, l.Source) {
			return nil
		}
		left = slices.DeleteFunc(left, func(key string) bool { return key == l.Key })
		tasks[task] = true
		if !slices.Contains(sources, l.Source) {
			sources = append(sources, l.Source)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return sources, tasks, noLetters(left)
}

func (c *command) failedExportCommand() *cobra.Command {
	var choice status.Choice
	var file, format string
	cmd := &cobra.Command{
		Use:     "export",
		Short:   "Write dead letters as CSV or JSON, for a spreadsheet or a script",
		Example: `  pipeline failed export -o failed.csv`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			as, ok := map[string]func(io.Writer) status.Writer{"csv": status.NewCSV, "json": status.NewJSON}[format]
			if !ok {
				return fault.New(fault.Config, "--format %s: expected csv or json", format)
			}
			if file == "" || file == "-" {
				return c.letters(cmd.Context(), choice, as(c.out), false)
			}
			out, err := os.Create(file)
			if err != nil {
				return fault.Wrap(fault.Config, err, "write the dead letters")
			}
			defer func() { err = errors.Join(err, out.Close()) }()
			return c.letters(cmd.Context(), choice, as(out), false)
		},
	}
	c.choiceFlags(cmd, &choice)
	cmd.Flags().StringVarP(&file, "output", "o", "", "write to this file; - or nothing: to stdout")
	cmd.Flags().StringVar(&format, "format", "csv", "csv, or json for an object a line")
	return cmd
}
