package lease

import (
	"time"

	"golang.org/x/sys/unix"
)

// clock is the time since the machine was started, on a clock that nobody sets
// and that runs while the machine sleeps.
func clock() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("lease: the machine has no clock: " + err.Error()) // every Linux has it
	}
	return time.Duration(t.Nano())
}
