package ledger

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
	"github.com/mailhaul/pipeline/pkg/message"
	"github.com/mailhaul/pipeline/test/leak"
)

// In a child process, childDir names the ledger's folder.
const childDir = "LEDGER_TEST_DIR"

// perEpoch is how many messages a child commits at once.
const perEpoch = 300

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := commitForEver(dir); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	os.Exit(leak.Main(m))
}

// commitForEver goes on where the ledger stands, and prints the number of
// each epoch when Commit has returned.
func commitForEver(dir string) error {
	ctx := context.Background()
	l, err := Open(ctx, dir, "acme")
	if err != nil {
		return err
	}
	t, err := l.Target(ctx, "eml", "/export/eml")
	if err != nil {
		return err
	}
	done := 0
	if t.Checkpoint != nil {
		if done, err = strconv.Atoi(string(t.Checkpoint)); err != nil {
			return err
		}
	}
	fmt.Println("open")
	for n := done + 1; ; n++ {
		b, err := l.Box(ctx, "alice", fmt.Sprint("box", n%7), 1)
		if err != nil {
			return err
		}
		if err := l.Commit(ctx, childEpoch(b, t.ID, n)); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// childEpoch is the nth epoch: messages with all that the ledger can hold of
// one, under the checkpoint n.
func childEpoch(b Box, target TargetID, n int) Epoch {
	e := Epoch{Checkpoints: map[TargetID][]byte{target: []byte(strconv.Itoa(n))},
		Boxes: map[Box]BoxState{b: {Content: strconv.Itoa(n), Tally: Tally{Written: int64(n)}}}}
	for i := range perEpoch {
		s := Settled{Box: b, ID: childID(n, i), Octets: int64(n), SHA256: make([]byte, 32), Fresh: true}
		switch i % 3 {
		case 0:
			s.Fates = []Fate{{Target: target, Class: Written, Receipt: fmt.Sprintf("box/%d-%d-with-a-name-of-some-length.eml", n, i)}}
		case 1:
			s.Fates = []Fate{{Target: target, Class: Dead, Letter: &Letter{Reason: "r", Text: strconv.Itoa(n)}}}
		case 2:
			s.Fates = []Fate{{Target: Everywhere, Class: Dropped, Refusal: &Refusal{Stage: "s", Rules: strconv.Itoa(n), Values: []byte("{}")}}}
		}
		e.Settled = append(e.Settled, s)
	}
	return e
}

func childID(n, i int) message.ID {
	if i%2 == 0 {
		return message.ID{UIDL: fmt.Sprintf("%d-%d", n, i)}
	}
	return message.ID{UID: uint32(n*perEpoch + i)}
}

// child is a process that commits for ever.
type child struct {
	*exec.Cmd
	lines *bufio.Scanner
}

func startChild(t *testing.T, dir string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // mostly dead by then
	c := &child{cmd, bufio.NewScanner(out)}
	if line := c.next(); line != "open" {
		t.Fatalf("the child says %q", line)
	}
	return c
}

// next returns what the child prints next; nothing when it is dead.
func (c *child) next() string {
	c.lines.Scan()
	return c.lines.Text()
}

func (c *child) kill(t *testing.T) {
	t.Helper()
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
}

// TestKilledInCommit kills a process again and again while it commits. What
// Commit returned for is there, and of an epoch there is all or nothing (I2,
// I3).
func TestKilledInCommit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	said, between := 0, 0
	for kill := range 20 {
		c := startChild(t, dir)
		for range 1 + kill%3 {
			c.next()
		}
		time.Sleep(time.Duration(kill) * 1700 * time.Microsecond)
		c.kill(t)
		for line := c.lines.Text(); line != ""; line = c.next() {
			n, err := strconv.Atoi(line)
			if err != nil {
				t.Fatalf("the child says %q", line)
			}
			said = n
		}
		_ = c.Wait() // killed
		l := open(t, dir)
		tg := target(t, l, "eml")
		stored, err := strconv.Atoi(string(tg.Checkpoint))
		if err != nil || stored < said {
			t.Fatalf("Commit returned for epoch %d, the ledger has %q", said, tg.Checkpoint)
		}
		if stored > said {
			between++
		}
		for n := max(1, stored-2); n <= stored+1; n++ {
			checkEpoch(t, l, tg.ID, n, n <= stored)
		}
		integrity(t, l)
		shut(t, l)
		said = stored
	}
	t.Logf("%d epochs over 20 kills, %d of which came between the commit and its word", said, between)
}

// checkEpoch looks for all that the nth epoch holds.
func checkEpoch(t *testing.T, l *Ledger, target TargetID, n int, there bool) {
	t.Helper()
	b := box(t, l, fmt.Sprint("box", n%7))
	want := childEpoch(b, target, n)
	ids := make([]message.ID, perEpoch)
	for i := range ids {
		ids[i] = childID(n, i)
	}
	for i, found := range lookup(t, l, b, ids...) {
		if !there {
			if len(found.Fates) != 0 || found.Octets != -1 {
				t.Fatalf("epoch %d wasn't committed, and its message %d is %+v", n, i, found)
			}
			continue
		}
		if got, want := fmt.Sprintf("%+v", plain(found.Fates)), fmt.Sprintf("%+v", plain(want.Settled[i].Fates)); got != want {
			t.Fatalf("epoch %d, message %d: got %s, want %s", n, i, got, want)
		}
	}
	s, err := l.SavedState(t.Context(), "alice", fmt.Sprint("box", n%7), 1)
	if content, _ := strconv.Atoi(s.Content); err != nil || there != (content >= n) {
		t.Fatalf("epoch %d, there %v: the mailbox's state is %+v, %v", n, there, s, err)
	}
}

// plain resolves the pointers of fates, for printing.
func plain(fates []Fate) (out []any) {
	for _, f := range fates {
		out = append(out, f.Target, f.Class, f.Receipt)
		if f.Letter != nil {
			out = append(out, *f.Letter)
		}
		if f.Refusal != nil {
			out = append(out, *f.Refusal)
		}
	}
	return out
}

// integrity lets SQLite look for faults.
func integrity(t *testing.T, l *Ledger) {
	t.Helper()
	var says string
	if err := l.db.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&says); err != nil || says != "ok" {
		t.Fatalf("integrity_check: %s, %v", says, err)
	}
}

// TestLock: one run at a time; the lock ends with its holder, however that
// ends.
func TestLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	refused := func(holder int) {
		t.Helper()
		l, err := Open(t.Context(), dir, "acme")
		var locked *LockedError
		if l != nil || !errors.As(err, &locked) {
			t.Fatalf("a second Open: %v", err)
		}
		host, _ := os.Hostname()
		if want := fmt.Sprintf("process %d on %s", holder, host); locked.Holder != want || !strings.Contains(err.Error(), want+" is running with this state") {
			t.Errorf("held by %q (%v), want %q", locked.Holder, err, want)
		}
	}
	l := open(t, dir)
	refused(os.Getpid())
	other, err := Open(t.Context(), dir, "other") // another pipeline with the same folder
	if err != nil {
		t.Fatal(err)
	}
	shut(t, other)
	shut(t, l)

	c := startChild(t, dir)
	refused(c.Process.Pid)
	c.kill(t)
	_ = c.Wait() // killed
	shut(t, open(t, dir))
	if got := (&LockedError{Path: "x.lock"}).Error(); got != "x.lock: another process is running with this state" {
		t.Error(got)
	}
}

// TestLockIsGivenUpAfterAFailedOpen opens a file that isn't a ledger twice:
// both times that is the error.
func TestLockIsGivenUpAfterAFailedOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "acme.db"), []byte(strings.Repeat("not a database\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := Open(t.Context(), dir, "acme"); !fault.Is(err, fault.Config) || !strings.Contains(err.Error(), "not a database") {
			t.Fatalf("Open: %v", err)
		}
	}
}
