package ledger

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// TestLockOfADeadProcess: a child of a host that was killed may hold the lock
// for a moment. That isn't another run.
func TestLockOfADeadProcess(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // no child holds a lock there
	}
	dead := exec.Command(os.Args[0], "-test.run=^$")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	held, err := os.OpenFile(filepath.Join(dir, "test.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock(held); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(held, "process %d on %s\n", dead.Process.Pid, host); err != nil {
		t.Fatal(err)
	}
	released := make(chan struct{})
	time.AfterFunc(100*time.Millisecond, func() {
		close(released)
		held.Close()
	})
	l, err := Open(t.Context(), dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	select {
	case <-released:
	default:
		t.Error("it was taken before it was free")
	}
}
