// Package source is what the author of a source plugin imports: the interface
// and Serve. A source lists what a server has, as little of each message as is
// asked for, and fetches the messages that are still wanted.
package source

import (
	"context"
	"iter"
	"log/slog"
	"time"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Plugin describes a source to Serve. C is its config: a struct whose fields
// carry the tags of package spec.
type Plugin[C any] struct {
	Name     string        // as in "imap"; the executable is pipeline-source-NAME
	Version  string        // semantic version
	Summary  string        // one line for `plugin list` and the reference
	Provides message.Needs // what it can ever provide; the plan refuses what isn't in it

	// Open opens a session with a config that has been decoded and checked.
	// It may connect; what it returns is used by many goroutines at once.
	Open func(ctx context.Context, config C, env Env) (Opened, error)
}

// Env is what the host lends to a session.
type Env struct {
	Name  string         // the source's name in the file
	Log   *slog.Logger   // shown under the plugin's and the source's name
	Spool *message.Spool // for bodies that must be held
}

// Opened is a session and what is known of it now.
type Opened struct {
	Source   Source
	Lanes    int           // how many List and Fetch may run at once, at least 1: usually the connections
	Provides message.Needs // narrower than Plugin.Provides once the server has spoken; 0: the same
	URL      string        // address for ids in text, as in "imap://user@host"
	Notes    []string      // what the user should know, as in "the server grants 2 of 4 connections"

	// Budget is what the provider or the config grants this account; zero:
	// no bound. The host counts the octets of bodies, over runs as well, and
	// parks the account when the budget is used up.
	Budget Budget

	// Facts tell the server from another in the record of a run, as far as
	// the source knows: "address" (host:port as dialed), "ip", "tls" (the
	// version), "certificate_sha256" (hex, of the leaf as it came). Optional.
	Facts map[string]string

	// Finishes asks for Finish after each commit, for all that became
	// durable, even when the file wants nothing changed on the server: for a
	// source whose own memory of what was read moves on. It is asked too for
	// what earlier runs exported and is listed still: they may have ended
	// before. Source must be a Finisher.
	Finishes bool
}

// Budget is how much may be fetched in any period of a length: a sliding
// window, not a calendar's day.
type Budget struct {
	Bytes int64         // octets of bodies; 0: no bound
	Per   time.Duration // 0 means a day
}

// Source is one session. The host runs at most Lanes calls of List and Fetch
// at once, from several goroutines, and Mailboxes before any of them.
//
// An iterator's error is terminal: it is the last pair yielded, with a zero
// value, and says that what was yielded before isn't all. An iterator that ends
// without one says that it is. A message's own trouble is Fetched.Err. When the consumer breaks off
// or ctx is cancelled the source stops within a second and frees what it held.
type Source interface {
	// Mailboxes yields each mailbox once, in a stable order, with its state
	// as far as that costs no round trip a mailbox.
	Mailboxes(ctx context.Context) iter.Seq2[message.Mailbox, error]

	// List yields summaries in the order asked for, at most Limit, with the
	// fields of Needs that the server has. It never changes anything on the
	// server (I7).
	List(ctx context.Context, req ListRequest) iter.Seq2[message.Summary, error]

	// Fetch pulls batches of ids and answers every id that it pulled exactly
	// once, in any order: with a Message, valid until the next yield, or with
	// an Err: fault.Gone when the server has it no more, fault.Message when
	// this one can't be had.
	//
	// The next batch may be pulled while earlier ones are being answered.
	// When IDs ends, Fetch ends after the last answer.
	Fetch(ctx context.Context, req FetchRequest) iter.Seq2[Fetched, error]

	// Close ends the session. It is called once, when no call is running.
	Close() error
}

// ListRequest asks for summaries of one mailbox.
type ListRequest struct {
	Mailbox string // empty: the only one, where a source has one; else fault.Gone
	Needs   message.Needs
	IDs     []message.ID // only these; nil: all; empty: none, for the State alone. Those that aren't there are left out.
	After   *message.ID  // go on after this id, in the order of Order; nil: from the start
	Limit   int          // at most so many; 0: all
	Newest  bool         // newest first, else oldest first

	// Skip passes over so many, in the order asked for, before the first that
	// is yielded: for pages. No summaries of them are asked of the server.
	Skip int

	// Where are conditions that must all hold of a message that is wanted.
	// Of one that surely fails a condition, a source that can ask its server
	// yields Summary{ID, Fails: index+1} and nothing else: the message stays
	// in the count, and costs no summary. A source may ignore any condition:
	// the host judges every message itself. It never decides on a doubt: a
	// value that is missing or can't be read is no failure.
	Where []Condition

	// Among names the mailboxes that the run takes, where the mailbox
	// Overlaps: a message that is in several of them is listed in one, always
	// the same. nil: the mailbox as it stands.
	Among []string

	// Next names mailboxes that will be listed after this one, in this order
	// and with the same Needs, Where and Newest, so that a source can ask for
	// several in one round trip. It is a hint: the host may never come to
	// them, and what a source says of one is still told when that is listed.
	Next []string

	// State is called once, before the first summary, with what the server
	// said when it opened the mailbox for this listing. May be nil.
	State func(message.MailboxState)

	// GoesOn says that the request goes on with a listing that was begun
	// before: a source that has the mailbox open since need not open it anew,
	// and tells the State of then.
	GoesOn bool
}

// Condition compares one field of a message with a constant.
type Condition struct {
	Field string    // "date" (of the header), "internal_date", "size", "flags"; ignore what you don't know
	Op    string    // "<", "<=", ">", ">="; of flags "has", "lacks"
	Time  time.Time // of the dates
	Size  int64     // of size: octets
	Flag  string    // of flags: a system flag with its backslash, or a keyword
}

// FetchRequest asks for messages of one mailbox.
type FetchRequest struct {
	Mailbox string
	Needs   message.Needs // NeedBody, and what of the summary should come with it
	IDs     iter.Seq[[]message.ID]
}

// Fetched answers one id.
type Fetched struct {
	ID      message.ID
	Message *message.Message // nil when Err is set
	Err     error            // this message only

	// Instead is what the server sent in the message's place, beside Err: a
	// mail that it made up, a piece. It is kept with the dead letter, as far
	// as 64 KiB go.
	Instead []byte
}

// Laner is an optional power: a source whose server grants fewer connections
// than were configured lowers its lanes. Lanes is asked before each call.
type Laner interface {
	Lanes() int
}

// Finisher is an optional power: a source that can change messages on the
// server once they are exported, or wants to know that they are. It is the
// only verb that may change anything there (I7).
type Finisher interface {
	// Finish is told of messages that are durable in every sink that wanted
	// them, and in the ledger (I3), and does with them what the file says.
	// It answers every id exactly once, in any order. A message's own trouble
	// is Finished.Err: it is tried again in a later run; fault.Gone means
	// that there is nothing left to do. What is done already must be harmless
	// to do again: after a crash it is asked for once more.
	//
	// It runs beside List and Fetch, on one lane.
	Finish(ctx context.Context, req FinishRequest) iter.Seq2[Finished, error]
}

// FinishRequest names messages of one mailbox that are exported.
type FinishRequest struct {
	Mailbox string
	IDs     []message.ID // not empty
	Action  Action
}

// Action is what becomes of an exported message on the server. At most one of
// the fields is set; the zero Action only tells.
type Action struct {
	Flag   string // set this flag, as in \Seen or $Exported
	Move   string // move it to this mailbox: UTF-8, "/" between levels; made when missing
	Delete bool   // delete it for good
}

// IsZero reports whether nothing is to be changed.
func (a Action) IsZero() bool { return a == Action{} }

// Finished answers one id.
type Finished struct {
	ID  message.ID
	Err error // this message only
}
