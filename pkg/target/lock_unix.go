//go:build unix

package target

import (
	"os"

	"golang.org/x/sys/unix"
)

// errLocked is what tryLock returns while another holds the lock.
const errLocked = unix.EWOULDBLOCK

// tryLock takes the lock, which goes with the open file: it is free again
// however the process ends.
func tryLock(f *os.File) error {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}
