package eml

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/sink"
)

// In a child process these name the target and where to go on.
const (
	childTarget     = "EML_TEST_TARGET"
	childFrom       = "EML_TEST_FROM"
	childCheckpoint = "EML_TEST_CHECKPOINT"
	childTotal      = 3000
	childEpoch      = 50
)

// TestKilledAtRandom kills a process that writes, at random moments, and goes
// on from the last commit until the run is whole: the target ends equal to an
// undisturbed one (I2, I3).
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	childRounds(t, 30)
}

func childRounds(t *testing.T, kills int) {
	t.Helper()
	undisturbed := t.TempDir()
	s := open(t, undisturbed, state(nil))
	for n := range childTotal {
		write(t, s, mail(n))
	}
	flush(t, s)
	shut(t, s)

	root := t.TempDir()
	done, committed, killed := 0, "", 0
	for done < childTotal {
		out := child(t, root, done, committed, killed < kills)
		if out.killed {
			killed++
		}
		if out.done > done {
			done, committed = out.done, out.checkpoint
		}
	}
	t.Logf("killed %d times", killed)
	if killed == 0 {
		t.Error("no process was killed: the test tried nothing")
	}
	if got, want := tree(t, root), tree(t, undisturbed); !slices.Equal(got, want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
}

type childOut struct {
	done       int
	checkpoint string
	killed     bool
}

// child runs TestChild in a process of its own, kills it after a while, and
// returns the last commit that it told of.
func child(t *testing.T, root string, done int, committed string, kill bool) childOut {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childTarget+"="+root, childFrom+"="+strconv.Itoa(done), childCheckpoint+"="+committed)
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
	out := childOut{}
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n, cp, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok && strings.HasPrefix(cp, "{") {
			if out.done, err = strconv.Atoi(n); err != nil {
				t.Fatal(err)
			}
			out.checkpoint = cp
		}
	}
	err = cmd.Wait()
	out.killed = err != nil
	if err != nil && !kill {
		t.Fatalf("child: %v", err)
	}
	return out
}

// TestChild is the process that is killed. It does nothing by itself.
func TestChild(t *testing.T) {
	root := os.Getenv(childTarget)
	if root == "" {
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
	s := open(t, root, state(cp))
	for n := from; n < childTotal; n++ {
		write(t, s, mail(n))
		if (n+1)%childEpoch == 0 {
			fmt.Printf("%d %s\n", n+1, flush(t, s))
		}
	}
	shut(t, s)
}
