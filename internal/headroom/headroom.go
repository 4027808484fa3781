// Package headroom spares a process most of its garbage collections.
package headroom

import (
	"os"
	"runtime"
)

// size is how much more garbage may gather. It is the most that a process
// grows by (I5).
const size = 16 << 20

// Room is memory that is never touched: the system never gives it, but the
// collector counts it as in use, and so lets as much garbage gather again
// before it runs. A live heap of 3 MB is else collected every 3 MB, which is
// every few hundred messages. A higher GOGC would multiply a large heap as
// well, and a memory limit would have one that is near it collected all the
// time; this adds the same to all.
type Room struct{ octets []byte }

// New returns the room; none where the user has set GOGC or GOMEMLIMIT, who
// then knows better. It lasts until Keep is called.
func New() Room {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return Room{}
	}
	return Room{make([]byte, size)}
}

// Keep keeps the room up to here.
func (r Room) Keep() { runtime.KeepAlive(r.octets) }
