package index

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
)

// task is a session of one task of several that write to an index in a bucket
// at once. It keeps lines as parts of its own in the books; object.Merge makes
// the index of them.
type task struct {
	rows
	target string // for people
}

func openTask(ctx context.Context, c Config, o target.Owner, checkpoint sink.Checkpoint) (*task, error) {
	at, err := target.Absolute(c.Path)
	if err != nil {
		return nil, err
	}
	var p objectPoint
	if checkpoint != nil {
		cp, err := readCheckpoint(checkpoint, at)
		if err != nil {
			return nil, err
		}
		p = *cp.Object
	}
	x := &task{rows: rows{lines: newEncoder(c.Detail == "structure")}, target: at}
	if x.place, err = target.TakeObjects(ctx, c.Path, true, o); err != nil {
		return nil, err
	}
	if err := x.open(ctx, p); err != nil {
		x.place.Close()
		return nil, err
	}
	return x, nil
}

// Flush makes the lines durable.
func (x *task) Flush(ctx context.Context) (sink.Checkpoint, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.failed != nil {
		return nil, x.failed
	}
	var p objectPoint
	if err := x.flush(ctx, &p); err != nil {
		x.failed = err
		return nil, err
	}
	return json.Marshal(objectCheckpoint{1, &p})
}

// Committed removes parts that were put together.
func (x *task) Committed(ctx context.Context, c sink.Checkpoint) error {
	cp, err := readCheckpoint(c, x.target)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.forget(ctx, *cp.Object)
}

// Close ends the session. What wasn't committed stays, and counts for nothing.
func (x *task) Close() error {
	x.place.Close()
	return nil
}

// Merge makes the next generation of the index of the lines that tasks left, in
// their order, and those that replace others in the places of these.
func (x *object) Merge(ctx context.Context, tasks []sink.TaskCheckpoint) (sink.Checkpoint, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.failed != nil {
		return nil, x.failed
	}
	points := make([]objectPoint, len(tasks))
	var owners []target.Task
	count := map[string][]target.Part{}
	for i, t := range tasks {
		owners = append(owners, target.Task{ID: t.Task, Fence: t.Fence, Done: t.Done})
		if t.Checkpoint == nil {
			continue
		}
		cp, err := readCheckpoint(t.Checkpoint, x.target)
		if err != nil {
			return nil, err
		}
		points[i] = *cp.Object
		count[linesStem] = append(count[linesStem], cp.Object.Lines...)
		count[pendingStem] = append(count[pendingStem], cp.Object.Pending...)
	}
	next, err := x.spoolFile()
	if err != nil {
		return nil, err
	}
	defer next.Close()
	length, err := x.gather(ctx, next, points)
	if err != nil {
		return nil, fault.Wrap(fault.Full, err, "make the index %s of the lines of %d tasks", x.target, len(tasks))
	}
	if err := x.publish(ctx, next, length); err != nil {
		return nil, err
	}
	if err := x.place.Sweep(ctx, owners, count); err != nil {
		return nil, err
	}
	return json.Marshal(objectCheckpoint{1, &x.committed})
}

// gather writes the lines of all tasks. Those of tasks without lines that
// replace others are passed on as they are, without a look.
func (x *object) gather(ctx context.Context, next io.Writer, points []objectPoint) (int64, error) {
	w := bufio.NewWriterSize(next, spill)
	length := int64(0)
	var plain []target.Part
	pass := func() error {
		r := x.place.ReadParts(ctx, linesStem, plain)
		defer r.Close()
		n, err := io.Copy(w, r)
		length, plain = length+n, nil
		return err
	}
	for _, p := range points {
		if len(p.Pending) == 0 {
			plain = append(plain, p.Lines...)
			continue
		}
		if err := pass(); err != nil {
			return 0, err
		}
		n, err := x.settle(ctx, w, p)
		if err != nil {
			return 0, err
		}
		length += n
	}
	if err := pass(); err != nil {
		return 0, err
	}
	return length, w.Flush()
}

// settle writes the lines of one task, with those that replace others in their
// places.
func (x *object) settle(ctx context.Context, w io.Writer, p objectPoint) (int64, error) {
	pending, n, err := x.held(ctx, p.Pending)
	if err != nil {
		return 0, err
	}
	defer pending.Close()
	lines := x.place.ReadParts(ctx, linesStem, p.Lines)
	defer lines.Close()
	return replace(w, lines, pending, n, 0)
}

// held puts lines that replace others where they can be read in any order.
func (x *object) held(ctx context.Context, parts []target.Part) (*os.File, int64, error) {
	f, err := x.spoolFile()
	if err != nil {
		return nil, 0, err
	}
	r := x.place.ReadParts(ctx, pendingStem, parts)
	defer r.Close()
	n, err := io.Copy(f, r)
	if err != nil {
		f.Close()
		return nil, 0, fault.Wrap(fault.Full, err, "read the lines that replace others in the index %s", x.target)
	}
	return f, n, nil
}
