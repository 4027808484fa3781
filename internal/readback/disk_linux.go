package readback

import (
	"os"

	"golang.org/x/sys/unix"
)

// fromDisk has the kernel forget what it holds of a durable file, so that what
// is read comes from the disk. It is advice: where it isn't taken, what the kernel
// holds is read.
func fromDisk(f *os.File) {
	if c, err := f.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _ = unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED) })
	}
}
