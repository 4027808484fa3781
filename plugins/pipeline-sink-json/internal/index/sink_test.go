package index

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/pkg/sink"
	"github.com/mailhaul/pipeline/pkg/target"
)

func state(cp sink.Checkpoint) sink.State {
	return sink.State{Name: "index", Pipeline: "acme", Checkpoint: cp, Known: cp != nil}
}

func open(t testing.TB, path string, cp sink.Checkpoint) *index {
	t.Helper()
	s, err := Open(context.Background(), Config{Path: path, Detail: "headers"}, state(cp))
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s.(*index)
}

// record is the n-th message; version tells its records apart, 0 is the first.
func record(n, version int) *message.Message {
	m := &message.Message{Record: &message.Record{Octets: int64(n), Replaces: version > 0}}
	m.ID = message.ID{Source: "alice", Mailbox: "INBOX", UIDValidity: 1, UID: uint32(n + 1)}
	m.Record.Files = map[string]string{"archive": fmt.Sprintf("v%d/%d.eml", version, n)}
	return m
}

func write(t testing.TB, s sink.Sink, n, version int) {
	t.Helper()
	if _, err := s.Write(context.Background(), record(n, version)); err != nil {
		t.Fatalf("Write(%d): %v", n, err)
	}
}

func flush(t testing.TB, s sink.Sink) sink.Checkpoint {
	t.Helper()
	cp, err := s.Flush(context.Background())
	if err != nil {
		t.Fatalf("Flush: %v", err)
	}
	return cp
}

func commit(t testing.TB, s sink.Sink) sink.Checkpoint {
	t.Helper()
	cp := flush(t, s)
	if err := s.(sink.Committer).Committed(context.Background(), cp); err != nil {
		t.Fatalf("Committed: %v", err)
	}
	return cp
}

func shut(t testing.TB, s sink.Sink) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// kill ends a session as a crash does: what stands in memory is gone, and
// nothing is tidied.
func kill(t testing.TB, x *index) {
	t.Helper()
	if err := x.release(); err != nil {
		t.Fatal(err)
	}
}

// versions returns which version of each message the index has; a message that
// stands twice fails the test.
func versions(t testing.TB, path string) map[int]int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]int{}
	for l := range bytes.Lines(b) {
		var v struct {
			UID   int
			Files map[string]string
		}
		if err := json.Unmarshal(l, &v); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		if _, twice := out[v.UID-1]; twice {
			t.Errorf("message %d stands twice", v.UID-1)
		}
		var version, n int
		if _, err := fmt.Sscanf(v.Files["archive"], "v%d/%d.eml", &version, &n); err != nil || n != v.UID-1 {
			t.Fatalf("%q: %v", l, err)
		}
		out[n] = version
	}
	return out
}

func wantVersions(t testing.TB, path string, want ...int) {
	t.Helper()
	got := versions(t, path)
	list := make([]int, 0, len(got))
	for n := range len(got) {
		list = append(list, got[n])
	}
	if !slices.Equal(list, want) {
		t.Errorf("the index has versions %v, want %v", got, want)
	}
}

func TestReplacing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "not", "yet", "index.jsonl")
	s := open(t, path, nil)
	for n := range 5 {
		write(t, s, n, 0)
	}
	commit(t, s)
	wantVersions(t, path, 0, 0, 0, 0, 0)
	write(t, s, 3, 1)
	write(t, s, 5, 0)
	write(t, s, 3, 2) // the later one counts
	write(t, s, 6, 1) // replaces what was never there
	flushed := flush(t, s)
	wantVersions(t, path, 0, 0, 0, 0, 0, 0) // nothing is replaced before the commit
	write(t, s, 7, 0)                       // the next epoch begins while the ledger commits
	write(t, s, 0, 1)
	if err := s.Committed(t.Context(), flushed); err != nil {
		t.Fatal(err)
	}
	cp := commit(t, s)
	shut(t, s)
	wantVersions(t, path, 1, 0, 0, 2, 0, 0, 1, 0)
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(strings.Split(string(b), "\n")[3], "v2/3.eml") {
		t.Errorf("the line didn't keep its place: %v", err)
	}
	s = open(t, path, cp)
	write(t, s, 8, 0)
	commit(t, s)
	shut(t, s)
	wantVersions(t, path, 1, 0, 0, 2, 0, 0, 1, 0, 0)
}

// TestUncommittedIsRolledBack crashes a session after its Flush: the ledger
// never heard of it.
func TestUncommittedIsRolledBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "index.jsonl")
	s := open(t, path, nil)
	write(t, s, 0, 0)
	cp := commit(t, s)
	write(t, s, 1, 0)
	write(t, s, 0, 1)
	flush(t, s)
	kill(t, s)
	s = open(t, path, cp)
	wantVersions(t, path, 0)
	write(t, s, 1, 0)
	write(t, s, 0, 2)
	commit(t, s)
	shut(t, s)
	wantVersions(t, path, 2, 0)
}

func TestCrashBeforeTheFirstCommit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "index.jsonl")
	s := open(t, path, nil)
	write(t, s, 0, 0)
	flush(t, s)
	kill(t, s)
	s = open(t, path, nil)
	wantVersions(t, path)
	write(t, s, 0, 0)
	commit(t, s)
	shut(t, s)
	wantVersions(t, path, 0)
}

// snapshot copies the directory of an index.
func snapshot(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestCrashInTheSwap has the disk as it is after each step of putting the next
// generation in place. Opened with the committed checkpoint, it always ends
// with the replaced lines, and goes on.
func TestCrashInTheSwap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "index.jsonl")
	books := func(dir, name string) string { return filepath.Join(dir, target.Books, "index.jsonl", name) }

	// A first swap, so that the second finds the announcement of another.
	s := open(t, path, nil)
	for n := range 4 {
		write(t, s, n, 0)
	}
	write(t, s, 1, 1)
	commit(t, s)
	// The second replaces 2; the commit's news never comes.
	write(t, s, 2, 1)
	cp := flush(t, s)
	before := snapshot(t, dir)
	if err := s.Committed(t.Context(), cp); err != nil {
		t.Fatal(err)
	}
	after := snapshot(t, dir)
	shut(t, s)

	copyTo := func(from, to string) {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	staged := func(dir string) { copyTo(filepath.Join(after, "index.jsonl"), books(dir, "next-3.jsonl")) }
	tail := func(dir string) { copyTo(books(after, "pending-3.jsonl"), books(dir, "pending-3.jsonl")) }
	announced := func(dir string) { copyTo(books(after, "swap.json"), books(dir, "swap.json")) }
	renamed := func(dir string) {
		if err := os.Rename(books(dir, "next-3.jsonl"), filepath.Join(dir, "index.jsonl")); err != nil {
			t.Fatal(err)
		}
	}
	half := func(dir string) {
		if err := os.WriteFile(books(dir, "next-3.jsonl"), []byte(`{"schema`), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		name string
		do   []func(string)
	}{
		{"before", nil},
		{"half staged", []func(string){half}},
		{"staged", []func(string){staged, tail}},
		{"announced", []func(string){staged, tail, announced}},
		{"renamed", []func(string){staged, tail, announced, renamed}},
		{"renamed, the new pending file's name lost", []func(string){staged, announced, renamed}},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			t.Parallel()
			dir := snapshot(t, before)
			for _, do := range step.do {
				do(dir)
			}
			path := filepath.Join(dir, "index.jsonl")
			for range 3 { // opening twice is as good as once
				s := open(t, path, cp)
				wantVersions(t, path, 0, 1, 1, 0)
				write(t, s, 4, 0)
				write(t, s, 0, 1)
				flush(t, s)
				kill(t, s)
			}
			s := open(t, path, cp)
			write(t, s, 4, 0)
			write(t, s, 3, 1)
			next := commit(t, s)
			shut(t, s)
			wantVersions(t, path, 0, 1, 1, 1, 0)
			shut(t, open(t, path, next))
			wantVersions(t, path, 0, 1, 1, 1, 0)
			if left, err := filepath.Glob(books(dir, "next-*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestCrashesAtEveryStep crashes a run after each of its steps and goes on
// from the last commit: the index ends equal, as a set of lines, to that of an
// undisturbed run (I2).
func TestCrashesAtEveryStep(t *testing.T) {
	t.Parallel()
	type write1 struct{ n, version int }
	epochs := [][]write1{
		{{0, 0}, {1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 0}, {6, 0}, {7, 0}},
		{{8, 0}, {0, 1}},
		{{9, 0}, {1, 1}, {8, 1}},
		{{0, 2}, {1, 2}, {2, 1}, {3, 1}, {9, 1}},
		{{10, 0}},
	}
	want := []int{2, 2, 1, 1, 0, 0, 0, 0, 1, 1, 0}
	steps := 0
	for _, e := range epochs {
		steps += len(e) + 2
	}
	for crash := range steps + 1 {
		path := filepath.Join(t.TempDir(), "index.jsonl")
		var committed sink.Checkpoint
		step, crashed := 0, false
		s := open(t, path, nil)
		boom := func() bool {
			step++
			if crashed || step <= crash {
				return false
			}
			crashed = true
			kill(t, s)
			s = open(t, path, committed)
			return true
		}
		for e := 0; e < len(epochs); {
			hit := false
			for _, w := range epochs[e] {
				write(t, s, w.n, w.version)
				if hit = boom(); hit {
					break
				}
			}
			if hit {
				continue
			}
			cp := flush(t, s)
			if boom() {
				continue
			}
			committed = cp // the ledger has it from here on
			e++
			if boom() {
				continue
			}
			if err := s.Committed(t.Context(), cp); err != nil {
				t.Fatal(err)
			}
		}
		shut(t, s)
		wantVersions(t, path, want...)
		if t.Failed() {
			t.Fatalf("crash after step %d", crash)
		}
	}
}

func TestForeignFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "index.jsonl")
	if err := os.WriteFile(path, []byte("precious\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := Config{Path: path, Detail: "headers"}
	if _, err := Open(t.Context(), c, state(nil)); !fault.Is(err, fault.Config) || !strings.Contains(fault.As(err).Hint, "--adopt") {
		t.Fatalf("another's file: %v", err)
	}
	st := state(nil)
	st.Adopt = true
	s, err := Open(t.Context(), c, st)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s, 0, 0)
	cp := commit(t, s)
	shut(t, s)
	wantVersions(t, path, 0)
	if b, err := os.ReadFile(filepath.Join(filepath.Dir(path), target.Books, "index.jsonl", "orphaned.jsonl")); err != nil || string(b) != "precious\n" {
		t.Errorf("what was adopted wasn't kept: %q, %v", b, err)
	}

	if err := os.WriteFile(path, []byte("cut short"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), c, state(cp)); !fault.Is(err, fault.Config) || !strings.Contains(err.Error(), "isn't as it was left") {
		t.Errorf("a file that was changed: %v", err)
	}
	st = state(nil)
	st.Rewrite, st.Known = true, true
	s, err = Open(t.Context(), c, st)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s, 1, 0)
	commit(t, s)
	shut(t, s)
	if got := versions(t, path); len(got) != 1 {
		t.Errorf("after --rewrite: %v", got)
	}
}

func TestOlderLedgerIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "index.jsonl")
	s := open(t, path, nil)
	write(t, s, 0, 0)
	old := commit(t, s)
	write(t, s, 0, 1)
	commit(t, s)
	shut(t, s)
	if _, err := Open(t.Context(), Config{Path: path}, state(old)); !fault.Is(err, fault.Config) || !strings.Contains(err.Error(), "the ledger is older") {
		t.Errorf("Open with an old checkpoint: %v", err)
	}
}

// TestManyLinesInLittleMemory replaces half of many lines, then one: what is
// taken while merging doesn't grow with the index (I5).
func TestManyLinesInLittleMemory(t *testing.T) {
	const lines = 200_000
	path := filepath.Join(t.TempDir(), "index.jsonl")
	s := open(t, path, nil)
	for n := range lines {
		write(t, s, n, 0)
	}
	commit(t, s)
	for n := 0; n < lines; n += 2 {
		write(t, s, n, 1)
		if n%8192 == 0 {
			commit(t, s)
		}
	}
	commit(t, s)
	if err := s.merge(); err != nil {
		t.Fatal(err)
	}
	write(t, s, 0, 1)
	cp := flush(t, s)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := s.Committed(t.Context(), cp)
	shut(t, s) // merges
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 4<<20 {
		t.Errorf("merging one line into %d took %d octets of memory", lines, taken)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) < 16<<20 {
		t.Errorf("an index of %d octets proves nothing", len(b))
	}
	if got, replaced := bytes.Count(b, []byte{'\n'}), bytes.Count(b, []byte("v1/")); got != lines || replaced != lines/2 {
		t.Errorf("%d lines, %d of them replaced; want %d and %d", got, replaced, lines, lines/2)
	}
}

func BenchmarkWrite(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "index.jsonl"), nil)
	defer shut(b, s)
	m := full()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Write(context.Background(), m); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReplace replaces 1% of 100,000 lines.
func BenchmarkReplace(b *testing.B) {
	const lines = 100_000
	s := open(b, filepath.Join(b.TempDir(), "index.jsonl"), nil)
	defer shut(b, s)
	for n := range lines {
		write(b, s, n, 0)
	}
	commit(b, s)
	version := 0
	b.ReportAllocs()
	for b.Loop() {
		version++
		for n := 0; n < lines; n += 100 {
			write(b, s, n, version)
		}
		commit(b, s)
		if err := s.merge(); err != nil {
			b.Fatal(err)
		}
	}
}
