package target

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/naming"
)

// Fence is that of the sink's state: which owner of which task writes, where a
// target in a bucket has several writers at once. Zero: there is only one.
//
// A writer with a fence adds objects whose names carry it, parts/TASK/FENCE-… in
// the books and files with it in their names, the number in base 36, and puts
// nothing in another's place. Of what there is it removes what a checkpoint of
// its own task doesn't need any more. The rest is for Merge, once.
type Fence struct {
	Task   string
	Number uint64 // a later owner of the task has a higher one
}

func (f Fence) zero() bool { return f == Fence{} }

// tasksBooks is where the tasks' parts stand, in the books.
const tasksBooks = "parts/"

// parts is how the names of the task's parts begin, in the books.
func (f Fence) parts() string { return tasksBooks + f.Task + "/" }

// own is how the names of this owner's parts begin.
func (f Fence) own() string { return f.parts() + strconv.FormatUint(f.Number, 36) + "-" }

// refuse says that a directory has one writer.
func (f Fence) refuse(target string) error {
	if f.zero() {
		return nil
	}
	return fault.New(fault.Config, "the target %s is in a file system, where several machines can't write without harm", target).
		WithHint("write to a place in a bucket, as s3://bucket/mail; or run with engine: {type: local}").WithKey("path")
}

// Names of objects in tasksBooks that say of which task a fence was, so that
// files can be told whose they are: of owners who put files there, and of those
// of them whose leftovers were removed once.
const (
	owner = "owner"
	swept = "swept"
)

// own notes of which task the place's fence is, before its first file.
func (p *Place) own(ctx context.Context) error {
	if p.fence.zero() {
		return nil
	}
	return p.Write(ctx, p.fence.own()+owner, nil, false)
}

// fenced makes sure that a file is told from those of other owners.
func (t *Objects) fenced(name string) error {
	if !slices.Contains(naming.Fences(name), t.at.fence.Number) {
		return fault.New(fault.Bug, "the name %q in the target %s doesn't carry the fence %s", name, t.at.name, strconv.FormatUint(t.at.fence.Number, 36)).
			WithHint("give naming.Options the fence of the sink's state")
	}
	return t.owned()
}

// ofTask reads the name of an object in tasksBooks.
func ofTask(name string) (f Fence, rest string, ok bool) {
	task, name, ok := strings.Cut(strings.TrimPrefix(name, tasksBooks), "/")
	number, rest, dash := strings.Cut(name, "-")
	n, err := strconv.ParseUint(number, 36, 64)
	return Fence{task, n}, rest, ok && dash && err == nil
}
