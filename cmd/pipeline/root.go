package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// stdio is where the command reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// command is what the verbs share.
type command struct {
	stdio
	file    string
	plugins []string
	debug   bool
	values  config.Values
}

// exit is an error that is already told: only its code is left to give.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// execute runs the command line and returns the exit code.
func execute(ctx context.Context, args []string, s stdio) int {
	c := &command{stdio: s, values: config.System()}
	root := &cobra.Command{
		Use:           "pipeline",
		Short:         "Export mail: IMAP, POP3 and more to EML, MSG and an index, as a YAML file says",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	flags := root.PersistentFlags()
	flags.StringVarP(&c.file, "config", "c", "pipeline.yaml", "the pipeline file")
	flags.StringArrayVar(&c.plugins, "plugin-dir", nil, "look for plugins here first; may be given more than once")
	flags.BoolVar(&c.debug, "debug", false, "show the log of the command and its plugins")
	root.AddCommand(c.runCommand(), c.planCommand(), c.lintCommand(), c.demoCommand(), c.versionCommand())
	err := root.ExecuteContext(ctx)
	if err == nil {
		return engine.ExitDone
	}
	var code exit
	if errors.As(err, &code) {
		return int(code)
	}
	return c.fail(err)
}

// fail tells an error as `error:` and `hint:` and returns its exit code.
func (c *command) fail(err error) int {
	tell(c.err, err)
	var locked *ledger.LockedError
	switch {
	case errors.As(err, &locked):
		return engine.ExitLocked
	case fault.As(err) != nil && fault.Of(err) != fault.Config:
		return engine.ExitStopped
	}
	return engine.ExitUsage // the file, or the command line, which cobra judges
}

// tell writes an error; one that joins several is told one by one.
func tell(w io.Writer, err error) {
	var problems config.Problems
	if joined, ok := err.(interface{ Unwrap() []error }); ok && !errors.As(err, &problems) || ok && len(joined.Unwrap()) > 1 {
		for _, e := range joined.Unwrap() {
			tell(w, e)
		}
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "error: %s\n", strings.TrimSuffix(line, "\n"))
	}
	var locked *ledger.LockedError
	switch f := fault.As(err); {
	case errors.As(err, &locked):
		fmt.Fprintln(w, "hint: wait for it to end, or stop it; two runs of one pipeline would write the same files")
	case f != nil && f.Hint != "":
		fmt.Fprintf(w, "hint: %s\n", f.Hint)
	}
}

// logger shows everything with --debug, else what plugins warn of.
func (c *command) logger() *slog.Logger {
	level := slog.LevelWarn
	if c.debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: level}))
}

// load reads the file and starts nothing.
func (c *command) load(ctx context.Context) (*job.Job, error) {
	return job.Load(ctx, job.Options{File: c.file, Plugins: c.plugins, Values: c.values, Log: c.logger()})
}
