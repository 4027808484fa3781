package target

import (
	"os"

	"golang.org/x/sys/windows"
)

// errLocked is what tryLock returns while another holds the lock.
const errLocked = windows.ERROR_LOCK_VIOLATION

// tryLock takes the lock, which goes with the open file: it is free again
// however the process ends.
func tryLock(f *os.File) error {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	return windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{})
}
