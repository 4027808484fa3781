package index

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/sink"
)

// In a child process these name the index and where to go on.
const (
	childPath       = "INDEX_TEST_PATH"
	childFrom       = "INDEX_TEST_FROM"
	childCheckpoint = "INDEX_TEST_CHECKPOINT"
	childTotal      = 4000
	childEpoch      = 40
)

// step is the n-th write of a child's run: new lines, and after a while
// replacements of earlier ones.
func step(n int) (message, version int) {
	if n%4 == 3 {
		return n / 8 * 3, 1 + n
	}
	return n - n/4, 0
}

// TestKilledAtRandom kills a process that writes and replaces, at random
// moments, and goes on from the last commit: every line is there once, in its
// last version (I2, I3).
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	const kills = 30
	path := filepath.Join(t.TempDir(), "index.jsonl")
	done, committed, killed := 0, "", 0
	// Killed in Close, after the last commit, it is dirty: the next run opens
	// it again, though there is nothing to write.
	for dirty := true; done < childTotal || dirty; {
		n, cp, dead := child(t, path, done, committed, killed < kills)
		if dirty = dead; dead {
			killed++
		}
		if n > done {
			done, committed = n, cp
		}
	}
	t.Logf("killed %d times", killed)
	if killed == 0 {
		t.Error("no process was killed: the test tried nothing")
	}
	want := map[int]int{}
	for n := range childTotal {
		m, version := step(n)
		want[m] = version
	}
	got := versions(t, path)
	if len(got) != len(want) {
		t.Errorf("%d messages, want %d", len(got), len(want))
	}
	for m, v := range want {
		if got[m] != v {
			t.Errorf("message %d has version %d, want %d", m, got[m], v)
		}
	}
}

// child runs TestChild in a process of its own and returns the last commit
// that it told of, and whether it was killed.
func child(t *testing.T, path string, from int, committed string, kill bool) (done int, cp string, killed bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childPath+"="+path, childFrom+"="+strconv.Itoa(from), childCheckpoint+"="+committed)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if kill {
		timer := time.AfterFunc(time.Duration(5+rand.IntN(40))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	}
	lines := bufio.NewReader(pipe)
	for {
		l, err := lines.ReadString('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n, c, ok := strings.Cut(strings.TrimSuffix(l, "\n"), " "); ok && strings.HasPrefix(c, "{") {
			if done, err = strconv.Atoi(n); err != nil {
				t.Fatal(err)
			}
			cp = c
		}
	}
	err = cmd.Wait()
	if err != nil && !kill {
		t.Fatalf("child: %v", err)
	}
	return done, cp, err != nil
}

// TestChild is the process that is killed. It does nothing by itself.
func TestChild(t *testing.T) {
	path := os.Getenv(childPath)
	if path == "" {
		return // it runs as a process of TestKilledAtRandom
	}
	from, err := strconv.Atoi(os.Getenv(childFrom))
	if err != nil {
		t.Fatal(err)
	}
	var cp sink.Checkpoint
	if s := os.Getenv(childCheckpoint); s != "" {
		cp = sink.Checkpoint(s)
	}
	s := open(t, path, cp)
	for n := from; n < childTotal; n++ {
		m, version := step(n)
		write(t, s, m, version)
		if (n+1)%childEpoch == 0 {
			cp := flush(t, s)
			fmt.Printf("%d %s\n", n+1, cp) // the ledger's commit
			if err := s.Committed(t.Context(), cp); err != nil {
				t.Fatal(err)
			}
		}
	}
	shut(t, s)
}
