package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/browse"
	"github.com/mailhaul/pipeline/internal/job"
)

func (c *command) authCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "auth",
		Short: "Log sources in by OAuth2, and out",
		Long: `Log sources in by OAuth2, and out.

A source with oauth2: {token_store: ${store:NAME}} is logged in once, by a person
with a browser on any machine. The refresh token is kept beside the ledger, in
a file that nobody else can read; access tokens are renewed from it as runs need
them.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(&cobra.Command{
		Use:     "login SOURCE",
		Short:   "Log a source in: shows an address and a code, and waits",
		Example: "  pipeline auth login alice",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withJob(cmd.Context(), func(ctx context.Context, j *job.Job) error {
				if err := j.Login(ctx, args[0], func(url, code string) {
					fmt.Fprintf(c.out, "Open %s and type the code %s\nWaiting …\n", browse.Safe(url), browse.Safe(code))
				}); err != nil {
					return err
				}
				fmt.Fprintf(c.out, "%s is logged in: the refresh token is stored\n", args[0])
				return nil
			})
		},
	}, &cobra.Command{
		Use:   "logout SOURCE",
		Short: "Forget the refresh token of a source",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withJob(cmd.Context(), func(ctx context.Context, j *job.Job) error {
				if err := j.Logout(ctx, args[0]); err != nil {
					return err
				}
				fmt.Fprintf(c.out, "the refresh token of %s is forgotten here; the provider still knows it until it is revoked there\n", args[0])
				return nil
			})
		},
	}, &cobra.Command{
		Use:   "status",
		Short: "Say how each source logs in, and which has to be logged in first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withJob(cmd.Context(), c.authStatus)
		},
	})
	return cmd
}

func (c *command) authStatus(ctx context.Context, j *job.Job) error {
	var errs []error
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	for _, way := range j.Ways(ctx) {
		switch {
		case way.Failed != nil:
			errs = append(errs, way.Failed)
			fmt.Fprintf(w, "%s\tcan't be told\n", way.Name)
		case way.Lacks:
			fmt.Fprintf(w, "%s\t%s: pipeline auth login %s\n", way.Name, way.How, way.Name)
		default:
			fmt.Fprintf(w, "%s\t%s\n", way.Name, way.How)
		}
	}
	return errors.Join(append([]error{w.Flush()}, errs...)...)
}

// withJob reads the file, hands the job to f and closes it.
func (c *command) withJob(ctx context.Context, f func(context.Context, *job.Job) error) (err error) {
	j, err := c.load(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.closeJob(j)) }()
	return f(ctx, j)
}
