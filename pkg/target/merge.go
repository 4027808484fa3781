package target

import (
	"bufio"
	"context"
	"encoding/json"
	"hash/maphash"
	"io"
	"slices"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/naming"
)

// Task is what counts of a task, as sink.Merger gets it.
type Task struct {
	ID         string
	Fence      uint64 // number of its last owner's
	Done       bool   // who ended it, and writes no more
	Checkpoint []byte // nil: it has written nothing
}

// Merger is what a target of files has that several machines may write to.
type Merger interface {
	// Merge makes one manifest of those of the tasks, in their order, and
	// removes what owners left behind who lost their task: see sink.Merger.
	Merge(ctx context.Context, tasks []Task) ([]byte, error)
}

// Merge merges what tasks left in a target, if it is one that several machines
// may write to.
func Merge(ctx context.Context, f Files, tasks []Task) ([]byte, error) {
	m, ok := f.(Merger)
	if !ok {
		return nil, fault.New(fault.Config, "a target in a file system has nothing of tasks to merge").
			WithHint("write to a place in a bucket").WithKey("path")
	}
	return m.Merge(ctx, tasks)
}

// Merge implements Merger.
func (t *Objects) Merge(ctx context.Context, tasks []Task) ([]byte, error) {
	if !t.at.fence.zero() {
		return nil, fault.New(fault.Bug, "a session with a fence was asked to merge the target %s", t.at.name)
	}
	var parts []Part
	for _, x := range tasks {
		if x.Checkpoint == nil {
			continue
		}
		list, ok := CommittedParts(x.Checkpoint)
		if !ok {
			return nil, fault.New(fault.Bug, "the checkpoint %q of the task %s can't be read", x.Checkpoint, x.ID)
		}
		parts = append(parts, list...)
	}
	sweep, err := t.at.sweep(ctx, tasks, map[string][]Part{manifestStem: parts})
	if err != nil {
		return nil, err
	}
	t.books.Lock()
	defer t.books.Unlock()
	list, err := t.manifest.remake(ctx, parts, sweep.see)
	if err == nil {
		err = t.at.writeParts(ctx, manifestStem, list)
	}
	if err == nil {
		err = sweep.files(ctx)
	}
	if err != nil {
		t.fail(err)
		return nil, err
	}
	return ObjectsCheckpoint(list)
}

// Sweep removes parts of the tasks that nobody needs any more: those that count
// doesn't have, by the name of their list, where they are of a lower fence than
// the task's last, or of its last and the task is done.
func (p *Place) Sweep(ctx context.Context, tasks []Task, count map[string][]Part) error {
	_, err := p.sweep(ctx, tasks, count)
	return err
}

// sweeping is the clearing away of what owners left behind.
type sweeping struct {
	place *Place
	// Of the fences of owners who lost their task: which it was, and whether
	// their files were looked for once. What was on its way to the bucket then
	// may have arrived since, so that they are looked for twice.
	lost map[uint64]bool
	// What becomes of their notes when the files are gone.
	notes []note
	seed  maphash.Seed
	// Files of lost owners that count. Two names that fall together keep a
	// file that might go: none goes that counts.
	counts map[uint64]struct{}
}

// note is an object that says of which task a fence was.
type note struct {
	fence Fence
	swept bool // its files were looked for before
	done  bool // it needn't be looked for
}

func (p *Place) sweep(ctx context.Context, tasks []Task, count map[string][]Part) (*sweeping, error) {
	named := map[string]bool{}
	for stem, list := range count {
		for _, x := range list {
			named[PartName(stem, x)] = true
		}
	}
	of := make(map[string]*Task, len(tasks))
	for i := range tasks {
		of[tasks[i].ID] = &tasks[i]
	}
	s := &sweeping{place: p, lost: map[uint64]bool{}, seed: maphash.MakeSeed(), counts: map[uint64]struct{}{}}
	alive := map[uint64]bool{} // a fence that somebody may still have
	var dead []string
	for o, err := range p.bucket.List(ctx, p.books+tasksBooks, false) {
		if err != nil {
			return nil, err
		}
		name := o.Key[len(p.books):]
		f, rest, ok := ofTask(name)
		if !ok {
			continue
		}
		task := of[f.Task]
		isNote := rest == owner || rest == swept
		switch {
		case task == nil || f.Number > task.Fence || f.Number == task.Fence && !task.Done:
			if isNote {
				alive[f.Number] = true
			}
		case isNote:
			n := note{fence: f, swept: rest == swept, done: f.Number == task.Fence}
			if !n.done {
				s.lost[f.Number] = true
			}
			s.notes = append(s.notes, n)
		case !named[name]:
			dead = append(dead, o.Key)
		}
	}
	for n := range alive {
		delete(s.lost, n) // a number that was given twice
	}
	return s, p.deleteEach(ctx, dead)
}

// see is shown each row of the merged manifest.
func (s *sweeping) see(line []byte) error {
	if len(s.lost) == 0 {
		return nil
	}
	var row struct{ Path string }
	if err := json.Unmarshal(line, &row); err != nil {
		return fault.New(fault.Config, "a row of a task's manifest in %s can't be read: %w", s.place.name, err).
			WithHint("put the target back as it was, or write everything anew with --rewrite").WithKey("path")
	}
	if s.isLost(row.Path) {
		s.counts[maphash.String(s.seed, row.Path)] = struct{}{}
	}
	return nil
}

// isLost reports whether a file is surely one of an owner who lost its task.
func (s *sweeping) isLost(name string) bool {
	fences := naming.Fences(name)
	return len(fences) > 0 && !slices.ContainsFunc(fences, func(n uint64) bool { return !s.lost[n] })
}

// files removes the files that lost owners left and that don't count. Where no
// owner lost its task nothing is listed.
func (s *sweeping) files(ctx context.Context) error {
	var dead []string
	if len(s.lost) > 0 {
		for o, err := range s.place.Objects(ctx) {
			if err != nil {
				return err
			}
			if !s.isLost(o.Name) {
				continue
			}
			if _, counts := s.counts[maphash.String(s.seed, o.Name)]; counts {
				continue
			}
			if dead = append(dead, o.Name); len(dead) == deletesHeld {
				if err := s.place.deleteEach(ctx, dead); err != nil {
					return err
				}
				dead = dead[:0]
			}
		}
	}
	if err := s.place.deleteEach(ctx, dead); err != nil {
		return err
	}
	for _, n := range s.notes {
		name := owner
		if n.swept {
			name = swept
		}
		if !n.done && !n.swept {
			if err := s.place.Write(ctx, n.fence.own()+swept, nil, false); err != nil {
				return err
			}
		}
		if err := s.place.bucket.Delete(ctx, s.place.books+n.fence.own()+name); err != nil {
			return err
		}
	}
	return nil
}

// deletesHeld is how many names wait to be deleted together (I5).
const deletesHeld = 4096

// deleteEach removes objects, some at once.
func (p *Place) deleteEach(ctx context.Context, names []string) error {
	return inParallel(len(names), func(i int) error { return p.bucket.Delete(ctx, names[i]) })
}

// remadeOctets is about how many octets a part of a list has that was made of
// tasks' parts: it waits on the disk while it is made.
const remadeOctets = 256 << 20

// remake makes the list of the lines of those parts, in place of what it had.
// see is shown each line. The old parts go when the new ones are committed.
func (l *Parts) remake(ctx context.Context, from []Part, see func(line []byte) error) ([]Part, error) {
	left := int64(0)
	for _, x := range from {
		left += x.Octets
	}
	r := l.Read(ctx, from)
	defer r.Close()
	in := bufio.NewReaderSize(r, 256<<10)
	var list []Part
	for left > 0 {
		x := Part{Number: l.next, Of: l.of}
		err := l.place.copyTo(ctx, l.place.books+l.name(x), left, func(w io.Writer) error {
			for x.Octets < remadeOctets {
				line, err := readLine(in)
				if err == io.EOF && len(line) == 0 {
					break
				}
				if err != nil {
					return err
				}
				if err := see(line); err != nil {
					return err
				}
				if _, err := w.Write(line); err != nil {
					return message.SpoolError(err)
				}
				x.Octets += int64(len(line))
			}
			return nil
		})
		if err == nil && x.Octets == 0 {
			err = fault.New(fault.Bug, "the parts of tasks in %s ended %d octets early", l.place.name, left)
		}
		if err != nil {
			return nil, err
		}
		l.next++
		list = append(list, x)
		left -= x.Octets
	}
	l.gone = append(l.gone, l.list...)
	l.list = list
	return slices.Clone(list), nil
}
