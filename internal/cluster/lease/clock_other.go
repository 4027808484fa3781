//go:build !linux

package lease

import "time"

var began = time.Now()

// clock is the time since the process began, on a clock that nobody sets. It
// may stand still while the machine sleeps; who compares fences sees to that.
func clock() time.Duration { return time.Since(began) }
