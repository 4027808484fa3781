package plugintest

import (
	"maps"
	"slices"

	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
)

// openFenced opens a session of one owner of one task.
func openFenced(a *attempt, c settings, f sink.Fence, cp sink.Checkpoint) *openedSink {
	p, err := a.prepare(a.ctx, c)
	a.must(err, "Prepare")
	st := state(cp, cp != nil)
	st.Fence = f
	s, err := a.sink(a.ctx, c, st)
	a.must(err, "Open for task %s under fence %d", f.Task, f.Number)
	return &openedSink{s, p}
}

// digests are those of a tree's files, whatever their names.
func digests(tree map[string]string) []string { return slices.Sorted(maps.Values(tree)) }

// fencesOwners: one task loses its owner, who goes on without knowing it; a
// second task has one owner; a third has written nothing.
func fencesOwners(a *attempt) {
	c := a.settings()
	p, err := a.prepare(a.ctx, c)
	a.must(err, "Prepare")
	if !p.Fenced {
		a.leave("it doesn't say that it heeds fences")
	}
	mails := ordinary(24)
	want := digests(undisturbed(a, mails))

	lost := openFenced(a, c, sink.Fence{Task: "one", Number: 5}, nil)
	paths := map[message.ID]string{}
	for _, m := range mails[:6] {
		lost.write(a, m)
	}
	cp := lost.commit(a)
	goOn := func(mails []mail) { // an error is as good: it has noticed
		for _, m := range mails {
			r, _ := lost.send(a.ctx, m, nil)
			paths[m.id] = r.Path
		}
		_, _ = lost.Flush(a.ctx)
	}
	goOn(mails[6:9])

	later := openFenced(a, c, sink.Fence{Task: "one", Number: 9}, cp)
	for _, m := range mails[6:12] {
		if r := later.write(a, m); r.Path != "" && r.Path == paths[m.id] {
			a.fail("two owners write %s to the same path %q", m.what, r.Path)
		}
	}
	one := sink.TaskCheckpoint{Task: "one", Fence: 9, Done: true, Checkpoint: later.commit(a)}
	later.close(a)
	goOn(mails[8:12])

	other := openFenced(a, c, sink.Fence{Task: "two", Number: 7}, nil)
	for _, m := range mails[12:] {
		other.write(a, m)
	}
	two := sink.TaskCheckpoint{Task: "two", Fence: 7, Done: true, Checkpoint: other.commit(a)}
	other.close(a)

	tasks := []sink.TaskCheckpoint{one, {Task: "none", Fence: 8, Done: true}, two}
	cp = merge(a, c, nil, tasks)
	if got := digests(tree(a, a.dir, p.Record)); cp != nil && !slices.Equal(got, want) {
		a.fail("what tasks left and Merge made one isn't what one session writes: %d files instead of %d, or others", len(got), len(want))
	}
	goOn(mails[9:12])
	_ = lost.Close() // as above
	if cp == nil {
		return
	}
	merge(a, c, cp, tasks)
	if got := digests(tree(a, a.dir, p.Record)); !slices.Equal(got, want) {
		a.fail("after an owner that had lost its task wrote on, Merge left something else than before: %d files instead of %d, or others", len(got), len(want))
	}
}

// merge opens a session without a fence and merges. It returns nil where there
// is nothing to merge.
func merge(a *attempt, c settings, cp sink.Checkpoint, tasks []sink.TaskCheckpoint) sink.Checkpoint {
	s := openSink(a, c, cp)
	defer s.close(a)
	if !s.Merges() {
		return nil
	}
	cp, err := s.Merge(a.ctx, tasks)
	a.must(err, "Merge")
	a.must(s.Committed(a.ctx, cp), "Committed after Merge")
	return cp
}
