package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/config"
	"github.com/mailhaul/pipeline/internal/engine"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/shard"
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
	screen  *screen // s.err, or what draws bars on it
	file    string
	plugins []string
	debug   bool
	shard   string // as --shard has it
	ran     bool   // cobra found nothing wrong with the command line
	values  config.Values
	profile string // folder for profiles, absolute; empty: none
}

// exit is an error that is already told: only its code is left to give.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// execute runs the command line and returns the exit code.
func execute(ctx context.Context, args []string, s stdio) int {
	c := &command{stdio: s, screen: &screen{w: s.err}, values: config.System()}
	root := &cobra.Command{
		Use:                        "pipeline",
		Short:                      "Export mail: IMAP, POP3 and more to EML, MSG and an index, as a YAML file says",
		DisableSuggestions:         true, // told as a hint
		SuggestionsMinimumDistance: 2,
		SilenceErrors:              true,
		SilenceUsage:               true,
		PersistentPreRun:           func(*cobra.Command, []string) { c.ran = true },
	}
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	flags := root.PersistentFlags()
	flags.StringVarP(&c.file, "config", "c", "pipeline.yaml", "the pipeline file")
	flags.StringArrayVar(&c.plugins, "plugin-dir", nil, "look for plugins here too, before PATH; may be given more than once")
	flags.BoolVar(&c.debug, "debug", false, "show the log of the command and its plugins")
	addVerbs(root, "Export", c.runCommand(), c.workerCommand(), c.demoCommand())
	addVerbs(root, "Look before",
		c.lintCommand(),
		c.testCommand(),
		c.planCommand(),
		c.lsCommand(),
		c.getCommand(),
		c.authCommand(),
	)
	addVerbs(root, "Look after",
		c.statusCommand(),
		c.failedCommand(),
		c.verifyCommand(),
		c.reportCommand(),
		c.custodyCommand(),
		c.stateCommand(),
	)
	addVerbs(root, "Plugins", c.pluginCommand())
	root.AddCommand(c.schemaCommand(), c.versionCommand())
	err := root.ExecuteContext(ctx)
	if err == nil {
		return engine.ExitDone
	}
	var code exit
	if errors.As(err, &code) {
		tell(c.err, err) // what else went wrong
		return int(code)
	}
	if !c.ran {
		err = fault.New(fault.Config, "%w", err).WithHint("%s", usageHint(root, args))
	}
	return c.fail(err)
}

// addVerbs adds verbs under a heading of the help.
func addVerbs(root *cobra.Command, heading string, verbs ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: heading, Title: heading + ":"})
	for _, v := range verbs {
		v.GroupID = heading
	}
	root.AddCommand(verbs...)
}

// usageHint says what to do about a command line that cobra refused.
func usageHint(root *cobra.Command, args []string) string {
	if known, _, err := root.Find(args); err == nil && known != root {
		return fmt.Sprintf("see %q", known.CommandPath()+" --help")
	}
	for _, arg := range args {
		if near := root.SuggestionsFor(arg); len(near) > 0 {
			return fmt.Sprintf("did you mean %q?", near[0])
		}
	}
	return `see "pipeline --help"`
}

// fail tells an error as `error:` and `hint:` and returns its exit code.
func (c *command) fail(err error) int {
	tell(c.err, err)
	var locked *ledger.LockedError
	switch {
	case errors.As(err, &locked):
		return engine.ExitLocked
	case fault.Is(err, fault.Config):
		return engine.ExitUsage
	}
	return engine.ExitStopped
}

// tell writes errors, each once, a line each, with what to do. That the user
// insisted on stopping is no error, and an exit code was told already.
func tell(w io.Writer, errs ...error) {
	told := map[string]bool{}
	once := func(kind, text string) {
		if line := kind + ": " + text + "\n"; !told[line] {
			told[line] = true
			fmt.Fprint(w, line)
		}
	}
	for _, err := range apart(errs) {
		if _, ok := err.(exit); ok || errors.Is(err, context.Canceled) {
			continue
		}
		for line := range strings.Lines(err.Error()) {
			once("error", strings.TrimSuffix(line, "\n"))
		}
		var locked *ledger.LockedError
		switch f := fault.As(err); {
		case errors.As(err, &locked):
			once("hint", "wait for it to end, or stop it; two runs of one pipeline would write the same files")
		case f != nil && f.Hint != "":
			once("hint", f.Hint)
		}
	}
}

// apart returns the errors with those that join several taken apart.
func apart(errs []error) []error {
	var out []error
	for _, err := range errs {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			out = append(out, apart(joined.Unwrap())...)
		} else if err != nil {
			out = append(out, err)
		}
	}
	return out
}

// distinct returns the errors one by one, each once.
func distinct(errs []error) []error {
	type said struct{ text, hint string }
	seen := map[said]bool{}
	return slices.DeleteFunc(apart(errs), func(err error) bool {
		key := said{text: err.Error()}
		if f := fault.As(err); f != nil {
			key.hint = f.Hint
		}
		twice := seen[key]
		seen[key] = true
		return twice
	})
}

// logger shows everything with --debug, else what plugins warn of.
func (c *command) logger() *slog.Logger {
	if c.debug {
		return slog.New(slog.NewTextHandler(c.screen, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(&warnings{w: c.screen})
}

// read reads the file; it starts nothing and evaluates nothing.
func (c *command) read() (*job.Job, error) {
	s, err := shard.Parse(c.shard)
	if err != nil {
		return nil, err
	}
	return job.Load(job.Options{File: c.file, Plugins: c.plugins, Values: c.values, Log: c.logger(), Shard: s, Profile: c.profile})
}

// shardFlag adds --shard to a verb that is about a part of the accounts.
func (c *command) shardFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.shard, "shard", "", "of the accounts, only part `i/n`, from 0/n on; it has a state of its own (docs/reference/shards.md)")
}

// load reads the file and evaluates what a run must know first. It starts
// nothing.
func (c *command) load(ctx context.Context) (*job.Job, error) {
	j, err := c.read()
	if err != nil {
		return nil, err
	}
	if err := j.Settle(ctx); err != nil {
		return nil, errors.Join(err, c.closeJob(j))
	}
	return j, nil
}

// loadOffline is load with a plan of the sinks alone, for verbs that ask no
// server.
func (c *command) loadOffline(ctx context.Context) (*job.Job, error) {
	j, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	if err = j.Check(ctx); err == nil {
		err = j.PrepareOffline(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.closeJob(j))
	}
	return j, nil
}

// closePatience is how long plugins may take to end.
const closePatience = 15 * time.Second

// closeJob ends a job's plugins, also when the command's own context has ended.
func (c *command) closeJob(j *job.Job) error {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	return j.Close(ctx)
}
