package segments_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mailhaul/pipeline/internal/ledger"
	"github.com/mailhaul/pipeline/internal/ledger/segments"
	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/objects"
	"github.com/mailhaul/pipeline/test/natsserver"
)

func uid(n uint32) message.ID {
	return message.ID{Source: "alice", Mailbox: "INBOX", UIDValidity: 1, UID: n}
}

// epoch is one of a message for the number n, with a receipt that is too long
// for the manifest where big says so.
func epoch(b ledger.Box, tg ledger.TargetID, n uint32, big bool) ledger.Epoch {
	receipt := fmt.Sprint("INBOX/", n)
	if big {
		receipt += strings.Repeat("x", 20<<10)
	}
	return ledger.Epoch{
		Settled: []ledger.Settled{{Box: b, ID: uid(n), Octets: int64(n), SHA256: bytes.Repeat([]byte{1}, 32), Fresh: true,
			Fates: []ledger.Fate{{Target: tg, Class: ledger.Written, Receipt: receipt}}}},
		Checkpoints: map[ledger.TargetID][]byte{tg: fmt.Append(nil, n)},
	}
}

// numbers are the mailbox and the target that the tests write of.
func numbers(t testing.TB, l *segments.Ledger) (ledger.Box, ledger.TargetID) {
	t.Helper()
	b, err := l.Box(t.Context(), "alice", "INBOX", 1)
	if err != nil {
		t.Fatal(err)
	}
	tg, err := l.Target(t.Context(), "eml", "/export/eml")
	if err != nil {
		t.Fatal(err)
	}
	return b, tg.ID
}

func commit(t testing.TB, l *segments.Ledger, n uint32, big bool) {
	t.Helper()
	b, tg := numbers(t, l)
	if err := l.Commit(t.Context(), epoch(b, tg, n, big)); err != nil {
		t.Fatal(err)
	}
}

// has returns which of the messages up to n are written.
func has(t testing.TB, l *segments.Ledger, n uint32) (there []uint32) {
	t.Helper()
	b, _ := numbers(t, l)
	for i := range n {
		found, err := l.Lookup(t.Context(), b, []message.ID{uid(i + 1)})
		if err != nil {
			t.Fatal(err)
		}
		if found[0].Octets >= 0 {
			there = append(there, i+1)
		}
	}
	return there
}

func want(t testing.TB, what string, want, got any) {
	t.Helper()
	if w, g := fmt.Sprint(want), fmt.Sprint(got); w != g {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}

// TestFenced: who lost the task is told so by whatever it writes, and nothing
// of that is there (I2).
func TestFenced(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for _, big := range []bool{false, true} {
		k := p.task(t)
		old := k.open(t)
		commit(t, old, 1, big)
		b, tg := numbers(t, old)
		now := k.open(t)
		for what, f := range map[string]func() error{
			"Commit":      func() error { return old.Commit(t.Context(), epoch(b, tg, 2, big)) },
			"MarkDirty":   func() error { return old.MarkDirty(t.Context(), tg) },
			"AddSuspects": func() error { return old.AddSuspects(t.Context(), b, tg, []message.ID{uid(3)}) },
			"Done":        func() error { return old.Done(t.Context(), nil) },
		} {
			if err := f(); !errors.Is(err, segments.ErrFenced) || !fault.Is(err, fault.Unavailable) {
				t.Errorf("%s by the former owner: %v", what, err)
			}
		}
		want(t, "what counts", []uint32{1}, has(t, now, 5))
		commit(t, now, 4, big)
		lower := k.Options
		lower.Fence = 1
		if _, err := segments.Open(t.Context(), lower); !errors.Is(err, segments.ErrFenced) {
			t.Errorf("a lower fence took the task: %v", err)
		}
		if err := now.Done(t.Context(), []byte(`{"exit":0}`)); err != nil {
			t.Fatal(err)
		}
		m, err := segments.Load(t.Context(), p.manifests, k.Task)
		if err != nil || m.State != segments.Done || string(m.Outcome) != `{"exit":0}` || m.Fence != 2 || string(m.Checkpoint("eml", "/export/eml")) != "4" {
			t.Errorf("the manifest is %+v, %v", m, err)
		}
		want(t, "what counts at the end", []uint32{1, 4}, has(t, k.open(t), 5))
	}
}

// TestRace lets owners with different fences write at once: each message that
// Commit returned for is there, and no other.
func TestRace(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	k := p.task(t)
	var mu sync.Mutex
	var said []uint32
	var wg sync.WaitGroup
	const owners, each = 4, 25
	for i := range uint32(owners) {
		o := k.next()
		wg.Go(func() {
			l, err := segments.Open(t.Context(), o)
			if err != nil {
				if !errors.Is(err, segments.ErrFenced) {
					t.Error(err)
				}
				return
			}
			defer l.Close()
			b, err := l.Box(t.Context(), "alice", "INBOX", 1)
			if err != nil {
				t.Error(err)
				return
			}
			for n := range uint32(each) {
				n += i*each + 1
				if err := l.Commit(t.Context(), epoch(b, 1, n, n%7 == 0)); err != nil {
					if !errors.Is(err, segments.ErrFenced) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				said = append(said, n)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	there := map[uint32]bool{}
	for _, n := range has(t, k.open(t), owners*each) {
		there[n] = true
	}
	for _, n := range said {
		if !there[n] {
			t.Errorf("message %d was committed, and isn't there", n)
		}
		delete(there, n)
	}
	if len(there) > 0 {
		t.Errorf("these are there, and nobody was told so: %v", there)
	}
	want(t, "how many commits the last owner made", true, len(said) >= each)
}

// TestLeaseEnds: after the end of its lease an owner commits nothing, also
// where nobody else has taken the task.
func TestLeaseEnds(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	k := p.task(t)
	lease, end := context.WithCancelCause(context.Background())
	l, err := segments.Open(lease, k.next())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	commit(t, l, 1, false)
	b, tg := numbers(t, l)
	over := errors.New("the lease is over")
	end(over)
	if err := l.Commit(context.Background(), epoch(b, tg, 2, false)); !errors.Is(err, over) {
		t.Errorf("a commit after the lease: %v", err)
	}
	want(t, "what counts", []uint32{1}, has(t, k.open(t), 3))
}

// lossy loses what a test says, of the calls that write a manifest.
type lossy struct {
	jetstream.KeyValue
	lose func() (before, after bool)
}

func (k *lossy) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	before, after := k.lose()
	if before {
		return 0, nats.ErrTimeout
	}
	n, err := k.KeyValue.Update(ctx, key, value, revision)
	if after && err == nil {
		return 0, nats.ErrTimeout
	}
	return n, err
}

// TestLostAnswers loses the calls and the answers of every second commit: each
// is made once.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	k := p.task(t)
	var n int
	k.Manifests = &lossy{p.manifests, func() (bool, bool) { n++; return n%4 == 1, n%4 == 3 }}
	l := k.open(t)
	for n := range uint32(12) {
		commit(t, l, n+1, n%3 == 0)
	}
	want(t, "commits", uint64(13), l.Manifest().Commits)
	want(t, "messages", 12, len(has(t, k.open(t), 20)))
}

// TestServerComesBack kills NATS in the midst of commits: they wait for it, and
// each is made once.
func TestServerComesBack(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	k := p.task(t)
	l := k.open(t)
	commit(t, l, 1, true)
	p.nats.Nodes[0].Kill()
	back := make(chan struct{})
	go func() {
		defer close(back)
		p.nats.Nodes[0].Start(t)
	}()
	commit(t, l, 2, false)
	commit(t, l, 3, true)
	<-back
	want(t, "messages", []uint32{1, 2, 3}, has(t, k.open(t), 5))
}

// TestCluster commits while each of three nodes is killed and comes back.
func TestCluster(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := natsserver.StartCluster(t)
	var kv jetstream.KeyValue
	js := s.Connect(t)
	for { // until the cluster has elected somebody
		var err error
		if kv, err = js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "tasks", Replicas: 3}); err == nil {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	k := p.task(t)
	k.Manifests = kv
	n := uint32(0)
	l := k.open(t)
	for i, node := range s.Nodes {
		node.Kill()
		for range 3 {
			n++
			commit(t, l, n, n%2 == 0)
		}
		if i == 1 { // and another owner
			l = k.open(t)
		}
		node.Start(t)
		n++
		commit(t, l, n, false)
		// What the other nodes have, this one must have before the next dies.
		deadline := time.Now().Add(2 * time.Minute)
		for {
			info, err := js.Stream(t.Context(), "KV_tasks")
			if err == nil {
				c := info.CachedInfo().Cluster
				current := c != nil && len(c.Replicas) == 2
				for i := 0; current && i < 2; i++ {
					current = c.Replicas[i].Current && !c.Replicas[i].Offline
				}
				if current {
					break
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("node %d doesn't catch up: %v", i, err)
			}
		}
	}
	if got := has(t, k.open(t), n+3); len(got) != int(n) {
		t.Errorf("of %d messages there are %v", n, got)
	}
}

// TestDamage: a segment that is missing or altered is told, with the way out;
// nothing begins as if there were none (I1).
func TestDamage(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	segment := func(m *segments.Manifest) segments.Object { return m.Segments[len(m.Segments)-1] }
	tests := []struct {
		name, says string
		many       bool // so that there is a snapshot
		spoil      func(t *testing.T, b *objects.Bucket, m *segments.Manifest)
	}{
		{"a segment is gone", "doesn't have it", false, func(t *testing.T, b *objects.Bucket, m *segments.Manifest) {
			remove(t, b, segment(m))
		}},
		{"a segment lost its end", "octets with the sum", false, func(t *testing.T, b *objects.Bucket, m *segments.Manifest) {
			alter(t, b, segment(m), func(p []byte) []byte { return p[:len(p)-1] })
		}},
		{"a segment is longer", "more than its", false, func(t *testing.T, b *objects.Bucket, m *segments.Manifest) {
			alter(t, b, segment(m), func(p []byte) []byte { return append(p, p...) })
		}},
		{"a segment has another bit", "octets with the sum", false, func(t *testing.T, b *objects.Bucket, m *segments.Manifest) {
			alter(t, b, segment(m), func(p []byte) []byte { p[len(p)/2] ^= 1; return p })
		}},
		{"a snapshot is gone", "doesn't have it", true, func(t *testing.T, b *objects.Bucket, m *segments.Manifest) {
			remove(t, b, *m.Snapshot)
		}},
		{"a snapshot has another bit", "octets with the sum", true, func(t *testing.T, b *objects.Bucket, m *segments.Manifest) {
			alter(t, b, *m.Snapshot, func(p []byte) []byte { p[len(p)/2] ^= 1; return p })
		}},
		{"a snapshot lost its end", "octets with the sum", true, func(t *testing.T, b *objects.Bucket, m *segments.Manifest) {
			alter(t, b, *m.Snapshot, func(p []byte) []byte { return p[:len(p)/2] })
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := p.task(t)
			l := k.open(t)
			n := uint32(2)
			if tt.many {
				n = 12
			}
			for i := range n {
				commit(t, l, i+1, true)
			}
			if err := l.Done(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			m := l.Manifest()
			want(t, "that there is a snapshot", tt.many, m.Snapshot != nil)
			tt.spoil(t, k.Objects, m)
			l = k.open(t)
			b, _ := numbers(t, l)
			_, err := l.Lookup(t.Context(), b, []message.ID{uid(1)})
			if f := fault.As(err); f == nil || f.Class != fault.Config || !strings.Contains(f.Text, tt.says) || !strings.Contains(f.Hint, segments.Key(k.Task)) {
				t.Errorf("reading: %v", err)
			}
			if err := l.Commit(t.Context(), epoch(b, 1, 99, false)); !fault.Is(err, fault.Config) {
				t.Errorf("writing: %v", err)
			}
		})
	}
}

func remove(t *testing.T, b *objects.Bucket, o segments.Object) {
	t.Helper()
	if err := b.Delete(t.Context(), "ledger/"+o.Key); err != nil {
		t.Fatal(err)
	}
}

func alter(t *testing.T, b *objects.Bucket, o segments.Object, how func([]byte) []byte) {
	t.Helper()
	octets, err := b.Read(t.Context(), "ledger/"+o.Key)
	if err != nil {
		t.Fatal(err)
	}
	octets = how(octets)
	if err := b.Put(t.Context(), "ledger/"+o.Key, bytes.NewReader(octets), int64(len(octets)), objects.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestSnapshot: what a long task leaves is one object, of which all is known;
// Sweep deletes what nobody names.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	k := p.task(t)
	l := k.open(t)
	const all = 70
	for n := range uint32(all) {
		commit(t, l, n+1, true)
	}
	m := l.Manifest()
	if m.Snapshot == nil || len(m.Segments) != all-64 {
		t.Fatalf("after %d segments there is the snapshot %v, and %d segments", all, m.Snapshot, len(m.Segments))
	}
	for range 10 {
		commit(t, l, all+1, true)
	}
	if err := l.Done(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	m = l.Manifest()
	if m.Snapshot == nil || len(m.Segments) != 0 || m.Tail != nil {
		t.Errorf("at the end there are %d segments", len(m.Segments))
	}
	// Left by owners that died; and by somebody else.
	for _, name := range []string{k.Task + "/1-999", k.Task + "/7-1", "notes.txt"} {
		if err := k.Objects.Put(t.Context(), "ledger/"+name, strings.NewReader("x"), 1, objects.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	deleted, err := segments.Sweep(t.Context(), p.manifests, k.Objects, "")
	if err != nil {
		t.Fatal(err)
	}
	want(t, "objects deleted", 1, deleted)
	var left []string
	for o, err := range k.Objects.List(t.Context(), "", false) {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, o.Key)
	}
	want(t, "objects left", []string{"ledger/notes.txt", "ledger/" + m.Snapshot.Key, "ledger/" + k.Task + "/7-1"}, left)
	want(t, "messages", all+1, len(has(t, k.open(t), all+5)))
}

// TestAll reads what counts of every task.
func TestAll(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	read := func() (tasks []string) {
		for m, err := range segments.All(t.Context(), p.manifests) {
			if err != nil {
				t.Fatal(err)
			}
			tasks = append(tasks, fmt.Sprint(m.Task, " ", m.State))
		}
		return tasks
	}
	want(t, "of nothing", 0, len(read()))
	a, b := p.task(t).open(t), p.task(t).open(t)
	p.task(t).open(t)
	if err := errors.Join(a.Done(t.Context(), nil), b.Fail(t.Context(), nil)); err != nil {
		t.Fatal(err)
	}
	want(t, "three tasks", "[t3 open t1 done t2 failed]", read())
	if _, err := p.manifests.Put(t.Context(), segments.Key("t4"), []byte(`{"v":99,"task":"t4"}`)); err != nil {
		t.Fatal(err)
	}
	var last error
	for _, err := range segments.All(t.Context(), p.manifests) {
		last = err
	}
	if !fault.Is(last, fault.Config) || !strings.Contains(last.Error(), "version 99") {
		t.Errorf("of a version that isn't known: %v", last)
	}
}

// TestEmptyTask: a mailbox without messages makes no file and no object, and
// writes to NATS twice.
func TestEmptyTask(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	k := p.task(t)
	l := k.open(t)
	emptyTask(t, l)
	m := l.Manifest()
	want(t, "commits", uint64(2), m.Commits)
	want(t, "objects", 0, p.s3.Calls("PUT"))
	files, err := os.ReadDir(k.Dir)
	if err != nil || len(files) > 0 {
		t.Errorf("there are files: %v, %v", files, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := k.open(t).SavedState(t.Context(), "alice", "INBOX", 1)
	if err != nil || s.Content != "token" {
		t.Errorf("what is known of the mailbox: %+v, %v", s, err)
	}
}

// emptyTask does what the engine does of a mailbox without messages.
func emptyTask(t testing.TB, l *segments.Ledger) {
	t.Helper()
	ctx := t.Context()
	b, _ := numbers(t, l)
	_, err1 := l.SavedState(ctx, "alice", "INBOX", 1)
	_, err2 := l.HasMessages(ctx, b)
	err3 := l.Commit(ctx, ledger.Epoch{Accounts: []ledger.Account{{Source: "alice", Run: 1, Began: time.Unix(1, 0)}}})
	err4 := l.Commit(ctx, ledger.Epoch{
		Boxes:     map[ledger.Box]ledger.BoxState{b: {Content: "token", Tally: ledger.Tally{}}},
		Accounts:  []ledger.Account{{Source: "alice", Run: 1, Began: time.Unix(1, 0), Ended: time.Unix(2, 0), State: ledger.Complete}},
		Mailboxes: []ledger.Mailbox{{Source: "alice", Name: "INBOX", Run: 1, State: ledger.Complete}},
	})
	if err := errors.Join(err1, err2, err3, err4, l.Done(ctx, []byte(`{"exit":0}`))); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkEmptyTask measures what a task without messages costs the worker.
func BenchmarkEmptyTask(b *testing.B) {
	s := natsserver.Start(b)
	kv, err := s.Connect(b).CreateKeyValue(b.Context(), jetstream.KeyValueConfig{Bucket: "tasks"})
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before) // it always can
	n := 0
	for b.Loop() {
		n++
		l, err := segments.Open(b.Context(), segments.Options{Task: fmt.Sprint("t", n), Fence: 1, Pipeline: "p", Manifests: kv, Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		emptyTask(b, l)
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after) // it always can
	cpu := time.Duration(after.Utime.Nano() - before.Utime.Nano() + after.Stime.Nano() - before.Stime.Nano())
	b.ReportMetric(float64(cpu.Microseconds())/float64(n), "cpu-us/op")
}

// TestKilled kills a process between storing a segment and naming it, and
// between that and its word: the next owner has all that was committed and
// nothing else, and the object that nobody named harms nobody.
func TestKilled(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for _, at := range []string{"before", "after"} {
		for _, size := range []string{"little", "big"} {
			k := p.task(t)
			k.next()
			dir := filepath.Join(k.Dir, "child")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{at, size, p.nats.URL, p.socket, p.s3.Address("mail/acme"), k.Task, dir}, " "))
			cmd.Stderr = os.Stderr
			err := cmd.Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child ended with %v", err)
			}
			there := []uint32{1, 2}
			if at == "after" {
				there = append(there, 3)
			}
			l := k.open(t)
			want(t, at+", "+size, there, has(t, l, 9))
			commit(t, l, 4, size == "big")
			want(t, at+", "+size+", then the next owner", append(there, 4), has(t, k.open(t), 9))
		}
	}
}
