package segments

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
)

// version is raised with every change that an older program can't read.
const version = 1

// State is where a task stands.
type State string

// The states.
const (
	Taken  State = "open"   // a worker has it, or had it and died
	Done   State = "done"   // its run came to its end
	Failed State = "failed" // its run was given up; another one may do better
)

// Manifest is what counts of a task: a message is done when the journal that
// this names says so, and no other way. It is one value of a bucket of NATS, so
// that replacing it is one step, which only the owner of the highest fence can
// make.
type Manifest struct {
	Version int    `json:"v"`
	Schema  int    `json:"schema"` // of the ledger's tables
	Task    string `json:"task"`
	// Fence is the number of the lease of who wrote it. The next owner has a
	// higher one.
	Fence uint64 `json:"fence"`
	Owner string `json:"owner"` // made anew by each Open: a fence alone doesn't tell two of one worker apart
	Run   int64  `json:"run"`
	// Commits counts how often the task's manifest was written.
	Commits uint64 `json:"commits"`
	State   State  `json:"state"`
	// Tries counts the owners of the run, the last one included, since
	// something was committed, but for those that gave the task back in good order: where
	// it grows, the task does its workers harm.
	Tries   int             `json:"tries,omitempty"`
	Outcome json.RawMessage `json:"outcome,omitempty"` // of the run, as who ran it told it

	// What the run asks of its ledger before it asks of messages: targets with
	// the checkpoints of their sinks, mailboxes, where they stand.
	Head ledger.Head `json:"head"`

	// The journal: a snapshot, what came after it, and what is too little for
	// an object.
	Snapshot *Object  `json:"snapshot,omitempty"`
	Segments []Object `json:"segments,omitempty"`
	Tail     *Tail    `json:"tail,omitempty"`
}

// Object is an immutable object of the store.
type Object struct {
	Key    string `json:"key"` // under Options.Prefix
	Octets int64  `json:"octets"`
	CRC    uint32 `json:"crc32c"`
}

// Tail is the end of the journal, in the manifest itself.
type Tail struct {
	Journal []byte `json:"journal"` // compressed
	CRC     uint32 `json:"crc32c"`
}

// Checkpoint returns the checkpoint that the sink of that name committed last
// at the target; nil when it committed none.
func (m *Manifest) Checkpoint(sink, target string) []byte {
	for _, t := range m.Head.Targets {
		if t.Sink == sink && t.Target == target {
			return t.Checkpoint
		}
	}
	return nil
}

// keyPrefix begins the keys of manifests.
const keyPrefix = "task."

// Key returns the key of a task's manifest.
func Key(task string) string { return keyPrefix + task }

// Decode reads a manifest.
func Decode(value []byte) (*Manifest, error) {
	m := &Manifest{}
	if err := json.Unmarshal(value, m); err != nil {
		return nil, fault.New(fault.Config, "the manifest of a task can't be read: %w", err).
			WithHint("something else writes to the bucket of the pipeline: give each pipeline a stream of its own")
	}
	if m.Version != version || m.Schema != ledger.Schema {
		return nil, fault.New(fault.Config, "task %s: its manifest has version %d.%d, this program knows %d.%d", m.Task, m.Version, m.Schema, version, ledger.Schema).
			WithHint("all workers and pipeline run must be of one version; or give the pipeline a new stream")
	}
	return m, nil
}

func (m *Manifest) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fault.Wrap(fault.Bug, err, "task %s: write its manifest", m.Task)
	}
	return b, nil
}

// objects are those that the manifest names.
func (m *Manifest) objects() []Object {
	var all []Object
	if m.Snapshot != nil {
		all = append(all, *m.Snapshot)
	}
	return append(all, m.Segments...)
}

// Load returns the manifest of a task; nil where there is none.
func Load(ctx context.Context, kv jetstream.KeyValue, task string) (*Manifest, error) {
	entry, err := kv.Get(ctx, Key(task))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "task %s: read its manifest", task)
	}
	return Decode(entry.Value())
}

// All yields the manifests of all tasks that ever began, in the order in which
// they were written last. The error ends the sequence.
func All(ctx context.Context, kv jetstream.KeyValue) iter.Seq2[*Manifest, error] {
	return func(yield func(*Manifest, error) bool) {
		w, err := kv.Watch(ctx, keyPrefix+"*", jetstream.IgnoreDeletes())
		if err != nil {
			yield(nil, fault.Wrap(fault.Unavailable, err, "read the manifests of the tasks"))
			return
		}
		defer func() { _ = w.Stop() }() // nothing more is wanted of it
		for {
			select {
			case <-ctx.Done():
				yield(nil, context.Cause(ctx))
				return
			case entry, open := <-w.Updates():
				if !open {
					yield(nil, fault.New(fault.Unavailable, "read the manifests of the tasks: the connection was closed"))
					return
				}
				if entry == nil { // those that there were are through
					return
				}
				m, err := Decode(entry.Value())
				if !yield(m, err) || err != nil {
					return
				}
			}
		}
	}
}

// objectKey names an object of a task: by its fence, so that no two owners ever
// write the same one, and counted.
func objectKey(task string, fence, n uint64) string { return fmt.Sprintf("%s/%d-%d", task, fence, n) }

// parseKey reads what objectKey made.
func parseKey(key string) (task string, fence uint64, ok bool) {
	task, rest, _ := strings.Cut(key, "/")
	var n uint64
	if _, err := fmt.Sscanf(rest, "%d-%d", &fence, &n); err != nil || objectKey(task, fence, n) != key {
		return "", 0, false
	}
	return task, fence, true
}
