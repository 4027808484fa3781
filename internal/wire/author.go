package wire

import (
	"context"
	"iter"
	"time"

	"github.com/mailhaul/pipeline/internal/pluginpb"
	"github.com/mailhaul/pipeline/pkg/message"
)

// The types in this file are the plugin's side of the contract as functions.
// The packages source, sink and stage fill them in from their authors'
// interfaces; they can't be those interfaces, since those packages import
// this one.

// Kind is what sort of plugin it is. The numbers are part of the wire
// contract.
type Kind int

// The kinds.
const (
	KindSource = Kind(pluginpb.Kind_KIND_SOURCE)
	KindSink   = Kind(pluginpb.Kind_KIND_SINK)
	KindStage  = Kind(pluginpb.Kind_KIND_STAGE)
	// KindStore is the program that keeps output in object storage. It isn't
	// described, and never on this wire.
	KindStore Kind = 1 << 20
)

// String returns the kind as it stands in names of executables.
func (k Kind) String() string {
	switch k {
	case KindSource:
		return "source"
	case KindSink:
		return "sink"
	case KindStage:
		return "stage"
	case KindStore:
		return "store"
	}
	return "unknown"
}

// CapabilityCommitter is the capability of sinks that want to hear of commits.
const CapabilityCommitter = "committer"

// Description is what a plugin says of itself.
type Description struct {
	Kind         Kind
	Name         string
	Version      string
	Summary      string
	Schema       []byte // JSON Schema of the config
	Provides     message.Needs
	Capabilities []string
	Protocol     int // of the contract, as it was agreed; set by the host
}

// Author is a plugin as its author wrote it.
type Author struct {
	Description
	// Prepare may be nil.
	Prepare func(config []byte) (Prepared, error)
	Open    func(ctx context.Context, o Opening) (*Session, error)
}

// Prepared is what follows from a config alone.
type Prepared struct {
	Target     string
	Lanes      int
	Needs      message.Needs
	Record     bool
	Changes    bool
	NeedsWhole bool
	Manifest   bool
	Fenced     bool
}

// Opening is what a session is opened with.
type Opening struct {
	Name   string
	Config []byte
	Spool  *message.Spool
	// Secret asks the host for the value of a secret of this session.
	Secret func(ctx context.Context, ref string) (string, error)
	// Store asks the host to keep a new value.
	Store func(ctx context.Context, ref, value string) error
	Sink  SinkState
}

// SinkState is what the ledger knows of a sink.
type SinkState struct {
	Pipeline   string
	Checkpoint []byte // nil: nothing was ever committed
	Known      bool
	Adopt      bool
	Rewrite    bool
	Store      string // socket of the store of objects, where the target is in a bucket
	Fence      Fence
}

// Fence has the fields of sink.Fence.
type Fence struct {
	Task   string
	Number uint64
}

// TaskCheckpoint has the fields of sink.TaskCheckpoint.
type TaskCheckpoint struct {
	Task       string
	Fence      uint64
	Checkpoint []byte
	Done       bool
}

// Session is an open session: its functions, and what Open found. Those of
// other kinds of plugin are nil.
type Session struct {
	Lanes    int
	Provides message.Needs
	URL      string
	Notes    []string
	Budget   Budget // of a source
	Finishes bool   // of a source: Finish is wanted after every commit
	Facts    map[string]string
	Close    func() error

	// Of a source.
	Mailboxes func(ctx context.Context) iter.Seq2[message.Mailbox, error]
	List      func(ctx context.Context, req ListRequest) iter.Seq2[message.Summary, error]
	Fetch     func(ctx context.Context, req FetchRequest, answer func(Fetched) error) error
	LanesNow  func() int                                                                      // may be nil
	Finish    func(ctx context.Context, req FinishRequest, answer func(Finished) error) error // may be nil

	// Of a sink.
	Write     func(ctx context.Context, m *message.Message) (path string, octets int64, err error)
	Flush     func(ctx context.Context) ([]byte, error)
	Seal      func(ctx context.Context) error                                   // may be nil
	Committed func(ctx context.Context, checkpoint []byte) error                // may be nil
	Merge     func(ctx context.Context, tasks []TaskCheckpoint) ([]byte, error) // may be nil

	// Of a stage.
	Apply func(ctx context.Context, m *message.Message) (verdict int, err error)

	spool *message.Spool
}

// ListRequest has the fields of source.ListRequest.
type ListRequest struct {
	Mailbox string
	Needs   message.Needs
	IDs     []message.ID
	After   *message.ID
	Limit   int
	Newest  bool
	Skip    int
	Where   []Condition
	Among   []string
	State   func(message.MailboxState)
	GoesOn  bool
	Next    []string
}

// Condition has the fields of source.Condition.
type Condition struct {
	Field string
	Op    string
	Time  time.Time
	Size  int64
	Flag  string
}

// Budget has the fields of source.Budget.
type Budget struct {
	Bytes int64
	Per   time.Duration
}

// FetchRequest has the fields of source.FetchRequest.
type FetchRequest struct {
	Mailbox string
	Needs   message.Needs
	IDs     iter.Seq[[]message.ID]
}

// Fetched has the fields of source.Fetched.
type Fetched struct {
	ID      message.ID
	Message *message.Message
	Err     error
	Instead []byte
}

// mostInstead bounds Fetched.Instead on the wire.
const mostInstead = 64 << 10

// FinishRequest has the fields of source.FinishRequest.
type FinishRequest struct {
	Mailbox string
	IDs     []message.ID
	Action  Action
}

// Action has the fields of source.Action.
type Action struct {
	Flag   string
	Move   string
	Delete bool
}

// Finished has the fields of source.Finished.
type Finished struct {
	ID  message.ID
	Err error
}
