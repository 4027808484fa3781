package status

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/message"
)

// Letter is one dead letter: a message that a stage, a sink or its source
// refused for good. As JSON it is a line of `pipeline failed list --json`.
type Letter struct {
	Key     string `json:"key"` // short: names it on the command line
	Source  string `json:"source"`
	Mailbox string `json:"mailbox,omitempty"`
	UID     uint32 `json:"uid,omitempty"`
	UIDL    string `json:"uidl,omitempty"`
	ID      string `json:"id"`
	Sink    string `json:"sink,omitempty"` // that has to do without it; absent: all
	By      string `json:"by,omitempty"`   // stage or sink that refused it; absent: the source
	Reason  string `json:"reason"`         // a short word, the same for all of a kind
	Text    string `json:"text"`           // in full
	Subject string `json:"subject,omitempty"`
	From    string `json:"from,omitempty"`
	Date    string `json:"date,omitempty"`
	Octets  []byte `json:"-"` // what the server sent in the message's place
}

// Choice says which dead letters are meant. What is empty chooses all.
type Choice struct {
	Keys    []string // by Letter.Key
	Sources []string
	Reasons []string
}

// All reports whether all dead letters are meant.
func (c *Choice) All() bool { return len(c.Keys)+len(c.Sources)+len(c.Reasons) == 0 }

// Includes reports whether a dead letter is meant.
func (c *Choice) Includes(l *Letter) bool {
	return oneOf(l.Key, c.Keys) && oneOf(l.Source, c.Sources) && oneOf(l.Reason, c.Reasons)
}

func oneOf(s string, list []string) bool {
	for _, one := range list {
		if s == one {
			return true
		}
	}
	return len(list) == 0
}

// NewLetter makes a Letter of what the ledger has.
func NewLetter(id message.ID, sink string, l ledger.Letter) Letter {
	return Letter{
		Key: id.Hash(), Source: id.Source, Mailbox: id.Mailbox, UID: id.UID, UIDL: id.UIDL, ID: id.String(), Sink: sink,
		By: l.Stage, Reason: l.Reason, Text: l.Text, Subject: l.Subject, From: l.From, Date: l.Date, Octets: l.Octets,
	}
}

// Letters calls f for each dead letter of a pipeline that is meant, by source,
// mailbox and id. Without a ledger there is none.
func Letters(ctx context.Context, state, name string, c Choice, f func(Letter) error) (err error) {
	l, err := ledger.View(ctx, state, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return l.Letters(ctx, func(id message.ID, sink string, letter ledger.Letter) error {
		made := NewLetter(id, sink, letter)
		if !c.Includes(&made) {
			return nil
		}
		return f(made)
	})
}

// Show writes everything that is known of a dead letter.
func (l *Letter) Show(w io.Writer) {
	line := func(what, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %-8s %s\n", what, Harmless(value))
		}
	}
	fmt.Fprintf(w, "%s\n", l.Key)
	line("source", l.Source)
	line("mailbox", l.Mailbox)
	line("id", l.ID)
	line("subject", l.Subject)
	line("from", l.From)
	line("date", l.Date)
	line("sink", l.Sink)
	line("by", l.by())
	line("reason", l.Reason)
	line("said", l.Text)
	if n := len(l.Octets); n > 0 {
		line("kept", fmt.Sprintf("%d octets that the server sent in its place: --octets writes them", n))
	}
}

// by says in words who refused the message.
func (l *Letter) by() string {
	if l.By == "" {
		return "the source"
	}
	return l.By
}

// Writer writes dead letters one after the other. Close comes after the last.
type Writer interface {
	Write(Letter) error
	Close() error
}

// NewJSON returns a writer of a JSON object a line.
func NewJSON(w io.Writer) Writer {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return jsonLines{enc}
}

type jsonLines struct{ enc *json.Encoder }

func (j jsonLines) Write(l Letter) error { return j.enc.Encode(l) }
func (j jsonLines) Close() error         { return nil }

// NewCSV returns a writer of CSV (RFC 4180) with a header.
func NewCSV(w io.Writer) Writer { return &csvLines{w: csv.NewWriter(w)} }

type csvLines struct {
	w     *csv.Writer
	begun bool
}

func (c *csvLines) head() error {
	if c.begun {
		return nil
	}
	c.begun = true
	return c.w.Write([]string{"key", "source", "mailbox", "uid", "uidl", "id", "sink", "by", "reason", "text", "subject", "from", "date"})
}

func (c *csvLines) Write(l Letter) error {
	if err := c.head(); err != nil {
		return err
	}
	uid := ""
	if l.UID != 0 {
		uid = strconv.FormatUint(uint64(l.UID), 10)
	}
	row := []string{l.Key, l.Source, l.Mailbox, uid, l.UIDL, l.ID, l.Sink, l.By, l.Reason, l.Text, l.Subject, l.From, l.Date}
	for i, cell := range row {
		// A spreadsheet takes these for a formula: a subject is anybody's text.
		if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
			row[i] = "'" + cell
		}
	}
	return c.w.Write(row)
}

func (c *csvLines) Close() error {
	if err := c.head(); err != nil {
		return err
	}
	c.w.Flush()
	return c.w.Error()
}
