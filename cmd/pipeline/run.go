package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/profile"
	"github.com/mailhaul/pipeline/internal/progress"
	"github.com/mailhaul/pipeline/internal/report"
	"github.com/mailhaul/pipeline/internal/status"
	"github.com/mailhaul/pipeline/pkg/fault"
)

type runFlags struct {
	adopt       []string
	rewrite     []string
	only        []string
	retryFailed bool
	retryTasks  map[string]bool // of a run with workers: those with dead letters that are chosen
	retryChoice status.Choice   // so, too
	quiet       bool
	json        bool
	dry         bool
	ui          string
	uiRemote    bool
	pprof       string
	metrics     string
}

func (c *command) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Export what isn't exported yet",
		Long: `Export what isn't exported yet.

A run asks each server what there is, leaves out what the ledger knows to be
done, fetches the rest, and accounts for every message. It may be stopped and
started again at any time: it goes on where it stopped. Ctrl-C once finishes
what is in flight; twice stops at once. SIGTERM finishes what is in flight for 5
seconds, and then commits what came.

Exit codes:
  0   all done
  1   stopped: run it again
  2   the command line or the file is wrong
  3   done, with dead letters: see "pipeline failed list"
  4   accounts or mailboxes are incomplete: run it again
  5   another run holds the lock
  75  parked by a provider's limit; the output says when to go on`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context(), f) },
	}
	cmd.Flags().StringArrayVar(&f.only, "only", nil, "run this source alone; may be given more than once")
	cmd.Flags().StringArrayVar(&f.adopt, "adopt", nil, "take over what this sink's target has, though it isn't this pipeline's")
	cmd.Flags().StringArrayVar(&f.rewrite, "rewrite", nil, "write everything of this sink anew")
	cmd.Flags().BoolVar(&f.retryFailed, "retry-failed", false, "try dead letters again")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "say only what is wrong")
	cmd.Flags().BoolVar(&f.json, "json", false, "print what happens as JSON, an object a line (docs/reference/events.md)")
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "list and judge, and say what would be exported: fetch nothing, write nothing")
	cmd.Flags().StringVar(&f.metrics, "metrics", "", "answer at this `address` while it runs, as in 127.0.0.1:9090: /metrics for Prometheus, /healthz (docs/reference/watching.md)")
	c.shardFlag(cmd)
	cmd.Flags().StringVar(&f.ui, "ui", "", "show the run as a page in a browser at this address, as in 127.0.0.1:8080 (docs/reference/watching.md)")
	cmd.Flags().BoolVar(&f.uiRemote, "ui-remote", false, "let other machines open the page of --ui, with the token in the URL that is printed")
	cmd.Flags().StringVar(&f.pprof, "pprof", "", "write CPU and heap profiles of the command and each plugin process to this `folder` (docs/speed.md)")
	c.completeFlag(cmd, "only", sourceNames)
	c.completeFlag(cmd, "adopt", sinkNames)
	c.completeFlag(cmd, "rewrite", sinkNames)
	return cmd
}

// supported says whether a run can keep its promises on a system. On Windows
// nobody has tried yet what a crash leaves behind.
func supported(system string) error {
	if system == "windows" {
		return fault.New(fault.Config, "run isn't supported on Windows yet").
			WithHint("run it on Linux or macOS, or in WSL; lint, plan and ls work here")
	}
	return nil
}

func (c *command) run(ctx context.Context, f runFlags) (err error) {
	if err := supported(runtime.GOOS); err != nil {
		return err
	}
	if f.json && f.quiet {
		return fault.New(fault.Config, "--json and --quiet: one of them")
	}
	if f.pprof != "" {
		end, err := c.record(f.pprof)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, end()) }() // last: the plugins end before
	}
	ctx, asked, release := c.signals(ctx)
	defer release()
	measured, err := c.measure(ctx, f.metrics)
	if err != nil {
		return err
	}
	defer measured.close()
	j, err := c.load(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.closeJob(j)) }()
	var l *ledger.Ledger
	if !f.dry { // a run may go on meanwhile
		if l, err = j.OpenLedger(ctx); err != nil {
			return err
		}
	}
	page, err := openPage(ctx, f)
	if err != nil {
		return err
	}
	defer page.close()
	if err := j.Only(f.only); err != nil {
		return fault.Wrap(fault.Config, err, "--only")
	}
	if err := j.Check(ctx); err != nil {
		return err
	}
	if err := j.Prepare(ctx); err != nil {
		return err
	}
	if f.dry {
		return c.dryRun(ctx, j)
	}
	for _, c := range []struct {
		flag  string
		sinks []string
	}{{"--adopt", f.adopt}, {"--rewrite", f.rewrite}} {
		for _, name := range c.sinks {
			if err := j.Sink(name); err != nil {
				return fault.Wrap(fault.Config, err, "%s", c.flag)
			}
		}
	}
	if err := c.canProve(ctx, j); err != nil {
		return err
	}
	if err := c.canShare(j, f); err != nil {
		return err
	}
	began := time.Now()
	number, err := l.BeginRun(ctx, began)
	if err != nil {
		return err
	}
	stats := &engine.Stats{}
	opts := engine.Options{
		Store: j.Store,
		Plan:  j.Plan, Ledger: l, Plugins: j, Log: c.logger(), Spool: j.Spool(), Stats: stats, Run: number,
		Adopt: f.adopt, Rewrite: f.rewrite, RetryFailed: f.retryFailed, Hurry: asked.hurry,
	}
	out, shown := c.err, progress.Options{Kind: progress.Lines, Stats: stats, Accounts: len(j.Plan.Sources), Log: c.logger()}
	switch {
	case f.json:
		out, shown.Kind = c.out, progress.JSON
	case f.quiet:
		shown.Kind = progress.Quiet
	case c.terminal():
		shown.Kind = progress.Bars
	}
	watch := report.StartWatch(stats)
	page.show(c, j, number, began, stats, watch.Timeline) // its line stands above the bars
	display := progress.New(out, shown)
	opts.Events = engine.Events(display.Event, page.event, measured.event)
	measured.begin(j, stats, began)
	if shown.Kind == progress.Bars {
		c.screen.through(display)
	}
	result, box, err := c.carryOut(ctx, j, l, asked, f, opts)
	series := watch.Stop()
	c.screen.through(c.err)
	display.Close()
	result.Accounts = append(result.Accounts, j.BadRows()...)
	code := result.Exit()
	display.Finished(code, distinct(report.Troubles(result)))
	page.end(result, code)
	if !f.quiet && !f.json && ctx.Err() == nil { // else most of what it counts was cut short
		report.Text(c.out, result)
	}
	noted := l.EndRun(context.WithoutCancel(ctx), number, time.Now(), code)
	if fault.Is(err, fault.Full) && fault.Is(noted, fault.Full) {
		noted = nil // one full disk is told once
	}
	return errors.Join(noted, c.prove(ctx, ended{j, l, box, number, began, result, series, code}), c.conclude(result, code, err))
}

// record begins to record where the time of the command goes, and has plugins
// do so.
func (c *command) record(folder string) (end func() error, err error) {
	if c.profile, err = filepath.Abs(folder); err == nil {
		end, err = profile.Start(c.profile, "pipeline")
	}
	if err != nil {
		return nil, fault.New(fault.Config, "--pprof: %w", err).WithHint("name a folder that can be written to")
	}
	return end, nil
}

// conclude says how the run ended and what to do about it.
func (c *command) conclude(r *engine.Result, code int, err error) error {
	tell(c.err, append([]error{err}, report.Troubles(r)...)...)
	switch code {
	case engine.ExitDone:
		return nil
	case engine.ExitStopped:
		if mendable(append(report.Troubles(r), err)) {
			fmt.Fprintln(c.err, "stopped: what is done stays done; mend what the errors name, then run again to go on")
			break
		}
		fmt.Fprintln(c.err, "stopped: what is done stays done; run again to go on")
	case engine.ExitLetters:
		part := ""
		if c.shard != "" {
			part = " --shard " + c.shard
		}
		fmt.Fprintf(c.err, "done, with dead letters: see them with \"pipeline failed list%s\", try them again with \"pipeline failed retry%s\"\n", part, part)
	case engine.ExitIncomplete:
		if mendable(report.Troubles(r)) {
			fmt.Fprintln(c.err, "incomplete: mend what the errors name, then run again; what is done stays done")
			break
		}
		fmt.Fprintln(c.err, "incomplete: run again to go on with what is missing")
	case engine.ExitParked:
		fmt.Fprintln(c.err, "parked: a server asks to wait; what it gave is done")
	}
	return exit(code)
}

// mendable reports whether another run would end as this one did, until the
// user has mended an address, a password or a key: each trouble is of that kind.
func mendable(troubles []error) bool {
	some := false
	for _, err := range troubles {
		if err == nil {
			continue
		}
		if !fault.Is(err, fault.Auth) && !fault.Is(err, fault.Config) {
			return false
		}
		some = true
	}
	return some
}

// Of a machine that ends a process with SIGTERM nobody knows how long it waits
// before it kills: 10 s is the shortest that is usual.
const (
	finishFor = 5 * time.Second // what is in flight, after SIGTERM
	commitFor = 4 * time.Second // what came until then
)

// asked are the user's wishes for the end: each is closed when it is uttered.
type asked struct {
	stop  <-chan struct{} // finish what is in flight
	hurry <-chan struct{} // commit what came
}

// signals returns a context that ends with the second signal, and what the first
// asks for.
func (c *command) signals(ctx context.Context) (context.Context, asked, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop, hurry := make(chan struct{}), make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		var first os.Signal
		select {
		case first = <-signals:
			close(stop)
		case <-ctx.Done():
			return
		}
		var finished, committed <-chan time.Time // never, for a person
		if first == syscall.SIGTERM {
			finished, committed = time.After(finishFor), time.After(finishFor+commitFor)
		}
		for {
			select {
			case <-signals:
				cancel(context.Canceled)
			case <-finished:
				close(hurry)
				finished = nil
			case <-committed:
				cancel(context.Canceled)
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, asked{stop, hurry}, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// terminal reports whether a person is watching.
func (c *command) terminal() bool {
	f, ok := c.err.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
