// Package segments is the ledger of a task that any of many workers may run:
// what a run asks of a ledger is answered from a scratch file of SQLite on the
// worker's disk, and what it writes counts when a manifest in NATS names it.
//
// A transaction's statements are its journal. Before the scratch file has
// them, the journal is put into the object store and a new manifest that names
// it replaces the old one, on the condition that the old one is still that
// which this worker wrote (docs/adr/0015-shared-ledger.md). A worker whose task
// was taken by another fails there with ErrFenced, and nothing that it does
// afterwards counts, however long it was stopped.
//
// Who takes a task makes the scratch file anew: from the snapshot and the
// segments that the manifest names. A task that finds nothing to do needs no
// file: the manifest's Head answers it.
package segments

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/objects"
)

// Options say which task's ledger is opened, and where it is kept.
type Options struct {
	Task     string
	Fence    uint64 // of the lease; a manifest with a higher one is another owner's
	Run      int64
	Pipeline string // id of the pipeline, as it stands in the markers of targets

	Manifests jetstream.KeyValue
	Objects   *objects.Bucket
	Prefix    string // of the objects' names; "ledger/" when empty
	Dir       string // where the scratch file lies while it is open
}

// ErrFenced says that another worker has taken the task since: its lease was
// lost. What this one did and hasn't committed doesn't count. To be told with
// errors.Is.
var ErrFenced = errors.New("another worker has the task")

// Ledger is the ledger of one task, as engine.Ledger wants it.
type Ledger struct {
	o     Options
	ctx   context.Context // of the lease: nothing is committed after its end
	owner string

	// scratch is nil until something is asked that the Head doesn't know.
	scratch atomic.Pointer[ledger.Ledger]

	mu       sync.Mutex // one writer at a time; and one who opens the scratch file
	manifest *Manifest  // as it was written last
	revision uint64
	head     ledger.Head // the manifest's, and what came since
	changed  bool        // head isn't the manifest's
	later    bool        // what a transaction does may wait for the next one
	journals []byte      // the tail, unpacked
	objects  uint64      // made under this fence
	broken   error       // nothing can be written any more
	packer   compressor
	dir      string // of the scratch file
}

// Open takes the task's ledger for the owner of the fence: from here on, nobody
// with a lower fence can write to it. ctx is that of the lease: when it ends,
// nothing more is committed. The error is ErrFenced where another owner has a
// higher fence.
func Open(ctx context.Context, o Options) (*Ledger, error) {
	if o.Prefix == "" {
		o.Prefix = "ledger/"
	}
	l := &Ledger{o: o, ctx: ctx, owner: rand.Text()[:12]}
	if err := l.take(); err != nil {
		return nil, err
	}
	if err := l.unpackTail(); err != nil {
		return nil, err
	}
	return l, nil
}

// GiveUp ends the task's run as failed for the owner of the fence, without a
// look at what its ledger holds, which stays: for a task that can't be opened,
// or whose owners die of it.
func GiveUp(ctx context.Context, o Options, outcome json.RawMessage) error {
	l := &Ledger{o: o, ctx: ctx, owner: rand.Text()[:12]}
	if err := l.take(); err != nil {
		return err
	}
	return l.end(ctx, Failed, outcome)
}

// Yield commits that the task is given back in good order: its owner is none
// of those that it did harm.
func (l *Ledger) Yield() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.manifest.Tries <= 1 {
		return nil // one is no harm
	}
	if err := l.usable(); err != nil {
		return err
	}
	next := l.next()
	next.Tries--
	return l.commit(next)
}

// Pipeline returns the id that stands in the markers of the targets.
func (l *Ledger) Pipeline() string { return l.o.Pipeline }

// Manifest returns the manifest as it was written last. It is not to be
// changed.
func (l *Ledger) Manifest() *Manifest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.manifest
}

// Done commits that the task's run came to its end, with what is still to be
// written. outcome is what the coordinator is told; its form is the caller's.
func (l *Ledger) Done(ctx context.Context, outcome json.RawMessage) error {
	return l.end(ctx, Done, outcome)
}

// Fail commits that the task's run was given up.
func (l *Ledger) Fail(ctx context.Context, outcome json.RawMessage) error {
	return l.end(ctx, Failed, outcome)
}

func (l *Ledger) end(ctx context.Context, s State, outcome json.RawMessage) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	next := l.next()
	next.State, next.Outcome = s, outcome
	if len(next.Segments) > fewSegments && l.scratch.Load() != nil {
		return l.snapshot(ctx, next)
	}
	return l.commit(next)
}

// Close lets go of the scratch file. It writes nothing: what Done or Fail
// didn't commit is as after a crash.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = fault.New(fault.Bug, "task %s: its ledger is closed", l.o.Task)
	}
	return l.closeScratch()
}

// usable is nil while something can be written.
func (l *Ledger) usable() error {
	if l.broken != nil {
		return l.broken
	}
	if l.ctx.Err() != nil {
		return l.ended()
	}
	return nil
}

// ended says that the lease has ended.
func (l *Ledger) ended() error {
	return fault.New(fault.Unavailable, "task %s: nothing is written down any more: %w", l.o.Task, context.Cause(l.ctx))
}

// next returns the manifest that is to follow, with the Head of now.
func (l *Ledger) next() *Manifest {
	m := *l.manifest
	m.Commits++
	m.Head = l.head.Clone()
	m.Segments = slices.Clip(m.Segments)
	return &m
}
