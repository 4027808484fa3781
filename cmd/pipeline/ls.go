package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mailhaul/pipeline/internal/browse"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// pageSize is how many messages a page has that a person reads.
const pageSize = 50

type lsFlags struct {
	lookFlags
	page, size  int
	sized       bool // --page-size was given
	order       string
	recursive   bool
	fields      string
	attachments bool
	count       bool
	json        bool
}

func (c *command) lsCommand() *cobra.Command {
	var f lsFlags
	cmd := &cobra.Command{
		Use:   "ls [SOURCE|URL [MAILBOX]]",
		Short: "Look into a source: its mailboxes, or the messages of one",
		Long: `Look into a source, without exporting anything or changing anything there.

Without a SOURCE: the sources of the file. With one: its mailboxes, with the
number of messages and the size of each. With a MAILBOX: its messages, a page at
a time. MAILBOX may be a pattern as in mailboxes.include: "Projects/**",
"special:sent".

A URL looks into a mailbox that stands in no file: imaps://alice@host/INBOX,
pops://alice@host. The password is asked for, or read from MAILHAUL_PASSWORD.

On a terminal this prints columns, a page of 50; elsewhere a line a message with
tabs between, all of them; --json prints a document for programs.`,
		Example: `  pipeline ls alice
  pipeline ls alice INBOX --order newest --attachments
  pipeline ls alice Projects --recursive --page 3 --page-size 50
  pipeline ls alice special:sent --fields uid,message_id,list_unsubscribe
  pipeline ls box --count
  pipeline ls imaps://alice@imap.example.com/INBOX`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.sized = cmd.Flags().Changed("page-size") || cmd.Flags().Changed("page")
			if len(args) == 0 {
				return c.lsSources(cmd.Context())
			}
			return c.ls(cmd.Context(), args, &f)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&f.page, "page", 1, "which page, from 1")
	flags.IntVar(&f.size, "page-size", pageSize, "messages a page; 0: all")
	flags.StringVar(&f.order, "order", "oldest", "oldest or newest first")
	flags.BoolVarP(&f.recursive, "recursive", "r", false, "the messages of the mailboxes below it, too")
	flags.StringVar(&f.fields, "fields", "", "show these fields, as in uid,date,message_id (docs/reference/ls.md has all)")
	flags.BoolVar(&f.attachments, "attachments", false, "names, types and sizes of attachments; none is fetched")
	flags.BoolVar(&f.count, "count", false, "only the number of messages")
	flags.BoolVar(&f.json, "json", false, "print JSON (docs/reference/ls.md)")
	f.add(cmd)
	return cmd
}

// lsSources shows what sources the file has. It asks no server.
func (c *command) lsSources(ctx context.Context) error {
	return c.withJob(ctx, func(_ context.Context, j *job.Job) error {
		w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
		for i := range j.File.Sources {
			fmt.Fprintf(w, "%s\t%s\n", j.File.Sources[i].Name, j.File.Sources[i].Plugin)
		}
		return w.Flush()
	})
}

func (c *command) ls(ctx context.Context, args []string, f *lsFlags) error {
	fields, err := f.check()
	if err != nil {
		return err
	}
	changes := f.changes()
	if extras := browse.Extras(fields); len(extras) > 0 {
		changes = append(changes, job.Change{Flag: "--fields", Key: "extra_fields", Value: extras})
	}
	return c.look(ctx, args, &f.lookFlags, changes, func(l *looked) error {
		if f.count {
			return c.lsCount(ctx, l, f)
		}
		if l.mailbox == "" && f.recursive || l.mailbox != "" || l.picked(f) {
			return c.lsMessages(ctx, l, f)
		}
		return c.lsMailboxes(ctx, l, f)
	})
}

// picked reports whether the flags speak of messages, so that a source's only
// mailbox is meant where none is named.
func (l *looked) picked(f *lsFlags) bool {
	return f.uids != "" || f.sequence != "" || len(f.uidls) > 0 || f.search != "" || f.fields != "" || f.attachments || f.sized
}

// check says what is wrong with the flags before a server is asked.
func (f *lsFlags) check() ([]browse.Field, error) {
	switch {
	case f.page < 1:
		return nil, fault.New(fault.Config, "--page %d: pages are counted from 1", f.page)
	case f.size < 0:
		return nil, fault.New(fault.Config, "--page-size %d: it can't be less than 0, which stands for all", f.size)
	case f.size == 0 && f.page > 1:
		return nil, fault.New(fault.Config, "--page %d: with --page-size 0 there is one page", f.page)
	case f.order != "oldest" && f.order != "newest":
		return nil, fault.New(fault.Config, "--order %q isn't known", f.order).WithHint("use oldest or newest")
	}
	return f.columns("")
}

// columns returns the fields to show. base is the source's address.
func (f *lsFlags) columns(base string) ([]browse.Field, error) {
	fields := browse.Standard()
	if f.fields != "" {
		var err error
		if fields, err = browse.ParseFields(f.fields, base); err != nil {
			return nil, err
		}
	}
	if f.attachments {
		more, err := browse.ParseFields("attachments", base)
		if err != nil {
			return nil, err
		}
		fields = append(fields, more...)
	}
	return fields, nil
}

func (c *command) lsCount(ctx context.Context, l *looked, f *lsFlags) error {
	t, err := l.Count(ctx, l.mailbox, f.recursive)
	if err != nil {
		return err
	}
	if f.json {
		return browse.JSONOfTotals(c.out, l.Source.Name, l.mailbox, t)
	}
	_, err = fmt.Fprintln(c.out, t.Messages)
	return err
}

func (c *command) lsMailboxes(ctx context.Context, l *looked, f *lsFlags) error {
	boxes, err := l.Mailboxes(ctx, "")
	if err != nil {
		return err
	}
	width, terminal := c.width()
	switch {
	case f.json:
		return browse.JSONOfMailboxes(c.out, l.Source.Name, boxes, l.Exports)
	case terminal:
		return browse.TableOfMailboxes(c.out, boxes, width, l.Exports)
	}
	return browse.LinesOfMailboxes(c.out, boxes)
}

func (c *command) lsMessages(ctx context.Context, l *looked, f *lsFlags) error {
	fields, err := f.columns(l.URL)
	if err != nil {
		return err
	}
	boxes, err := l.Find(ctx, l.mailbox, f.recursive || l.mailbox == "")
	if err != nil {
		return err
	}
	width, terminal := c.width()
	q := browse.Query{Mailboxes: boxes, Fields: fields, Page: f.page, Size: f.size, Newest: f.order == "newest"}
	if !terminal && !f.sized {
		q.Size = 0 // a program wants all
	}
	var w browse.Writer
	switch {
	case f.json:
		w = browse.NewJSON(c.out, fields, len(boxes) > 1)
	case terminal:
		w = browse.NewTable(c.out, fields, width, len(boxes) > 1)
	default:
		w = browse.NewLines(c.out, fields, len(boxes) > 1)
	}
	return l.Messages(ctx, q, w)
}

// width returns how wide standard output is, and whether a person reads it.
func (c *command) width() (int, bool) {
	f, ok := c.out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		return width, true
	}
	return 80, true
}
