package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mailhaul/pipeline/internal/browse"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// passwordVariable is the environment variable with the password for a URL.
const passwordVariable = "MAILHAUL_PASSWORD"

// lookFlags say which source is looked into, and at which of its messages.
type lookFlags struct {
	insecure bool
	caFile   string
	uids     string
	sequence string
	uidls    []string
	search   string
}

// add adds all flags to a verb.
func (f *lookFlags) add(cmd *cobra.Command) {
	f.addURL(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.uids, "uids", "", "only these UIDs, a `set` as in 1:100,205,4000:*")
	flags.StringVar(&f.sequence, "sequence", "", "only these sequence or message numbers, a `set` as in 1:50")
	flags.StringArrayVar(&f.uidls, "uidl", nil, "only the message of this unique `id` (POP3); may be given more than once")
	flags.StringVar(&f.search, "search", "", "only what the server's SEARCH finds, as in 'SINCE 1-Jan-2024 NOT DELETED'")
}

// addURL adds those that are for a URL.
func (f *lookFlags) addURL(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.insecure, "insecure", false, "with a URL: go on without TLS, or with a certificate that doesn't check")
	flags.StringVar(&f.caFile, "ca-file", "", "with a URL: trust the authorities in this PEM `file` instead of the system's")
}

// changes is what the flags change in the source's config.
func (f *lookFlags) changes() (out []job.Change) {
	set := func(flag, key, value string) {
		if value != "" {
			out = append(out, job.Change{Flag: flag, Key: key, Value: value})
		}
	}
	set("--uids", "select.uids", f.uids)
	set("--sequence", "select.sequence", f.sequence)
	set("--search", "search", f.search)
	if len(f.uidls) > 0 {
		out = append(out, job.Change{Flag: "--uidl", Key: "select.uidls", Value: f.uidls})
	}
	return out
}

// looked is a source that is looked into, and the mailbox that was named.
type looked struct {
	browse.Source
	*job.Looked
	job     *job.Job
	mailbox string
	named   bool // a URL names one message
}

// look opens the source that the arguments name, hands it to f, and closes all.
func (c *command) look(ctx context.Context, args []string, f *lookFlags, changes []job.Change, do func(*looked) error) (err error) {
	l := &looked{}
	if len(args) > 1 {
		l.mailbox = args[1]
	}
	var j *job.Job
	if browse.IsURL(args[0]) {
		j, err = c.lookAtURL(ctx, l, args[0], f, changes)
	} else {
		if f.insecure || f.caFile != "" {
			return fault.New(fault.Config, "--insecure and --ca-file are for a URL").WithHint("write security, allow_plain and tls in the source's config")
		}
		if j, err = c.load(ctx); err == nil {
			l.Looked, err = j.Look(ctx, args[0], changes)
		}
	}
	if j != nil {
		defer func() { err = errors.Join(err, c.closeJob(j)) }()
	}
	if err != nil {
		return err
	}
	defer l.Opened.Source.Close()
	l.job = j
	for _, note := range l.Notes {
		fmt.Fprintf(c.err, "note: %s\n", browse.Safe(note))
	}
	l.Source = browse.Source{Name: l.Looked.Name, Source: l.Opened.Source, Provides: l.Opened.Provides, Narrowed: l.Looked.Narrowed, Vars: l.Looked.Vars}
	return do(l)
}

// lookAtURL opens the account of a URL, without any file.
func (c *command) lookAtURL(ctx context.Context, l *looked, word string, f *lookFlags, changes []job.Change) (*job.Job, error) {
	a, err := browse.ParseURL(word)
	if err != nil {
		return nil, err
	}
	if a.Mailbox != "" {
		if l.mailbox != "" && l.mailbox != a.Mailbox {
			return nil, fault.New(fault.Config, "the URL names mailbox %s, the argument %s", browse.Safe(a.Mailbox), browse.Safe(l.mailbox)).WithHint("name it once")
		}
		l.mailbox = a.Mailbox
	}
	l.named = a.UID != 0 || a.UIDL != ""
	if a.UID != 0 {
		changes = append(changes, job.Change{Flag: ";UID=", Key: "select.uids", Value: fmt.Sprint(a.UID)})
	}
	if a.UIDL != "" {
		changes = append(changes, job.Change{Flag: ";UIDL=", Key: "select.uidls", Value: []string{a.UIDL}})
	}
	password, err := c.password(a.Username + "@" + a.Host)
	if err != nil {
		return nil, err
	}
	j, err := job.Bare(job.Options{Plugins: c.plugins, Values: c.values, Log: c.logger()})
	if err != nil {
		return nil, err
	}
	host, _, _ := strings.Cut(a.Host, ":")
	l.Looked, err = j.LookAt(ctx, job.Account{
		Name: host, Plugin: a.Plugin, Config: a.Config(f.insecure, f.caFile),
		Password: func(context.Context) (string, error) { return password, nil },
	}, changes)
	return j, inURL(err)
}

// inURL turns what a plugin says of its config into words for who gave a URL.
func inURL(err error) error {
	f := fault.As(err)
	if f == nil || f.Class != fault.Config {
		return err
	}
	e := *f
	switch {
	case f.Key == "security":
		e.Hint = "write imaps:// or pops:// for TLS from the first octet, imap:// or pop:// for STARTTLS; --insecure if the network is yours"
	case strings.Contains(f.Hint, "tls.ca_file"):
		e.Hint = "name the authority's certificate with --ca-file"
	default:
		return err
	}
	return &e
}

// password returns the password for a URL: from the environment, else typed.
// It is never taken from the command line (I9).
func (c *command) password(who string) (string, error) {
	if p, ok := c.values.LookupEnv(passwordVariable); ok {
		return p, nil
	}
	in, ok := c.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", fault.New(fault.Config, "there is no password for %s", browse.Safe(who)).
			WithHint("set %s, or call it from a terminal, which asks for it", passwordVariable)
	}
	fmt.Fprintf(c.err, "Password for %s: ", browse.Safe(who))
	// An interrupt would leave the terminal without echo.
	if state, err := term.GetState(int(in.Fd())); err == nil {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, os.Interrupt)
		defer signal.Stop(signals)
		done := make(chan struct{})
		defer close(done)
		go func() {
			select {
			case <-signals:
				_ = term.Restore(int(in.Fd()), state)
				fmt.Fprintln(c.err)
				os.Exit(1)
			case <-done:
			}
		}()
	}
	p, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(c.err)
	if err != nil {
		return "", fault.New(fault.Config, "read the password: %w", err)
	}
	return string(p), nil
}
