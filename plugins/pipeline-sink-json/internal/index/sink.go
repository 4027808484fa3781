package index

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
)

// index is a session. New lines are appended to the file; lines that replace
// earlier ones wait in a file beside it, and are merged into the next
// generation of the index after a commit: when there are many, else at Close.
// A crash before that leaves them to the next Open (DESIGN §4).
type index struct {
	path  string
	claim *target.Claim
	lines *encoder

	mu         sync.Mutex // Committed may come while the next epoch is written
	generation int64
	file       *log  // the index
	pending    *log  // the lines that replace others
	replaced   int   // lines in pending
	committed  point // what the ledger has, as far as we were told
	changed    bool  // since the last Flush
	failed     error // of a sync or a swap: nothing may be promised any more
}

// point is a state of the index that can be gone back to.
type point struct {
	Generation int64 `json:"generation"`
	Length     int64 `json:"length"`  // octets of the index
	Pending    int64 `json:"pending"` // octets of the lines that wait to replace others
}

type checkpoint struct {
	Version int `json:"v"`
	point
}

// Open opens the index as it was at the checkpoint, with all replacements up
// to it in place.
func Open(ctx context.Context, c Config, st sink.State) (sink.Sink, error) {
	p, err := Prepare(c)
	if err != nil {
		return nil, err
	}
	o := target.Owner{
		Sink: st.Name, Pipeline: st.Pipeline, Known: st.Known, Adopt: st.Adopt, Rewrite: st.Rewrite,
		Store: st.Store, Spool: st.Spool, Fence: target.Fence(st.Fence),
	}
	if target.IsAddress(c.Path) && st.Fence != (sink.Fence{}) {
		x, err := openTask(ctx, c, o, st.Checkpoint)
		if err != nil {
			return nil, err
		}
		return x, nil
	}
	if target.IsAddress(c.Path) {
		x, err := openObject(ctx, c, o, st.Checkpoint)
		if err != nil {
			return nil, err
		}
		return x, nil
	}
	var cp checkpoint
	if st.Checkpoint != nil {
		if err := json.Unmarshal(st.Checkpoint, &cp); err != nil || cp.Version != 1 || cp.Length < 0 || cp.Pending < 0 {
			return nil, fault.New(fault.Bug, "the checkpoint %q of the index %s can't be read", st.Checkpoint, p.Target)
		}
	}
	x := &index{path: p.Target, lines: newEncoder(c.Detail == "structure")}
	x.claim, err = target.Take(ctx, x.path, filepath.Join(filepath.Dir(x.path), target.Books, filepath.Base(x.path)), o, func() (string, error) { return occupant(x.path) })
	if err != nil {
		return nil, err
	}
	if st.Checkpoint == nil {
		err = x.begin(st.Rewrite)
	} else {
		err = x.rollTo(cp.point)
	}
	if err != nil {
		return nil, errors.Join(err, x.release())
	}
	return x, nil
}

func occupant(path string) (string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil || info.Size() == 0 && info.Mode().IsRegular() {
		return "", err
	}
	if info.IsDir() {
		return "", fault.New(fault.Config, "it is a directory, and the index is a file").
			WithHint("name a file, as in %s", filepath.Join(path, "index.jsonl")).WithKey("path")
	}
	return "a file of that name", nil
}

// Write adds the message's line.
func (x *index) Write(_ context.Context, m *message.Message) (sink.Receipt, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.failed != nil {
		return sink.Receipt{}, x.failed
	}
	b := x.lines.encode(m)
	to := x.file
	if m.Record != nil && m.Record.Replaces {
		to = x.pending
		x.replaced++
	}
	x.changed = true
	return sink.Receipt{Octets: int64(len(b))}, to.add(b)
}

// Flush makes the lines durable.
func (x *index) Flush(ctx context.Context) (sink.Checkpoint, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.failed == nil && x.changed {
		x.failed = errors.Join(x.file.sync(), x.pending.sync())
		if x.failed == nil {
			x.failed = x.claim.Check()
		}
		x.changed = false
	}
	if x.failed != nil {
		return nil, x.failed
	}
	return json.Marshal(checkpoint{1, x.now()})
}

// now is the state with every line written so far.
func (x *index) now() point { return point{x.generation, x.file.length, x.pending.length} }

// Committed remembers the checkpoint, and merges when enough lines wait: that
// bounds the memory that merging takes, and what is written again and again
// (I5).
func (x *index) Committed(_ context.Context, c sink.Checkpoint) error {
	var cp checkpoint
	if err := json.Unmarshal(c, &cp); err != nil || cp.Version != 1 {
		return fault.New(fault.Bug, "the checkpoint %q of the index %s can't be read", c, x.path)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.failed != nil {
		return x.failed
	}
	if cp.Generation != x.generation {
		return nil // told again, after the swap
	}
	x.committed = cp.point
	if cp.Pending > 0 && (x.replaced >= maxReplaced || cp.Pending >= cp.Length/4) {
		x.failed = x.merge()
	}
	return x.failed
}

// Close puts the committed replacements in place. What wasn't committed stays
// behind, to be cut off by the next Open.
func (x *index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var err error
	if x.failed == nil && x.committed.Pending > 0 {
		err = x.merge()
	}
	return errors.Join(err, x.release())
}

// release lets go of everything.
func (x *index) release() error {
	var errs []error
	for _, l := range []*log{x.file, x.pending} {
		if l != nil {
			errs = append(errs, l.file.Close())
		}
	}
	x.claim.Release()
	return target.DiskError(errors.Join(errs...), "close the index %s", x.path)
}
