// Package sink is what the author of a sink plugin imports: the interface and
// Serve. A sink writes messages to a target, and promises at Flush that what
// was written will still be there after a power cut.
package sink

import (
	"context"
	"log/slog"

	"github.com/mailhaul/pipeline/pkg/message"
)

// Plugin describes a sink to Serve. C is its config: a struct whose fields
// carry the tags of package spec.
type Plugin[C any] struct {
	Name    string // as in "eml"; the executable is pipeline-sink-NAME
	Version string // semantic version
	Summary string // one line for `plugin list` and the reference

	// Prepare says, from the config alone, where the sink writes and what it
	// needs. It touches nothing: no file, no network. The host remembers the
	// answer, so that a run with nothing to write need not start the sink.
	Prepare func(config C) (Prepared, error)

	// Open opens a session with a config that has been decoded and checked.
	Open func(ctx context.Context, config C, state State) (Sink, error)
}

// Prepared is what follows from a sink's config alone.
type Prepared struct {
	Target string        // where it writes: an absolute path, a bucket; ledger rows key on it
	Lanes  int           // how many Writes it takes at once; 0 means 1
	Needs  message.Needs // what it reads of a message; NeedBody for a data sink
	Record bool          // a record sink: no bodies, Message.Record instead

	// Manifest says that Target is a directory, or a place in a bucket, with the
	// manifest of package target, whose rows name every file that Write makes: the host can read
	// them back, as `rehash` wants. The receipt's path is the row's, or, where
	// a message makes several files, the folder that they stand in.
	Manifest bool

	// Fenced says that a session heeds State.Fence: several machines may then
	// write to Target at once, a task each.
	Fenced bool
}

// Checkpoint is a sink's own opaque token for what it has made durable. nil
// means that nothing was ever committed.
type Checkpoint []byte

// State is what the ledger knows of a sink and its Target.
type State struct {
	Name       string     // the sink's name in the file
	Pipeline   string     // the pipeline's id, for the marker in the Target
	Checkpoint Checkpoint // of the last commit
	Known      bool       // the ledger has rows for this Target: its marker must be there
	Adopt      bool       // the user said --adopt: take over a Target that isn't empty
	Rewrite    bool       // the user said --rewrite: everything is written anew
	Log        *slog.Logger
	Spool      *message.Spool

	// Fence is zero where the session has the Target for itself. Else it
	// writes for one owner of one task, while others write for other tasks;
	// only a sink that says Fenced gets one.
	Fence Fence

	// Store is the socket of the store of objects where the sink's path is the
	// address of a bucket, for pkg/target: hand it on in target.Owner.
	Store string
}

// Fence tells the owners of tasks apart, where the work on one Target is
// divided among machines. A task has one owner at a time; but one who was cut
// off may go on without knowing that the task is another's by now, and what he
// has sent may arrive later still. So a session with a fence
//
//   - writes everything to names that carry the fence, so that no owner's output
//     ever takes the place of another's;
//   - opens with the checkpoint of an earlier owner, and leaves what that doesn't
//     name where it is: Merge clears it away;
//   - shares with others only what is the same for all of them, as the marker
//     of the Target, made on a condition.
//
// A checkpoint names what counts, and the host keeps only those of owners who
// have the task.
type Fence struct {
	Task   string // names the task: at most 64 of a-z, 0-9 and "-"
	Number uint64 // of the owner: a later owner of the task has a higher one
}

// TaskCheckpoint is what counts of a task.
type TaskCheckpoint struct {
	Task       string
	Fence      uint64     // number of the last owner's fence
	Checkpoint Checkpoint // of the last commit; nil: nothing was ever committed
	Done       bool       // the last owner ended the task, and writes no more
}

// Receipt says where a message went.
type Receipt struct {
	Path   string // relative to the Target, "/" between levels; empty for sinks without paths
	Octets int64  // written
}

// Sink is one session. The host runs at most Lanes Writes at once, from
// several goroutines.
type Sink interface {
	// Write stores one message. It reads the body to its end. It may return
	// before the message is durable. A body that ends in an error means that
	// the Write never happened: discard what was written, return the error.
	// The same message again gives the same result in the same place, and
	// what is there from an earlier crash is replaced atomically, never
	// trusted (I2).
	//
	// An error of class Message is this message's dead letter; Full stops
	// the run cleanly; any other error fails the sink.
	Write(ctx context.Context, m *message.Message) (Receipt, error)

	// Flush makes every Write that has returned durable, and returns a
	// checkpoint that covers exactly those. It is never called while a Write
	// runs on this session, but for a Sealer. After a crash the session is opened with the
	// checkpoint that the ledger committed last, perhaps not the newest.
	//
	// Where the target refuses single messages for good only now, Flush makes
	// the others durable, and returns a checkpoint that covers those with a
	// message.Refusals of the rest.
	Flush(ctx context.Context) (Checkpoint, error)

	// Close ends the session without making anything durable. It is called
	// once, when no call is running.
	Close() error
}

// Committer is an optional power: Committed is called after the ledger has
// committed a checkpoint, and before the next Flush. A sink that stages the
// next generation of a file swaps it in here. It may never be called, after a
// crash: then Open with that checkpoint rolls forward.
type Committer interface {
	Committed(ctx context.Context, c Checkpoint) error
}

// Sealer is an optional power of a sink that can make one epoch durable while it
// writes the next one. Seal marks the end of an epoch: it takes no Write's place
// and waits for no disk or server, so that the host can go on at once.
//
// Seal is called while no Write runs, and Flush is the next of the two to be
// called: there are never two Seals in a row. From Seal's return on, Writes of the
// next epoch may run, before Flush and beside it. That Flush makes durable, and its
// checkpoint covers, exactly the Writes that had returned before Seal, and its
// message.Refusals are of those. What came later is for the Flush after the next
// Seal: opened with the checkpoint, a session knows nothing of it. A Flush that no
// Seal came before is as Sink says.
//
// Committed may run beside Writes of the next epoch, as it may without a Seal; it
// comes before the next Seal. An error of Seal, as one of Flush, is the session's
// end: neither is called again, only Close, which makes nothing durable, also not
// what was sealed. The host seals only sinks that get bodies, and may leave it:
// Seal is never owed.
type Sealer interface {
	Seal(ctx context.Context) error
}

// Merger is an optional power of a sink that says Fenced. Merge makes of what
// tasks left in the Target what one session would have left, but for names that
// carry a fence: what stands in one file, as an index or a manifest, is made of
// what the checkpoints name, in the order of tasks. What no checkpoint names is
// removed where it is of a task in tasks and of a lower fence than its last, or
// of its last and the task is done. Output of other tasks stays.
//
// The session was opened without a fence, with the checkpoint that the last
// Merge returned; nil: there was none. Sessions with fences may run meanwhile.
// Merging again, with other tasks or the same, makes all of it anew. Committed
// is called when the returned checkpoint is kept.
type Merger interface {
	Merge(ctx context.Context, tasks []TaskCheckpoint) (Checkpoint, error)
}
