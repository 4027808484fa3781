package store_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/target"
	"github.com/mailhaul/pipeline/test/s3server"
)

// fenced is what a sink names message n under a fence.
func fenced(n int, fence uint64) string {
	return fmt.Sprintf("INBOX/%d-abcdefghij~%s.eml", n, strconv.FormatUint(fence, 36))
}

// owner is o with a fence.
func owner(o target.Owner, task string, fence uint64) target.Owner {
	o.Fence = target.Fence{Task: task, Number: fence}
	return o
}

func placeAll(t *testing.T, f target.Files, fence uint64, numbers ...int) {
	t.Helper()
	for _, n := range numbers {
		write(t, f, n, fenced(n, fence), []byte(fmt.Sprint("octets of message ", n)))
	}
}

// merged merges and commits, and returns the checkpoint and the paths of the
// manifest's rows in their order.
func merged(t *testing.T, path string, o target.Owner, cp []byte, tasks ...target.Task) (next []byte, rows []string) {
	t.Helper()
	o.Known = cp != nil
	f := open(t, path, o, cp)
	next, err := target.Merge(t.Context(), f, tasks)
	if err == nil {
		err = f.Committed(t.Context(), next)
	}
	if err != nil {
		t.Fatalf("merge: %v", err)
	}
	shut(t, f)
	parts, ok := target.CommittedParts(next)
	if !ok {
		t.Fatalf("the checkpoint %s can't be read", next)
	}
	p := look(t, path, o)
	winners, err := p.ManifestParts(t.Context())
	if err != nil || !slices.Equal(winners, parts) {
		t.Errorf("the place says that the parts %v count, the checkpoint %v (%v)", winners, parts, err)
	}
	for line, err := range manifestOf(t, p, parts) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, line.Row.Path)
	}
	return next, rows
}

func shut(t *testing.T, f target.Files) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func look(t *testing.T, path string, o target.Owner) *target.Place {
	t.Helper()
	p, err := target.Look(t.Context(), path, false, o.Store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// files returns the names of the objects that aren't books.
func files(t *testing.T, path string, o target.Owner) (names []string) {
	t.Helper()
	for x, err := range look(t, path, o).Objects(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, x.Name)
	}
	slices.Sort(names)
	return names
}

// books returns the names of tasks' objects in the books, without what tells
// sessions apart.
func books(t *testing.T, path string, o target.Owner) (names []string) {
	t.Helper()
	for x, err := range bucket(t, path, o).List(t.Context(), ".mailhaul/parts/", false) {
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(x.Key, ".mailhaul/parts/")
		if before, after, ok := strings.Cut(name, ".manifest"); ok {
			name = before[:strings.LastIndexByte(before, '-')] + ".manifest" + after
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func overBuckets(t *testing.T, f func(t *testing.T, path string, o target.Owner)) {
	overAll(t, func(t *testing.T, path string, o target.Owner) {
		if strings.Contains(path, "://") {
			f(t, path, o)
		}
	})
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// An owner that lost its task goes on without knowing it. Nothing that counts
// changes, and merging takes only what counts and removes the rest.
func TestAnOwnerThatLostItsTaskChangesNothing(t *testing.T) {
	t.Parallel()
	overBuckets(t, func(t *testing.T, path string, o target.Owner) {
		lost := open(t, path, owner(o, "one", 5), nil)
		placeAll(t, lost, 5, 1, 2, 3)
		committed := flush(t, lost)
		if err := lost.Committed(t.Context(), committed); err != nil {
			t.Fatal(err)
		}
		placeAll(t, lost, 5, 4)
		flush(t, lost) // which nobody commits

		later := open(t, path, owner(o, "one", 9), committed)
		placeAll(t, later, 9, 4, 5)
		cp := flush(t, later)
		if err := later.Committed(t.Context(), cp); err != nil {
			t.Fatal(err)
		}
		shut(t, later)

		other := open(t, path, owner(o, "two", 7), nil)
		placeAll(t, other, 7, 10)
		theirs := flush(t, other)
		placeAll(t, other, 7, 11) // it still writes
		flush(t, other)

		placeAll(t, lost, 5, 5, 6)
		flush(t, lost)

		one := target.Task{ID: "one", Fence: 9, Done: true, Checkpoint: cp}
		two := target.Task{ID: "two", Fence: 7, Checkpoint: theirs}
		none := target.Task{ID: "none", Fence: 8, Done: true}
		counts := []string{fenced(1, 5), fenced(2, 5), fenced(3, 5), fenced(4, 9), fenced(5, 9), fenced(10, 7)}

		first, rows := merged(t, path, o, nil, one, none, two)
		same(t, "rows", rows, counts)
		there := append(slices.Clone(counts), fenced(11, 7))
		slices.Sort(there)
		same(t, "files", files(t, path, o), there)
		same(t, "books", books(t, path, o), []string{"one/5-000001.manifest.jsonl", "one/5-swept", "one/9-000002.manifest.jsonl", "two/7-000001.manifest.jsonl", "two/7-000002.manifest.jsonl", "two/7-owner"})

		// What was on its way arrives now.
		placeAll(t, lost, 5, 8)
		flush(t, lost)
		shut(t, lost)
		ended := flush(t, other)
		shut(t, other)
		two = target.Task{ID: "two", Fence: 7, Done: true, Checkpoint: ended}

		second, rows := merged(t, path, o, first, one, two)
		counts = append(counts, fenced(11, 7))
		same(t, "rows after the second time", rows, counts)
		same(t, "files after the second time", files(t, path, o), there)
		same(t, "books after the second time", books(t, path, o), []string{"one/5-000001.manifest.jsonl", "one/9-000002.manifest.jsonl", "two/7-000001.manifest.jsonl", "two/7-000002.manifest.jsonl"})

		_, rows = merged(t, path, o, second, two, one)
		same(t, "rows in another order", rows, append([]string{fenced(10, 7), fenced(11, 7)}, counts[:5]...))
		for name, sum := range texts(t, path, o, there) {
			if want := "octets of message " + strings.TrimPrefix(strings.Split(name, "-")[0], "INBOX/"); sum != want {
				t.Errorf("%s has %q, want %q", name, sum, want)
			}
		}
	})
}

func texts(t *testing.T, path string, o target.Owner, names []string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range names {
		b, err := held(t, path, o, name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(b)
	}
	return out
}

// What isn't surely a lost owner's stays: another task's, one of a task that
// nobody spoke of, one whose name can be read in two ways.
func TestMergingRemovesNothingOfOthers(t *testing.T) {
	t.Parallel()
	overBuckets(t, func(t *testing.T, path string, o target.Owner) {
		lost := open(t, path, owner(o, "one", 5), nil)
		placeAll(t, lost, 5, 1)
		write(t, lost, 2, "INBOX/abcdefghij~7-2-abcdefghij~5.eml", []byte("whose subject looks like a fence"))
		write(t, lost, 3, "INBOX/3-abcdefghij~5.eml", []byte("garbage"))
		flush(t, lost)
		shut(t, lost)
		unknown := open(t, path, owner(o, "unknown", 6), nil)
		placeAll(t, unknown, 6, 20)
		flush(t, unknown)
		shut(t, unknown)
		newer := open(t, path, owner(o, "two", 7), nil) // than the host knew when it read the task
		placeAll(t, newer, 7, 30)
		flush(t, newer)
		shut(t, newer)
		again := open(t, path, owner(o, "two", 5), nil) // a number that was given twice
		placeAll(t, again, 5, 31)
		flush(t, again)
		shut(t, again)

		tasks := []target.Task{{ID: "one", Fence: 9}, {ID: "two", Fence: 5}}
		before := files(t, path, o)
		first, rows := merged(t, path, o, nil, tasks...)
		same(t, "rows", rows, nil)
		same(t, "files", files(t, path, o), before)

		tasks[1].Fence = 8
		_, rows = merged(t, path, o, first, tasks...)
		same(t, "rows", rows, nil)
		same(t, "files", files(t, path, o), []string{fenced(20, 6)})
	})
}

// Sessions of many tasks begin a target at once, as workers do.
func TestTasksBeginTogether(t *testing.T) {
	t.Parallel()
	overBuckets(t, func(t *testing.T, path string, o target.Owner) {
		const n = 12
		tasks, errs := make([]target.Task, n), make([]error, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				fence := uint64(100 + i)
				task := fmt.Sprint("task", i)
				f, err := target.Open(t.Context(), path, owner(o, task, fence), nil)
				if err != nil {
					errs[i] = err
					return
				}
				x, err := f.Create()
				if err == nil {
					err = x.Place(id(i), fenced(i, fence), time.Time{})
				}
				var cp []byte
				if err == nil {
					cp, err = f.Flush(t.Context())
				}
				tasks[i] = target.Task{ID: task, Fence: fence, Done: true, Checkpoint: cp}
				if cerr := f.Close(); err == nil {
					err = cerr
				}
				errs[i] = err
			})
		}
		wg.Wait()
		want := map[string]bool{}
		for i, err := range errs {
			if err != nil {
				t.Errorf("task %d: %v", i, err)
			}
			want[fenced(i, uint64(100+i))] = true
		}
		_, rows := merged(t, path, o, nil, tasks...)
		slices.Sort(rows)
		same(t, "rows", rows, slices.Sorted(maps.Keys(want)))
	})
}

func TestFencesAreNotForgotten(t *testing.T) {
	t.Parallel()
	overAll(t, func(t *testing.T, path string, o target.Owner) {
		f, err := target.Open(t.Context(), path, owner(o, "one", 5), nil)
		if !strings.Contains(path, "://") {
			if !fault.Is(err, fault.Config) || fault.As(err).Hint == "" {
				t.Errorf("a directory of several writers: %v", err)
			}
			f = open(t, path, o, nil)
			defer shut(t, f)
			if _, err := target.Merge(t.Context(), f, nil); !fault.Is(err, fault.Config) {
				t.Errorf("merging in a directory: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		defer shut(t, f)
		for _, name := range []string{"INBOX/1.eml", fenced(1, 6), "~5/1.eml"} {
			x, err := f.Create()
			if err != nil {
				t.Fatal(err)
			}
			if err := x.Place(id(1), name, time.Time{}); !fault.Is(err, fault.Bug) {
				t.Errorf("a file with the name %s of the owner 5: %v", name, err)
			}
		}
		if _, err := target.Merge(t.Context(), f, nil); !fault.Is(err, fault.Bug) {
			t.Errorf("merging under a fence: %v", err)
		}
	})
}

// A migration has as many sessions under fences as mailboxes: what each asks of
// the server, and the merge for it, is counted.
func TestWhatATaskAsksOfTheServer(t *testing.T) {
	t.Parallel()
	s3 := s3server.Start(t, "mail")
	path, o := s3.Address("mail/acme"), target.Owner{Sink: "archive", Pipeline: "p1", Store: serve(t)}
	shut(t, open(t, path, owner(o, "first", 1), nil)) // it marks the place
	var mu sync.Mutex
	asked := map[string]int{}
	s3.Fail(func(r *http.Request) s3server.Mishap {
		what := r.Method
		if r.URL.Query().Has("list-type") {
			what = "LIST"
		}
		mu.Lock()
		defer mu.Unlock()
		asked[what]++
		return s3server.None
	})
	since := func() map[string]int { // since it was asked last
		mu.Lock()
		defer mu.Unlock()
		m := asked
		asked = map[string]int{}
		return m
	}
	const tasks = 3
	var done []target.Task
	for i := range tasks {
		fence := uint64(100 + i)
		f := open(t, path, owner(o, fmt.Sprint("t", i), fence), nil)
		placeAll(t, f, fence, 10*i, 10*i+1)
		cp, err := f.Flush(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		shut(t, f)
		done = append(done, target.Task{ID: fmt.Sprint("t", i), Fence: fence, Done: true, Checkpoint: cp})
	}
	// The marker; two files, whose owner they are, the manifest.
	if diff := cmp.Diff(map[string]int{"GET": tasks, "PUT": 4 * tasks}, since()); diff != "" {
		t.Errorf("sessions asked for (-want +got):\n%s", diff)
	}
	m := open(t, path, o, nil)
	since()
	if _, err := target.Merge(t.Context(), m, done); err != nil {
		t.Fatal(err)
	}
	if asked := since(); asked["GET"] != tasks {
		t.Errorf("the merge asked for %v, want %d GET: one for each manifest", asked, tasks)
	}
	shut(t, m)
}
