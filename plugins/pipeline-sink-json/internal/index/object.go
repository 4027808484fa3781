package index

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"strconv"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
)

// object is a session whose index is an object in a bucket, where nothing can
// be appended to. The lines of a run are kept as numbered parts in the books;
// the checkpoint names those that count. At the end, or when many lines wait
// that replace others, they are merged with the index into its next
// generation, which takes its place in one step and says of which point it was
// made: who opens the index at that point knows that it is further.
type object struct {
	rows
	name   string // of the index, beside the books
	spool  *message.Spool
	target string // for people

	// Under the mutex of rows.
	generation int64
	length     int64       // of the index
	committed  objectPoint // what the ledger has, as far as we were told
}

// objectPoint is a state that can be gone back to.
type objectPoint struct {
	Generation int64         `json:"generation"`
	Length     int64         `json:"length"` // octets of the index
	Lines      []target.Part `json:"lines"`
	Pending    []target.Part `json:"pending"` // whose lines replace others
}

// objectCheckpoint is the token of an index in a bucket.
type objectCheckpoint struct {
	Version int          `json:"v"`
	Object  *objectPoint `json:"object"`
}

// The parts' names, and what is noted with an index: which generation it is,
// and of which point it was made.
const (
	linesStem, pendingStem   = "lines", "pending"
	noteGeneration, noteFrom = "generation", "from"
)

func openObject(ctx context.Context, c Config, o target.Owner, checkpoint sink.Checkpoint) (*object, error) {
	at, err := target.Absolute(c.Path)
	if err != nil {
		return nil, err
	}
	var cp objectCheckpoint
	if checkpoint != nil {
		if cp, err = readCheckpoint(checkpoint, at); err != nil {
			return nil, err
		}
	}
	x := &object{rows: rows{lines: newEncoder(c.Detail == "structure")}, name: path.Base(at), target: at, spool: o.Spool}
	if x.place, err = target.TakeObjects(ctx, c.Path, true, o); err != nil {
		return nil, err
	}
	if cp.Object == nil {
		err = x.begin(ctx, o.Rewrite)
	} else {
		err = x.rollTo(ctx, *cp.Object)
	}
	if err != nil {
		x.place.Close()
		return nil, err
	}
	return x, nil
}

func readCheckpoint(b []byte, at string) (objectCheckpoint, error) {
	var cp objectCheckpoint
	if err := json.Unmarshal(b, &cp); err != nil || cp.Version != 1 || cp.Object == nil {
		return cp, fault.New(fault.Bug, "the checkpoint %q of the index %s can't be read", b, at)
	}
	return cp, nil
}

// begin starts with an empty index; see index.begin.
func (x *object) begin(ctx context.Context, rewrite bool) error {
	if x.place.Adopted && !rewrite {
		if err := x.place.SetAside(ctx, x.name, "orphaned.jsonl"); err != nil && !errors.Is(err, target.ErrMissing) {
			return err
		}
		for _, stem := range []string{linesStem, pendingStem} { // which weren't merged yet
			if err := x.place.SetAsideParts(ctx, stem); err != nil {
				return err
			}
		}
	}
	if err := x.place.Remove(ctx, x.name); err != nil {
		return err
	}
	return x.open(ctx, objectPoint{Generation: 1})
}

// rollTo brings the index to a committed point: forward when its next
// generation is there, back when parts are there that don't count.
func (x *object) rollTo(ctx context.Context, p objectPoint) error {
	size, notes, err := x.place.Noted(ctx, x.name)
	if err != nil && !errors.Is(err, target.ErrMissing) {
		return err
	}
	generation, _ := strconv.ParseInt(notes[noteGeneration], 10, 64) // 0: it isn't one of ours
	switch {
	case err != nil && p.Length == 0:
	case err == nil && generation == p.Generation && size == p.Length:
	case err == nil && generation == p.Generation+1 && notes[noteFrom] == p.digest():
		p = objectPoint{Generation: generation, Length: size}
	case err == nil && generation > p.Generation:
		return fault.New(fault.Config, "the index %s is of generation %d, the ledger knows %d: the ledger is older", x.target, generation, p.Generation).
			WithHint("put the ledger back that belongs to it, or write everything anew with --rewrite").WithKey("path")
	default:
		return fault.New(fault.Config, "the index %s isn't as it was left: the ledger committed %d octets of generation %d, it has %d of %d", x.target, p.Length, p.Generation, size, generation).
			WithHint("put it back as it was, or write everything anew with --rewrite").WithKey("path")
	}
	if err := x.open(ctx, p); err != nil {
		return err
	}
	if len(p.Pending) > 0 {
		return x.merge(ctx)
	}
	return nil
}

func (x *object) open(ctx context.Context, p objectPoint) error {
	if err := x.rows.open(ctx, p); err != nil {
		return err
	}
	x.generation, x.length, x.committed = p.Generation, p.Length, p
	return nil
}

// digest stands for a point in what is noted with the generation made of it.
func (p objectPoint) digest() string {
	b, err := json.Marshal(p)
	if err != nil { // numbers can always be marshalled
		panic(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// Flush makes the lines durable.
func (x *object) Flush(ctx context.Context) (sink.Checkpoint, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.failed != nil {
		return nil, x.failed
	}
	p := objectPoint{Generation: x.generation, Length: x.length}
	err := x.flush(ctx, &p)
	if err == nil {
		err = x.writeWinners(ctx, p)
	}
	if err != nil {
		x.failed = err
		return nil, err
	}
	return json.Marshal(objectCheckpoint{1, &p})
}

// winnersName is the object that says which parts count: for who reads the
// bucket without the ledger.
const winnersName = "index.json"

func (x *object) writeWinners(ctx context.Context, p objectPoint) error {
	b, err := json.Marshal(objectCheckpoint{1, &p})
	if err != nil {
		return fault.Wrap(fault.Bug, err, "describe the parts of the index")
	}
	return x.place.Write(ctx, winnersName, append(b, '\n'), false)
}

// Committed remembers the checkpoint, and merges when many lines wait to
// replace others: their places are held in memory (I5).
func (x *object) Committed(ctx context.Context, c sink.Checkpoint) error {
	cp, err := readCheckpoint(c, x.target)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.failed != nil || cp.Object.Generation != x.generation {
		return x.failed // told again, after the swap
	}
	x.committed = *cp.Object
	err = x.forget(ctx, x.committed)
	if err == nil && x.replaced >= maxReplaced && len(x.committed.Pending) > 0 {
		err = x.merge(ctx)
	}
	x.failed = err
	return err
}

// merge makes the next generation of what is committed and puts it in place.
func (x *object) merge(ctx context.Context) error {
	pending, n, err := x.held(ctx, x.committed.Pending)
	if err != nil {
		return err
	}
	defer pending.Close()
	next, err := x.spoolFile()
	if err != nil {
		return err
	}
	defer next.Close()
	length, err := x.stage(ctx, next, pending, n)
	if err != nil {
		return fault.Wrap(fault.Full, err, "make the next generation of the index %s", x.target)
	}
	return x.publish(ctx, next, length)
}

// publish puts the next generation of what is committed in place.
func (x *object) publish(ctx context.Context, next io.ReaderAt, length int64) error {
	from := x.committed
	to := objectPoint{Generation: from.Generation + 1, Length: length}
	err := x.place.Publish(ctx, x.name, next, length, map[string]string{
		noteGeneration: strconv.FormatInt(to.Generation, 10), noteFrom: from.digest(),
	})
	if err == nil {
		err = x.writeWinners(ctx, to)
	}
	if err == nil {
		err = errors.Join(x.added.Drop(ctx, from.Lines), x.pending.Drop(ctx, from.Pending))
	}
	if err != nil {
		return err
	}
	x.generation, x.length, x.committed, x.replaced = to.Generation, to.Length, to, 0
	return nil
}

func (x *object) spoolFile() (*os.File, error) { return x.spool.File() }

// stage writes what is committed, with the lines that replace others in their
// places.
func (x *object) stage(ctx context.Context, next io.Writer, pending io.ReaderAt, n int64) (int64, error) {
	lines := x.added.Read(ctx, x.committed.Lines)
	defer lines.Close()
	all := io.Reader(lines)
	if x.committed.Length > 0 {
		index, size, _, err := x.place.Published(ctx, x.name)
		if err != nil {
			return 0, err
		}
		defer index.Close()
		if size != x.committed.Length {
			return 0, fault.New(fault.Config, "the index %s isn't as it was left: it has %d octets, the ledger committed %d", x.target, size, x.committed.Length).
				WithHint("put it back as it was, or write everything anew with --rewrite").WithKey("path")
		}
		all = io.MultiReader(index, lines)
	}
	w := bufio.NewWriterSize(next, spill)
	length, err := replace(w, all, pending, n, x.replaced)
	if err != nil {
		return 0, err
	}
	return length, w.Flush()
}

// Close merges what is committed into the index. What wasn't committed stays
// behind, to be removed by the next Open.
func (x *object) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var err error
	if x.failed == nil && len(x.committed.Lines)+len(x.committed.Pending) > 0 {
		err = x.merge(context.Background())
	}
	x.place.Close()
	return err
}
