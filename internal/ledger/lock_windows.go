package ledger

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockedOctet is the place of the octet that is locked.
const lockedOctet = 1 << 30

// lock takes the lock of an open file. A lock of Windows keeps others from
// reading what it covers: it covers an octet far behind the holder's name.
func lock(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{Offset: lockedOctet})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errHeld
	}
	return err
}

// unlock gives the lock back.
func unlock(f *os.File) error {
	return windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, &windows.Overlapped{Offset: lockedOctet})
}

// gone reports whether there is no process of that number. Windows passes no
// lock on to a child.
func gone(int) bool { return false }
