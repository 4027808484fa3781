package ledger

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/mailhaul/pipeline/pkg/fault"
)

// LockedError says that another run has the ledger.
type LockedError struct {
	Path   string
	Holder string // as in "process 4711 on mail1"; empty when it hasn't written it yet
}

// Error names the lock and its holder.
func (e *LockedError) Error() string {
	holder := e.Holder
	if holder == "" {
		holder = "another process"
	}
	return fmt.Sprintf("%s: %s is running with this state", e.Path, holder)
}

// errHeld is lock's answer when another process has the lock.
var errHeld = errors.New("held by another process")

// lingers is how long the lock of a dead process is waited for. A host that is
// killed while it starts a plugin leaves a child that holds the lock until it
// becomes the plugin.
const lingers = 5 * time.Second

// acquire takes the lock. It is the kernel's: it ends with the process,
// however that ends, and so is never stale.
func acquire(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unwritable(err, "open the lock")
	}
	err = lock(f)
	for deadline := time.Now().Add(lingers); errors.Is(err, errHeld) && orphaned(path) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
		err = lock(f)
	}
	if err != nil {
		defer f.Close()
		if errors.Is(err, errHeld) {
			holder, _ := os.ReadFile(path)
			return nil, &LockedError{Path: path, Holder: strings.TrimSpace(string(holder))}
		}
		return nil, fault.Wrap(fault.Config, err, "lock %s", path)
	}
	host, _ := os.Hostname()
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "process %d on %s\n", os.Getpid(), host), 0)
	}
	if err != nil {
		f.Close()
		return nil, fault.Wrap(fault.Full, err, "write %s", path)
	}
	return f, nil
}

// orphaned reports whether the process that took the lock is gone, as far as
// can be told: one of this machine, by the number that it left.
func orphaned(path string) bool {
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	var pid int
	var on string
	if n, _ := fmt.Sscanf(string(text), "process %d on %s", &pid, &on); n != 2 {
		return false // it hasn't written it yet
	}
	host, _ := os.Hostname()
	return on == host && pid > 0 && gone(pid)
}
