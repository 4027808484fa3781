package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailhaul/pipeline/internal/browse"
	"github.com/mailhaul/pipeline/internal/job"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
)

type getFlags struct {
	lookFlags
	uid       uint32
	uidl      string
	messageID string
	as        string
	output    string
}

func (c *command) getCommand() *cobra.Command {
	var f getFlags
	cmd := &cobra.Command{
		Use:   "get SOURCE|URL [MAILBOX]",
		Short: "Fetch one message, now",
		Long: `Fetch one message, now, whether a run exported it or not. Nothing is changed on
the server, and no ledger is asked.

--as eml gives the octets as the server has them; json what the message is; msg,
or the name of another sink that writes files, the file of that sink.`,
		Example: `  pipeline get alice INBOX --uid 5 --as eml -o five.eml
  pipeline get box --uidl 000000015d3c --as msg -o mail.msg
  pipeline get alice INBOX --message-id '<a@b>' --as json
  pipeline get 'imaps://alice@imap.example.com/INBOX/;UID=5'`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return c.get(cmd.Context(), args, &f) },
	}
	flags := cmd.Flags()
	flags.Uint32Var(&f.uid, "uid", 0, "the message of this UID")
	flags.StringVar(&f.uidl, "uidl", "", "the message of this unique `id` (POP3)")
	flags.StringVar(&f.messageID, "message-id", "", "the message with this Message-ID header")
	flags.StringVar(&f.as, "as", "eml", "eml, json, msg, or another sink that writes files")
	flags.StringVarP(&f.output, "output", "o", "", "write to this `file`; - is standard output")
	f.addURL(cmd)
	return cmd
}

func (c *command) get(ctx context.Context, args []string, f *getFlags) error {
	named := 0
	for _, set := range []bool{f.uid != 0, f.uidl != "", f.messageID != ""} {
		if set {
			named++
		}
	}
	url := browse.IsURL(args[0])
	if named > 1 || named == 0 && !url {
		return fault.New(fault.Config, "which message?").WithHint("name it by one of --uid, --uidl and --message-id, or by a URL with ;UID= or ;UIDL=")
	}
	var changes []job.Change
	if f.uid != 0 {
		changes = append(changes, job.Change{Flag: "--uid", Key: "select.uids", Value: fmt.Sprint(f.uid)})
	}
	if f.uidl != "" {
		changes = append(changes, job.Change{Flag: "--uidl", Key: "select.uidls", Value: []string{f.uidl}})
	}
	if id := strings.Trim(f.messageID, "<> "); id != "" && strings.IndexFunc(id, unquotable) < 0 {
		// Where the server can search it finds the one in a million.
		changes = append(changes, job.Change{Flag: "--message-id", Key: "search", Value: fmt.Sprintf("HEADER Message-ID %q", id), Optional: true})
	}
	return c.look(ctx, args, &f.lookFlags, changes, func(l *looked) error {
		if url && named == 0 && !l.named {
			return fault.New(fault.Config, "which message?").WithHint("end the URL with /;UID=5, or name it by --uid, --uidl or --message-id")
		}
		w := browse.Wanted{UID: f.uid, UIDL: f.uidl, MessageID: f.messageID}
		return l.Get(ctx, l.mailbox, w, func(m *message.Message) error { return c.put(ctx, l, m, f) })
	})
}

// unquotable reports whether a character can't stand between quotes in a
// SEARCH.
func unquotable(r rune) bool { return r < 0x20 || r > 0x7E || r == '"' || r == '\\' }

// put writes the message where it is wanted.
func (c *command) put(ctx context.Context, l *looked, m *message.Message, f *getFlags) error {
	var write func(io.Writer) error
	switch f.as {
	case "eml":
		write = func(w io.Writer) error { return browse.WriteEML(w, m) }
	case "json":
		write = func(w io.Writer) error { return browse.WriteJSON(w, m, l.URL) }
	default:
		folder, err := os.MkdirTemp("", "pipeline-get")
		if err != nil {
			return fault.Wrap(fault.Full, err, "make a folder for the sink")
		}
		defer os.RemoveAll(folder)
		path, err := l.job.Convert(ctx, f.as, folder, m)
		if err != nil {
			return err
		}
		write = func(w io.Writer) error {
			file, err := os.Open(path)
			if err != nil {
				return err
			}
			defer file.Close()
			_, err = io.Copy(w, file)
			return err
		}
	}
	_, terminal := c.width()
	switch {
	case f.output != "" && f.output != "-":
		return toFile(f.output, write)
	case terminal && f.output == "" && f.as == "eml":
		w := browse.Harmless(c.out)
		if err := write(w); err != nil {
			_ = w.Flush()
			return err
		}
		return w.Flush()
	case terminal && f.output == "" && f.as != "json":
		return fault.New(fault.Config, "a .%s file is nothing for a terminal", f.as).WithHint("say where it should go: -o mail.%s", f.as)
	}
	return write(c.out)
}

// toFile writes a file whole or not at all. Nobody else may read it: it is
// somebody's mail.
func toFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".get-*") // mode 0600
	if err != nil {
		return fault.Wrap(fault.Full, err, "write %s", path)
	}
	defer os.Remove(f.Name())
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return fault.Wrap(fault.Full, err, "write %s", path)
	}
	return fault.Wrap(fault.Full, os.Rename(f.Name(), path), "write %s", path)
}
