package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/custody"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/pkg/fault"
)

func (c *command) custodyCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "custody",
		Short: "Check the evidence that runs left of what they exported",
		Args:  cobra.NoArgs,
	}
	var signer string
	check := &cobra.Command{
		Use:   "check [FOLDER]",
		Short: "Say in one line whether all of it still holds",
		Long: `Say in one line whether all of it still holds: each exported file, each record
of a run, its signature and timestamp, and the chain of the records.

FOLDER is the custody folder; without it the pipeline file names it. What
doesn't hold is told a line each. The same can be checked with sha256sum,
ssh-keygen and openssl: docs/reference/custody.md.

Exit codes: 0 all holds; 1 something doesn't.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			folder := ""
			if len(args) > 0 {
				folder = args[0]
			}
			return c.checkCustody(cmd.Context(), folder, signer)
		},
	}
	check.Flags().StringVar(&signer, "signer", "", "file of the public key that must have signed; without it the one of the pipeline file")
	group.AddCommand(check)
	return group
}

func (c *command) checkCustody(ctx context.Context, folder, signer string) (err error) {
	var o custody.CheckOptions
	var bare *job.Job // has the store, where something is in a bucket
	o.Store = func() (string, error) {
		if bare == nil {
			var err error
			if bare, err = job.Bare(job.Options{Plugins: c.plugins, Log: c.logger()}); err != nil {
				return "", err
			}
		}
		return bare.Store()
	}
	defer func() {
		if bare != nil {
			err = errors.Join(err, c.closeJob(bare))
		}
	}()
	if folder == "" {
		f, err := config.Load(c.file)
		if err != nil {
			return err
		}
		if f.Custody == nil {
			return fault.New(fault.Config, "%s keeps no custody", c.file).WithHint("name the folder: pipeline custody check FOLDER")
		}
		s, err := c.custodySettings(f.Custody)
		if err != nil {
			return err
		}
		folder = s.Path
		if s.SSHKey != "" && signer == "" {
			key, err := custody.LoadKey(s.SSHKey)
			if err != nil {
				return err
			}
			o.Signer = key.PublicKey()
		}
	}
	if signer != "" {
		if o.Signer, err = publicKey(signer); err != nil {
			return err
		}
	}
	r, err := custody.Check(ctx, folder, o)
	if err != nil {
		return err
	}
	for _, wrong := range r.Wrong {
		fmt.Fprintf(c.out, "wrong: %s\n", wrong)
	}
	fmt.Fprintln(c.out, r.Line())
	if len(r.Wrong) > 0 {
		return exit(engine.ExitStopped)
	}
	return nil
}

// publicKey reads a key as ssh-keygen writes it to NAME.pub.
func publicKey(path string) (ssh.PublicKey, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		var key ssh.PublicKey
		if key, _, _, _, err = ssh.ParseAuthorizedKey(b); err == nil {
			return key, nil
		}
	}
	return nil, fault.Wrap(fault.Config, err, "read the public key %s", path)
}
