package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/plan"
	"github.com/mailhaul/pipeline/internal/verify"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/source"
)

type verifyFlags struct {
	sample  string
	offline bool
	json    bool
	rebuild bool
}

func (c *command) verifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Hold the export against its manifests, the ledger and what the servers have now",
		Long: `Hold the export against its manifests, the ledger and what the servers have now.

Every file is read and hashed again. What is missing, changed or extra is told
for each mailbox, each message by its subject, date, sender and id. Nothing is
changed, but with --rebuild: it makes a lost or damaged ledger anew from the
manifests.

Exit codes: 0 all holds; 1 something doesn't; 2 a mistake in the file, or it has
never run here; 4 nothing was found, but a server couldn't be asked.`,
		Example: `  pipeline verify                 # all of it
  pipeline verify --sample 1%     # read every hundredth file, ask the servers
  pipeline verify --offline       # ask no server`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.verify(cmd.Context(), f) },
	}
	cmd.Flags().StringVar(&f.sample, "sample", "100%", "the share of the files that are read again; all are looked for in any case")
	c.shardFlag(cmd)
	cmd.Flags().BoolVar(&f.offline, "offline", false, "ask no server")
	cmd.Flags().BoolVar(&f.json, "json", false, "print what was found as JSON (docs/reference/verify.md)")
	cmd.Flags().BoolVar(&f.rebuild, "rebuild", false, "make the ledger anew from the sinks' manifests; a damaged one is kept aside")
	return cmd
}

// share reads a share as in 1% or 0.01.
func share(s string) (float64, error) {
	number, percent := strings.CutSuffix(strings.TrimSpace(s), "%")
	x, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		x /= 100
	}
	if err != nil || !(x > 0 && x <= 1) {
		return 0, fault.New(fault.Config, "--sample %s: expected a share of the files, above 0 and up to 100%%", s).WithHint("as in --sample 1%%")
	}
	return x, nil
}

func (c *command) verify(ctx context.Context, f verifyFlags) (err error) {
	sample, err := share(f.sample)
	if err != nil {
		return err
	}
	ctx, asked, release := c.signals(ctx)
	defer release()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // there is nothing to finish: the first interrupt ends it
		select {
		case <-asked.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	if f.rebuild {
		return c.rebuild(ctx)
	}
	j, l, closeJob, err := c.prepared(ctx, f.offline)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeJob()) }()
	o := verify.Options{Plan: j.Plan, Ledger: l, Sample: sample, Store: j.Store}
	own := []string{j.File.Report.JSON, j.File.Report.HTML, j.File.Report.CSV}
	if j.File.Custody != nil {
		own = append(own, j.File.Custody.Path)
	}
	for _, path := range own {
		if path, err = c.beside(path); err != nil {
			return err
		}
		if path != "" {
			o.Beside = append(o.Beside, path)
		}
	}
	if !f.offline {
		o.OpenSource = func(ctx context.Context, s *plan.Source) (source.Opened, error) { return j.OpenSource(ctx, s, false) }
	}
	o.Progress = &verify.Progress{}
	end := c.watchVerify(o.Progress)
	r, err := verify.Run(ctx, o)
	end()
	if err != nil {
		return err
	}
	if f.json {
		enc := json.NewEncoder(c.out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(r); err != nil {
			return err
		}
	} else {
		verify.Text(c.out, r)
	}
	switch {
	case len(r.Findings) > 0:
		return exit(engine.ExitStopped)
	case r.Unasked():
		return exit(engine.ExitIncomplete)
	}
	return nil
}

// watchVerify shows how far a verification is, to a person at once and now and
// then, and to a log once a minute. What it returns ends that.
func (c *command) watchVerify(p *verify.Progress) func() {
	every, before, after := time.Minute, "", "\n"
	if c.terminal() {
		every, before, after = time.Second/2, "\r\x1b[K", ""
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if all := p.All.Load(); all > 0 {
					fmt.Fprintf(c.err, "%sverify: %d of %d files looked at%s", before, p.Read.Load(), all, after)
				}
			case <-done:
				fmt.Fprint(c.err, before)
				return
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// prepared loads the file with its plan, of the sinks alone when no server will
// be asked, and opens the ledger. What it returns is closed with the function,
// which comes without an error only.
func (c *command) prepared(ctx context.Context, offline bool) (*job.Job, *ledger.Ledger, func() error, error) {
	j, err := c.load(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	end := func() error { return c.closeJob(j) }
	if err := ownLedger(j); err != nil {
		return nil, nil, nil, errors.Join(err, end())
	}
	l, err := j.ReopenLedger(ctx)
	if err == nil {
		err = j.Check(ctx)
	}
	switch {
	case err != nil:
	case offline:
		err = j.PrepareOffline(ctx)
	default:
		err = j.Prepare(ctx)
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, end())
	}
	return j, l, end, nil
}

// ownLedger refuses where workers keep the ledgers of their tasks: against the
// one that is here, all that they wrote would look like somebody else's.
func ownLedger(j *job.Job) error {
	if !j.File.Engine.Shared() {
		return nil
	}
	return fault.New(fault.Config, "verify: the ledgers of engine: {type: nats} are those of its tasks, and it reads one").
		WithHint("\"pipeline report\" has the server's counts beside what was written; each file's sha256 is in the sink's manifest")
}

// rebuild makes a lost ledger anew.
func (c *command) rebuild(ctx context.Context) (err error) {
	j, err := c.loadOffline(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.closeJob(j)) }()
	if err := ownLedger(j); err != nil {
		return err
	}
	if err := j.CheckShard(); err != nil {
		return err
	}
	r, err := verify.Rebuild(ctx, verify.RebuildOptions{Plan: j.Plan, Dir: j.File.State, Name: j.File.Name, Store: j.Store})
	if err != nil {
		return err
	}
	if r.Aside != "" {
		fmt.Fprintf(c.err, "warning: the ledger that was there is kept as %s\n", r.Aside)
	}
	for _, left := range r.Left {
		fmt.Fprintf(c.err, "warning: %s\n", left)
	}
	if r.Dedupe {
		fmt.Fprintln(c.err, "warning: the dedupe compares octets, and no sink keeps them: copies of what is written may be written again")
	}
	for _, s := range r.Sinks {
		fmt.Fprintf(c.out, "%s: %d taken", s.Sink, s.Rows)
		if s.Left > 0 {
			fmt.Fprintf(c.out, ", %d left", s.Left)
		}
		fmt.Fprintln(c.out)
	}
	fmt.Fprintf(c.out, "the ledger is made anew, of %d messages: run goes on from there\n", r.Messages)
	if len(r.Left) > 0 {
		return exit(engine.ExitStopped)
	}
	return nil
}
